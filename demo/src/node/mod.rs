//! A real Lightning node on LDK, with its own keys or with a signer's: TCP peers, gossip, routing, on-chain claims.
//!
//! Everything runs in the background; the methods here start things and look at how they went.

mod circle;
mod events;
mod keys;
mod kit;
mod run;
mod start;
mod store;
mod wallet;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, ScriptBuf, Transaction};
use claviger_ldk::{LinkError, Resumer};
use lightning::chain::channelmonitor::Balance;
use lightning::events::{ClosureReason, Event};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{Bolt11InvoiceParameters, PaymentId, RecipientOnionFields, Retry};
use lightning::ln::types::ChannelId;
use lightning::offers::offer::Offer;
use lightning::routing::router::{PaymentParameters, RouteParameters, RouteParametersConfig};
use lightning::sign::EntropySource;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use lightning::util::errors::APIError;
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};
use thiserror::Error;

pub use keys::AnyKeys;
pub use kit::ChainAccess;
pub use start::{Keys, Settings};
pub use store::Store;
pub use wallet::AnyWallet;

/// Why a node could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NodeError {
    /// The operator's limits, or the signer's rules, say no.
    #[error("the signer does not approve the payment")]
    NotApproved,
    /// The signer did not answer.
    #[error(transparent)]
    Signer(#[from] LinkError),
    /// LDK refused.
    #[error("{0}")]
    Ldk(String),
    /// Files or sockets.
    #[error("{0}")]
    Io(String),
}

impl From<APIError> for NodeError {
    fn from(error: APIError) -> Self {
        Self::Ldk(format!("{error:?}"))
    }
}

/// How an outgoing payment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payment {
    /// The payee has it.
    Sent {
        /// What the payee was to have.
        amount_msat: u64,
        /// Paid to the nodes in between.
        fee_msat: u64,
    },
    /// The payer has it back.
    Failed,
}

/// What happened to a node so far.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Outgoing payments that ended.
    pub payments: BTreeMap<PaymentHash, Payment>,
    /// Incoming payments that were claimed, in msat.
    pub received: BTreeMap<PaymentHash, u64>,
    /// Payments passed on to another node.
    pub forwarded: usize,
    /// What they brought, in msat: where LDK does not tell, because the chain settled it, the node's fee.
    pub forwarding_fees_msat: u64,
    /// Channels that became usable.
    pub ready: BTreeSet<ChannelId>,
    /// Channels that ended, and why.
    pub closed: BTreeMap<ChannelId, ClosureReason>,
}

/// What each node asks for passing a payment on, whatever its amount: LDK's default.
pub const FORWARDING_FEE_MSAT: u64 = 1_000;
const HOUR: Duration = Duration::from_secs(3_600);

/// How long a node that stops waits for messages that are being handled. One may wait for a signer that is away.
const LAST_MESSAGES: Duration = Duration::from_secs(10);

/// A running node. [`stop`](Self::stop) it to start it again from its [`Store`]; dropped, it ends without a word.
pub struct LdkNode {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
    runtime: Option<tokio::runtime::Runtime>,
    resumer: Option<Resumer>,
}

struct Inner {
    id: PublicKey,
    addr: SocketAddr,
    keys: Arc<AnyKeys>,
    wallet: Arc<AnyWallet>,
    chain: Arc<dyn ChainAccess>,
    store: Arc<Store>,
    log: Arc<kit::Log>,
    fees: Arc<kit::Fees>,
    broadcaster: Arc<kit::Broadcaster>,
    chain_monitor: Arc<kit::ChainMonitor>,
    channels: Arc<kit::ChannelManager>,
    peers: Arc<kit::PeerManager>,
    onion: Arc<kit::OnionMessenger>,
    bump: kit::BumpHandler,
    known_peers: Mutex<BTreeMap<PublicKey, SocketAddr>>,
    /// Whether incoming payments wait in the store, under [`HELD`].
    holding: AtomicBool,
    /// The height up to which everything was done that the chain asked for.
    settled: AtomicU32,
    stopped: AtomicBool,
}

impl LdkNode {
    /// The node's public key.
    pub fn id(&self) -> PublicKey {
        self.inner.id
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.inner.addr
    }

    /// Connects, and again whenever the connection is lost.
    pub fn connect(&self, peer: &LdkNode) {
        lock(&self.inner.known_peers).insert(peer.id(), peer.addr());
    }

