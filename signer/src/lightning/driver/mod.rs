//! A whole channel on one machine: plays the node that asks the signer, and the peer at the other end.
//!
//! The peer's keys and signatures come from LDK's own signer, so that the signer meets the signatures it would meet in
//! the field. The bench and the tests drive channels with it.

mod chain;
mod cln;
mod commitment;
mod ldk;
mod messages;
mod script;
mod setup;

use bitcoin::secp256k1::{All, PublicKey, Secp256k1, ecdsa};
use bitcoin::{Amount, OutPoint, Transaction};
use lightning::ln::chan_utils::{self, ChannelTransactionParameters, CommitmentTransaction};
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{ChannelSigner, InMemorySigner, KeysManager};
use vls_protocol::model::{BitcoinSignature, PubKey, Signature};
use vls_protocol::msgs::{self, DeBolt, SerBolt};

use self::commitment::cost_sat;
use self::setup::{channel_public_keys, funding_transaction, parameters, setup_message};
use crate::names::NodeKind;
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

/// Whose messages ask the signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `claviger-ldk`'s.
    Ldk,
    /// Core Lightning's.
    Cln,
}

impl From<Dialect> for NodeKind {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Ldk => Self::Ldk,
            Dialect::Cln => Self::Cln,
        }
    }
}

/// How a driver's channel is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Whose messages ask the signer.
    pub dialect: Dialect,
    /// The channel's number at the node.
    pub dbid: u64,
    /// Who funds it.
    pub funder: Funder,
}

/// Who funds a driver's channel, and pays the fee of its commitments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Funder {
    /// The signer's node, all of it.
    Us,
    /// The peer, who gives this much away at once.
    Peer {
        /// The signer's output in the first commitments.
        to_us_sat: u64,
    },
}

/// One channel with anchors (zero-fee HTLC transactions).
#[derive(Clone)]
pub struct Driver {
    dialect: Dialect,
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
    /// The feerate of the commitments in force, and of the next.
    feerates_per_kw: [u32; 2],
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
        let opening = Opening { dialect: Dialect::Ldk, dbid, funder: Funder::Peer { to_us_sat } };
        Self::open_channel(ask, opening, change, fund)
    }

    /// Opens a channel in either dialect, funded by either side.
    pub fn open_as(ask: &mut Ask<'_>, opening: Opening) -> Result<Self, DriverError> {
        Self::open_channel(ask, opening, |_| {}, |script, amount| funding_transaction(script, amount, opening.dbid))
    }

    fn open_channel(
        ask: &mut Ask<'_>,
        opening: Opening,
        change: impl FnOnce(&mut msgs::SetupChannel),
        fund: impl FnOnce(&bitcoin::Script, Amount) -> Transaction,
    ) -> Result<Self, DriverError> {
        let Opening { dialect, dbid, funder } = opening;
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
        let mut setup = setup_message(&theirs, outpoint, funder);
        change(&mut setup);
        call::<msgs::SetupChannelReply>(ask, Some(channel), &setup)?;

        let parameters = parameters(theirs, ours, outpoint, funder);
        let point = |ask: &mut Ask<'_>, number| point(ask, dialect, channel, number);
        let points = [point(ask, 0)?, point(ask, 1)?];
        let to_us_sat = match funder {
            Funder::Us => CHANNEL_SAT - cost_sat(FEERATE_PER_KW, 0),
            Funder::Peer { to_us_sat } => to_us_sat,
        };
        let holdings = Holdings { to_us_sat, htlcs: Vec::new() };
        let driver = Self {
            dialect,
            channel,
            secp,
            peer,
            parameters,
            funding,
            dust_limit_sat: DUST_LIMIT_SAT,
            number: 0,
            holdings,
            feerates_per_kw: [FEERATE_PER_KW; 2],
            points,
        };
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

    /// What the commitments in force hold.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// The feerate of commitments from the next on.
    pub fn set_feerate(&mut self, feerate_per_kw: u32) {
        self.feerates_per_kw[1] = feerate_per_kw;
    }

    /// What the funder pays for the next commitment, with `htlcs` HTLCs: its fee and the anchors.
    pub fn cost_sat(&self, htlcs: usize) -> u64 {
        cost_sat(self.feerates_per_kw[1], htlcs)
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
        self.points = [self.points[1], point(ask, self.dialect, self.channel, new + 1)?];
        (self.number, self.holdings) = (new, holdings.clone());
        self.feerates_per_kw[0] = self.feerates_per_kw[1];
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
        match self.dialect {
            Dialect::Ldk => ldk::sign_remote(self, ask, number, holdings),
            Dialect::Cln => cln::sign_remote(self, ask, number, holdings),
        }
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
        let signed = Signed {
            number,
            commitment,
            signature: wire(signature, 0x01),
            htlc_signatures: of_htlcs.into_iter().map(|s| wire(s, 0x83)).collect(),
        };
        let message = match self.dialect {
            Dialect::Ldk => ldk::validate(self, signed, holdings).as_vec(),
            Dialect::Cln => cln::validate(self, signed, holdings).as_vec(),
        };
        call_encoded::<msgs::ValidateCommitmentTxReply>(ask, Some(self.channel), "ValidateCommitmentTx", message)
            .map(drop)
    }
}

/// A commitment of the signer's node with the peer's signatures.
struct Signed {
    number: u64,
    commitment: CommitmentTransaction,
    signature: BitcoinSignature,
    htlc_signatures: Vec<BitcoinSignature>,
}

/// Asks `message` and decodes the reply.
pub fn call<R: DeBolt>(
    ask: &mut Ask<'_>,
    channel: Option<ChannelRef>,
    message: &dyn SerBolt,
) -> Result<R, DriverError> {
    call_encoded(ask, channel, message.name(), message.as_vec())
}

fn call_encoded<R: DeBolt>(
    ask: &mut Ask<'_>,
    channel: Option<ChannelRef>,
    name: &'static str,
    message: Vec<u8>,
) -> Result<R, DriverError> {
    match ask(channel, message) {
        Outcome::Reply(reply) => {
            R::from_vec(reply).map_err(|e| DriverError::Reply { message: name, cause: e.to_string() })
        }
        Outcome::Refused { refusal, .. } => Err(DriverError::Refused { message: name, refusal }),
    }
}

fn point(
    ask: &mut Ask<'_>,
    dialect: Dialect,
    channel: ChannelRef,
    commitment_number: u64,
) -> Result<PublicKey, DriverError> {
    match dialect {
        Dialect::Ldk => ldk::point(ask, channel, commitment_number),
        Dialect::Cln => cln::point(ask, channel, commitment_number),
    }
}

fn public_key(key: &PubKey) -> Result<PublicKey, DriverError> {
    PublicKey::from_slice(&key.0).map_err(|_| DriverError::Peer("read the signer's key"))
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
