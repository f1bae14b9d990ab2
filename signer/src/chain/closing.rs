//! Shows a block's transactions to a channel's monitor in a form that it can read.
//!
//! vls-core's monitor reads a close of a commitment it still knows. A peer decides which commitment it publishes, and
//! with it what a signer reads: an old one must not stop the signer (P6). So outputs that the monitor could not attribute
//! are shown without their script, and a close is shown with the channel's input alone.

use bitcoin::secp256k1::Secp256k1;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut};
use lightning_signer::chain::tracker::ChainListener;
use lightning_signer::channel::{Channel, ChannelSlot};
use lightning_signer::monitor::ChainMonitor;
use lightning_signer::node::Node;
use lightning_signer::util::transaction_utils::{decode_commitment_number, decode_commitment_tx};
use push_decoder::Listener;

use super::block::ChainBlock;

/// The most outputs a commitment can have, as the monitor counts: 483 HTLCs each way and some fit in.
const MAX_CLOSE_OUTPUTS: usize = 600;

/// Shows `txs`, which are in `block`, to `monitor`.
pub(super) fn show(node: &Node, monitor: &ChainMonitor, block: &ChainBlock, txs: &[&Transaction]) {
    let funding = monitor.funding_outpoint;
    // Prepared first: the monitor is locked while it listens, and reading a close takes the channel's lock.
    let shown: Vec<Shown<'_>> = txs
        .iter()
        .filter(|tx| !lacks_its_funding_output(tx, &funding))
        .map(|tx| if spends(tx, &funding) { closing(node, &funding, tx) } else { Shown::whole(tx) })
        .collect();
    monitor.on_push(|listener| {
        listener.on_block_start(&block.block().header);
        shown.iter().for_each(|tx| tx.push(listener));
        listener.on_block_end();
    });
}

/// One transaction and what of it the monitor sees.
struct Shown<'a> {
    tx: &'a Transaction,
    /// The only input to show, if not all.
    only_input: Option<OutPoint>,
    /// Outputs shown without their script.
    blank: Vec<u32>,
    max_outputs: usize,
}

impl<'a> Shown<'a> {
    fn whole(tx: &'a Transaction) -> Self {
        Self { tx, only_input: None, blank: Vec::new(), max_outputs: usize::MAX }
    }

    fn push(&self, listener: &mut dyn Listener) {
        listener.on_transaction_start(self.tx.version.0);
        for input in &self.tx.input {
            if self.only_input.is_none_or(|only| only == input.previous_output) {
                listener.on_transaction_input(input);
            }
        }
        for (vout, output) in self.tx.output.iter().enumerate().take(self.max_outputs) {
            if self.blank.contains(&(vout as u32)) {
                listener.on_transaction_output(&TxOut { value: output.value, script_pubkey: ScriptBuf::new() });
            } else {
                listener.on_transaction_output(output);
            }
        }
        listener.on_transaction_end(self.tx.lock_time, self.tx.compute_txid());
    }
}

/// A channel whose claimed funding output does not exist in the transaction it names can never be funded.
fn lacks_its_funding_output(tx: &Transaction, funding: &OutPoint) -> bool {
    funding.vout as usize >= tx.output.len() && tx.compute_txid() == funding.txid
}

fn spends(tx: &Transaction, outpoint: &OutPoint) -> bool {
    tx.input.iter().any(|input| input.previous_output == *outpoint)
}

fn closing<'a>(node: &Node, funding: &OutPoint, tx: &'a Transaction) -> Shown<'a> {
    let only_input = (tx.input.len() > 1).then_some(*funding);
    let blank = channel_of(node, funding).map_or_else(Vec::new, |channel| unreadable_outputs(&channel, tx));
    Shown { tx, only_input, blank, max_outputs: MAX_CLOSE_OUTPUTS }
}

/// A copy of the channel, so that no lock is held while the monitor takes it.
fn channel_of(node: &Node, funding: &OutPoint) -> Option<Channel> {
    node.get_channels().values().find_map(|slot| match &*slot.lock().ok()? {
        ChannelSlot::Ready(channel) if channel.setup.funding_outpoint == *funding => Some(channel.clone()),
        _ => None,
    })
}

/// The outputs of commitment `tx` that the monitor would ask the channel about without getting an answer: all but our
/// main output, if `tx` is neither our own commitment nor the counterparty's latest one.
fn unreadable_outputs(channel: &Channel, tx: &Transaction) -> Vec<u32> {
    let parameters = channel.make_channel_parameters();
    let Some(number) = decode_commitment_number(tx, &parameters) else { return Vec::new() };
    let mut probe = channel.clone();
    // vls-core has this commitment's HTLCs but, until it is revoked, not its point; it needs both.
    probe.enforcement_state.previous_counterparty_commit_info = None;
    if probe.get_spendable_htlc_indices(tx, number).is_ok() {
        return Vec::new();
    }
    // Not a commitment of ours: any point finds our main output, which pays to a key that does not rotate.
    let any_point = parameters.holder_pubkeys.payment_point;
    decode_commitment_tx(tx, &any_point, &None, &parameters, &Secp256k1::new()).1
}
