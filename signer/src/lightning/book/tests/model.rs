//! An honest node beside its book: every message of its channels is told to the book.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, Witness};

use super::super::view::BookView;
use super::super::{Approval, Book, ChannelKey, Commitment, Direction, Hash, Htlc, Moment, Rules, Side, Terms};
use super::channel::{Applied, Channel, Update};
use crate::reasons::Refusal;

pub(super) const DELTA: u32 = 34;
pub(super) const DAY_MS: u64 = 24 * 3_600_000;

/// The wire tells preimages.
pub(super) const WITH_PREIMAGES: Rules =
    Rules { cltv_delta: DELTA, max_feerate_per_kw: 50_000, buried: 6, brings_preimages: true };
/// It does not.
pub(super) const WITHOUT_PREIMAGES: Rules = Rules { brings_preimages: false, ..WITH_PREIMAGES };

/// The node.
pub(super) struct Node {
    pub(super) book: Book,
    pub(super) rules: Rules,
    pub(super) at: Moment,
    pub(super) channels: Vec<Channel>,
    pub(super) issued: Vec<Hash>,
    entries: BTreeMap<String, Vec<u8>>,
}

/// Of all payments there are.
static PREIMAGES: LazyLock<HashMap<Hash, [u8; 32]>> =
    LazyLock::new(|| (0..20_000).map(secret).map(|(preimage, hash)| (hash, preimage)).collect());

/// A preimage for `n`, and its hash.
pub(super) fn secret(n: u64) -> ([u8; 32], Hash) {
    let mut preimage = [0x5a; 32];
    preimage[..8].copy_from_slice(&n.to_be_bytes());
    (preimage, Hash(sha256::Hash::hash(&preimage).to_byte_array()))
}

pub(super) fn htlc(n: u64, direction: Direction, amount_msat: u64, cltv_expiry: u32) -> Htlc {
    Htlc { payment_hash: secret(n).1, direction, amount_msat, cltv_expiry }
}

