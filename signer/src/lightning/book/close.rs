//! What the chain shows of a channel's close: which outgoing HTLCs the peer may still take by it.
//!
//! An HTLC output says only how much it holds. Whoever spends it shows its script, and the script names the payment hash
//! (BOLT 3); who takes it from the payer shows the preimage as well.

use bitcoin::hashes::{Hash as _, ripemd160, sha256};
use bitcoin::{OutPoint, Transaction, Txid, Witness};

use super::channel::Channel;
use super::facts::{Direction, Hash, Htlc};

/// Blocks before its expiry at which LDK and Core Lightning give up an incoming HTLC, whatever may become of the outgoing
/// one: three, and one by which our view of the chain may be behind the node's.
const GIVEN_UP_BEFORE_EXPIRY: u32 = 3 + 1;

/// How far our view of the chain reaches, and what counts as buried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth {
    pub(super) height: u32,
    /// Confirmations.
    pub(super) buried: u32,
}

impl Depth {
    fn is_buried(self, height: u32) -> bool {
        self.height.saturating_add(1) >= height.saturating_add(self.buried)
    }

    /// Whether an incoming HTLC ends so soon that an honest node gives it up before its peer closes the channel for it.
    pub(super) fn is_given_up(self, cltv_expiry: u32) -> bool {
        cltv_expiry <= self.height.saturating_add(GIVEN_UP_BEFORE_EXPIRY)
    }
}

/// A confirmed transaction that spent a channel's funding output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) txid: Txid,
    pub(super) height: u32,
    /// Those of its outputs that may be an outgoing HTLC.
    pub(super) outputs: Vec<CloseOutput>,
}

/// An output that holds as much as an outgoing HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CloseOutput {
    pub(super) vout: u32,
    pub(super) amount_sat: u64,
    pub(super) spent: Option<Spent>,
}

/// What the spender of such an output showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent {
    pub(super) height: u32,
    /// The outgoing HTLC's hash, if it was one.
    pub(super) payment_hash: Option<Hash>,
    pub(super) with_preimage: bool,
}

impl Close {
    /// What `tx`, confirmed at `height`, means for the outgoing HTLCs of `channel`.
    pub(super) fn new(channel: &Channel, tx: &Transaction, height: u32) -> Self {
        let may_be = |amount_sat| outgoing(channel).any(|htlc| htlc.amount_msat / 1_000 == amount_sat);
        let outputs = (0..).zip(&tx.output).map(|(vout, output)| (vout, output.value.to_sat()));
        let outputs = outputs.filter(|(_, amount_sat)| may_be(*amount_sat));
        let outputs = outputs.map(|(vout, amount_sat)| CloseOutput { vout, amount_sat, spent: None }).collect();
        Self { txid: tx.compute_txid(), height, outputs }
    }

    /// Its outputs that are not spent, by their place.
    pub(super) fn unspent(&self) -> impl Iterator<Item = (usize, OutPoint)> {
        let unspent = self.outputs.iter().enumerate().filter(|(_, output)| output.spent.is_none());
        unspent.map(|(n, output)| (n, OutPoint { txid: self.txid, vout: output.vout }))
    }

    /// The block at `height` is no longer in the chain: undoes what it spent. Returns whether that is anything.
    pub(super) fn revert(&mut self, height: u32) -> bool {
        let spent = self.outputs.iter_mut().filter(|output| output.spent.is_some_and(|spent| spent.height >= height));
        spent.map(|output| output.spent = None).count() > 0
    }

    /// Of `n` outgoing HTLCs with this hash and amount, how many the peer took or may take. An output that nothing spent
    /// yet may be any of its amount.
    fn taken(&self, hash: &Hash, amount_sat: u64, n: usize, depth: Depth) -> usize {
        if !depth.is_buried(self.height) {
            return n; // another commitment may still take its place
        }
        let (mut may_be, mut given_back) = (0, 0);
        for output in self.outputs.iter().filter(|output| output.amount_sat == amount_sat) {
            match output.spent {
                None => may_be += 1,
                Some(spent) if spent.payment_hash != Some(*hash) => {}
                Some(spent) if spent.with_preimage || !depth.is_buried(spent.height) => may_be += 1,
                Some(_) => given_back += 1,
            }
        }
        may_be.min(n.saturating_sub(given_back))
    }

    /// Keeps those of `outs`, outgoing HTLCs of `hash` with expiry and amount, that the peer took or may take; of equal
    /// ones, those that last longest.
    pub(super) fn retain(&self, hash: &Hash, outs: &mut Vec<(u32, u64)>, depth: Depth) {
        outs.sort_unstable_by_key(|(expiry, amount_msat)| (amount_msat / 1_000, std::cmp::Reverse(*expiry)));
        *outs = outs
            .chunk_by(|(_, a), (_, b)| a / 1_000 == b / 1_000)
            .flat_map(|equal| &equal[..self.taken(hash, equal[0].1 / 1_000, equal.len(), depth)])
            .copied()
            .collect();
    }
}

/// What `witness`, which spends an output of the close of `channel` at `height`, shows.
pub(super) fn spent(channel: &Channel, witness: &Witness, height: u32) -> Spent {
    let script = witness.last().unwrap_or_default();
    let names = |hash: &Hash| {
        let named = ripemd160::Hash::hash(&hash.0).to_byte_array();
        script.windows(named.len()).any(|bytes| bytes == named)
    };
    let payment_hash = outgoing(channel).map(|htlc| htlc.payment_hash).find(names);
    let shown = |hash: Hash| preimages(witness).any(|preimage| sha256::Hash::hash(&preimage).to_byte_array() == hash.0);
    Spent { height, payment_hash, with_preimage: payment_hash.is_some_and(shown) }
}

/// Whatever in `witness` may be a preimage.
pub(super) fn preimages(witness: &Witness) -> impl Iterator<Item = [u8; 32]> {
    witness.iter().filter_map(|item| item.try_into().ok())
}

fn outgoing(channel: &Channel) -> impl Iterator<Item = &Htlc> {
    let htlcs = channel.valid().flat_map(|(_, held)| &held.commitment.htlcs);
    htlcs.filter(|htlc| htlc.direction == Direction::Out)
}
