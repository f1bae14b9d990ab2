//! Transactions (BIP 144) and PSBTs (BIP 174), walked without being decoded.
//!
//! Only what makes a decoder set memory aside is looked at. Whether scripts, keys and signatures in it are any is for the
//! decoders to say.

use super::{array, take};

/// Whether `bytes` are one transaction.
pub(super) fn transaction(mut bytes: &[u8]) -> Option<()> {
    take(&mut bytes, 4)?; // version
    let mut inputs = inputs(&mut bytes)?;
    let segwit = inputs == 0;
    if segwit {
        let [1] = array(&mut bytes)? else { return None };
        inputs = self::inputs(&mut bytes)?;
    }
    outputs(&mut bytes)?;
    for _ in 0..if segwit { inputs } else { 0 } {
        witness(&mut bytes)?;
    }
    take(&mut bytes, 4)?; // lock time
    end(bytes)
}

/// Whether `bytes` are one PSBT: the global map, and a map for each input and each output of its transaction.
pub(super) fn psbt(mut bytes: &[u8]) -> Option<()> {
    if array(&mut bytes)? != *b"psbt\xff" {
        return None;
    }
    let mut counts = None;
    map(&mut bytes, |key, value| {
        if let [UNSIGNED_TX] = key {
            counts = Some(unsigned(value)?);
        }
        Some(())
    })?;
    let (inputs, outputs) = counts?;
    for _ in 0..inputs {
        map(&mut bytes, input)?;
    }
    for _ in 0..outputs {
        map(&mut bytes, output)?;
    }
    end(bytes)
}

// Key types of BIP 174 and BIP 371 whose values hold counts.
const UNSIGNED_TX: u8 = 0x00;
const IN_NON_WITNESS_UTXO: u8 = 0x00;
const IN_WITNESS_UTXO: u8 = 0x01;
const IN_FINAL_SCRIPT_WITNESS: u8 = 0x08;
const IN_TAP_BIP32_DERIVATION: u8 = 0x16;
const OUT_TAP_TREE: u8 = 0x06;
const OUT_TAP_BIP32_DERIVATION: u8 = 0x07;

/// The transaction of a PSBT, which has no witness, not even the marker of one. Its numbers of inputs and outputs.
fn unsigned(mut bytes: &[u8]) -> Option<(u64, u64)> {
    take(&mut bytes, 4)?;
    let counts = (inputs(&mut bytes)?, outputs(&mut bytes)?);
    take(&mut bytes, 4)?;
    end(bytes).map(|()| counts)
}

fn input(key: &[u8], mut value: &[u8]) -> Option<()> {
    match *key.first()? {
        IN_NON_WITNESS_UTXO => transaction(value),
        IN_WITNESS_UTXO => {
            txout(&mut value)?;
            end(value)
        }
        IN_FINAL_SCRIPT_WITNESS => {
            witness(&mut value)?;
            end(value)
        }
        IN_TAP_BIP32_DERIVATION => leaf_hashes(&mut value),
        _ => Some(()),
    }
}

fn output(key: &[u8], mut value: &[u8]) -> Option<()> {
    match *key.first()? {
        // Depth, version and script of each leaf.
        OUT_TAP_TREE => {
            while !value.is_empty() {
                take(&mut value, 2)?;
                string(&mut value)?;
            }
            Some(())
        }
        OUT_TAP_BIP32_DERIVATION => leaf_hashes(&mut value),
        _ => Some(()),
    }
}

/// Key-value pairs up to an empty key.
fn map(bytes: &mut &[u8], mut pair: impl FnMut(&[u8], &[u8]) -> Option<()>) -> Option<()> {
    loop {
        match string(bytes)? {
            [] => return Some(()),
            key => pair(key, string(bytes)?)?,
        }
    }
}

fn leaf_hashes(bytes: &mut &[u8]) -> Option<()> {
    (0..compact_size(bytes)?).try_for_each(|_| take(bytes, 32).map(drop))
}

fn inputs(bytes: &mut &[u8]) -> Option<u64> {
    let count = compact_size(bytes)?;
    for _ in 0..count {
        take(bytes, 32 + 4)?; // outpoint
        string(bytes)?; // scriptSig
        take(bytes, 4)?; // sequence
    }
    Some(count)
}

fn outputs(bytes: &mut &[u8]) -> Option<u64> {
    let count = compact_size(bytes)?;
    (0..count).try_for_each(|_| txout(bytes))?;
    Some(count)
}

fn txout(bytes: &mut &[u8]) -> Option<()> {
    take(bytes, 8)?; // amount
    string(bytes).map(drop)
}

fn witness(bytes: &mut &[u8]) -> Option<()> {
    (0..compact_size(bytes)?).try_for_each(|_| string(bytes).map(drop))
}

/// A length and so many bytes.
fn string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = compact_size(bytes)?;
    take(bytes, usize::try_from(len).ok()?)
}

/// CompactSize. A count may be written longer than necessary here; the decoders refuse that.
fn compact_size(bytes: &mut &[u8]) -> Option<u64> {
    Some(match array(bytes)? {
        [0xfd] => u16::from_le_bytes(array(bytes)?).into(),
        [0xfe] => u32::from_le_bytes(array(bytes)?).into(),
        [0xff] => u64::from_le_bytes(array(bytes)?),
        [short] => short.into(),
    })
}

fn end(bytes: &[u8]) -> Option<()> {
    bytes.is_empty().then_some(())
}
