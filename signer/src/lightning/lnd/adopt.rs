//! Channels that an lnd opened before its keys came here, taken over from its static channel backup.
//!
//! The backup comes from lnd's host, and its key follows from a public key (`m/1017'/coin'/7'/0/0`): that it opens proves
//! little. What is believed of a channel is what its counterparty signed: our own newest commitment, which spends the funding
//! output with the keys and the amount that the backup names, and whose number and script follow from the backup's base
//! points and from secrets that are made here. lnd writes it down since 0.19.

use bitcoin::consensus::encode::deserialize_partial;
use bitcoin::constants::ChainHash;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{Message, PublicKey, ecdsa};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Transaction, Txid};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use super::channel::{Adoption, Channel, SURELY_AN_OUTPUT_SAT, tweak};
use super::keys::{Family, KeyPath, Keys};
use super::scripts::{delayed_script, funding_script};
use super::signing::{Tweak, revocation_key};

/// A nonce stands before what is sealed with it, and is sealed with it.
const NONCE_BYTES: usize = 24;
/// Channels of one backup.
const MAX_CHANNELS: u32 = 16_384;
/// No key of a channel has a higher index.
const MAX_INDEX: u32 = 1 << 24;

/// Why a backup is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// It does not open.
    #[error("it is not this node's backup, or it is damaged")]
    Sealed,
    /// It is of another version than 0.
    #[error("its version, {0}, is not known")]
    Version(u8),
    /// It ends early, or goes on too long.
    #[error("it cannot be read")]
    Malformed,
}

/// Why a channel is not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// Legacy, script-enforced leases, taproot.
    #[error("channels of its type are not signed for (version {0})")]
    Type(u8),
    /// The backup of an lnd before 0.19.
    #[error("the backup has no commitment of it: write it with lnd 0.19 or newer")]
    NoCommitment,
    /// What is written of it cannot be read, or names no keys of lnd's.
    #[error("what the backup says of it cannot be read")]
    Malformed,
    /// Another chain.
    #[error("it is on another chain")]
    Chain,
    /// Its secrets were not made by the signer's key.
    #[error("it was opened with secrets of an old kind (before lnd 0.13)")]
    OldSecrets,
    /// The commitment does not spend it, or its counterparty did not sign that.
    #[error("its counterparty did not sign the commitment in the backup")]
    Unsigned,
    /// The commitment pays more than its channel holds.
    #[error("the commitment in the backup pays more than the channel holds")]
    Overspent,
    /// The commitment does not pay us as one with these base points and secrets would.
    #[error(
        "our balance is not found in the commitment; if it is all in payments that are on the way, try when they have ended"
    )]
    OtherKeys,
    /// One of its keys is another channel's.
    #[error("its funding key is that of another channel")]
    KeyInUse,
    /// There are too many.
    #[error("the node has no room for more channels")]
    Full,
}

/// What came of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Channels that are signed for from now on.
    pub adopted: Vec<OutPoint>,
    /// Those that were before.
    pub known: Vec<OutPoint>,
    /// Those that are not, and why.
    pub refused: Vec<(OutPoint, AdoptError)>,
}

/// One channel of a backup, or its funding output and why it is not taken over.
pub(super) type Entry = Result<(OutPoint, Channel), (OutPoint, AdoptError)>;

/// The channels in `backup`, each judged by itself.
pub(super) fn read(keys: &Keys, network: Network, backup: &[u8]) -> Result<Vec<Entry>, BackupError> {
    let plain = open(keys, backup).ok_or(BackupError::Sealed)?;
    let mut reader = Reader(&plain);
    match reader.u8() {
        Some(0) => {}
        Some(version) => return Err(BackupError::Version(version)),
        None => return Err(BackupError::Malformed),
    }
    let mut read = || {
        let count = reader.u32().filter(|count| *count <= MAX_CHANNELS)?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let (version, len) = (reader.u8()?, reader.u16()?);
            entries.push(entry(keys, network, version, reader.take(len.into())?)?);
        }
        reader.0.is_empty().then_some(entries)
    };
    read().ok_or(BackupError::Malformed)
}

/// lnd seals with the hash of a public key.
fn open(keys: &Keys, backup: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = backup.split_first_chunk::<NONCE_BYTES>()?;
    let key = sha256::Hash::hash(&keys.public(KeyPath::Channel(Family::BaseEncryption, 0)).serialize());
    let cipher = XChaCha20Poly1305::new(&key.to_byte_array().into());
    cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: nonce }).ok()
}

