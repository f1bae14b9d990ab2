//! What LDK calls the keys manager: the node's side of the signer.

mod ids;
mod node;
mod payments;
mod provider;
mod zbase32;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::bip32::Xpub;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::PublicKey;
use lightning::ln::inbound_payment::ExpandedKey;
use lightning::sign::{PeerStorageKey, ReceiveAuthKey};
use vls_protocol::msgs::{ForgetChannel, ForgetChannelReply, HsmdInit2, HsmdInit2Reply};
use vls_protocol::serde_bolt::{Array, WireString};

use crate::call::Caller;
use crate::channel::Unannounced;
use crate::resume::Resumer;
use crate::transport::{ChannelRef, LinkError, Transport};
use crate::wallet::Wallet;

/// The signer derives like Core Lightning's `hsm_secret` (vls `KeyDerivationStyle::Native`).
const NATIVE_DERIVATION: u8 = 1;

/// How to use a signer.
#[derive(Clone, Debug)]
pub struct Options {
    /// Must be the signer's network.
    pub network: Network,
    /// How long a method that must not fail waits for a signer that is away. Meanwhile LDK holds its locks and the node
    /// stands still; afterwards LDK closes the channel or panics. Ten minutes outlast the restart of an appliance;
    /// `Duration::MAX` is for ever.
    pub patience: Duration,
}

impl Options {
    /// For `network`, with ten minutes of patience.
    pub fn new(network: Network) -> Self {
        Self { network, patience: Duration::from_secs(600) }
    }
}

/// Stands where a plain LDK node has its `KeysManager`; the keys are in the signer.
pub struct ClavigerKeys {
    caller: Arc<Caller>,
    node_id: PublicKey,
    inbound_payment_key: ExpandedKey,
    peer_storage_key: PeerStorageKey,
    receive_auth_key: ReceiveAuthKey,
    dbids: ids::Dbids,
    unannounced: Arc<Unannounced>,
    wallet: Arc<Wallet>,
}

impl fmt::Debug for ClavigerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClavigerKeys").field("node_id", &format_args!("{}", self.node_id)).finish_non_exhaustive()
    }
}

impl ClavigerKeys {
    /// Asks the signer who this node is. Waits for a signer that is away, up to [`Options::patience`].
    ///
    /// # Errors
    /// [`LinkError`]: the signer cannot be reached, refuses, or answers with keys that do not parse.
    pub fn connect(transport: Arc<dyn Transport>, options: Options) -> Result<Self, LinkError> {
        let caller = Arc::new(Caller::new(transport, options.patience));
        let hello = HsmdInit2 {
            derivation_style: NATIVE_DERIVATION,
            network_name: WireString(options.network.to_string().into_bytes()),
            dev_seed: None,
            dev_allowlist: Array::new(),
        };
        let reply: HsmdInit2Reply = caller.call_patiently(None, &hello)?;
        let node_id = PublicKey::from_slice(&reply.node_id.0)
            .map_err(|e| LinkError::Protocol(format!("the node id is no public key: {e}")))?;
        let account = Xpub::decode(&reply.bip32.0)
            .map_err(|e| LinkError::Protocol(format!("the account key is no extended public key: {e}")))?;
        Ok(Self {
            node_id,
            inbound_payment_key: ExpandedKey::new(reply.inbound_payment_key.0),
            peer_storage_key: PeerStorageKey { inner: reply.peer_storage_key.0 },
            receive_auth_key: ReceiveAuthKey(derive(&reply.inbound_payment_key.0, b"claviger receive auth key")),
            dbids: ids::Dbids::default(),
            unannounced: Arc::default(),
            wallet: Arc::new(Wallet::new(caller.clone(), account)),
            caller,
        })
    }

    /// The on-chain wallet whose keys the signer holds.
    pub fn wallet(&self) -> &Arc<Wallet> {
        &self.wallet
    }

    /// Calls `resume` from a thread of its own whenever the signer answers again after LDK was told "signer pending".
    /// Pass a closure that calls `ChannelManager::signer_unblocked(None)` and `ChainMonitor::signer_unblocked(None)`.
    pub fn resume_with(&self, resume: impl Fn() + Send + 'static) -> Resumer {
        Resumer::spawn(self.caller.clone(), resume)
    }

    /// Tells the signer that a channel is gone for good: closed, swept and buried, or never funded.
    ///
    /// # Errors
    /// [`LinkError`]: the signer cannot be reached, or does not know the channel.
    pub fn forget_channel(&self, channel_keys_id: &[u8; 32]) -> Result<(), LinkError> {
        let channel = self.channel_ref(channel_keys_id);
        let request = ForgetChannel { node_id: vls_protocol::model::PubKey(channel.peer_id), dbid: channel.dbid };
        self.caller.call::<ForgetChannelReply>(None, &request).map(|_| ())
    }

    pub(crate) fn channel_ref(&self, channel_keys_id: &[u8; 32]) -> ChannelRef {
        ChannelRef { peer_id: self.node_id.serialize(), dbid: ids::dbid(channel_keys_id) }
    }
}

/// A key for one purpose from a secret for another: HMAC-SHA256 keyed with the secret (P10).
fn derive(secret: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(secret);
    engine.input(purpose);
    Hmac::from_engine(engine).to_byte_array()
}