fn transaction(previous_output: OutPoint, witness: Witness, output: Vec<TxOut>) -> Transaction {
    let input = vec![TxIn { previous_output, witness, ..TxIn::default() }];
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

pub(super) fn terms(n: u64, capacity_sat: u64, we_fund: bool, push_msat: u64) -> Terms {
    let mut txid = [7; 32];
    txid[..8].copy_from_slice(&n.to_be_bytes());
    let funding = OutPoint { txid: Txid::from_byte_array(txid), vout: 0 };
    Terms { funding, capacity_sat, push_msat, we_fund, anchors: true, zero_fee_htlcs: true }
}

impl Node {
    pub(super) fn new(rules: Rules) -> Self {
        let at = Moment { now_ms: 1_700_000_000_000, height: 100_000 };
        let (channels, issued, entries) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { book: Book::new(rules), rules, at, channels, issued, entries }
    }

    /// Opens a channel; returns its index.
    pub(super) fn open(&mut self, terms: Terms) -> usize {
        let key = ChannelKey(format!("02ab:{}", self.channels.len()).into());
        let (ours, theirs) = Default::default();
        let (htlcs, us, peer) = Default::default();
        let channel =
            Channel { key, terms, dust_limit_sat: [354, 354], htlcs, us, peer, ours, theirs, numbers: [0, 0] };
        let first = |side| channel.commitment(side, Applied::default(), 0);
        let (ours, theirs) = (first(Side::Ours), first(Side::Theirs));
        self.channels.push(channel);
        let n = self.channels.len() - 1;
        self.tell(n, Side::Theirs, theirs).unwrap();
        self.tell(n, Side::Ours, ours).unwrap();
        n
    }

    /// A channel of 10,000,000 sat, half of which is ours.
    pub(super) fn balanced(&mut self) -> usize {
        self.open(terms(self.channels.len() as u64, 10_000_000, false, 5_000_000_000))
    }

    /// Shows the book a commitment, and has it count if it is accepted.
    pub(super) fn tell(&mut self, n: usize, side: Side, commitment: Commitment) -> Result<(), Refusal> {
        let (key, terms) = (self.channels[n].key.clone(), self.channels[n].terms.clone());
        self.book.commitment(&key, &terms, side, commitment, &self.issued, self.at)?;
        self.book.adopt(self.at);
        self.write();
        Ok(())
    }

    /// The same, without its effect.
    pub(super) fn ask(&mut self, n: usize, side: Side, commitment: Commitment) -> Result<(), Refusal> {
        let (key, terms) = (self.channels[n].key.clone(), self.channels[n].terms.clone());
        let before = self.view();
        let outcome = self.book.commitment(&key, &terms, side, commitment, &self.issued, self.at);
        assert_eq!(self.view(), before, "nothing counts before it is adopted");
        assert!(self.book.changes().is_empty());
        outcome
    }

    /// The commitment that is to follow.
    pub(super) fn following(&self, n: usize, side: Side) -> Commitment {
        let channel = &self.channels[n];
        let (us, peer) = (channel.us.len(), channel.peer.len());
        let applied = match side {
            Side::Ours => Applied { us: channel.theirs.0.us, peer },
            Side::Theirs => Applied { us, peer: channel.ours.0.peer },
        };
        channel.commitment(side, applied, channel.numbers[side as usize] + 1)
    }

    /// Whether `side` may get a new commitment, and needs one.
    pub(super) fn may_sign(&self, n: usize, side: Side) -> bool {
        let channel = &self.channels[n];
        let (current, next) = if side == Side::Ours { channel.ours } else { channel.theirs };
        let applied = match side {
            Side::Ours => Applied { us: channel.theirs.0.us, peer: channel.peer.len() },
            Side::Theirs => Applied { us: channel.us.len(), peer: channel.ours.0.peer },
        };
        next.is_none() && applied != current
    }

    pub(super) fn sign(&mut self, n: usize, side: Side) -> Result<(), Refusal> {
        let commitment = self.following(n, side);
        if self.rules.brings_preimages {
            self.tell_preimages(n);
        }
        self.tell(n, side, commitment)?;
        let channel = &mut self.channels[n];
        let (us, peer) = (channel.us.len(), channel.peer.len());
        match side {
            Side::Ours => channel.ours.1 = Some(Applied { us: channel.theirs.0.us, peer }),
            Side::Theirs => channel.theirs.1 = Some(Applied { us, peer: channel.ours.0.peer }),
        }
        Ok(())
    }

    /// LDK's order: before the commitment.
    pub(super) fn tell_preimages(&mut self, n: usize) {
        let channel = &self.channels[n];
        let settled = channel.us.iter().chain(&channel.peer).filter_map(|update| match update {
            Update::Remove(id, true) => Some(channel.htlcs[*id].payment_hash),
            _ => None,
        });
        // Told again and again, as LDK does, until the book has heard of the HTLC.
        for preimage in settled.filter_map(|hash| PREIMAGES.get(&hash)) {
            self.book.learn(*preimage);
        }
        self.write();
    }

    pub(super) fn revoke(&mut self, n: usize, side: Side) {
        let channel = &mut self.channels[n];
        let chain = if side == Side::Ours { &mut channel.ours } else { &mut channel.theirs };
        let Some(next) = chain.1.take() else { return };
        chain.0 = next;
        let number = channel.numbers[side as usize];
        channel.numbers[side as usize] += 1;
        let key = channel.key.clone();
        self.book.revoked(&key, side, number, self.at);
        self.write();
    }

    /// Signs and revokes until both sides have everything.
    pub(super) fn sync(&mut self, n: usize) -> Result<(), Refusal> {
        for _ in 0..8 {
            for side in [Side::Theirs, Side::Ours] {
                if self.may_sign(n, side) {
                    self.sign(n, side)?;
                }
                self.revoke(n, side);
            }
        }
        assert!(self.channels[n].is_quiet());
        Ok(())
    }

    pub(super) fn add(&mut self, n: usize, htlc: Htlc) -> usize {
        let channel = &mut self.channels[n];
        channel.htlcs.push(htlc);
        let id = channel.htlcs.len() - 1;
        match htlc.direction {
            Direction::Out => channel.us.push(Update::Add(id)),
            Direction::In => channel.peer.push(Update::Add(id)),
        }
        id
    }

    /// Whoever was offered the HTLC ends it.
    pub(super) fn remove(&mut self, n: usize, id: usize, settled: bool) {
        let channel = &mut self.channels[n];
        match channel.htlcs[id].direction {
            Direction::Out => channel.peer.push(Update::Remove(id, settled)),
            Direction::In => channel.us.push(Update::Remove(id, settled)),
        }
    }

    pub(super) fn set_feerate(&mut self, n: usize, feerate_per_kw: u32) {
        let channel = &mut self.channels[n];
        let funder = if channel.terms.we_fund { &mut channel.us } else { &mut channel.peer };
        funder.push(Update::Fee(feerate_per_kw));
    }

    pub(super) fn approve(&mut self, n: u64, amount_msat: u64) {
        let approval = Approval::new(amount_msat, self.at.now_ms + DAY_MS);
        self.book.approve(secret(n).1, approval, self.at);
        self.write();
    }

    /// The funding output of channel `n` is spent in the next block. Its close has outputs of these amounts.
    pub(super) fn close(&mut self, n: usize, outputs_sat: &[u64]) -> Transaction {
        self.at.height += 1;
        let funding = self.channels[n].terms.funding;
        let output = |sat: &u64| TxOut { value: Amount::from_sat(*sat), script_pubkey: ScriptBuf::new() };
        let close = transaction(funding, Witness::new(), outputs_sat.iter().map(output).collect());
        self.book.closed(&funding, &close, self.at.height);
        self.write();
        close
    }

    /// The next block holds what spends output `vout` of `close` with these witness items.
    pub(super) fn spend(&mut self, close: &Transaction, vout: u32, witness: &[&[u8]]) {
        self.at.height += 1;
        let output = OutPoint { txid: close.compute_txid(), vout };
        let spender = transaction(output, Witness::from_slice(witness), Vec::new());
        self.book.spent(self.at.height, |spent| (*spent == output).then_some(&spender));
        self.write();
    }

    /// The newest block is taken back.
    pub(super) fn take_back(&mut self) {
        self.book.reverted(self.at.height);
        self.at.height -= 1;
        self.write();
    }

    /// A close of channel `n` was signed.
    pub(super) fn closing(&mut self, n: usize) {
        let key = self.channels[n].key.clone();
        self.book.closing(&key);
        self.write();
    }

    /// Whatever is closed is forgotten elsewhere.
    pub(super) fn prune(&mut self) {
        self.book.prune(|_| true, self.at);
        self.write();
    }

    fn write(&mut self) {
        for put in self.book.changes() {
            match put.value {
                Some(value) => self.entries.insert(put.key, value),
                None => self.entries.remove(&put.key),
            };
        }
    }

    pub(super) fn view(&self) -> BookView {
        self.book.view(self.at)
    }

    /// Starts again from the journal: nothing was lost, and nothing is there that was not.
    pub(super) fn restart(&mut self) {
        let restored = Book::restore(self.rules, &self.entries).unwrap();
        let before = std::mem::replace(&mut self.book, restored);
        let payments = |book: &Book| {
            let mut payments: BTreeMap<_, _> = book.payments.clone().into_iter().collect();
            for payment in payments.values_mut() {
                payment.channels.sort(); // their order means nothing
                payment.stored = payment.is_durable();
            }
            payments
        };
        assert_eq!(self.book.channels, before.channels);
        assert_eq!(payments(&self.book), payments(&before));
        assert_eq!(self.book.batches, before.batches);
        assert_eq!(self.book.dust, before.dust);
    }

    pub(super) fn entries(&self, prefix: &str) -> usize {
        self.entries.keys().filter(|key| key.starts_with(prefix)).count()
    }
}
