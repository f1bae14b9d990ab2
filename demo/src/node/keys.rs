//! A node's keys: its own, or a signer's. One type for both, so that LDK's machinery is compiled once.

use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::ecdsa::{RecoverableSignature, Signature};
use bitcoin::secp256k1::{All, PublicKey, Scalar, Secp256k1, SecretKey, schnorr};
use bitcoin::{ScriptBuf, Transaction, TxOut, Txid};
use claviger_ldk::{ClavigerKeys, ClavigerSigner};
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, ClosingTransaction, CommitmentTransaction, HTLCOutputInCommitment,
    HolderCommitmentTransaction,
};
use lightning::ln::inbound_payment::ExpandedKey;
use lightning::ln::msgs::{UnsignedChannelAnnouncement, UnsignedGossipMessage};
use lightning::ln::script::ShutdownScript;
use lightning::offers::invoice::UnsignedBolt12Invoice;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{
    ChannelSigner, EntropySource, HTLCDescriptor, InMemorySigner, KeysManager, NodeSigner, OutputSpender,
    PeerStorageKey, ReceiveAuthKey, Recipient, SignerProvider, SpendableOutputDescriptor,
};
use lightning::types::payment::PaymentPreimage;
use lightning_invoice::RawBolt11Invoice;
use std::sync::Arc;

/// Where a node's keys are.
pub enum AnyKeys {
    /// In the node.
    Local(Box<KeysManager>),
    /// In a signer.
    Remote(Arc<ClavigerKeys>),
}

/// One channel's signer.
pub enum AnySigner {
    /// With the channel's keys.
    Local(Box<InMemorySigner>),
    /// Without.
    Remote(Box<ClavigerSigner>),
}

/// Calls the same method on whichever it is.
macro_rules! delegate {
    ($( fn $name:ident(&self $(, $arg:ident: $ty:ty)*) -> $ret:ty; )*) => {
        $( fn $name(&self $(, $arg: $ty)*) -> $ret {
            match self { Self::Local(inner) => inner.$name($($arg),*), Self::Remote(inner) => inner.$name($($arg),*) }
        } )*
    };
}

impl EntropySource for AnyKeys {
    delegate! { fn get_secure_random_bytes(&self) -> [u8; 32]; }
}

impl NodeSigner for AnyKeys {
    delegate! {
        fn get_expanded_key(&self) -> ExpandedKey;
        fn get_peer_storage_key(&self) -> PeerStorageKey;
        fn get_receive_auth_key(&self) -> ReceiveAuthKey;
        fn get_node_id(&self, recipient: Recipient) -> Result<PublicKey, ()>;
        fn ecdh(&self, recipient: Recipient, key: &PublicKey, tweak: Option<&Scalar>) -> Result<SharedSecret, ()>;
        fn sign_invoice(&self, invoice: &RawBolt11Invoice, recipient: Recipient) -> Result<RecoverableSignature, ()>;
        fn sign_bolt12_invoice(&self, invoice: &UnsignedBolt12Invoice) -> Result<schnorr::Signature, ()>;
        fn sign_gossip_message(&self, message: UnsignedGossipMessage) -> Result<Signature, ()>;
        fn sign_message(&self, message: &[u8]) -> Result<String, ()>;
    }
}

impl OutputSpender for AnyKeys {
    delegate! {
        fn spend_spendable_outputs(&self, descriptors: &[&SpendableOutputDescriptor], outputs: Vec<TxOut>,
            change: ScriptBuf, feerate: u32, locktime: Option<LockTime>, secp: &Secp256k1<All>)
            -> Result<Transaction, ()>;
    }
}

impl SignerProvider for AnyKeys {
    type EcdsaSigner = AnySigner;

    delegate! {
        fn generate_channel_keys_id(&self, inbound: bool, user_channel_id: u128) -> [u8; 32];
        fn get_destination_script(&self, channel_keys_id: [u8; 32]) -> Result<ScriptBuf, ()>;
        fn get_shutdown_scriptpubkey(&self) -> Result<ShutdownScript, ()>;
    }

