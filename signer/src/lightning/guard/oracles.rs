//! Secrets, and yes-or-no answers about secrets, for the purpose they exist for and no other (P8, P10).
//!
//! Not here, with the reason: `Ecdh` is the node's own shared secret with any point, which onions and the noise handshake
//! need, and tells nothing of the key; `HsmdInit2` hands an LDK node the two keys its own code decrypts with, which open
//! no channel and no wallet; `GetPerCommitmentPoint` tells points only, because the state machine runs protocol version 6
//! whatever the node asks for; `GetSecureRandomBytes` comes from the operating system. `CheckChannelStateSync`, which
//! tells the whole state of a channel, is not in the table.

use lightning_signer::channel::ChannelId;
use lightning_signer::node::Node;
use vls_protocol::msgs::Message;

use crate::facts::Fact;
use crate::pipeline::ChannelRef;
use crate::reasons::{Reason, Refusal};

/// What Core Lightning has derived, and for whom: paths of invoices and offers, alias keys, the static channel backup,
/// runes. None of them is a key that holds money.
const PURPOSES: [&[u8]; 5] =
    [b"bolt12-invoice-base", b"offer-blinded-path", b"node-alias-base", b"scb secret", b"commando"];

/// BIP 32: the first index of a hardened child.
const HARDENED: u32 = 1 << 31;

/// Refuses with `secret-purpose`, or `malformed` a wallet index that no wallet has.
pub(super) fn judge(node: &Node, channel: Option<ChannelRef>, message: &Message) -> Result<(), Refusal> {
    match message {
        Message::DeriveSecret(m) if !PURPOSES.contains(&&m.info.0[..]) => {
            let info = String::from_utf8_lossy(&m.info[..m.info.len().min(64)]).into_owned();
            let refusal = Refusal::new(Reason::SecretPurpose, format!("no secret is derived for {info:?}"));
            Err(refusal.with_fact(Fact::text("info", info)))
        }
        Message::CheckFutureSecret(m) => match channel.and_then(|channel| in_force(node, channel)) {
            Some(in_force) if m.commitment_number < in_force => {
                let detail = format!("commitment {} is revoked; {in_force} is in force", m.commitment_number);
                let fact = Fact::count("commitment_number", m.commitment_number).at_least(in_force);
                Err(Refusal::new(Reason::SecretPurpose, detail).with_fact(fact))
            }
            _ => Ok(()), // also where there is no such channel, for vls to say so
        },
        Message::CheckPubKey(m) if m.index >= HARDENED => {
            let fact = Fact::count("index", m.index.into()).at_most(u64::from(HARDENED - 1));
            Err(Refusal::new(Reason::Malformed, "index is that of a hardened child").with_fact(fact))
        }
        _ => Ok(()),
    }
}

/// The holder commitment in force. A peer that knows the secret of this one, or of a later one, knows of a state that the
/// node has lost (BOLT 2, option_data_loss_protect); that, and nothing else, is what the question is for.
fn in_force(node: &Node, channel: ChannelRef) -> Option<u64> {
    let id = ChannelId::new_from_peer_id_and_oid(&channel.peer_id, channel.dbid);
    node.with_channel(&id, |channel| Ok(channel.enforcement_state.next_holder_commit_num.saturating_sub(1))).ok()
}
