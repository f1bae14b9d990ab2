//! Closing and revoking exclude each other (P3).
//!
//! Once a holder commitment, or a transaction that closes the channel, was signed, the secret of that commitment, or of a
//! later one, does not leave, and no update is signed or validated: with both in hand, a peer takes the whole channel.
//! And a commitment that was revoked is never signed. What was signed is kept in the journal, in the commit that lets the
//! signature out; so it holds across restarts, and in both dialects, because all of their messages come by here.
//!
//! The peer's own revocations are taken as before: they cost nobody but the peer.
//!
//! What was answered before a close is answered the same way again (P5): secrets that had left, signatures that were
//! made, validations that passed. A channel may go on to close: at another fee, or by force after no agreement was kept.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use bitcoin::secp256k1::ecdsa;
use lightning_signer::channel::{Channel, ChannelBase, ChannelId, ChannelSlot};
use lightning_signer::node::Node;
use lightning_signer::policy::validator::CommitmentSignatures;
use vls_protocol::model::{BitcoinSignature, PubKey};
use vls_protocol::msgs::{Message, SerBolt, ValidateCommitmentTxReply};

use crate::facts::Fact;
use crate::journal::Put;
use crate::pipeline::ChannelRef;
use crate::reasons::{Reason, Refusal};

/// Entries of a node's tenant that hold what was signed to close a channel start with this; the channel's id follows.
const PREFIX: &str = "closing/";

/// What is signed if a request is answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Closing {
    channel: ChannelId,
    /// The first commitment number whose secret must not leave from then on.
    from: u64,
}

/// How a request stands to the close of its channel.
pub(super) enum Judged {
    /// vls is asked.
    Ask(Option<Closing>),
    /// It was answered before the close; the encoded reply.
    Answered(Vec<u8>),
}

/// An entry is damaged; its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {0} does not tell what a channel was closed with")]
pub struct ClosingUnreadable(String);

/// The channels of one node that are closing, and the first commitment number that stays unrevoked.
#[derive(Default)]
pub(super) struct Closings {
    from: BTreeMap<ChannelId, u64>,
    puts: Vec<Put>,
}

impl Closings {
    /// Takes the entries out of `entries`.
    pub(super) fn restore(entries: &mut BTreeMap<String, Vec<u8>>) -> Result<Self, ClosingUnreadable> {
        let mut from = BTreeMap::new();
        for (key, value) in entries.extract_if(.., |key, _| key.starts_with(PREFIX)) {
            let channel = hex::decode(&key[PREFIX.len()..]).ok().map(|id| ChannelId::new(&id));
            let (Some(channel), Some(number)) = (channel, decode(&value)) else { return Err(ClosingUnreadable(key)) };
            from.insert(channel, number);
        }
        Ok(Self { from, puts: Vec::new() })
    }

    /// Compares with the node's channels: what vls knows to be closed is closing, and what is gone is forgotten.
    pub(super) fn reconcile(&mut self, node: &Node) {
        let channels = node.get_channels();
        for (id, slot) in channels.iter() {
            if let ChannelSlot::Ready(channel) = &*slot.lock().unwrap_or_else(PoisonError::into_inner)
                && channel.enforcement_state.channel_closed
            {
                self.from.entry(id.clone()).or_insert_with(|| in_force(channel));
            }
        }
        for (id, _) in self.from.extract_if(.., |id, _| !channels.contains_key(id)) {
            self.puts.push(Put { key: key(&id), value: None });
        }
    }

    /// Notes that `closing` was signed.
    pub(super) fn signed(&mut self, closing: Closing) {
        let Closing { channel, from } = closing;
        if self.from.get(&channel).is_none_or(|before| from < *before) {
            self.puts.push(Put { key: key(&channel), value: Some(encode(from)) });
            self.from.insert(channel, from);
        }
    }

    /// What changed since the last call, for the journal.
    pub(super) fn take_changes(&mut self) -> Vec<Put> {
        std::mem::take(&mut self.puts)
    }