    /// Whether a connection to `peer` is up.
    pub fn is_connected(&self, peer: &PublicKey) -> bool {
        self.inner.peers.peer_by_node_id(peer).is_some()
    }

    /// Ends a connection that this node made, for good.
    pub fn disconnect(&self, peer: &PublicKey) {
        lock(&self.inner.known_peers).remove(peer);
        self.inner.peers.disconnect_by_node_id(*peer);
    }

    /// Opens a channel; its funding transaction is made when the peer accepted.
    pub fn open_channel(&self, peer: &PublicKey, value: Amount, push_msat: u64) -> Result<ChannelId, NodeError> {
        Ok(self.inner.channels.create_channel(*peer, value.to_sat(), push_msat, 0, None, None)?)
    }

    /// All channels that are not closed.
    pub fn channels(&self) -> Vec<ChannelDetails> {
        self.inner.channels.list_channels()
    }

    /// The first channel with `peer`.
    pub fn channel_with(&self, peer: &PublicKey) -> Option<ChannelDetails> {
        self.channels().into_iter().find(|channel| channel.counterparty.node_id == *peer)
    }

    /// All channels with `peer`.
    pub fn channels_with(&self, peer: &PublicKey) -> Vec<ChannelDetails> {
        self.channels().into_iter().filter(|channel| channel.counterparty.node_id == *peer).collect()
    }

    /// Closes with the peer's help. Fails while the peer is away or a change of the channel is being kept: ask again.
    pub fn close(&self, channel: &ChannelDetails) -> Result<(), NodeError> {
        Ok(self.inner.channels.close_channel(&channel.channel_id, &channel.counterparty.node_id)?)
    }

    /// Closes without it.
    pub fn force_close(&self, channel: &ChannelDetails) -> Result<(), NodeError> {
        let peer = &channel.counterparty.node_id;
        let reason = "as asked".to_string();
        Ok(self.inner.channels.force_close_broadcasting_latest_txn(&channel.channel_id, peer, reason)?)
    }

    /// A BOLT 11 invoice over `amount_msat`, valid for an hour.
    pub fn invoice(&self, amount_msat: u64, description: &str) -> Result<Bolt11Invoice, NodeError> {
        self.invoice_within(Some(amount_msat), HOUR, description)
    }

    /// The same that leaves the amount to the payer if there is none, and is valid for `expiry`, counted in seconds.
    pub fn invoice_within(
        &self,
        amount_msat: Option<u64>,
        expiry: Duration,
        description: &str,
    ) -> Result<Bolt11Invoice, NodeError> {
        let description = Description::new(description.into()).map_err(|e| NodeError::Ldk(e.to_string()))?;
        let parameters = Bolt11InvoiceParameters {
            amount_msats: amount_msat,
            invoice_expiry_delta_secs: Some(expiry.as_secs() as u32),
            description: Bolt11InvoiceDescription::Direct(description),
            ..Default::default()
        };
        self.inner.channels.create_bolt11_invoice(parameters).map_err(|e| NodeError::Ldk(e.to_string()))
    }

    /// Pays a BOLT 11 invoice, after asking the signer.
    pub fn pay(&self, invoice: &Bolt11Invoice) -> Result<PaymentHash, NodeError> {
        self.approve(invoice)?;
        self.send(invoice, None)
    }

    /// Pays an invoice that names no amount, after asking the signer.
    pub fn pay_amount(&self, invoice: &Bolt11Invoice, amount_msat: u64) -> Result<PaymentHash, NodeError> {
        if let AnyKeys::Remote(keys) = &*self.inner.keys {
            approved(keys.preapprove_amount(invoice, amount_msat))?;
        }
        self.send(invoice, Some(amount_msat))
    }

    /// Has the signer approve an invoice, for now or for later.
    pub fn approve(&self, invoice: &Bolt11Invoice) -> Result<(), NodeError> {
        match &*self.inner.keys {
            AnyKeys::Remote(keys) => approved(keys.preapprove_invoice(invoice)),
            AnyKeys::Local(_) => Ok(()),
        }
    }

    fn send(&self, invoice: &Bolt11Invoice, amount_msat: Option<u64>) -> Result<PaymentHash, NodeError> {
        let hash = self.begin(payment_hash(invoice));
        let limits = RouteParametersConfig::default();
        self.inner
            .channels
            .pay_for_bolt11_invoice(invoice, PaymentId(hash.0), amount_msat, limits, Retry::Attempts(5))
            .map_err(|e| NodeError::Ldk(format!("{e:?}")))?;
        Ok(hash)
    }

