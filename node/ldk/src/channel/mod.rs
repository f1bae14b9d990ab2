//! One channel's signer: `ChannelSigner` and `EcdsaChannelSigner` in hsmd messages.

mod opening;
mod sign;
mod sweep;
mod wire;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bitcoin::Txid;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use lightning::ln::chan_utils::{ChannelPublicKeys, HolderCommitmentTransaction};
use lightning::sign::ChannelSigner;
use lightning::types::payment::PaymentPreimage;
use vls_protocol::model::{DisclosedSecret, PubKey};
use vls_protocol::msgs::{
    GetChannelBasepoints, GetChannelBasepointsReply, GetPerCommitmentPoint2, GetPerCommitmentPoint2Reply, NewChannel,
    NewChannelReply, RevokeCommitmentTx, RevokeCommitmentTxReply, ValidateCommitmentTxReply, ValidateRevocation,
    ValidateRevocationReply,
};

use crate::call::Caller;
use crate::transport::{ChannelRef, LinkError};
use crate::wallet::Wallet;

/// Signs for one channel. Made by [`ClavigerKeys`](crate::ClavigerKeys); holds no secret.
///
/// Commitment numbers go over the wire as BOLT 3 counts them, upwards from 0.
pub struct ClavigerSigner {
    caller: Arc<Caller>,
    wallet: Arc<Wallet>,
    unannounced: Arc<Unannounced>,
    channel: ChannelRef,
    channel_keys_id: [u8; 32],
    pubkeys: OnceLock<ChannelPublicKeys>,
    opening: Mutex<opening::Opening>,
}

/// Channels numbered by this process that the signer has not heard of.
#[derive(Default)]
pub(crate) struct Unannounced(Mutex<HashSet<u64>>);

impl Unannounced {
    pub(crate) fn insert(&self, dbid: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(dbid);
    }

    fn contains(&self, dbid: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&dbid)
    }

    fn remove(&self, dbid: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&dbid);
    }
}

impl ClavigerSigner {
    pub(crate) fn new(
        caller: Arc<Caller>,
        wallet: Arc<Wallet>,
        unannounced: Arc<Unannounced>,
        channel: ChannelRef,
        channel_keys_id: [u8; 32],
    ) -> Self {
        Self {
            caller,
            wallet,
            unannounced,
            channel,
            channel_keys_id,
            pubkeys: OnceLock::new(),
            opening: Mutex::default(),
        }
    }

    fn fetch_pubkeys(&self) -> Result<ChannelPublicKeys, LinkError> {
        if self.unannounced.contains(self.channel.dbid) {
            self.announce()?;
        }
        let ChannelRef { peer_id, dbid } = self.channel;
        let request = GetChannelBasepoints { node_id: PubKey(peer_id), dbid };
        let reply: GetChannelBasepointsReply = match self.caller.call_patiently(None, &request) {
            // The process that numbered the channel died before it told the signer.
            Err(LinkError::Refused(_)) => {
                self.announce()?;
                self.caller.call_patiently(None, &request)?
            }
            reply => reply?,
        };
        wire::channel_public_keys(&reply)
    }

    fn announce(&self) -> Result<(), LinkError> {
        let ChannelRef { peer_id, dbid } = self.channel;
        let request = NewChannel { peer_id: PubKey(peer_id), dbid };
        let _: NewChannelReply = self.caller.call_patiently(None, &request)?;
        self.unannounced.remove(dbid);
        Ok(())
    }

    fn per_commitment_point(&self, commitment_number: u64) -> Result<PublicKey, LinkError> {
        let request = GetPerCommitmentPoint2 { commitment_number };
        let reply: GetPerCommitmentPoint2Reply = self.caller.call_patiently(Some(self.channel), &request)?;
        wire::public_key(&reply.point)
    }
}

impl ChannelSigner for ClavigerSigner {
    /// Waits for a signer that is away: LDK panics if this fails while it restores a channel or reestablishes one.
    fn get_per_commitment_point(&self, idx: u64, _: &Secp256k1<All>) -> Result<PublicKey, ()> {
        self.per_commitment_point(wire::commitment_number(idx)).map_err(|_| ())
    }

    /// An explicit `RevokeCommitmentTx`: validating a commitment releases nothing.
    fn release_commitment_secret(&self, idx: u64) -> Result<[u8; 32], ()> {
        let request = RevokeCommitmentTx { commitment_number: wire::commitment_number(idx) };
        let reply: RevokeCommitmentTxReply = self.caller.call(Some(self.channel), &request).map_err(|_| ())?;
        Ok(reply.old_commitment_secret.0)
    }

    /// Waits for a signer that is away: LDK closes the channel if this fails.
    fn validate_holder_commitment(
        &self,
        holder_tx: &HolderCommitmentTransaction,
        _outbound_htlc_preimages: Vec<PaymentPreimage>,
    ) -> Result<(), ()> {
        let request = wire::validate_commitment(holder_tx);
        if request.commitment_number == 0 {
            return self.validate_first_commitment(request);
        }
        self.caller.call_patiently(Some(self.channel), &request).map(|_: ValidateCommitmentTxReply| ()).map_err(|_| ())
    }

    /// Waits for a signer that is away: LDK closes the channel if this fails.
    fn validate_counterparty_revocation(&self, idx: u64, secret: &SecretKey) -> Result<(), ()> {
        let request = ValidateRevocation {
            commitment_number: wire::commitment_number(idx),
            commitment_secret: DisclosedSecret(secret.secret_bytes()),
        };
        self.caller.call_patiently(Some(self.channel), &request).map(|_: ValidateRevocationReply| ()).map_err(|_| ())
    }

    /// # Panics
    /// If the signer refuses to name the keys of the channel, or stays away for longer than the node's patience: LDK
    /// gives this method no way to fail, and a channel must not be opened with keys that nobody holds.
    fn pubkeys(&self, _: &Secp256k1<All>) -> ChannelPublicKeys {
        self.pubkeys
            .get_or_init(|| match self.fetch_pubkeys() {
                Ok(keys) => keys,
                Err(error) => panic!("the signer does not give the keys of channel {}: {error}", self.channel.dbid),
            })
            .clone()
    }

    /// The signer does not splice. The funding key serves as a placeholder in a negotiation that ends there: every
    /// later request for the spliced channel is refused before it reaches the signer.
    fn new_funding_pubkey(&self, _splice_parent_funding_txid: Txid, secp_ctx: &Secp256k1<All>) -> PublicKey {
        self.pubkeys(secp_ctx).funding_pubkey
    }

    fn channel_keys_id(&self) -> [u8; 32] {
        self.channel_keys_id
    }
}
