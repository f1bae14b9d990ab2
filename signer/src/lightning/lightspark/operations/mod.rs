//! Calls of the account's own services that move money: Lightspark wants each signed with the account's operation signing
//! key. A body is understood, judged and remembered before it is signed; the signature is on the bytes as they came.
//!
//! ```text
//! document.rs   the GraphQL document          operation.rs   the operation in it
//! clearance.rs  what a screening service says of it
//! ```

mod clearance;
mod document;
mod operation;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use lightning_signer::invoice::InvoiceAttributes;
use lightning_signer::lightning::types::payment::PaymentHash;
use vls_protocol_signer::approver::Approve;

pub use self::clearance::MAX_CLEARANCE_BYTES;
pub use self::operation::MAX_OPERATION_BYTES;
use self::operation::{Moves, Operation};
use super::jobs::denied;
use super::{Answer, LightsparkNode, asked};
use crate::facts::{Fact, Unit};
use crate::keys::memory::scrubbed;
use crate::reasons::{Reason, Refusal};

/// The number of such a call in the pipeline.
pub const SIGN_OPERATION: u16 = 5100;

/// The request that stands for such a call: its number, the length of the clearance, the clearance, the body.
pub fn operation_request(clearance: &[u8], body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(clearance.len()).unwrap_or(u16::MAX);
    [&SIGN_OPERATION.to_be_bytes()[..], &length.to_be_bytes(), clearance, body].concat()
}

/// The official SDKs' operations end after an hour; the caller's clock may be a little ahead.
const EXPIRES_WITHIN_MS: u64 = (60 + 2) * 60 * 1_000;

/// No payment is tried for longer, whatever its call says.
const TRIED_WITHIN_MS: u64 = 24 * 60 * 60 * 1_000;
/// The first job of a payment's HTLC may come so late.
const LATE_MS: u64 = 10 * 60 * 1_000;

/// As Lightspark verifies it: ECDSA, in DER.
pub(super) fn signature(secp: &Secp256k1<All>, key: &SecretKey, body_sha256: sha256::Hash) -> Vec<u8> {
    secp.sign_ecdsa(&Message::from_digest(body_sha256.to_byte_array()), key).serialize_der().to_vec()
}

impl LightsparkNode {
    /// Signs the body of one call: SHA-256 and ECDSA with the key at `m/5`, in DER; or RSASSA-PSS, of an account that has such a
    /// key.
    pub(super) fn sign_operation(&mut self, request: &[u8]) -> Result<Answer, Refusal> {
        let parts = request.split_first_chunk::<2>();
        let parts = parts.and_then(|(length, rest)| rest.split_at_checked(u16::from_be_bytes(*length).into()));
        let Some((clearance, body)) = parts.filter(|(clearance, _)| clearance.len() <= MAX_CLEARANCE_BYTES) else {
            return Err(Refusal::new(Reason::Malformed, "the clearance is longer than it may be"));
        };
        let operation = Operation::parse(body, self.network).map_err(|error| error.refusal())?;
        if let Some(frozen) = self.frozen() {
            return Err(frozen);
        }
        let now_ms = self.clock.now_ms();
        if operation.expires_ms <= now_ms || operation.expires_ms - now_ms > EXPIRES_WITHIN_MS {
            let detail = format!("it ends at {} ms, now is {now_ms} ms since 1970", operation.expires_ms);
            return Err(Refusal::new(Reason::OperationExpiry, detail));
        }
        // Without a key of its caller's, an invoice is paid once and any other body is another operation.
        let body_sha256 = sha256::Hash::hash(body);
        let name = match (&operation.key, operation.moves.payment_hash()) {
            (Some(key), _) => sha256::Hash::hash(key.as_bytes()).to_string(),
            (None, Some(hash)) => format!("payment:{hash}"),
            (None, None) => format!("body:{body_sha256}"),
        };
        let is_known = self.operations.answer(&name, &operation.digest)?.is_some();
        let mut facts = vec![
            Fact::text("operation", operation.name.text()),
            Fact::text("node", operation.node.as_str()),
            Fact::text("idempotency", name.as_str()),
        ];
        let cleared = self.clearance(clearance, &operation, now_ms)?;
        facts.extend(cleared.as_deref().map(|id| Fact::text("clearance", id)));
        self.judge_operation(&operation, &name, (is_known, cleared.as_deref()), &mut facts)?;
        let mut puts = Vec::new();
        let signature = match &self.operations_key {
            None => {
                let mut key = self.keys.operations();
                let signature = signature(self.keys.secp(), &key, body_sha256);
                key.non_secure_erase();
                signature
            }
            // Such a signature is random: the same bytes get the one that they got (P5).
            Some(key) => match self.signed.answer(&body_sha256.to_string(), &body_sha256)? {
                Some(signature) => signature,
                None => {
                    let signature = scrubbed(|| key.sign(body));
                    puts = self.signed.put(&body_sha256.to_string(), now_ms, body_sha256, &signature, now_ms);
                    signature
                }
            },
        };
        // Its name, not its signature: a repeat has a nonce of its own, and the signature goes with the bytes.
        if !is_known {
            puts.extend(self.operations.put(&name, now_ms, operation.digest, &[], now_ms));
            if let Moves::Withdrawal { address, amount_sat } = &operation.moves {
                let mut withdrawals = self.withdrawals.clone();
                withdrawals.push((address.script_pubkey(), *amount_sat));
                puts.push(self.keep_withdrawals(withdrawals));
            }
        }
        if let Moves::Payment { invoice, amount_msat, max_fee_msat, timeout_s } = &operation.moves
            && self.operations_key.is_none()
        {
            let tried_ms = timeout_s.saturating_mul(1_000).min(TRIED_WITHIN_MS).saturating_add(LATE_MS);
            let until_ms = operation.expires_ms.saturating_add(tried_ms);
            let leaves_msat = (*amount_msat, *max_fee_msat);
            puts.extend(self.payments.sign(invoice.payment_hash().0, leaves_msat, until_ms, now_ms));
        }
        Ok(Answer { reply: signature, puts, facts })
    }

