//! A clearance: the word of a screening service (sanctions, money laundering) that an operation may be paid, by its signature.
//!
//! It is 64 bytes, ECDSA in compact form on the SHA-256 of the text that follows them. The text has these lines, each ended by a
//! newline, and no others:
//!
//! ```text
//! claviger clearance 1
//! id 7f3a-2026-11-30
//! account acme
//! pays payment:HASH                     the invoice's payment hash, in hex; or address:ADDRESS
//! amount_msat 60000                     at most
//! until 1790000000                      Unix time, in seconds
//! ```

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, ecdsa};

use super::operation::Moves;
use crate::reasons::{Reason, Refusal};

/// The longest clearance, in bytes.
pub const MAX_CLEARANCE_BYTES: usize = 1_024;
const SIGNATURE: usize = 64;
const HEAD: &str = "claviger clearance 1";
/// No clearance holds longer.
const LONGEST_MS: u64 = 24 * 60 * 60 * 1_000;

/// The id of a clearance by `key` for what `moves` in `account` now.
pub(super) fn require(
    secp: &Secp256k1<All>,
    key: &PublicKey,
    clearance: &[u8],
    (account, moves): (&str, &Moves),
    now_ms: u64,
) -> Result<String, Refusal> {
    let invalid = |detail: &str| Refusal::new(Reason::ClearanceInvalid, detail);
    if clearance.is_empty() {
        return Err(Refusal::new(Reason::ClearanceMissing, "limits.screening_key is set"));
    }
    let Some((signature, text)) = clearance.split_first_chunk::<SIGNATURE>() else {
        return Err(invalid("it is too short"));
    };
    let digest = Message::from_digest(sha256::Hash::hash(text).to_byte_array());
    let signature = ecdsa::Signature::from_compact(signature).map_err(|_| invalid("it has no signature"))?;
    secp.verify_ecdsa(&digest, &signature, key).map_err(|_| invalid("another key signed it"))?;
    let text = std::str::from_utf8(text).map_err(|_| invalid("it is no text"))?;
    let (id, of, pays, amount_msat, until_s) = read(text).ok_or_else(|| invalid("its text is of another form"))?;
    let (subject, moved_msat) = match moves {
        Moves::Payment { amount_msat, .. } => {
            (format!("payment:{}", moves.payment_hash().unwrap_or_default()), *amount_msat)
        }
        Moves::Withdrawal { address, amount_sat } => (format!("address:{address}"), amount_sat.saturating_mul(1_000)),
    };
    if of != account || pays != subject {
        return Err(invalid("it is for another account or another payee"));
    }
    if moved_msat > amount_msat {
        return Err(invalid("it is for a smaller amount"));
    }
    let until_ms = until_s.saturating_mul(1_000);
    if until_ms <= now_ms || until_ms - now_ms > LONGEST_MS {
        return Err(invalid("it has ended, or ends in more than a day"));
    }
    Ok(id.to_owned())
}

/// Id, account, whom it pays, amount and end.
fn read(text: &str) -> Option<(&str, &str, &str, u64, u64)> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    if lines.next() != Some(HEAD) {
        return None;
    }
    let mut line = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let (id, account, pays) = (line("id")?, line("account")?, line("pays")?);
    let (amount_msat, until_s) = (line("amount_msat")?.parse().ok()?, line("until")?.parse().ok()?);
    let is_id = (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    (lines.next().is_none() && is_id).then_some((id, account, pays, amount_msat, until_s))
}
