//! What the chain showed of channels: the amounts of their funding outputs, of what closed them, and of the second level.
//!
//! A transaction id fixes the outputs, so what was shown once stays true, also when a block is taken back: entries are
//! added, and deleted only with their channel. One per output, in the node's tenant:
//!
//! | entry | value |
//! |---|---|
//! | `output/<txid>:<vout>` | version 1, level, amount in sat, funding outpoint (txid, vout) |

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Transaction, Txid};
use lightning_signer::channel::{Channel, ChannelBase, ChannelSlot};
use lightning_signer::lightning::ln::chan_utils::make_funding_redeemscript;
use lightning_signer::node::Node;

use crate::chain::ChainBlock;
use crate::journal::Put;

/// Entries of a node's tenant that hold outputs start with this; the outpoint follows.
pub const PREFIX: &str = "output/";

/// The outputs of one node's channels that the chain showed.
#[derive(Default)]
pub struct Outputs {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    known: BTreeMap<OutPoint, Output>,
    /// Not yet in the journal.
    puts: Vec<Put>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Output {
    level: Level,
    amount_sat: u64,
    /// The channel's funding outpoint.
    channel: OutPoint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// The funding output, as the channel's keys and nobody else's may spend it.
    Funding = 0,
    /// Of the transaction that spent the funding output.
    Close = 1,
    /// Of a transaction that spent one of those: the output beside the input (BOLT 3, SIGHASH_SINGLE).
    Second = 2,
}

/// An output's entry is damaged; its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {0} is not an output")]
pub struct OutputUnreadable(String);

impl Outputs {
    /// Takes the entries that hold outputs out of `entries`.
    pub fn restore(entries: &mut BTreeMap<String, Vec<u8>>) -> Result<Self, OutputUnreadable> {
        let mut known = BTreeMap::new();
        for (key, value) in entries.extract_if(.., |key, _| key.starts_with(PREFIX)) {
            let outpoint = key[PREFIX.len()..].parse().ok();
            let (outpoint, output) = outpoint.zip(Output::decode(&value)).ok_or(OutputUnreadable(key))?;
            known.insert(outpoint, output);
        }
        Ok(Self { inner: Mutex::new(Inner { known, puts: Vec::new() }) })
    }

    /// The amount of an output of one of the node's channels, if the chain showed it.
    pub fn amount_sat(&self, outpoint: &OutPoint) -> Option<u64> {
        self.lock().known.get(outpoint).map(|output| output.amount_sat)
    }

    /// Looks through a block that was added. `touched` are the funding outpoints of the channels it holds transactions of.
    pub fn note_block(&self, node: &Node, block: &ChainBlock, touched: &[OutPoint]) {
        let mut inner = self.lock();
        for funding in touched {
            if let Some(amount_sat) = block.transaction(&funding.txid).and_then(|tx| funded_sat(node, funding, tx)) {
                inner.insert(*funding, Output { level: Level::Funding, amount_sat, channel: *funding });
            }
            if let Some(close) = block.spender(funding) {
                let txid = close.compute_txid();
                for (vout, output) in (0..).zip(&close.output) {
                    let amount_sat = output.value.to_sat();
                    inner
                        .insert(OutPoint { txid, vout }, Output { level: Level::Close, amount_sat, channel: *funding });
                }
            }
        }
        let closes = inner.known.iter().filter(|(_, output)| output.level == Level::Close);
        let second: Vec<_> = closes.filter_map(|(spent, output)| second_level(block, spent, output.channel)).collect();
        for (outpoint, output) in second {
            inner.insert(outpoint, output);
        }
    }

    /// Forgets the outputs of channels for which `is_live` is false.
    pub fn retain(&self, is_live: impl Fn(&OutPoint) -> bool) {
        let Inner { known, puts } = &mut *self.lock();
        for (outpoint, _) in known.extract_if(.., |_, output| !is_live(&output.channel)) {
            puts.push(Put { key: key(&outpoint), value: None });
        }
    }