    /// The id of the operation's clearance, where a screening service is configured.
    fn clearance(&self, clearance: &[u8], operation: &Operation, now_ms: u64) -> Result<Option<String>, Refusal> {
        let Some(key) = self.config.screening() else { return Ok(None) };
        let of = (self.counter.node(), &operation.moves);
        clearance::require(self.keys.secp(), &key, clearance, of, now_ms).map(Some)
    }

    /// The policy in force, and what the account's jobs may move at most: more could not leave, and would only be stuck.
    /// A repeat moves nothing more; the policy knows it by its name.
    fn judge_operation(
        &self,
        operation: &Operation,
        name: &str,
        (is_known, cleared): (bool, Option<&str>),
        facts: &mut Vec<Fact>,
    ) -> Result<(), Refusal> {
        match &operation.moves {
            Moves::Payment { invoice, amount_msat, max_fee_msat, .. } => {
                facts.push(Fact::number("amount", *amount_msat, Unit::Msat));
                facts.push(Fact::number("fee", *max_fee_msat, Unit::Msat));
                facts.extend(operation.moves.payment_hash().map(|hash| Fact::text("payment_hash", hash)));
                let leaves_msat = amount_msat.saturating_add(*max_fee_msat);
                if !is_known && !self.limits.approve_keysend(PaymentHash([0; 32]), leaves_msat) {
                    return Err(denied(&self.limits));
                }
                asked::payment(&self.counter, invoice, *amount_msat, *max_fee_msat, cleared)
            }
            Moves::Withdrawal { address, amount_sat } => {
                facts.push(Fact::number("onchain_send", *amount_sat, Unit::Sat));
                facts.push(Fact::text("pays", address.to_string()));
                let (script, limit_sat) = (address.script_pubkey(), self.config.max_onchain_sat);
                let is_limited = !is_known && !self.allow.contains(&script);
                if is_limited && self.operations_key.is_some() && !self.limits.approve_withdrawal(*amount_sat) {
                    return Err(denied(&self.limits));
                }
                if is_limited && *amount_sat > limit_sat {
                    let detail = format!("withdrawal: {amount_sat} sat > limits.max_onchain_sat = {limit_sat} sat");
                    let fact = Fact::number("max_onchain_sat", *amount_sat, Unit::Sat).at_most(limit_sat);
                    return Err(Refusal::new(Reason::Limit, detail).with_fact(fact));
                }
                let asked = asked::Withdrawal { to: &script, amount_sat: *amount_sat, cleared };
                asked::withdrawal(&self.counter, name, &asked, self.config.max_onchain_fee_sat)
            }
        }
    }
}