    /// How an earlier attempt at a payment ended is not how this one does.
    fn begin(&self, hash: PaymentHash) -> PaymentHash {
        self.inner.store.history().payments.retain(|known, payment| *known != hash || *payment != Payment::Failed);
        hash
    }

    /// Pays without an invoice, after asking the signer.
    pub fn keysend(&self, payee: PublicKey, amount_msat: u64) -> Result<PaymentHash, NodeError> {
        let preimage = PaymentPreimage(self.inner.keys.get_secure_random_bytes());
        let hash = PaymentHash::from(preimage);
        if let AnyKeys::Remote(keys) = &*self.inner.keys {
            approved(keys.preapprove_keysend(&payee, hash, amount_msat))?;
        }
        let payment = PaymentParameters::for_keysend(payee, 40, false);
        let route = RouteParameters::from_payment_params_and_value(payment, amount_msat);
        let onion = RecipientOnionFields::spontaneous_empty();
        self.inner
            .channels
            .send_spontaneous_payment(Some(preimage), onion, PaymentId(hash.0), route, Retry::Attempts(5))
            .map_err(|e| NodeError::Ldk(format!("{e:?}")))
    }

    /// A BOLT 12 offer over `amount_msat`.
    pub fn offer(&self, amount_msat: u64) -> Result<Offer, NodeError> {
        let builder = self.inner.channels.create_offer_builder().map_err(|e| NodeError::Ldk(format!("{e:?}")))?;
        builder.amount_msats(amount_msat).build().map_err(|e| NodeError::Ldk(format!("{e:?}")))
    }

    /// Asks for an invoice for `offer` and pays it, after asking the signer.
    pub fn pay_offer(&self, offer: &Offer) -> Result<(), NodeError> {
        let id = PaymentId(self.inner.keys.get_secure_random_bytes());
        self.inner
            .channels
            .pay_for_offer(offer, None, id, Default::default())
            .map_err(|e| NodeError::Ldk(format!("{e:?}")))
    }

    /// Whether incoming payments wait for [`claim`](Self::claim) or [`reject`](Self::reject).
    pub fn hold_payments(&self, hold: bool) {
        self.inner.holding.store(hold, Ordering::SeqCst);
    }

    /// Incoming payments that wait.
    pub fn held(&self) -> Vec<PaymentHash> {
        let hash = |name: &String| Some(PaymentHash(parse_hex(name)?));
        self.inner.store.names(HELD).iter().filter_map(hash).collect()
    }

    /// Takes an incoming payment that waits.
    pub fn claim(&self, hash: &PaymentHash) {
        let preimage = self.inner.store.take(&held_name(hash)).and_then(|bytes| bytes.try_into().ok());
        if let Some(preimage) = preimage {
            self.inner.channels.claim_funds(PaymentPreimage(preimage));
        }
    }

    /// Returns an incoming payment that waits.
    pub fn reject(&self, hash: &PaymentHash) {
        if self.inner.store.take(&held_name(hash)).is_some() {
            self.inner.channels.fail_htlc_backwards(hash);
        }
    }

    /// What happened so far, over all starts of the node.
    pub fn history(&self) -> History {
        self.inner.store.history().clone()
    }

    /// How an outgoing payment ended, if it did.
    pub fn payment(&self, hash: &PaymentHash) -> Option<Payment> {
        self.inner.store.history().payments.get(hash).cloned()
    }

    /// Where to send coins to.
    pub fn script(&self) -> ScriptBuf {
        self.inner.wallet.script()
    }

    /// All that [`script`](Self::script) may ever answer.
    pub fn scripts(&self) -> Vec<ScriptBuf> {
        self.inner.wallet.scripts()
    }

    /// Confirmed coins that no transaction on its way spends.
    pub fn balance(&self) -> Amount {
        self.inner.wallet.balance(|coin| self.inner.chain.is_in_flight(coin))
    }

    /// What channels still owe us, or owe us on the chain.
    pub fn claimable(&self) -> Vec<Balance> {
        self.inner.chain_monitor.get_claimable_balances(&[])
    }

    /// The height this node has seen, and done everything about: its claims and sweeps are signed and broadcast, unless
    /// its signer was away or not willing yet.
    pub fn height(&self) -> u32 {
        self.inner.settled.load(Ordering::SeqCst)
    }

