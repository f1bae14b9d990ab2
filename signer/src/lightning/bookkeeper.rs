//! Tells the channel book what hsmd messages say, and vls's validator what the book says.
//!
//! A commitment reaches the book from inside vls, once vls has read it: amounts come from what vls will sign or accept,
//! HTLCs from the message, where they are exact to the millisatoshi. It counts once the message succeeded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::{Network, OutPoint};
use lightning_signer::channel::{ChannelId, ChannelSetup};
use lightning_signer::lightning::types::payment::PaymentHash;
use lightning_signer::node::Node;
use lightning_signer::policy::simple_validator::SimplePolicy;
use lightning_signer::tx::tx::CommitmentInfo2;
use vls_protocol::model::Htlc as WireHtlc;
use vls_protocol::msgs::Message;

use super::book::view::BookView;
use super::book::{
    self, Approval, Book, BookUnreadable, ChannelKey, Commitment, Direction, Forward, Hash, Htlc, Moment, Paid, Rules,
    Side, Terms,
};
use super::clock::NodeClock;
use crate::chain::ChainBlock;
use crate::journal::Put;
use crate::names::NodeKind;
use crate::pipeline::ChannelRef;
use crate::reasons::{Reason, Refusal};

/// An approval that nothing uses is kept for as long after its end, as vls keeps its own.
const KEPT_AFTER_EXPIRY_MS: u64 = 24 * 3_600_000;

/// Confirmations from which on an honest node goes by a close or by what spends it, less one by which our view of the
/// chain may be behind: LDK's `ANTI_REORG_DELAY` is 6, Core Lightning's `anchor_confirms` 3, and 1 on test networks.
fn buried(kind: NodeKind, network: Network) -> u32 {
    match (kind, network) {
        (NodeKind::Ldk, _) => 5,
        (_, Network::Bitcoin) => 2,
        _ => 1,
    }
}

/// Keeps one node's book.
pub struct Bookkeeper {
    clock: Arc<NodeClock>,
    state: Mutex<State>,
}

struct State {
    book: Book,
    /// What the message being handled brings, as far as its bytes tell.
    news: News,
}

/// What a message means for the book.
#[derive(Debug, Default)]
enum News {
    #[default]
    None,
    /// A commitment with these HTLCs, once vls has read the rest of it.
    Commitment { channel: ChannelKey, htlcs: Vec<Htlc>, issued: Vec<Hash> },
    /// A revocation.
    Revoked { channel: ChannelKey, side: Side, number: u64 },
    /// A transaction that closes the channel.
    Closing(ChannelKey),
    /// A payment that vls accepted before, or will.
    Approval(PaymentHash),
    /// Preimages.
    Preimages(Vec<[u8; 32]>),
}

