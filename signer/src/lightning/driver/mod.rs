//! A whole channel on one machine: plays the node that asks the signer, and the peer at the other end.
//!
//! The peer's keys and signatures come from LDK's own signer, so that the signer meets the signatures it would meet in
//! the field. The bench and the tests drive channels with it.

mod chain;
mod messages;
mod script;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, ecdsa};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use lightning::chain::transaction::OutPoint as FundingOutpoint;
use lightning::ln::chan_utils::{
    self, ChannelPublicKeys, ChannelTransactionParameters, CommitmentTransaction,
    CounterpartyChannelTransactionParameters, HTLCOutputInCommitment,
};
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{ChannelSigner, InMemorySigner, KeysManager};
use lightning::types::features::ChannelTypeFeatures;
use lightning::types::payment::PaymentHash;
use lightning_signer::channel::CommitmentType;
use vls_protocol::model::{BitcoinSignature, Htlc, PubKey, Sha256, Signature};
use vls_protocol::msgs::{self, DeBolt, SerBolt};
use vls_protocol_signer::util::commitment_type_to_channel_type;

use crate::pipeline::{ChannelRef, Outcome};
use crate::reasons::Refusal;

pub use self::chain::MiniChain;
pub use self::messages::{invoice_to_pay, invoice_to_pay_within, invoice_to_sign, invoice_to_sign_within, keysend};
pub use self::script::{Asked, Script};

/// Asks the signer one message and waits for what it comes to.
pub type Ask<'a> = dyn FnMut(Option<ChannelRef>, Vec<u8>) -> Outcome + 'a;

/// Why the channel did not get on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// The signer refused.
    #[error("{message} was refused: {}: {}", .refusal.reason.id(), .refusal.detail)]
    Refused {
        /// What was asked.
        message: &'static str,
        /// Why not.
        refusal: Refusal,
    },
    /// The reply is not what the message is answered with.
    #[error("the reply to {message} cannot be read: {cause}")]
    Reply {
        /// What was asked.
        message: &'static str,
        /// The decoder's words.
        cause: String,
    },
    /// The peer's side failed.
    #[error("the peer could not {0}")]
    Peer(&'static str),
}

/// BOLT 3 counts commitments backwards from here.
const FIRST_COMMITMENT: u64 = (1 << 48) - 1;
const CHANNEL_SAT: u64 = 10_000_000;
const FEERATE_PER_KW: u32 = 1_000;
const ANCHORS_SAT: u64 = 660;
/// LDK's.
const DUST_LIMIT_SAT: u64 = 354;
const HTLC_SAT: u64 = 10_000;
const HTLC_EXPIRY: u32 = 500_000;
const CONTEST_DELAY: u16 = 144;

/// What a driver's channel holds after an advance; the peer has the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// The signer's output.
    pub to_us_sat: u64,
    /// HTLCs between the two.
    pub htlcs: Vec<DriverHtlc>,
}

/// An HTLC of a driver's channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverHtlc {
    /// Whether the signer's node offered it.
    pub is_ours: bool,
    /// What its preimage hashes to.
    pub payment_hash: [u8; 32],
    /// Its amount.
    pub amount_sat: u64,
    /// Its expiry.
    pub cltv_expiry: u32,
}

/// One channel, funded by the peer, with anchors (zero-fee HTLC transactions).
#[derive(Clone)]
pub struct Driver {
    channel: ChannelRef,
    secp: Secp256k1<All>,
    peer: InMemorySigner,
    /// As the peer sees the channel: the peer is the holder.
    parameters: ChannelTransactionParameters,
    funding: Transaction,
    /// Neither side shows HTLCs below this.
    dust_limit_sat: u64,
    /// The number of the commitments in force.
    number: u64,
    /// What they hold.
    holdings: Holdings,
    /// The signer's points for commitments `number` and `number + 1`.
    points: [PublicKey; 2],
}

impl Driver {
    /// Opens channel `dbid`: everything up to the funding transaction, which is confirmed by the caller.
    pub fn open(ask: &mut Ask<'_>, dbid: u64) -> Result<Self, DriverError> {
        Self::open_funded_by(ask, dbid, |script, amount| funding_transaction(script, amount, dbid))
    }