    /// Sets the feerate the node estimates, in sat per 1000 weight, and lets it tell its peers.
    pub fn set_feerate(&self, sat_per_1000_weight: u32) {
        self.inner.fees.set(sat_per_1000_weight);
        self.inner.channels.timer_tick_occurred();
    }

    /// Lets a minute of LDK's pass: parts of payments that wait for others in vain go back, a silent peer is hung up on.
    pub fn tick(&self) {
        self.inner.channels.timer_tick_occurred();
    }

    /// The last lines of the node's log.
    pub fn log(&self, lines: usize) -> Vec<String> {
        self.inner.log.tail(lines)
    }

    /// The commitment that is valid now, signed, to be broadcast after it was revoked: what a cheater keeps. Only a node
    /// that holds its own keys can do this.
    pub fn keep_commitment(&self, channel: &ChannelId) -> Option<Vec<Transaction>> {
        match &*self.inner.keys {
            AnyKeys::Local(_) => {
                let monitor = self.inner.chain_monitor.get_monitor(*channel).ok()?;
                Some(monitor.unsafe_get_latest_holder_commitment_txn(&self.inner.log))
            }
            AnyKeys::Remote(_) => None,
        }
    }

    /// Stops the node and returns what it can be started from again.
    pub fn stop(mut self) -> Arc<Store> {
        self.inner.stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.resumer = None;
        self.inner.peers.disconnect_all_peers();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(LAST_MESSAGES);
        }
        // Last: monitors that are ahead of the channel manager make LDK close their channels at the next start.
        self.inner.keep();
        self.inner.store.clone()
    }
}

impl Drop for LdkNode {
    /// Waits for nothing: the signer may be gone already, and LDK holds its locks for minutes while it waits for it.
    fn drop(&mut self) {
        self.inner.stopped.store(true, Ordering::SeqCst);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let (peers, resumer) = (self.inner.peers.clone(), self.resumer.take());
        std::thread::spawn(move || {
            peers.disconnect_all_peers();
            drop(resumer);
        });
    }
}

/// The payment hash of an invoice, as LDK writes it.
pub fn payment_hash(invoice: &Bolt11Invoice) -> PaymentHash {
    PaymentHash(*AsRef::<[u8; 32]>::as_ref(invoice.payment_hash()))
}

/// Prefix of the names of incoming payments that wait.
const HELD: &str = "held-";

fn held_name(hash: &PaymentHash) -> String {
    format!("{HELD}{hash}")
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    hex::decode(text).ok()?.try_into().ok()
}

fn approved(answer: Result<bool, LinkError>) -> Result<(), NodeError> {
    if answer? { Ok(()) } else { Err(NodeError::NotApproved) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl History {
    /// What payments brought, less what they cost. What others' payments brought to a node in between is not in it: see
    /// [`forwarding_fees_msat`](Self::forwarding_fees_msat).
    pub fn net_msat(&self) -> i64 {
        let spent = self.payments.values().map(|payment| match payment {
            Payment::Sent { amount_msat, fee_msat } => amount_msat + fee_msat,
            Payment::Failed => 0,
        });
        self.received.values().sum::<u64>() as i64 - spent.sum::<u64>() as i64
    }

    fn note(&mut self, event: &Event) {
        match event {
            // LDK knows both for payments that it began in this version.
            Event::PaymentSent { payment_hash, amount_msat, fee_paid_msat, .. } => {
                let (amount_msat, fee_msat) = (amount_msat.unwrap_or(0), fee_paid_msat.unwrap_or(0));
                self.payments.insert(*payment_hash, Payment::Sent { amount_msat, fee_msat });
            }
            Event::PaymentFailed { payment_hash: Some(hash), .. } => {
                self.payments.insert(*hash, Payment::Failed);
            }
            Event::PaymentClaimed { payment_hash, amount_msat, .. } => {
                self.received.insert(*payment_hash, *amount_msat);
            }
            Event::PaymentForwarded { total_fee_earned_msat, .. } => {
                self.forwarded += 1;
                self.forwarding_fees_msat += total_fee_earned_msat.unwrap_or(FORWARDING_FEE_MSAT);
            }
            Event::ChannelReady { channel_id, .. } => {
                self.ready.insert(*channel_id);
            }
            Event::ChannelClosed { channel_id, reason, .. } => {
                self.closed.insert(*channel_id, reason.clone());
            }
            _ => {}
        }
    }
}