    /// Refuses with `revoke-after-close`, `update-after-close` or `commitment-revoked`. What concerns no open channel is
    /// left to vls to refuse.
    pub(super) fn judge(&self, node: &Node, channel: Option<ChannelRef>, message: &Message) -> Result<Judged, Refusal> {
        let Some((channel, step)) = step(channel, message) else { return Ok(Judged::Ask(None)) };
        let id = ChannelId::new_from_peer_id_and_oid(&channel.peer_id, channel.dbid);
        let closing_from = self.from.get(&id).copied();
        Ok(match (step, closing_from) {
            (Step::CloseTogether, _) => {
                let from = look(node, &id, in_force);
                Judged::Ask(from.map(|from| Closing { channel: id, from }))
            }
            (Step::CloseWith(number), _) => {
                if let Some(in_force) = look(node, &id, in_force)
                    && number < in_force
                {
                    let detail = format!("commitment {number} is revoked; {in_force} is in force");
                    let fact = Fact::count("closes_with", number).at_least(in_force);
                    return Err(Refusal::new(Reason::CommitmentRevoked, detail).with_fact(fact));
                }
                Judged::Ask(Some(Closing { channel: id, from: number }))
            }
            (Step::Revoke(number), Some(from)) if number >= from => {
                let detail = format!("the channel was closed with commitment {from}; {number} cannot be revoked");
                let fact = Fact::count("closed_with_commitment", from);
                return Err(Refusal::new(Reason::RevokeAfterClose, detail).with_fact(fact));
            }
            (Step::SignTheirs(number), Some(_)) => {
                let next = look(node, &id, |channel| channel.enforcement_state.next_counterparty_commit_num);
                require_old(number, next)?;
                Judged::Ask(None)
            }
            (Step::ValidateOurs(number, signature, of_htlcs), Some(_)) => {
                if let Some(Some(reply)) = look(node, &id, |c| validated_before(c, number, signature, of_htlcs)) {
                    return Ok(Judged::Answered(reply));
                }
                require_old(number, look(node, &id, |channel| channel.enforcement_state.next_holder_commit_num))?;
                Judged::Ask(None)
            }
            (Step::Revoke(_) | Step::SignTheirs(_) | Step::ValidateOurs(..), _) => Judged::Ask(None),
        })
    }
}

/// What a message does with a channel, whichever dialect says it.
enum Step<'a> {
    /// Signs a transaction that spends the funding output by agreement.
    CloseTogether,
    /// Signs the holder commitment with this number.
    CloseWith(u64),
    /// Releases the secret of the holder commitment with this number.
    Revoke(u64),
    /// Signs the counterparty's commitment with this number.
    SignTheirs(u64),
    /// Validates the holder commitment with this number, and the counterparty's signatures on it.
    ValidateOurs(u64, &'a BitcoinSignature, &'a [BitcoinSignature]),
}

fn step(channel: Option<ChannelRef>, message: &Message) -> Option<(ChannelRef, Step<'_>)> {
    let step = match message {
        Message::SignCommitmentTx(m) => {
            // vls tells the two apart in this way: a commitment has a part of its number in the lock time (BOLT 3).
            let mutual = m.tx.0.lock_time.to_consensus_u32() == 0;
            let step = if mutual { Step::CloseTogether } else { Step::CloseWith(m.commitment_number) };
            return Some((ChannelRef { peer_id: m.peer_id.0, dbid: m.dbid }, step));
        }
        Message::SignLocalCommitmentTx2(m) => Step::CloseWith(m.commitment_number),
        Message::SignMutualCloseTx(_) | Message::SignMutualCloseTx2(_) => Step::CloseTogether,
        Message::RevokeCommitmentTx(m) => Step::Revoke(m.commitment_number),
        Message::SignRemoteCommitmentTx(m) => Step::SignTheirs(m.commitment_number),
        Message::SignRemoteCommitmentTx2(m) => Step::SignTheirs(m.commitment_number),
        Message::ValidateCommitmentTx(m) => Step::ValidateOurs(m.commitment_number, &m.signature, &m.htlc_signatures),
        Message::ValidateCommitmentTx2(m) => Step::ValidateOurs(m.commitment_number, &m.signature, &m.htlc_signatures),
        _ => return None,
    };
    Some((channel?, step))
}