    /// The same with a funding transaction from `fund`, whose output 0 pays the amount to the script: for chains that
    /// know which coins exist.
    pub fn open_funded_by(
        ask: &mut Ask<'_>,
        dbid: u64,
        fund: impl FnOnce(&bitcoin::Script, Amount) -> Transaction,
    ) -> Result<Self, DriverError> {
        Self::open_with(ask, dbid, 0, |_| {}, fund)
    }

    /// The same where the peer gives `to_us_sat` away at once.
    pub fn open_pushed(ask: &mut Ask<'_>, dbid: u64, to_us_sat: u64) -> Result<Self, DriverError> {
        Self::open_with(ask, dbid, to_us_sat, |_| {}, |script, amount| funding_transaction(script, amount, dbid))
    }

    /// The same with a funding transaction from `fund`; `change` has the last word on SetupChannel.
    pub fn open_with(
        ask: &mut Ask<'_>,
        dbid: u64,
        to_us_sat: u64,
        change: impl FnOnce(&mut msgs::SetupChannel),
        fund: impl FnOnce(&bitcoin::Script, Amount) -> Transaction,
    ) -> Result<Self, DriverError> {
        let secp = Secp256k1::new();
        let mut keys_id = [0; 32];
        keys_id[..8].copy_from_slice(&dbid.to_be_bytes());
        let peer = KeysManager::new(&[0x42; 32], 0, 0, true).derive_channel_keys(&keys_id);
        let theirs = peer.pubkeys(&secp);
        let peer_id = theirs.funding_pubkey.serialize(); // any point does; this one is at hand
        let channel = ChannelRef { peer_id, dbid };

        call::<msgs::NewChannelReply>(ask, None, &msgs::NewChannel { peer_id: PubKey(peer_id), dbid })?;
        let ask_basepoints = msgs::GetChannelBasepoints { node_id: PubKey(peer_id), dbid };
        let ours = call::<msgs::GetChannelBasepointsReply>(ask, None, &ask_basepoints)?;
        let ours = channel_public_keys(&ours)?;
        let script = chan_utils::make_funding_redeemscript(&ours.funding_pubkey, &theirs.funding_pubkey).to_p2wsh();
        let funding = fund(&script, Amount::from_sat(CHANNEL_SAT));
        let outpoint = OutPoint { txid: funding.compute_txid(), vout: 0 };
        let mut setup = setup_message(&theirs, outpoint, to_us_sat);
        change(&mut setup);
        call::<msgs::SetupChannelReply>(ask, Some(channel), &setup)?;

        let parameters = parameters(theirs, ours, outpoint);
        let points = [point(ask, channel, 0)?, point(ask, channel, 1)?];
        let holdings = Holdings { to_us_sat, htlcs: Vec::new() };
        let dust_limit_sat = DUST_LIMIT_SAT;
        let driver = Self { channel, secp, peer, parameters, funding, dust_limit_sat, number: 0, holdings, points };
        driver.sign_remote(ask, 0, &driver.holdings)?;
        driver.validate(ask, 0, &driver.points[0], &driver.holdings)?;
        Ok(driver)
    }

    /// From now on neither side shows HTLCs below `dust_limit_sat`.
    pub fn trim_below(&mut self, dust_limit_sat: u64) {
        self.dust_limit_sat = dust_limit_sat;
    }

    /// The channel.
    pub fn channel(&self) -> ChannelRef {
        self.channel
    }

    /// The transaction that funds it.
    pub fn funding(&self) -> &Transaction {
        &self.funding
    }

    /// The funding keys: the signer's and the peer's.
    pub fn funding_keys(&self) -> [PublicKey; 2] {
        let theirs = &self.parameters.holder_pubkeys;
        let ours = self.parameters.counterparty_parameters.as_ref().map_or(theirs, |ours| &ours.pubkeys);
        [ours.funding_pubkey, theirs.funding_pubkey]
    }

    /// The number of the commitments in force.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The signer's commitment in force.
    pub fn our_commitment(&self) -> CommitmentTransaction {
        self.commitment(self.number, &self.points[0], &self.holdings)
    }

