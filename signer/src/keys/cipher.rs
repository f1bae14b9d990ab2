//! Authenticated encryption of records: XAES-256-GCM (c2sp.org/XAES-256-GCM).
//!
//! Every record gets a random 24-byte nonce, of which half derives a key of its own, so one record key may seal
//! practically without limit. A sealed record is `version (1) ‖ nonce (24) ‖ ciphertext ‖ tag (16)`.
//!
//! While the data key is rotated there are two keys: what is sealed is sealed with the current one, and what the previous
//! one sealed still opens.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::BlockCipherEncrypt;
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::memory::{Secret, scrubbed};

/// The only version so far. A later one must seal under a key of another purpose, so that the byte needs no binding.
const VERSION: u8 = 1;
const NONCE: usize = 24;
const TAG: usize = 16;

/// How many bytes longer a sealed record is than its content.
pub const OVERHEAD: usize = 1 + NONCE + TAG;

/// Seals and opens records under one key. `aad` binds a record to its place: tenant, key and version.
#[derive(Debug)]
pub struct RecordCipher {
    keys: RwLock<Keys>,
}

#[derive(Debug)]
struct Keys {
    current: Secret<32>,
    /// Until everything is sealed with the current one.
    previous: Option<Secret<32>>,
}

/// The record was not sealed by this key for this place, or was changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record does not authenticate")]
pub struct OpenError;

impl RecordCipher {
    /// A cipher under `key`, which must serve no other purpose (P10).
    pub fn new(key: Secret<32>) -> Self {
        Self::between(key, None)
    }

    /// A cipher that seals with `current` and opens what `previous` sealed, too.
    pub fn between(current: Secret<32>, previous: Option<Secret<32>>) -> Self {
        Self { keys: RwLock::new(Keys { current, previous }) }
    }

    /// Seals with `key` from now on; what was sealed so far still opens until [`RecordCipher::retire`].
    pub fn turn(&self, key: Secret<32>) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.previous = Some(std::mem::replace(&mut keys.current, key));
    }

    /// Forgets the previous key.
    pub fn retire(&self) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).previous = None;
    }

    /// Whether there are two keys.
    pub fn is_between(&self) -> bool {
        self.keys().previous.is_some()
    }

    /// Whether it seals with `key`.
    pub fn seals_with(&self, key: &Secret<32>) -> bool {
        let keys = self.keys();
        keys.current.expose(|current| key.expose(|key| current.ct_eq(key).into()))
    }

    /// Whether `sealed` opens for `aad` with the previous key only.
    pub fn is_outdated(&self, aad: &[u8], sealed: &[u8]) -> bool {
        let keys = self.keys();
        let Some(previous) = &keys.previous else { return false };
        let mut plain = Zeroizing::new(vec![0; sealed.len().saturating_sub(OVERHEAD)]);
        let opens = |key, plain: &mut [u8]| open_into(key, aad, sealed, plain).is_ok();
        !opens(&keys.current, &mut plain) && opens(previous, &mut plain)
    }

    fn keys(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encrypts `plain`, bound to `aad`. The result is `OVERHEAD` bytes longer.
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0u8; NONCE];
        getrandom::fill(&mut nonce).expect("the operating system provides randomness");
        self.seal_with(&nonce, aad, plain)
    }

    /// Decrypts what `seal` made with the same key and `aad`.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut plain = vec![0; sealed.len().checked_sub(OVERHEAD).ok_or(OpenError)?];
        self.open_into(aad, sealed, &mut plain)?;
        Ok(plain)
    }

    /// Decrypts a sealed secret straight into secret memory. (`seal` reads its input in place, so a secret is sealed
    /// with `secret.expose(|plain| cipher.seal(aad, plain))` and no readable copy of it is made either.)
    pub fn open_secret<const N: usize>(&self, aad: &[u8], sealed: &[u8]) -> Result<Secret<N>, OpenError> {
        Secret::try_init(|secret| self.open_into(aad, sealed, secret))
    }

    fn seal_with(&self, nonce: &[u8; NONCE], aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut sealed = vec![0; plain.len() + OVERHEAD];
        sealed[0] = VERSION;
        sealed[1..1 + NONCE].copy_from_slice(nonce);
        let (body, tag) = sealed[1 + NONCE..].split_at_mut(plain.len());
        tag.copy_from_slice(&scrubbed(|| {
            let buffer = InOutBuf::new(plain, body).expect("both are of the record's length");
            let (cipher, nonce) = message_cipher(&self.keys().current, nonce);
            cipher.encrypt_inout_detached(&nonce, aad, buffer).expect("records are far below GCM's length limit")
        }));
        sealed
    }

    fn open_into(&self, aad: &[u8], sealed: &[u8], plain: &mut [u8]) -> Result<(), OpenError> {
        let keys = self.keys();
        match (open_into(&keys.current, aad, sealed, plain), &keys.previous) {
            (Err(OpenError), Some(previous)) => open_into(previous, aad, sealed, plain),
            (opened, _) => opened,
        }
    }
}

