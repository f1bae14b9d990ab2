//! One channel's signer: `ChannelSigner` and `EcdsaChannelSigner` in hsmd messages.

mod opening;
mod preimages;
mod sign;
mod sweep;
mod wire;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bitcoin::Txid;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use lightning::ln::chan_utils::{ChannelPublicKeys, HolderCommitmentTransaction};
use lightning::sign::ChannelSigner;
use lightning::types::payment::PaymentPreimage;
use vls_protocol::model::{DisclosedSecret, PubKey};
use vls_protocol::msgs::{
    GetChannelBasepoints, GetChannelBasepointsReply, GetPerCommitmentPoint2, GetPerCommitmentPoint2Reply, NewChannel,
    NewChannelReply, RevokeCommitmentTx, RevokeCommitmentTxReply, SerBolt, SignTxReply, ValidateCommitmentTxReply,
    ValidateRevocation, ValidateRevocationReply,
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
    /// `None` inside: the signer did not name them when LDK asked.
    pubkeys: OnceLock<Option<ChannelPublicKeys>>,
    opening: Mutex<opening::Opening>,
    told: preimages::Told,
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
            told: preimages::Told::default(),
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

    /// One attempt at the signature for one input of a transaction. `channel` is absent where `request` names it itself.
    fn sign(&self, channel: Option<ChannelRef>, request: &impl SerBolt) -> Result<Signature, ()> {
        let reply: SignTxReply = self.caller.call(channel, request).map_err(|_| ())?;
        wire::signature(&reply.signature.signature)
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
        if matches!(self.pubkeys.get(), Some(None)) {
            return Err(());
        }
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
        outbound_htlc_preimages: Vec<PaymentPreimage>,
    ) -> Result<(), ()> {
        self.tell_preimages(outbound_htlc_preimages.into_iter(), true)?;
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

    /// LDK gives this method no way to fail. If the signer refuses, or stays away for longer than the node's patience,
    /// LDK gets keys that nobody holds, and then no per-commitment point, without which it neither opens the channel nor
    /// accepts it.
    fn pubkeys(&self, _: &Secp256k1<All>) -> ChannelPublicKeys {
        let fetch = || {
            let failed =
                |error: LinkError| tracing::error!(channel = self.channel.dbid, %error, "a channel has no keys");
            self.fetch_pubkeys().map_err(failed).ok()
        };
        self.pubkeys.get_or_init(fetch).clone().unwrap_or_else(wire::keys_of_nobody)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use bitcoin::Network;
    use bitcoin::bip32::{Xpriv, Xpub};
    use vls_protocol::model::Basepoints;
    use vls_protocol::msgs::DeBolt;

    use super::*;
    use crate::transport::{Refusal, Transport};

    /// Answers what a new channel is opened with, unless it refuses.
    #[derive(Default)]
    struct Signer {
        refuses: AtomicBool,
    }

    impl Transport for Signer {
        fn call(&self, _: Option<ChannelRef>, message: Vec<u8>) -> Result<Vec<u8>, LinkError> {
            if self.refuses.load(Ordering::SeqCst) {
                let refusal = Refusal { request: "alice-1".to_owned(), reasons: Vec::new(), retry: false };
                return Err(LinkError::Refused(refusal));
            }
            let key = PubKey(wire::keys_of_nobody().funding_pubkey.serialize());
            let point = |at: u8| PubKey(PublicKey::from_secret_key(&Secp256k1::new(), &secret(at)).serialize());
            Ok(match u16::from_be_bytes([message[0], message[1]]) {
                NewChannel::TYPE => NewChannelReply {}.as_vec(),
                GetPerCommitmentPoint2::TYPE => GetPerCommitmentPoint2Reply { point: key }.as_vec(),
                GetChannelBasepoints::TYPE => {
                    let basepoints = Basepoints {
                        revocation: point(2),
                        payment: point(3),
                        htlc: point(4),
                        delayed_payment: point(5),
                    };
                    GetChannelBasepointsReply { basepoints, funding: point(1) }.as_vec()
                }
                other => panic!("message {other}"),
            })
        }
    }

    fn secret(at: u8) -> SecretKey {
        SecretKey::from_slice(&[at; 32]).unwrap()
    }

    fn channel(signer: &Arc<Signer>) -> ClavigerSigner {
        let caller = Arc::new(Caller::new(signer.clone(), Duration::ZERO));
        let account = Xpub::from_priv(&Secp256k1::new(), &Xpriv::new_master(Network::Regtest, &[1; 32]).unwrap());
        let wallet = Arc::new(Wallet::new(caller.clone(), account));
        let unannounced = Arc::new(Unannounced::default());
        unannounced.insert(7);
        ClavigerSigner::new(caller, wallet, unannounced, ChannelRef { peer_id: [2; 33], dbid: 7 }, [0; 32])
    }

    #[test]
    fn a_channel_is_opened_with_the_signers_keys_or_not_at_all() {
        let (signer, secp) = (Arc::<Signer>::default(), Secp256k1::new());
        let honest = channel(&signer);
        assert_eq!(honest.pubkeys(&secp).funding_pubkey, PublicKey::from_secret_key(&secp, &secret(1)));
        assert!(honest.get_per_commitment_point(FIRST, &secp).is_ok());

        signer.refuses.store(true, Ordering::SeqCst);
        let nameless = channel(&signer);
        assert_eq!(nameless.pubkeys(&secp), wire::keys_of_nobody());
        // LDK keeps these keys: the signer's return must not let the channel go on with them.
        signer.refuses.store(false, Ordering::SeqCst);
        assert_eq!(nameless.get_per_commitment_point(FIRST, &secp), Err(()));
    }

    /// LDK's number of the first commitment.
    const FIRST: u64 = (1 << 48) - 1;
}