    fn derive_channel_signer(&self, channel_keys_id: [u8; 32]) -> AnySigner {
        match self {
            Self::Local(keys) => AnySigner::Local(Box::new(keys.derive_channel_signer(channel_keys_id))),
            Self::Remote(keys) => AnySigner::Remote(Box::new(keys.derive_channel_signer(channel_keys_id))),
        }
    }
}

impl ChannelSigner for AnySigner {
    delegate! {
        fn get_per_commitment_point(&self, idx: u64, secp: &Secp256k1<All>) -> Result<PublicKey, ()>;
        fn release_commitment_secret(&self, idx: u64) -> Result<[u8; 32], ()>;
        fn validate_holder_commitment(&self, tx: &HolderCommitmentTransaction, preimages: Vec<PaymentPreimage>)
            -> Result<(), ()>;
        fn validate_counterparty_revocation(&self, idx: u64, secret: &SecretKey) -> Result<(), ()>;
        fn pubkeys(&self, secp: &Secp256k1<All>) -> ChannelPublicKeys;
        fn new_funding_pubkey(&self, parent: Txid, secp: &Secp256k1<All>) -> PublicKey;
        fn channel_keys_id(&self) -> [u8; 32];
    }
}

impl EcdsaChannelSigner for AnySigner {
    delegate! {
        fn sign_counterparty_commitment(&self, parameters: &ChannelTransactionParameters, tx: &CommitmentTransaction,
            inbound: Vec<PaymentPreimage>, outbound: Vec<PaymentPreimage>, secp: &Secp256k1<All>)
            -> Result<(Signature, Vec<Signature>), ()>;
        fn sign_holder_commitment(&self, parameters: &ChannelTransactionParameters, tx: &HolderCommitmentTransaction,
            secp: &Secp256k1<All>) -> Result<Signature, ()>;
        fn unsafe_sign_holder_commitment(&self, parameters: &ChannelTransactionParameters,
            tx: &HolderCommitmentTransaction, secp: &Secp256k1<All>) -> Result<Signature, ()>;
        fn sign_justice_revoked_output(&self, parameters: &ChannelTransactionParameters, tx: &Transaction,
            input: usize, amount: u64, key: &SecretKey, secp: &Secp256k1<All>) -> Result<Signature, ()>;
        fn sign_justice_revoked_htlc(&self, parameters: &ChannelTransactionParameters, tx: &Transaction, input: usize,
            amount: u64, key: &SecretKey, htlc: &HTLCOutputInCommitment, secp: &Secp256k1<All>)
            -> Result<Signature, ()>;
        fn sign_holder_htlc_transaction(&self, tx: &Transaction, input: usize, descriptor: &HTLCDescriptor,
            secp: &Secp256k1<All>) -> Result<Signature, ()>;
        fn sign_counterparty_htlc_transaction(&self, parameters: &ChannelTransactionParameters, tx: &Transaction,
            input: usize, amount: u64, point: &PublicKey, htlc: &HTLCOutputInCommitment, secp: &Secp256k1<All>)
            -> Result<Signature, ()>;
        fn sign_closing_transaction(&self, parameters: &ChannelTransactionParameters, tx: &ClosingTransaction,
            secp: &Secp256k1<All>) -> Result<Signature, ()>;
        fn sign_holder_keyed_anchor_input(&self, parameters: &ChannelTransactionParameters, tx: &Transaction,
            input: usize, secp: &Secp256k1<All>) -> Result<Signature, ()>;
        fn sign_channel_announcement_with_funding_key(&self, parameters: &ChannelTransactionParameters,
            message: &UnsignedChannelAnnouncement, secp: &Secp256k1<All>) -> Result<Signature, ()>;
        fn sign_splice_shared_input(&self, parameters: &ChannelTransactionParameters, tx: &Transaction, input: usize,
            secp: &Secp256k1<All>) -> Signature;
    }
}