fn open_into(key: &Secret<32>, aad: &[u8], sealed: &[u8], plain: &mut [u8]) -> Result<(), OpenError> {
    let (&version, rest) = sealed.split_first().ok_or(OpenError)?;
    let (nonce, rest) = rest.split_first_chunk().ok_or(OpenError)?;
    let (body, tag) = rest.split_last_chunk::<TAG>().ok_or(OpenError)?;
    if version != VERSION {
        return Err(OpenError);
    }
    let buffer = InOutBuf::new(body, plain).map_err(|_| OpenError)?;
    scrubbed(|| {
        let (cipher, nonce) = message_cipher(key, nonce);
        cipher.decrypt_inout_detached(&nonce, aad, buffer, &Tag::from(*tag)).map_err(|_| OpenError)
    })
}

/// The message's own key and nonce: CMAC in counter mode over the first half of `nonce` (NIST SP 800-108), as the
/// specification writes it out. Leaves key material on the stack: call inside `scrubbed`.
fn message_cipher(key: &Secret<32>, nonce: &[u8; NONCE]) -> (Aes256Gcm, Nonce<U12>) {
    let block_cipher = key.expose(|key| Aes256::new(key.into()));
    let mut subkey = [0u8; 16];
    block_cipher.encrypt_block((&mut subkey).into());
    let subkey = u128::from_be_bytes(subkey);
    // Doubling in GF(2^128): shift, and reduce if a bit fell out, without a branch on it.
    let subkey = ((subkey << 1) ^ (0x87 & (subkey >> 127).wrapping_neg())).to_be_bytes();

    let mut key = Zeroizing::new([0u8; 32]);
    for (counter, block) in (1u8..).zip(key.chunks_exact_mut(16)) {
        let mut input = [0u8; 16];
        input[..4].copy_from_slice(&[0, counter, b'X', 0]);
        input[4..].copy_from_slice(&nonce[..12]);
        block.iter_mut().zip(input.iter().zip(&subkey)).for_each(|(out, (a, b))| *out = a ^ b);
        block_cipher.encrypt_block(block.try_into().expect("16 bytes"));
    }
    let mut tail = [0u8; 12];
    tail.copy_from_slice(&nonce[12..]);
    (Aes256Gcm::new((&*key).into()), tail.into())
}

#[cfg(test)]
mod tests {
    use super::super::memory::{copies_in_memory, mark};
    use super::*;

    fn cipher(byte: u8) -> RecordCipher {
        RecordCipher::new(Secret::init(|key| key.fill(byte)))
    }

