//! AEZ v5 (Hoang, Krovetz, Rogaway), as far as aezeed needs it: deciphering 23 bytes, 4 of which are zeros that prove the
//! key, under a 32-byte key with one string of associated data of less than a block and no nonce.
//!
//! Blocks are numbers, the first byte the highest. Names are the specification's.

use aes::hazmat::cipher_round;
use blake2::digest::Digest;
use blake2::digest::consts::U48;
use zeroize::{Zeroize, Zeroizing};

/// What is enciphered, with its zeros.
pub(super) const ENCIPHERED: usize = 23;
/// What it holds.
pub(super) const PLAIN: usize = 19;
/// Zeros behind it.
const ZEROS: u128 = 4;

/// Half of it, in bits.
const HALF: u32 = ENCIPHERED as u32 * 4;
/// The bits of a block that a half fills.
const MASK: u128 = u128::MAX << (128 - HALF);
/// The bit after a half.
const PAD: u128 = 1 << (127 - HALF);
/// AEZ-tiny's rounds, for 16 bytes and more.
const ROUNDS: u128 = 8;

/// `Extract(K)`.
#[derive(Zeroize)]
#[zeroize(drop)]
struct Key {
    i: u128,
    j: u128,
    l: u128,
}

/// Deciphers; `None` if the key or the associated data are others.
pub(super) fn decipher(
    key: &[u8; 32],
    associated: &[u8; 6],
    enciphered: &[u8; ENCIPHERED],
) -> Option<Zeroizing<[u8; PLAIN]>> {
    let key = Key::extract(key);
    let delta = key.hash(associated);
    // Two halves of 92 bits, from the left of a block each; a Feistel network backwards.
    let mut left = first(enciphered) & MASK;
    let mut right = last(enciphered) << (128 - HALF);
    for round in (0..ROUNDS).rev().step_by(2) {
        left = (left ^ key.tweaked(0, 6, padded(right) ^ delta ^ round)) & MASK;
        right = (right ^ key.tweaked(0, 6, padded(left) ^ delta ^ (round - 1))) & MASK;
    }
    // The other half first.
    let mut plain = Zeroizing::new([0; PLAIN]);
    plain[..16].copy_from_slice(&(right | left >> HALF).to_be_bytes());
    let end = left << (128 - HALF);
    plain[16..].copy_from_slice(&end.to_be_bytes()[..PLAIN - 16]);
    let zeros = end << (8 * (PLAIN - 16)) >> (128 - 8 * ZEROS);
    (zeros == 0).then_some(plain)
}

impl Key {
    fn extract(key: &[u8; 32]) -> Self {
        let mut extracted = blake2::Blake2b::<U48>::digest(key);
        let block = |at: usize| {
            let block = extracted[at * 16..(at + 1) * 16].try_into().expect("48 bytes are three blocks");
            u128::from_be_bytes(block)
        };
        let key = Self { i: block(0), j: block(1), l: block(2) };
        extracted.as_mut_slice().zeroize();
        key
    }

    /// `AEZ-hash` of the length of the zeros, in bits, of no nonce, and of one incomplete block.
    fn hash(&self, associated: &[u8; 6]) -> u128 {
        let mut block = [0; 16];
        block[..6].copy_from_slice(associated);
        block[6] = 0x80;
        self.tweaked(3, 1, ZEROS * 8) ^ self.tweaked(4, 0, 1 << 127) ^ self.tweaked(5, 0, u128::from_be_bytes(block))
    }

    /// `E_K^{j,i}` with four rounds, for `i` below 8.
    fn tweaked(&self, j: u8, i: u8, block: u128) -> u128 {
        let of_i = if i == 0 { self.i } else { times(2, self.i) };
        let mut state = (times(j, self.j) ^ of_i ^ times(i, self.l) ^ block).to_be_bytes().into();
        for key in [self.j, self.i, self.l, 0] {
            cipher_round(&mut state, &key.to_be_bytes().into());
        }
        u128::from_be_bytes(state.into())
    }
}

/// `n · x` in GF(2^128).
fn times(n: u8, x: u128) -> u128 {
    let double = |x: u128| x << 1 ^ 0x87 & (x >> 127).wrapping_neg();
    (0..8).rev().fold(0, |sum, bit| double(sum) ^ if n >> bit & 1 == 1 { x } else { 0 })
}

fn padded(half: u128) -> u128 {
    half & MASK | PAD
}

fn first(bytes: &[u8; ENCIPHERED]) -> u128 {
    u128::from_be_bytes(bytes[..16].try_into().expect("there are 23"))
}

fn last(bytes: &[u8; ENCIPHERED]) -> u128 {
    u128::from_be_bytes(bytes[ENCIPHERED - 16..].try_into().expect("there are 23"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What another implementation (Yawning Angel's) enciphers: 19 zeros under the key 00…1f and the data 00…05.
    #[test]
    fn zeros_are_deciphered_with_their_key_and_data_and_nothing_else() {
        let key = std::array::from_fn(|at| at as u8);
        let text = hex::decode("3305bdd5f919f6815cc7063bbe94895d7c59dae50e4f02").expect("hex");
        let text: [u8; ENCIPHERED] = text.try_into().expect("23 bytes");
        let extracted = Key::extract(&key);
        assert_eq!(format!("{:032x}", extracted.hash(&[0, 1, 2, 3, 4, 5])), "1182bf346a6dfcca2bee57f1e6017921");
        assert_eq!(decipher(&key, &[0, 1, 2, 3, 4, 5], &text).as_deref(), Some(&[0; PLAIN]));
        assert_eq!(decipher(&[7; 32], &[0, 1, 2, 3, 4, 5], &text), None);
        assert_eq!(decipher(&key, &[0, 1, 2, 3, 4, 6], &text), None);
        for at in 0..ENCIPHERED {
            let mut other = text;
            other[at] ^= 1;
            assert_eq!(decipher(&key, &[0, 1, 2, 3, 4, 5], &other), None);
        }
    }
}
