//! PSBTs (BIP 174, version 0) as lnd sends them: read strictly, and answered with the bytes that came plus the signatures.
//!
//! Nothing is written anew but the signatures, so that whatever lnd keeps in its packet comes back as it was. Counts and
//! lengths are held against the bytes that follow before anything is set aside for them.

use std::collections::BTreeSet;

use bitcoin::bip32::ChildNumber;
use bitcoin::consensus::encode::deserialize;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Transaction, TxOut};

const MAGIC: &[u8] = b"psbt\xff";

/// Inputs and outputs of a transaction that is read; a standard transaction has no room for more.
const MAX_INPUTS: usize = 2_048;
const MAX_OUTPUTS: usize = 4_096;
/// Records of one map, and levels of one path.
const MAX_RECORDS: usize = 256;
const MAX_DEPTH: usize = 16;

/// Records of the global map.
const UNSIGNED_TX: u8 = 0x00;
const VERSION: u8 = 0xfb;

/// Records of an input.
const NON_WITNESS_UTXO: u8 = 0x00;
const WITNESS_UTXO: u8 = 0x01;
const PARTIAL_SIG: u8 = 0x02;
const SIGHASH_TYPE: u8 = 0x03;
const REDEEM_SCRIPT: u8 = 0x04;
const WITNESS_SCRIPT: u8 = 0x05;
const BIP32_DERIVATION: u8 = 0x06;
const FINAL_SCRIPT_SIG: u8 = 0x07;
const FINAL_WITNESS: u8 = 0x08;
const TAP_KEY_SIG: u8 = 0x13;
const TAP_SCRIPT_SIG: u8 = 0x14;
const TAP_LEAF_SCRIPT: u8 = 0x15;
const TAP_DERIVATION: u8 = 0x16;
const TAP_MERKLE_ROOT: u8 = 0x18;
/// lnd's own: what is added to the key, and the secret that revokes a commitment.
const SINGLE_TWEAK: u8 = 0x51;
const DOUBLE_TWEAK: u8 = 0xd0;

/// Why bytes are no PSBT that can be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PsbtError {
    /// The first five bytes.
    #[error("it does not begin as a PSBT")]
    Magic,
    /// A record does not fit into what is left, or a length is not written as short as possible.
    #[error("it ends inside a record, or a length is wrong")]
    Truncated,
    /// A map has the same key twice.
    #[error("a map has the key {0} twice")]
    Duplicate(String),
    /// More of something than is read.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// There is no unsigned transaction, or one that is signed.
    #[error("the unsigned transaction is missing, damaged or signed")]
    Transaction,
    /// Another version than 0.
    #[error("the version is not 0")]
    Version,
    /// A record of this input is not what its key says.
    #[error("input {input}: the record {record:#04x} is damaged")]
    Record {
        /// The input's index.
        input: usize,
        /// The record's type.
        record: u8,
    },
    /// Bytes follow the last map.
    #[error("bytes follow the last map")]
    Trailing,
}

/// A PSBT that was read.
pub struct Packet {
    /// What would be signed.
    pub tx: Transaction,
    /// What is said of each input of `tx`.
    pub inputs: Vec<Input>,
}

/// What a PSBT says of one input.
#[derive(Default)]
pub struct Input {
    /// The output it spends.
    pub witness_utxo: Option<TxOut>,
    /// The transaction it spends from.
    pub non_witness_utxo: Option<Transaction>,
    /// As in the record; 0 if there is none.
    pub sighash: u32,
    /// The script behind P2SH; lnd also gives the witness program here.
    pub redeem_script: Option<ScriptBuf>,
    /// The script behind P2WSH, or of the leaf.
    pub witness_script: Option<ScriptBuf>,
    /// Keys, to be compared with ours, and where they stand.
    pub derivations: Vec<([u8; 33], Vec<ChildNumber>)>,
    /// The same for taproot, with the number of leaves a key is in.
    pub tap_derivations: Vec<([u8; 32], usize, Vec<ChildNumber>)>,
    /// What is added to the key.
    pub single_tweak: Option<[u8; 32]>,
    /// The secret that revokes a commitment.
    pub double_tweak: Option<[u8; 32]>,
    /// A taproot output's scripts.
    pub merkle_root: Option<[u8; 32]>,
    /// A script is to be executed rather than the key to sign for all.
    pub tap_leaf: bool,
    /// It carries a signature already.
    pub signed: bool,
    /// Where its map ends.
    end: usize,
}

/// A signature for the input with this index.
pub struct Signature {
    /// The input.
    pub input: usize,
    /// Which kind.
    pub kind: SignatureKind,
}

/// Where a signature goes.
pub enum SignatureKind {
    /// `PARTIAL_SIG` with the key that it verifies with: DER and the sighash type.
    Ecdsa(PublicKey, Vec<u8>),
    /// `TAP_KEY_SIG`: 64 bytes, and the sighash type if it is not the default.
    TaprootKey(Vec<u8>),
}