impl Bookkeeper {
    /// Takes the book's entries out of `entries`.
    pub fn restore(
        kind: NodeKind,
        network: Network,
        policy: &SimplePolicy,
        clock: Arc<NodeClock>,
        entries: &mut BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, BookUnreadable> {
        let rules = Rules {
            cltv_delta: policy.cltv_delta,
            max_feerate_per_kw: policy.max_feerate_per_kw,
            buried: buried(kind, network),
            brings_preimages: kind == NodeKind::Ldk,
        };
        let mut ours = entries.split_off(book::PREFIX);
        let mut others = ours.split_off(&end_of_prefix());
        entries.append(&mut others);
        let state = State { book: Book::restore(rules, &ours)?, news: News::None };
        Ok(Self { clock, state: Mutex::new(state) })
    }

    /// Forgets what an earlier message left behind.
    pub fn begin(&self) {
        let State { book, news } = &mut *self.lock();
        book.discard();
        *news = News::None;
    }

    /// Notes what `message` is about to bring. `paid` is the payment hash it names.
    pub fn note(&self, node: &Node, channel: Option<ChannelRef>, message: &Message, paid: Option<PaymentHash>) {
        let key = || channel.map(key);
        let news = match message {
            Message::SignRemoteCommitmentTx(m) => key().map(|key| commitment(node, key, &m.htlcs)),
            Message::SignRemoteCommitmentTx2(m) => key().map(|key| commitment(node, key, &m.htlcs)),
            Message::ValidateCommitmentTx(m) => key().map(|key| commitment(node, key, &m.htlcs)),
            Message::ValidateCommitmentTx2(m) => key().map(|key| commitment(node, key, &m.htlcs)),
            Message::RevokeCommitmentTx(m) => {
                key().map(|channel| News::Revoked { channel, side: Side::Ours, number: m.commitment_number })
            }
            Message::ValidateRevocation(m) => {
                key().map(|channel| News::Revoked { channel, side: Side::Theirs, number: m.commitment_number })
            }
            Message::SignMutualCloseTx(_)
            | Message::SignMutualCloseTx2(_)
            | Message::SignCommitmentTx(_)
            | Message::SignLocalCommitmentTx2(_) => key().map(News::Closing),
            Message::PreapproveInvoice(_) | Message::PreapproveKeysend(_) => paid.map(News::Approval),
            _ => None,
        };
        self.lock().news = news.unwrap_or_default();
    }

    /// Notes preimages that a message is about to bring.
    pub fn note_preimages(&self, preimages: Vec<[u8; 32]>) {
        self.lock().news = News::Preimages(preimages);
    }

    /// A commitment, from inside vls. Refuses with a reason of the book's.
    pub fn commitment(
        &self,
        setup: &ChannelSetup,
        height: u32,
        number: u64,
        info: &CommitmentInfo2,
    ) -> Result<(), Refusal> {
        let State { book, news } = &mut *self.lock();
        let News::Commitment { channel, htlcs, issued } = news else {
            return Err(Refusal::new(Reason::Fault, "a commitment came up that no message brought"));
        };
        let (side, to_us_sat, to_them_sat) = match info.is_counterparty_broadcaster {
            true => (Side::Theirs, info.to_countersigner_value_sat, info.to_broadcaster_value_sat),
            false => (Side::Ours, info.to_broadcaster_value_sat, info.to_countersigner_value_sat),
        };
        let feerate_per_kw = info.feerate_per_kw;
        let commitment = Commitment { number, feerate_per_kw, to_us_sat, to_them_sat, htlcs: std::mem::take(htlcs) };
        let at = Moment { now_ms: self.clock.now_ms(), height };
        book.commitment(channel, &terms(setup), side, commitment, issued, at)
    }

    /// What the commitment that was accepted last passes on for others.
    pub fn forwards(&self, height: u32) -> Vec<Forward> {
        self.lock().book.forwards(Moment { now_ms: self.clock.now_ms(), height })
    }

    /// The message succeeded. What it approves may cost `max_fee_percent` of its amount; asked only if it approves anything.
    /// Returns the changed entries.
    pub fn finish(&self, node: &Node, max_fee_percent: impl FnOnce() -> u64) -> Vec<Put> {
        let at = Moment { now_ms: self.clock.now_ms(), height: 0 };
        let State { book, news } = &mut *self.lock();
        match std::mem::take(news) {
            News::None => return Vec::new(),
            News::Commitment { .. } => book.adopt(at),
            News::Revoked { channel, side, number } => book.revoked(&channel, side, number, at),
            News::Closing(channel) => book.closing(&channel),
            News::Preimages(preimages) => preimages.into_iter().for_each(|preimage| book.learn(preimage)),
            News::Approval(hash) => {
                let invoice = node.get_state().invoices.get(&hash).map(|invoice| {
                    let ends = invoice.duration_since_epoch.saturating_add(invoice.expiry_duration);
                    Approval::new(invoice.amount_msat, millis(ends).saturating_add(KEPT_AFTER_EXPIRY_MS))
                });
                if let Some(approval) = invoice {
                    book.approve(Hash(hash.0), approval.with_fee_percent(max_fee_percent()), at);
                }
            }
        }
        book.changes()
    }

    /// Looks through a block that was added. `touched` are the funding outpoints of the channels it holds transactions of.
    pub fn note_block(&self, block: &ChainBlock, touched: &[OutPoint]) {
        let State { book, .. } = &mut *self.lock();
        for (funding, close) in touched.iter().filter_map(|funding| Some((funding, block.spender(funding)?))) {
            book.closed(funding, close, block.height());
        }
        book.spent(block.height(), |outpoint| block.spender(outpoint));
    }

    /// The block at `height` was removed.
    pub fn revert_block(&self, height: u32) {
        self.lock().book.reverted(height);
    }

    /// What blocks changed, for the journal.
    pub fn block_changes(&self) -> Vec<Put> {
        self.lock().book.changes()
    }

    /// Approved payments that ended, with what left for them.
    pub fn take_ended(&self) -> Vec<(Hash, Paid)> {
        self.lock().book.take_ended()
    }

    /// Drops what is over and what vls has forgotten. Returns the changed entries.
    pub fn prune(&self, node: &Node) -> Vec<Put> {
        let channels = node.get_channels();
        let is_gone = |key: &ChannelKey| channel_id(key).is_none_or(|id| !channels.contains_key(&id));
        let State { book, .. } = &mut *self.lock();
        let height = node.get_tracker().height();
        book.prune(is_gone, Moment { now_ms: self.clock.now_ms(), height });
        book.changes()
    }

    /// The whole book, to be shown; `height` is our own chain view's.
    pub fn view(&self, height: u32) -> BookView {
        self.lock().book.view(Moment { now_ms: self.clock.now_ms(), height })
    }

    // A panic while the lock is held stays with this node: the actor drops it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn commitment(node: &Node, channel: ChannelKey, htlcs: &[WireHtlc]) -> News {
    let mut issued = Vec::new();
    let mut of_book = Vec::with_capacity(htlcs.len());
    let state = node.get_state();
    for htlc in htlcs {
        let payment_hash = Hash(htlc.payment_hash.0);
        let direction = if htlc.side == WireHtlc::LOCAL { Direction::Out } else { Direction::In };
        if direction == Direction::Out && state.issued_invoices.contains_key(&PaymentHash(payment_hash.0)) {
            issued.push(payment_hash);
        }
        of_book.push(Htlc { payment_hash, direction, amount_msat: htlc.amount, cltv_expiry: htlc.ctlv_expiry });
    }
    of_book.sort_unstable();
    News::Commitment { channel, htlcs: of_book, issued }
}

fn terms(setup: &ChannelSetup) -> Terms {
    Terms {
        funding: setup.funding_outpoint,
        capacity_sat: setup.channel_value_sat,
        push_msat: setup.push_value_msat,
        we_fund: setup.is_outbound,
        anchors: setup.is_anchors(),
        zero_fee_htlcs: setup.is_zero_fee_htlc(),
    }
}

fn key(channel: ChannelRef) -> ChannelKey {
    ChannelKey(format!("{}:{}", hex::encode(channel.peer_id), channel.dbid).into())
}

fn channel_id(key: &ChannelKey) -> Option<ChannelId> {
    let (peer_id, dbid) = key.0.split_once(':')?;
    let mut peer = [0; 33];
    hex::decode_to_slice(peer_id, &mut peer).ok()?;
    Some(ChannelId::new_from_peer_id_and_oid(&peer, dbid.parse().ok()?))
}

fn end_of_prefix() -> String {
    let mut end = book::PREFIX.to_owned();
    end.pop();
    end.push('0'); // the character after '/'
    end
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One confirmation less than the node waits for, by its kind and network.
    #[test]
    fn what_is_buried_is_what_the_node_goes_by() {
        for (kind, network, confirmations) in [
            (NodeKind::Ldk, Network::Bitcoin, 5),
            (NodeKind::Ldk, Network::Regtest, 5),
            (NodeKind::Cln, Network::Bitcoin, 2),
            (NodeKind::Cln, Network::Regtest, 1),
        ] {
            assert_eq!(buried(kind, network), confirmations, "{kind:?} {network}");
        }
    }
}