    /// The two vectors of the specification: the doubling without and with reduction.
    #[test]
    fn agrees_with_the_vectors_of_the_specification() {
        let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
        for (key, aad, expected) in [
            (1, &b""[..], "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            (3, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
        ] {
            let sealed = cipher(key).seal_with(nonce, aad, b"XAES-256-GCM");
            assert_eq!(sealed[..25], [&[VERSION][..], nonce].concat());
            assert_eq!(hex::encode(&sealed[25..]), expected);
            assert_eq!(cipher(key).open(aad, &sealed), Ok(b"XAES-256-GCM".to_vec()));
        }
    }

    #[test]
    fn a_record_opens_only_with_its_key_in_its_place_and_unchanged() {
        let sealed = cipher(1).seal(b"place", b"content");
        assert_eq!(cipher(1).open(b"place", &sealed), Ok(b"content".to_vec()));
        assert_eq!(cipher(2).open(b"place", &sealed), Err(OpenError));
        assert_eq!(cipher(1).open(b"other", &sealed), Err(OpenError));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(cipher(1).open(b"place", &changed), Err(OpenError), "byte {at}");
            assert_eq!(cipher(1).open(b"place", &sealed[..at]), Err(OpenError), "cut to {at}");
        }
    }

    #[test]
    fn between_two_keys_the_current_one_seals_and_both_open_until_the_previous_is_retired() {
        let (ring, old) = (cipher(1), cipher(1).seal(b"place", b"content"));
        ring.turn(Secret::init(|key| key.fill(2)));
        let new = ring.seal(b"place", b"content");
        for sealed in [&old, &new] {
            assert_eq!(ring.open(b"place", sealed), Ok(b"content".to_vec()));
            assert_eq!(ring.open(b"other", sealed), Err(OpenError));
        }
        assert_eq!([&old, &new].map(|sealed| ring.is_outdated(b"place", sealed)), [true, false]);
        assert!(ring.is_between() && !ring.is_outdated(b"other", &old) && !ring.is_outdated(b"place", b"short"));
        assert!(
            ring.seals_with(&Secret::init(|key| key.fill(2))) && !ring.seals_with(&Secret::init(|key| key.fill(1)))
        );
        assert_eq!(cipher(2).open(b"place", &new), Ok(b"content".to_vec()));
        ring.retire();
        assert_eq!((ring.open(b"place", &old), ring.is_between()), (Err(OpenError), false));
        assert_eq!(ring.open(b"place", &new), Ok(b"content".to_vec()));
    }

    #[test]
    fn an_empty_record_and_equal_records_are_fine() {
        let cipher = cipher(1);
        assert_eq!(cipher.open(b"", &cipher.seal(b"", b"")), Ok(Vec::new()));
        assert_ne!(cipher.seal(b"", b"same"), cipher.seal(b"", b"same"));
    }

    #[test]
    fn secrets_open_into_secret_memory_only_in_their_length() {
        let cipher = cipher(1);
        let secret = Secret::<32>::random();
        let sealed = secret.expose(|plain| cipher.seal(b"seed", plain));
        let opened = cipher.open_secret::<32>(b"seed", &sealed).expect("own record");
        assert!(secret.expose(|a| opened.expose(|b| a == b)));
        assert_eq!(cipher.open_secret::<31>(b"seed", &sealed).map(|_| ()), Err(OpenError));
    }

    #[test]
    fn neither_key_nor_content_of_a_secret_stays_behind() {
        let (key, content) = (Secret::random(), Secret::random());
        let marks = [mark(&key), mark(&content)];
        let before = marks.map(|mark| copies_in_memory(&mark));
        let cipher = RecordCipher::new(key);
        let sealed = content.expose(|plain| cipher.seal(b"", plain));
        let opened = cipher.open_secret::<32>(b"", &sealed).expect("own record");
        // A secret in use counts 0 in memfd_secret pages and 1 elsewhere; `opened` is one more of the second.
        assert_eq!(marks.map(|mark| copies_in_memory(&mark)), [before[0], 2 * before[1]]);
        drop(opened);
    }
}