    /// The peer's commitment in force, and its point.
    pub fn peer_commitment(&self) -> Result<(CommitmentTransaction, PublicKey), DriverError> {
        let point = self.peer.get_per_commitment_point(FIRST_COMMITMENT - self.number, &self.secp);
        let point = point.map_err(|()| DriverError::Peer("tell its point"))?;
        let theirs = |htlc| HTLCOutputInCommitment { offered: !htlc_in_ours(htlc).offered, ..htlc_in_ours(htlc) };
        let commitment = CommitmentTransaction::new(
            FIRST_COMMITMENT - self.number,
            &point,
            self.to_peer_sat_with(&self.holdings),
            self.holdings.to_us_sat,
            FEERATE_PER_KW,
            self.shown(&self.holdings).map(theirs).collect(),
            &self.parameters.as_holder_broadcastable(),
            &self.secp,
        );
        Ok((commitment, point))
    }

    fn commitment(&self, number: u64, ours: &PublicKey, holdings: &Holdings) -> CommitmentTransaction {
        CommitmentTransaction::new(
            FIRST_COMMITMENT - number,
            ours,
            holdings.to_us_sat,
            self.to_peer_sat_with(holdings),
            FEERATE_PER_KW,
            self.shown(holdings).map(htlc_in_ours).collect(),
            &self.parameters.as_counterparty_broadcastable(),
            &self.secp,
        )
    }

    /// What the peer would be left with in a commitment without HTLCs.
    pub fn to_peer_sat(&self) -> u64 {
        self.to_peer_sat_with(&Holdings { htlcs: Vec::new(), ..self.holdings.clone() })
    }

    /// What the peer is left with: all of the channel less the fee (BOLT 3, appendix A), the HTLCs and what is ours. What is
    /// trimmed goes to miners.
    fn to_peer_sat_with(&self, holdings: &Holdings) -> u64 {
        let weight = 1_124 + 172 * self.shown(holdings).count() as u64;
        let in_htlcs: u64 = holdings.htlcs.iter().map(|htlc| htlc.amount_sat).sum();
        CHANNEL_SAT - weight * u64::from(FEERATE_PER_KW) / 1_000 - ANCHORS_SAT - in_htlcs - holdings.to_us_sat
    }