    /// What changed since the last call, for the journal.
    pub fn take_puts(&self) -> Vec<Put> {
        std::mem::take(&mut self.lock().puts)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn insert(&mut self, outpoint: OutPoint, output: Output) {
        if self.known.insert(outpoint, output) != Some(output) {
            self.puts.push(Put { key: key(&outpoint), value: Some(output.encode()) });
        }
    }
}

/// What `tx` pays to the keys of the channel that says it is funded by it.
fn funded_sat(node: &Node, funding: &OutPoint, tx: &Transaction) -> Option<u64> {
    let output = tx.output.get(funding.vout as usize)?;
    let script = node.get_channels().values().find_map(|slot| match &*slot.lock().ok()? {
        ChannelSlot::Ready(channel) if channel.setup.funding_outpoint == *funding => Some(funding_script(channel)),
        _ => None,
    });
    (script? == output.script_pubkey).then(|| output.value.to_sat())
}

fn funding_script(channel: &Channel) -> bitcoin::ScriptBuf {
    let ours = channel.get_channel_basepoints().funding_pubkey;
    make_funding_redeemscript(&ours, &channel.setup.counterparty_points.funding_pubkey).to_p2wsh()
}

/// The output beside the input that spends `spent`, if the block holds that.
fn second_level(block: &ChainBlock, spent: &OutPoint, channel: OutPoint) -> Option<(OutPoint, Output)> {
    let tx = block.spender(spent)?;
    let index = tx.input.iter().position(|input| input.previous_output == *spent)?;
    let amount_sat = tx.output.get(index)?.value.to_sat();
    let outpoint = OutPoint { txid: tx.compute_txid(), vout: u32::try_from(index).ok()? };
    Some((outpoint, Output { level: Level::Second, amount_sat, channel }))
}

fn key(outpoint: &OutPoint) -> String {
    format!("{PREFIX}{outpoint}")
}

impl Output {
    fn encode(&self) -> Vec<u8> {
        let (txid, vout) = (self.channel.txid.to_byte_array(), self.channel.vout.to_be_bytes());
        [&[1, self.level as u8][..], &self.amount_sat.to_be_bytes(), &txid, &vout].concat()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (&[1, level], rest) = value.split_first_chunk()? else { return None };
        let (amount_sat, rest) = rest.split_first_chunk()?;
        let (txid, vout) = rest.split_first_chunk()?;
        let level = [Level::Funding, Level::Close, Level::Second].into_iter().find(|known| *known as u8 == level)?;
        let channel = OutPoint { txid: Txid::from_byte_array(*txid), vout: u32::from_be_bytes(vout.try_into().ok()?) };
        Some(Self { level, amount_sat: u64::from_be_bytes(*amount_sat), channel })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_survive_a_restart_until_their_channel_is_gone() {
        let outpoint = |byte, vout| OutPoint { txid: Txid::from_byte_array([byte; 32]), vout };
        let outputs = Outputs::default();
        for (byte, level) in [(1, Level::Funding), (2, Level::Close), (3, Level::Second)] {
            let channel = outpoint(byte, 0);
            outputs.lock().insert(outpoint(byte, 7), Output { level, amount_sat: u64::from(byte), channel });
        }
        let mut entries: BTreeMap<_, _> =
            outputs.take_puts().into_iter().map(|put| (put.key, put.value.expect("new"))).collect();
        entries.insert("node".to_owned(), vec![9]);
        let restored = Outputs::restore(&mut entries.clone()).expect("readable");
        assert_eq!(restored.lock().known, outputs.lock().known);
        restored.retain(|channel| *channel != outpoint(2, 0));
        let puts: Vec<_> = restored.take_puts().into_iter().map(|put| (put.key, put.value)).collect();
        assert_eq!(puts, [(key(&outpoint(2, 7)), None)]);
        assert_eq!(restored.amount_sat(&outpoint(2, 7)), None);
        assert_eq!(restored.amount_sat(&outpoint(3, 7)), Some(3));
        entries.insert(key(&outpoint(4, 0)), vec![1, 9]);
        assert!(Outputs::restore(&mut entries).is_err());
    }
}