/// What the backup says of one channel, in lnd's order.
struct Single {
    is_initiator: bool,
    chain: ChainHash,
    funding: OutPoint,
    peer: PublicKey,
    capacity_sat: u64,
    our_delay: u32,
    /// Of our keys: funding, revocation, payment, delay, HTLC.
    ours: [(u32, u32); 5],
    /// Theirs, in the same order.
    theirs: [PublicKey; 5],
    old_secrets: bool,
    root: (u32, u32),
}

/// `None` if not even the funding output can be read.
fn entry(keys: &Keys, network: Network, version: u8, bytes: &[u8]) -> Option<Entry> {
    let mut reader = Reader(bytes);
    let funding = Reader(bytes.get(33..)?).outpoint()?;
    let (version, has_commitment) = (version & 0x7f, version & 0x80 != 0);
    // Static keys, and anchors with or without fees of the second level.
    if !(1..=3).contains(&version) {
        return Some(Err((funding, AdoptError::Type(version))));
    }
    let Some(single) = reader.single() else { return Some(Err((funding, AdoptError::Malformed))) };
    if !has_commitment {
        return Some(Err((funding, AdoptError::NoCommitment)));
    }
    let channel = reader.commitment().ok_or(AdoptError::Malformed).and_then(|(tx, signature)| {
        let rest_is_empty = reader.0.is_empty();
        if rest_is_empty { judge(keys, network, &single, &tx, &signature) } else { Err(AdoptError::Malformed) }
    });
    Some(channel.map(|channel| (funding, channel)).map_err(|error| (funding, error)))
}

fn judge(
    keys: &Keys,
    network: Network,
    single: &Single,
    tx: &Transaction,
    signature: &ecdsa::Signature,
) -> Result<Channel, AdoptError> {
    if single.chain != ChainHash::using_genesis_block_const(network) {
        return Err(AdoptError::Chain);
    }
    let families = [
        Family::Multisig,
        Family::RevocationBase,
        Family::PaymentBase,
        Family::DelayBase,
        Family::HtlcBase,
        Family::RevocationRoot,
    ];
    let located = single.ours.iter().chain([&single.root]).zip(families);
    if !located.clone().all(|((family, index), expected)| *family == expected as u32 && *index <= MAX_INDEX) {
        return Err(AdoptError::Malformed);
    }
    if single.old_secrets {
        return Err(AdoptError::OldSecrets);
    }
    let [our_index, _, payment_index, delay_index, _] = single.ours.map(|(_, index)| index);
    let public = |family, index| keys.public(KeyPath::Channel(family, index));
    let [their_funding, their_revocation, their_payment, ..] = single.theirs;
    // The counterparty's signature on our commitment: so the funding output, its amount and both its keys are true.
    let script = funding_script(&public(Family::Multisig, our_index), &their_funding);
    let amount = Amount::from_sat(single.capacity_sat);
    let [input] = &tx.input[..] else { return Err(AdoptError::Unsigned) };
    let digest = SighashCache::new(tx).p2wsh_signature_hash(0, &script, amount, EcdsaSighashType::All);
    let digest = Message::from_digest(digest.map_err(|_| AdoptError::Unsigned)?.to_byte_array());
    let signed = keys.secp().verify_ecdsa(&digest, signature, &their_funding).is_ok();
    if input.previous_output != single.funding || !signed {
        return Err(AdoptError::Unsigned);
    }
    // The counterparty may be in it: what it signed is a commitment only if the channel holds as much. No sum below overflows.
    let paid_sat = tx.output.iter().try_fold(0_u64, |sum_sat, out| sum_sat.checked_add(out.value.to_sat()));
    if paid_sat.is_none_or(|paid_sat| paid_sat > single.capacity_sat) {
        return Err(AdoptError::Overspent);
    }
    // Its number is hidden by both payment base points, and its secret gives the key of our balance.
    let our_payment = public(Family::PaymentBase, payment_index);
    let [opener, acceptor] =
        if single.is_initiator { [our_payment, their_payment] } else { [their_payment, our_payment] };
    let (sequence, lock_time) = (input.sequence.to_consensus_u32(), tx.lock_time.to_consensus_u32());
    if lock_time >> 24 != 0x20 || sequence >> 24 != 0x80 {
        return Err(AdoptError::OtherKeys);
    }
    let obscured = u64::from(sequence & 0xff_ffff) << 24 | u64::from(lock_time & 0xff_ffff);
    let mask = mask(&opener, &acceptor);
    let number = obscured ^ mask;
    let adoption = Adoption {
        capacity_sat: single.capacity_sat,
        our_index,
        counterparty_key: their_funding,
        root_index: single.root.1,
        mask,
        payment_index,
        number,
        peer: single.peer,
    };
    let channel = Channel::adopt(&adoption);
    let point = channel.point(keys, number).ok_or(AdoptError::OtherKeys)?;
    let basepoint = public(Family::DelayBase, delay_index);
    let balance = balance_script(keys, (&their_revocation, &point), single.our_delay, &basepoint);
    let balance = balance.ok_or(AdoptError::OtherKeys)?.to_p2wsh();
    let ours_sat: u64 = tx.output.iter().filter(|out| out.script_pubkey == balance).map(|out| out.value.to_sat()).sum();
    if ours_sat == 0 && !is_theirs(tx) {
        return Err(AdoptError::OtherKeys);
    }
    Ok(channel.owning(ours_sat))
}