    /// The HTLCs that have an output.
    fn shown<'a>(&self, holdings: &'a Holdings) -> impl Iterator<Item = &'a DriverHtlc> {
        let dust_limit_sat = self.dust_limit_sat;
        holdings.htlcs.iter().filter(move |htlc| htlc.amount_sat >= dust_limit_sat)
    }

    /// Moves both sides one commitment on, with `htlcs` HTLCs offered by the peer in the new ones: five messages.
    pub fn advance(&mut self, ask: &mut Ask<'_>, htlcs: usize) -> Result<(), DriverError> {
        let htlc = |n| received_htlc(payment_hash(self.number + 1, n));
        let htlcs = (0..htlcs).map(htlc).collect();
        self.advance_to(ask, &Holdings { to_us_sat: self.holdings.to_us_sat, htlcs })
    }

    /// Moves both sides one commitment on, to any holdings.
    pub fn advance_to(&mut self, ask: &mut Ask<'_>, holdings: &Holdings) -> Result<(), DriverError> {
        let (old, new) = (self.number, self.number + 1);
        self.sign_remote(ask, new, holdings)?;
        self.validate(ask, new, &self.points[1], holdings)?;
        let revoke = msgs::RevokeCommitmentTx { commitment_number: old };
        call::<msgs::RevokeCommitmentTxReply>(ask, Some(self.channel), &revoke)?;
        let secret = self.peer.release_commitment_secret(FIRST_COMMITMENT - old);
        let secret = secret.map_err(|()| DriverError::Peer("release its secret"))?;
        let revocation = msgs::ValidateRevocation {
            commitment_number: old,
            commitment_secret: vls_protocol::model::DisclosedSecret(secret),
        };
        call::<msgs::ValidateRevocationReply>(ask, Some(self.channel), &revocation)?;
        self.points = [self.points[1], point(ask, self.channel, new + 1)?];
        (self.number, self.holdings) = (new, holdings.clone());
        Ok(())
    }

    /// Has the signer sign the next commitment of the peer, and nothing else.
    pub fn sign_next(&self, ask: &mut Ask<'_>, holdings: &Holdings) -> Result<(), DriverError> {
        self.sign_remote(ask, self.number + 1, holdings)
    }

    /// Has the signer validate its next commitment, and nothing else.
    pub fn validate_next(&self, ask: &mut Ask<'_>, holdings: &Holdings) -> Result<(), DriverError> {
        self.validate(ask, self.number + 1, &self.points[1], holdings)
    }

    fn sign_remote(&self, ask: &mut Ask<'_>, number: u64, holdings: &Holdings) -> Result<(), DriverError> {
        let theirs = self.peer.get_per_commitment_point(FIRST_COMMITMENT - number, &self.secp);
        let theirs = theirs.map_err(|()| DriverError::Peer("tell its point"))?;
        let message = msgs::SignRemoteCommitmentTx2 {
            remote_per_commitment_point: PubKey(theirs.serialize()),
            commitment_number: number,
            feerate: FEERATE_PER_KW,
            to_local_value_sat: holdings.to_us_sat,
            to_remote_value_sat: self.to_peer_sat_with(holdings),
            htlcs: self.shown(holdings).map(wire_htlc).collect::<Vec<_>>().into(),
        };
        call::<msgs::SignCommitmentTxWithHtlcsReply>(ask, Some(self.channel), &message).map(drop)
    }

    /// Has the signer validate its commitment `number`, signed by the peer.
    fn validate(
        &self,
        ask: &mut Ask<'_>,
        number: u64,
        ours: &PublicKey,
        holdings: &Holdings,
    ) -> Result<(), DriverError> {
        let commitment = self.commitment(number, ours, holdings);
        let signed =
            self.peer.sign_counterparty_commitment(&self.parameters, &commitment, Vec::new(), Vec::new(), &self.secp);
        let (signature, of_htlcs) = signed.map_err(|()| DriverError::Peer("sign the commitment"))?;
        let wire = |signature: ecdsa::Signature, sighash| BitcoinSignature {
            signature: Signature(signature.serialize_compact()),
            sighash,
        };
        let message = msgs::ValidateCommitmentTx2 {
            commitment_number: number,
            feerate: FEERATE_PER_KW,
            to_local_value_sat: holdings.to_us_sat,
            to_remote_value_sat: self.to_peer_sat_with(holdings),
            htlcs: self.shown(holdings).map(wire_htlc).collect::<Vec<_>>().into(),
            signature: wire(signature, 0x01),
            htlc_signatures: of_htlcs.into_iter().map(|s| wire(s, 0x83)).collect::<Vec<_>>().into(),
        };
        call::<msgs::ValidateCommitmentTxReply>(ask, Some(self.channel), &message).map(drop)
    }
}

/// Asks `message` and decodes the reply.
pub fn call<R: DeBolt>(
    ask: &mut Ask<'_>,
    channel: Option<ChannelRef>,
    message: &dyn SerBolt,
) -> Result<R, DriverError> {
    match ask(channel, message.as_vec()) {
        Outcome::Reply(reply) => {
            R::from_vec(reply).map_err(|e| DriverError::Reply { message: message.name(), cause: e.to_string() })
        }
        Outcome::Refused { refusal, .. } => Err(DriverError::Refused { message: message.name(), refusal }),
    }
}

fn point(ask: &mut Ask<'_>, channel: ChannelRef, commitment_number: u64) -> Result<PublicKey, DriverError> {
    let message = msgs::GetPerCommitmentPoint2 { commitment_number };
    let reply = call::<msgs::GetPerCommitmentPoint2Reply>(ask, Some(channel), &message)?;
    public_key(&reply.point)
}

fn public_key(key: &PubKey) -> Result<PublicKey, DriverError> {
    PublicKey::from_slice(&key.0).map_err(|_| DriverError::Peer("read the signer's key"))
}

