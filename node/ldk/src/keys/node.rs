//! `NodeSigner` and `EntropySource`: what the node signs and decrypts under its own name.

use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::ecdsa::{RecoverableSignature, RecoveryId, Signature};
use bitcoin::secp256k1::{PublicKey, Scalar, Secp256k1, schnorr};
use lightning::ln::inbound_payment::ExpandedKey;
use lightning::ln::msgs::UnsignedGossipMessage;
use lightning::offers::invoice::UnsignedBolt12Invoice;
use lightning::sign::{EntropySource, NodeSigner, PeerStorageKey, ReceiveAuthKey, Recipient};
use lightning::util::ser::Writeable;
use lightning_invoice::RawBolt11Invoice;
use vls_protocol::model::PubKey;
use vls_protocol::msgs::{
    Ecdh, EcdhReply, SignBolt12Invoice, SignBolt12InvoiceReply, SignChannelUpdate, SignChannelUpdateReply,
    SignGossipMessage, SignGossipMessageReply, SignInvoice, SignInvoiceReply, SignMessage, SignMessageReply,
    SignNodeAnnouncement, SignNodeAnnouncementReply,
};

use super::{ClavigerKeys, zbase32};

/// BOLT 7 message types; the signer expects the message as it goes over the wire, its signatures still zero.
const NODE_ANNOUNCEMENT: u16 = 257;
const CHANNEL_UPDATE: u16 = 258;
/// Message type and one signature.
const SIGNED_BODY: usize = 2 + 64;

impl EntropySource for ClavigerKeys {
    /// From the operating system of the node. What is drawn here protects the node, not the signer's keys: the signer
    /// makes its own nonces and secrets (P10).
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    #[allow(clippy::expect_used)] // the trait is infallible, and a predictable value would be worse than stopping
    fn get_secure_random_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the operating system provides random bytes");
        bytes
    }
}

impl NodeSigner for ClavigerKeys {
    fn get_expanded_key(&self) -> ExpandedKey {
        self.inbound_payment_key
    }

    fn get_peer_storage_key(&self) -> PeerStorageKey {
        self.peer_storage_key
    }

    /// Derived from the inbound payment key, so it is the same after every restart.
    fn get_receive_auth_key(&self) -> ReceiveAuthKey {
        self.receive_auth_key
    }

    fn get_node_id(&self, recipient: Recipient) -> Result<PublicKey, ()> {
        this_node(recipient).map(|()| self.node_id)
    }

    /// Waits for a signer that is away: LDK panics if this fails while it forwards an HTLC.
    ///
    /// The tweak is applied to the point: `tweak · (secret · point) = secret · (tweak · point)`.
    fn ecdh(&self, recipient: Recipient, other_key: &PublicKey, tweak: Option<&Scalar>) -> Result<SharedSecret, ()> {
        this_node(recipient)?;
        let point = match tweak {
            Some(tweak) => other_key.mul_tweak(&Secp256k1::verification_only(), tweak).map_err(|_| ())?,
            None => *other_key,
        };
        let request = Ecdh { point: PubKey(point.serialize()) };
        let reply: EcdhReply = self.caller.call_patiently(None, &request).map_err(|_| ())?;
        Ok(SharedSecret::from_bytes(reply.secret.0))
    }

    fn sign_invoice(&self, invoice: &RawBolt11Invoice, recipient: Recipient) -> Result<RecoverableSignature, ()> {
        this_node(recipient)?;
        let (hrp, data) = invoice.to_raw();
        let u5bytes: Vec<u8> = data.iter().map(|digit| digit.to_u8()).collect();
        let request = SignInvoice { u5bytes: u5bytes.into(), hrp: hrp.into_bytes().into() };
        let reply: SignInvoiceReply = self.caller.call_patiently(None, &request).map_err(|_| ())?;
        let (signature, recovery_id) = reply.signature.0.split_at(64);
        let recovery_id = RecoveryId::from_i32(i32::from(recovery_id[0])).map_err(|_| ())?;
        RecoverableSignature::from_compact(signature, recovery_id).map_err(|_| ())
    }

    /// The signer gets the whole invoice, not its hash (P2).
    fn sign_bolt12_invoice(&self, invoice: &UnsignedBolt12Invoice) -> Result<schnorr::Signature, ()> {
        let request = SignBolt12Invoice { invoice_bytes: invoice.encode().into() };
        let reply: SignBolt12InvoiceReply = self.caller.call_patiently(None, &request).map_err(|_| ())?;
        schnorr::Signature::from_slice(&reply.signature.0).map_err(|_| ())
    }

    /// Waits for a signer that is away: LDK panics if a channel update cannot be signed.
    fn sign_gossip_message(&self, message: UnsignedGossipMessage) -> Result<Signature, ()> {
        let caller = &self.caller;
        let signature = match message {
            UnsignedGossipMessage::NodeAnnouncement(announcement) => {
                let request =
                    SignNodeAnnouncement { announcement: unsigned(NODE_ANNOUNCEMENT, &announcement.encode()).into() };
                caller.call_patiently(None, &request).map(|reply: SignNodeAnnouncementReply| reply.signature.0)
            }
            UnsignedGossipMessage::ChannelUpdate(update) => {
                let request = SignChannelUpdate { update: unsigned(CHANNEL_UPDATE, &update.encode()).into() };
                let reply: SignChannelUpdateReply = caller.call_patiently(None, &request).map_err(|_| ())?;
                let signature = reply.update.get(2..SIGNED_BODY).ok_or(())?;
                Ok(signature.try_into().map_err(|_| ())?)
            }
            UnsignedGossipMessage::ChannelAnnouncement(announcement) => {
                let request = SignGossipMessage { message: announcement.encode().into() };
                caller.call_patiently(None, &request).map(|reply: SignGossipMessageReply| reply.signature.0)
            }
        };
        Signature::from_compact(&signature.map_err(|_| ())?).map_err(|_| ())
    }

    fn sign_message(&self, message: &[u8]) -> Result<String, ()> {
        let request = SignMessage { message: message.to_vec().into() };
        let reply: SignMessageReply = self.caller.call_patiently(None, &request).map_err(|_| ())?;
        // The signer puts the recovery id last, the text form puts it first, offset by 31.
        let (signature, recovery_id) = reply.signature.0.split_at(64);
        let mut signed = vec![31 + (recovery_id[0] & 3)];
        signed.extend_from_slice(signature);
        Ok(zbase32::encode(&signed))
    }
}

/// Phantom nodes share one key between nodes; the signer keeps each node's key to itself.
fn this_node(recipient: Recipient) -> Result<(), ()> {
    match recipient {
        Recipient::Node => Ok(()),
        Recipient::PhantomNode => Err(()),
    }
}

/// A gossip message before it is signed.
fn unsigned(message_type: u16, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0; SIGNED_BODY];
    message[..2].copy_from_slice(&message_type.to_be_bytes());
    message.extend_from_slice(body);
    message
}