fn look<T>(node: &Node, id: &ChannelId, look: impl FnOnce(&Channel) -> T) -> Option<T> {
    node.with_channel(id, |channel| Ok(look(channel))).ok()
}

/// The number of the holder commitment in force: the highest that is not revoked, but for one validated already.
fn in_force(channel: &Channel) -> u64 {
    channel.enforcement_state.next_holder_commit_num.saturating_sub(1)
}

/// After a close only what was signed or validated before it may be asked for again; whether it is the same is vls's
/// rule `policy-commitment-retry-same`.
fn require_old(number: u64, next: Option<u64>) -> Result<(), Refusal> {
    match next {
        Some(next) if number >= next => {
            let detail = format!("the channel is closing; commitment {number} would be new");
            let fact = Fact::count("next_commitment", next);
            Err(Refusal::new(Reason::UpdateAfterClose, detail).with_fact(fact))
        }
        _ => Ok(()),
    }
}

/// The answer to the validation of the commitment after the one in force, if the counterparty's signatures are the ones
/// that were validated before the close. It tells a point, and nothing changes with it.
fn validated_before(
    channel: &Channel,
    number: u64,
    signature: &BitcoinSignature,
    of_htlcs: &[BitcoinSignature],
) -> Option<Vec<u8>> {
    let state = &channel.enforcement_state;
    let (_, CommitmentSignatures(known, known_of_htlcs)) = state.next_holder_commit_info.as_ref()?;
    let is = |wire: &BitcoinSignature, known: &ecdsa::Signature| wire.signature.0 == known.serialize_compact();
    let same = number == state.next_holder_commit_num
        && is(signature, known)
        && of_htlcs.len() == known_of_htlcs.len()
        && of_htlcs.iter().zip(known_of_htlcs).all(|(wire, known)| is(wire, known));
    let next = same.then(|| channel.get_per_commitment_point(number + 1).ok())??;
    let reply =
        ValidateCommitmentTxReply { old_commitment_secret: None, next_per_commitment_point: PubKey(next.serialize()) };
    Some(reply.as_vec())
}

fn key(channel: &ChannelId) -> String {
    format!("{PREFIX}{}", hex::encode(channel.as_slice()))
}

/// Version 1: the version and the commitment number.
fn encode(number: u64) -> Vec<u8> {
    [&[1u8][..], &number.to_be_bytes()].concat()
}

fn decode(value: &[u8]) -> Option<u64> {
    let (&[1], number) = value.split_first_chunk()? else { return None };
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closing(channel: u8, from: u64) -> Closing {
        Closing { channel: ChannelId::new(&[channel; 41]), from }
    }

    #[test]
    fn the_lowest_number_that_was_signed_is_kept() {
        let mut closings = Closings::default();
        let mut entries = BTreeMap::from([("node".to_owned(), vec![9])]);
        for (channel, from, written) in [(1, 7, true), (1, 7, false), (1, 8, false), (1, 6, true), (2, 3, true)] {
            closings.signed(closing(channel, from));
            let puts = closings.take_changes();
            assert_eq!(!puts.is_empty(), written, "{channel} {from}");
            entries.extend(puts.into_iter().map(|put| (put.key, put.value.expect("nothing is deleted"))));
        }
        let restored = Closings::restore(&mut entries).expect("readable");
        assert_eq!(restored.from, closings.from);
        assert_eq!(restored.from.into_values().collect::<Vec<_>>(), [6, 3]);
        assert_eq!(entries.len(), 1, "entries of other rooms stay");
    }

    #[test]
    fn damaged_entries_are_named() {
        for (key, value) in [("closing/xx", encode(1)), ("closing/01", vec![2; 9]), ("closing/01", vec![1, 2])] {
            let mut entries = BTreeMap::from([(key.to_owned(), value)]);
            assert_eq!(Closings::restore(&mut entries).err(), Some(ClosingUnreadable(key.to_owned())));
        }
    }
}