impl Packet {
    /// Reads `bytes`, all of them.
    pub fn parse(bytes: &[u8]) -> Result<Self, PsbtError> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.take(MAGIC.len()).ok() != Some(MAGIC) {
            return Err(PsbtError::Magic);
        }
        let mut tx = None;
        reader.map(|key, value| match key {
            [UNSIGNED_TX] => {
                tx = Some(unsigned(value)?);
                Ok(())
            }
            [VERSION] if value != [0; 4] => Err(PsbtError::Version),
            _ => Ok(()),
        })?;
        let tx = tx.ok_or(PsbtError::Transaction)?;
        let mut inputs = Vec::with_capacity(tx.input.len());
        for index in 0..tx.input.len() {
            let mut input = Input::default();
            reader.map(|key, value| {
                let record = key.first().copied().unwrap_or_default();
                input.read(key, value).ok_or(PsbtError::Record { input: index, record })
            })?;
            input.end = reader.at - 1;
            inputs.push(input);
        }
        for _ in &tx.output {
            reader.map(|_, _| Ok(()))?;
        }
        if reader.at != bytes.len() {
            return Err(PsbtError::Trailing);
        }
        Ok(Self { tx, inputs })
    }

    /// The PSBT that was read from `bytes`, with these signatures, which are ordered by their inputs.
    pub fn signed(&self, bytes: &[u8], signatures: &[Signature]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + signatures.len() * 128);
        let mut from = 0;
        for Signature { input, kind } in signatures {
            let end = self.inputs[*input].end;
            out.extend(&bytes[from..end]);
            match kind {
                SignatureKind::Ecdsa(key, signature) => {
                    record(&mut out, &[&[PARTIAL_SIG][..], &key.serialize()].concat(), signature);
                }
                SignatureKind::TaprootKey(signature) => record(&mut out, &[TAP_KEY_SIG], signature),
            }
            from = end;
        }
        out.extend(&bytes[from..]);
        out
    }
}