/// Whether we own so little that our commitment has no output of ours: all but the counterparty's is next to nothing.
fn is_theirs(tx: &Transaction) -> bool {
    let all = tx.output.iter().map(|out| out.value.to_sat());
    let largest_sat = all.clone().max().unwrap_or_default();
    all.sum::<u64>() - largest_sat <= SURELY_AN_OUTPUT_SAT
}

/// BOLT 3, "`to_local` Output", of our own commitment: behind the key by which the counterparty, who knows `revocation`'s
/// secret, would punish it.
fn balance_script(
    keys: &Keys,
    (revocation, point): (&PublicKey, &PublicKey),
    delay: u32,
    basepoint: &PublicKey,
) -> Option<ScriptBuf> {
    let revocation = revocation_key(keys.secp(), revocation, point).ok()?;
    let delayed = Tweak::Single(tweak(point, basepoint)).public(keys, basepoint).ok()?;
    Some(delayed_script(&revocation, delay, &delayed))
}

/// BOLT 3, "Commitment Transaction": by what commitments' numbers are hidden.
fn mask(opener: &PublicKey, acceptor: &PublicKey) -> u64 {
    let mut engine = sha256::Hash::engine();
    engine.input(&opener.serialize());
    engine.input(&acceptor.serialize());
    let hash = sha256::Hash::from_engine(engine).to_byte_array();
    hash[26..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// What lnd writes: big endian, one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn key(&mut self) -> Option<PublicKey> {
        PublicKey::from_slice(self.take(33)?).ok()
    }

    fn outpoint(&mut self) -> Option<OutPoint> {
        Some(OutPoint { txid: Txid::from_byte_array(self.array()?), vout: self.u16()?.into() })
    }

    fn single(&mut self) -> Option<Single> {
        let is_initiator = self.u8()? != 0;
        let chain = ChainHash::from(self.array()?);
        let funding = self.outpoint()?;
        self.take(8)?; // where it is in the chain
        let peer = self.key()?;
        let addresses = self.u16()?;
        self.take(addresses.into())?;
        let capacity_sat = self.u64()?;
        let our_delay = self.u16()?.into();
        let mut locator = || Some((self.u32()?, self.u32()?));
        let ours = [locator()?, locator()?, locator()?, locator()?, locator()?];
        self.u16()?; // their delay
        let theirs = [self.key()?, self.key()?, self.key()?, self.key()?, self.key()?];
        let old_secrets = self.take(33)? != [0; 33];
        let root = (self.u32()?, self.u32()?);
        Some(Single { is_initiator, chain, funding, peer, capacity_sat, our_delay, ours, theirs, old_secrets, root })
    }

    /// Our newest commitment, and the counterparty's signature on it.
    fn commitment(&mut self) -> Option<(Transaction, ecdsa::Signature)> {
        let (tx, len) = deserialize_partial::<Transaction>(self.0).ok()?;
        self.take(len)?;
        let len = self.u16()?;
        Some((tx, ecdsa::Signature::from_der(self.take(len.into())?).ok()?))
    }
}
