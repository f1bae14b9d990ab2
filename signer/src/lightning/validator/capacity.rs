//! A commitment holds no more than its channel: asked before vls, whose arithmetic takes it for granted.

use std::sync::PoisonError;

use bitcoin::Transaction;
use bitcoin::psbt::Psbt;
use lightning_signer::channel::{ChannelId, ChannelSlot};
use lightning_signer::node::Node;
use vls_protocol::model::Htlc;
use vls_protocol::msgs::Message;

use crate::facts::{Fact, Unit};
use crate::pipeline::ChannelRef;
use crate::reasons::{Reason, Refusal};

/// Refuses a commitment or a close of `channel` whose outputs exceed the channel's value, with `value-not-conserved`; `Ok`
/// for every other message.
pub(in super::super) fn check(node: &Node, channel: Option<ChannelRef>, message: &Message) -> Result<(), Refusal> {
    let Some((held_sat, channel)) = held_sat(message).zip(channel) else { return Ok(()) };
    let id = ChannelId::new_from_peer_id_and_oid(&channel.peer_id, channel.dbid);
    let Ok(slot) = node.get_channel(&id) else { return Ok(()) };
    let capacity_sat = match &*slot.lock().unwrap_or_else(PoisonError::into_inner) {
        ChannelSlot::Ready(channel) => channel.setup.channel_value_sat,
        ChannelSlot::Stub(_) => return Ok(()),
    };
    if held_sat <= u128::from(capacity_sat) {
        return Ok(());
    }
    let fact = Fact::number("outputs", u64::try_from(held_sat).unwrap_or(u64::MAX), Unit::Sat).at_most(capacity_sat);
    let detail = format!("outputs of {held_sat} sat exceed the channel's {capacity_sat} sat");
    Err(Refusal::new(Reason::ValueNotConserved, detail).with_fact(fact))
}

fn held_sat(message: &Message) -> Option<u128> {
    Some(match message {
        Message::SignRemoteCommitmentTx2(m) => sides(m.to_local_value_sat, m.to_remote_value_sat) + htlcs(&m.htlcs),
        Message::ValidateCommitmentTx2(m) => sides(m.to_local_value_sat, m.to_remote_value_sat) + htlcs(&m.htlcs),
        Message::SignMutualCloseTx2(m) => sides(m.to_local_value_sat, m.to_remote_value_sat),
        Message::SignRemoteCommitmentTx(m) => balances(&m.tx.0, &m.psbt.0.inner) + htlcs(&m.htlcs),
        Message::ValidateCommitmentTx(m) => balances(&m.tx.0, &m.psbt.0.inner) + htlcs(&m.htlcs),
        _ => return None,
    })
}

fn sides(to_local_sat: u64, to_remote_sat: u64) -> u128 {
    u128::from(to_local_sat) + u128::from(to_remote_sat)
}

fn htlcs(htlcs: &[Htlc]) -> u128 {
    htlcs.iter().map(|htlc| u128::from(htlc.amount / 1_000)).sum()
}

/// What is in outputs that are no HTLCs: the script of an HTLC, and of nothing else in a commitment, begins with OP_DUP
/// (BOLT 3). HTLCs count as the message tells them.
fn balances(tx: &Transaction, psbt: &Psbt) -> u128 {
    let is_htlc = |n: usize| {
        let script = psbt.outputs.get(n).and_then(|output| output.witness_script.as_ref());
        script.is_some_and(|script| script.as_bytes().first() == Some(&OP_DUP))
    };
    let outputs = tx.output.iter().enumerate().filter(|(n, _)| !is_htlc(*n));
    outputs.map(|(_, txout)| u128::from(txout.value.to_sat())).sum()
}

const OP_DUP: u8 = 0x76;