impl Input {
    /// Takes in one record; `None` if it is not what its key says.
    fn read(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let (&record, key) = key.split_first()?;
        match record {
            NON_WITNESS_UTXO if key.is_empty() => self.non_witness_utxo = Some(deserialize(value).ok()?),
            WITNESS_UTXO if key.is_empty() => self.witness_utxo = Some(deserialize(value).ok()?),
            SIGHASH_TYPE if key.is_empty() => self.sighash = u32::from_le_bytes(value.try_into().ok()?),
            REDEEM_SCRIPT if key.is_empty() => self.redeem_script = Some(ScriptBuf::from_bytes(value.to_vec())),
            WITNESS_SCRIPT if key.is_empty() => self.witness_script = Some(ScriptBuf::from_bytes(value.to_vec())),
            BIP32_DERIVATION => self.derivations.push((key.try_into().ok()?, path(value)?)),
            TAP_DERIVATION => {
                let (&leaves, rest) = value.split_first()?;
                let (_, rest) = rest.split_at_checked(usize::from(leaves) * 32)?;
                self.tap_derivations.push((key.try_into().ok()?, leaves.into(), path(rest)?));
            }
            SINGLE_TWEAK if key.is_empty() => self.single_tweak = Some(value.try_into().ok()?),
            DOUBLE_TWEAK if key.is_empty() => self.double_tweak = Some(value.try_into().ok()?),
            // lnd writes an empty one where there are no scripts.
            TAP_MERKLE_ROOT if key.is_empty() && value.is_empty() => {}
            TAP_MERKLE_ROOT if key.is_empty() => self.merkle_root = Some(value.try_into().ok()?),
            TAP_LEAF_SCRIPT => self.tap_leaf = true,
            PARTIAL_SIG | FINAL_SCRIPT_SIG | FINAL_WITNESS | TAP_KEY_SIG | TAP_SCRIPT_SIG => self.signed = true,
            NON_WITNESS_UTXO..=FINAL_WITNESS | TAP_MERKLE_ROOT | SINGLE_TWEAK | DOUBLE_TWEAK => {
                return None;
            }
            _ => {} // said to others, and no part of what is signed
        }
        Some(())
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], PsbtError> {
        let end = self.at.checked_add(len).ok_or(PsbtError::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(PsbtError::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    /// Bitcoin's compact size, as short as possible.
    fn length(&mut self) -> Result<usize, PsbtError> {
        let little_endian = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let (value, least) = match self.take(1)?[0] {
            0xfd => (little_endian(self.take(2)?), 0xfd),
            0xfe => (little_endian(self.take(4)?), 1 << 16),
            0xff => (little_endian(self.take(8)?), 1 << 32),
            short => (u64::from(short), 0),
        };
        if value < least { Err(PsbtError::Truncated) } else { value.try_into().map_err(|_| PsbtError::Truncated) }
    }

    /// One map, up to its end.
    fn map(&mut self, mut each: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), PsbtError>) -> Result<(), PsbtError> {
        let mut keys = BTreeSet::new();
        loop {
            let len = self.length()?;
            if len == 0 {
                return Ok(());
            }
            if keys.len() == MAX_RECORDS {
                return Err(PsbtError::TooMany("records"));
            }
            let key = self.take(len)?;
            let len = self.length()?;
            let value = self.take(len)?;
            if !keys.insert(key) {
                return Err(PsbtError::Duplicate(hex::encode(&key[..key.len().min(40)])));
            }
            each(key, value)?;
        }
    }
}

fn unsigned(bytes: &[u8]) -> Result<Transaction, PsbtError> {
    let tx: Transaction = deserialize(bytes).map_err(|_| PsbtError::Transaction)?;
    let is_signed = tx.input.iter().any(|input| !input.script_sig.is_empty() || !input.witness.is_empty());
    if is_signed || tx.input.is_empty() || tx.output.is_empty() {
        return Err(PsbtError::Transaction);
    }
    match () {
        () if tx.input.len() > MAX_INPUTS => Err(PsbtError::TooMany("inputs")),
        () if tx.output.len() > MAX_OUTPUTS => Err(PsbtError::TooMany("outputs")),
        () => Ok(tx),
    }
}

/// A fingerprint, and a path in little endian.
fn path(value: &[u8]) -> Option<Vec<ChildNumber>> {
    let (_fingerprint, path) = value.split_first_chunk::<4>()?;
    let (numbers, rest) = path.as_chunks::<4>();
    if !rest.is_empty() || numbers.len() > MAX_DEPTH {
        return None;
    }
    Some(numbers.iter().map(|number| ChildNumber::from(u32::from_le_bytes(*number))).collect())
}

fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        out.push(u8::try_from(part.len()).expect("keys and signatures are shorter than 253 bytes"));
        out.extend(part);
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::psbt::Psbt;
    use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
    use bitcoin::{Amount, OutPoint, TxIn, Txid, absolute, transaction};

    use super::*;

    fn psbt() -> Psbt {
        let tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: (0..2)
                .map(|vout| TxIn { previous_output: OutPoint { txid: Txid::all_zeros(), vout }, ..TxIn::default() })
                .collect(),
            output: vec![TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::new() }],
        };
        let mut psbt = Psbt::from_unsigned_tx(tx).expect("unsigned");
        for input in &mut psbt.inputs {
            input.witness_utxo = Some(TxOut { value: Amount::from_sat(2), script_pubkey: ScriptBuf::new() });
            let tweak = bitcoin::psbt::raw::Key { type_value: SINGLE_TWEAK, key: vec![] };
            input.unknown.insert(tweak, vec![7; 32]);
        }
        psbt
    }

    #[test]
    fn a_packet_comes_back_as_it_was_with_the_signature_in_its_input() {
        let bytes = psbt().serialize();
        let packet = Packet::parse(&bytes).expect("a PSBT");
        assert_eq!(packet.signed(&bytes, &[]), bytes);
        assert_eq!(packet.inputs[1].single_tweak, Some([7; 32]));
        let key = SecretKey::from_slice(&[1; 32]).expect("a key");
        let secp = Secp256k1::new();
        let signature = secp.sign_ecdsa(&Message::from_digest([3; 32]), &key);
        let der = [&signature.serialize_der()[..], &[1]].concat();
        let key = key.public_key(&secp);
        let signed = packet.signed(&bytes, &[Signature { input: 1, kind: SignatureKind::Ecdsa(key, der.clone()) }]);
        let mut expected = psbt();
        let value = bitcoin::ecdsa::Signature::from_slice(&der).expect("a signature");
        expected.inputs[1].partial_sigs.insert(key.into(), value);
        assert_eq!(Psbt::deserialize(&signed).expect("a PSBT"), expected);
    }

    #[test]
    fn hostile_bytes_are_refused_at_every_length_and_with_every_byte_changed() {
        let bytes = psbt().serialize();
        for len in 0..bytes.len() {
            assert!(Packet::parse(&bytes[..len]).is_err(), "{len}");
        }
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                let _ = Packet::parse(&changed); // it may still be a PSBT; it must not panic
            }
        }
        let error = |bytes: &[u8]| Packet::parse(bytes).err().expect("refused");
        assert_eq!(error(&[&bytes[..], &[0]].concat()), PsbtError::Trailing);
        assert_eq!(error(b"psbt\xfe"), PsbtError::Magic);
        // The record of the first input's tweak, twice.
        let record = [&[1, SINGLE_TWEAK, 32][..], &[7; 32]].concat();
        let at = bytes.windows(record.len()).position(|window| window == record).expect("there");
        let twice = [&bytes[..at], &record, &bytes[at..]].concat();
        assert_eq!(error(&twice), PsbtError::Duplicate("51".to_owned()));
        // A length of more than there is.
        let mut long = bytes.clone();
        long.truncate(at);
        long.extend([1, SINGLE_TWEAK, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(error(&long), PsbtError::Truncated);
        let mut short = bytes;
        short[at + 2] = 31;
        assert!(matches!(error(&short), PsbtError::Record { input: 0, record: SINGLE_TWEAK } | PsbtError::Truncated));
    }
}