fn channel_public_keys(reply: &msgs::GetChannelBasepointsReply) -> Result<ChannelPublicKeys, DriverError> {
    Ok(ChannelPublicKeys {
        funding_pubkey: public_key(&reply.funding)?,
        revocation_basepoint: public_key(&reply.basepoints.revocation)?.into(),
        payment_point: public_key(&reply.basepoints.payment)?,
        delayed_payment_basepoint: public_key(&reply.basepoints.delayed_payment)?.into(),
        htlc_basepoint: public_key(&reply.basepoints.htlc)?.into(),
    })
}

fn setup_message(theirs: &ChannelPublicKeys, outpoint: OutPoint, to_us_sat: u64) -> msgs::SetupChannel {
    msgs::SetupChannel {
        is_outbound: false,
        channel_value: CHANNEL_SAT,
        push_value: to_us_sat * 1_000,
        funding_txid: outpoint.txid,
        funding_txout: outpoint.vout as u16,
        to_self_delay: CONTEST_DELAY,
        local_shutdown_script: Vec::new().into(),
        local_shutdown_wallet_index: None,
        remote_basepoints: vls_protocol::model::Basepoints {
            revocation: PubKey(theirs.revocation_basepoint.0.serialize()),
            payment: PubKey(theirs.payment_point.serialize()),
            htlc: PubKey(theirs.htlc_basepoint.0.serialize()),
            delayed_payment: PubKey(theirs.delayed_payment_basepoint.0.serialize()),
        },
        remote_funding_pubkey: PubKey(theirs.funding_pubkey.serialize()),
        remote_to_self_delay: CONTEST_DELAY,
        remote_shutdown_script: Vec::new().into(),
        channel_type: commitment_type_to_channel_type(CommitmentType::AnchorsZeroFeeHtlc).into(),
    }
}

fn parameters(theirs: ChannelPublicKeys, ours: ChannelPublicKeys, outpoint: OutPoint) -> ChannelTransactionParameters {
    let mut features = ChannelTypeFeatures::empty();
    features.set_static_remote_key_required();
    features.set_anchors_zero_fee_htlc_tx_required();
    ChannelTransactionParameters {
        holder_pubkeys: theirs,
        holder_selected_contest_delay: CONTEST_DELAY,
        is_outbound_from_holder: true,
        counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
            pubkeys: ours,
            selected_contest_delay: CONTEST_DELAY,
        }),
        funding_outpoint: Some(FundingOutpoint { txid: outpoint.txid, index: outpoint.vout as u16 }),
        splice_parent_funding_txid: None,
        channel_type_features: features,
        channel_value_satoshis: CHANNEL_SAT,
    }
}

/// Spends a coin that no chain has.
fn funding_transaction(script: &bitcoin::Script, amount: Amount, dbid: u64) -> Transaction {
    let mut coin = [0x11; 32];
    coin[..8].copy_from_slice(&dbid.to_be_bytes());
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array(coin), vout: 0 },
            script_sig: Default::default(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: amount, script_pubkey: script.to_owned() }],
    }
}

/// HTLCs differ from one commitment to the next, so that each advance settles the old ones and adds new ones.
fn payment_hash(number: u64, n: usize) -> [u8; 32] {
    let mut hash = [0x33; 32];
    hash[0] = (number % 2) as u8;
    hash[1..9].copy_from_slice(&(n as u64).to_be_bytes());
    hash
}

fn received_htlc(payment_hash: [u8; 32]) -> DriverHtlc {
    DriverHtlc { is_ours: false, payment_hash, amount_sat: HTLC_SAT, cltv_expiry: HTLC_EXPIRY }
}

fn wire_htlc(htlc: &DriverHtlc) -> Htlc {
    Htlc {
        side: if htlc.is_ours { Htlc::LOCAL } else { Htlc::REMOTE },
        amount: htlc.amount_sat * 1_000,
        payment_hash: Sha256(htlc.payment_hash),
        ctlv_expiry: htlc.cltv_expiry,
    }
}

/// As it stands in the signer's commitment.
fn htlc_in_ours(htlc: &DriverHtlc) -> HTLCOutputInCommitment {
    HTLCOutputInCommitment {
        offered: htlc.is_ours,
        amount_msat: htlc.amount_sat * 1_000,
        cltv_expiry: htlc.cltv_expiry,
        payment_hash: PaymentHash(htlc.payment_hash),
        transaction_output_index: None,
    }
}
