//! The operation signing key of a Lightspark account without remote signing, as Lightspark keeps it for its owner: encrypted
//! with the node password.
//!
//! The input is JSON, as the API's `encrypted_signing_private_key` has it: `encrypted_value` in base64, and `cipher`, which says
//! how. The key follows from the password by PBKDF2-HMAC-SHA256.
//!
//! | cipher | value | decrypted by |
//! |---|---|---|
//! | `AES_256_CBC_PBKDF2_5000_SHA256` | `Salted__` ‖ salt (8) ‖ text | AES-256-CBC, PKCS #7 |
//! | `{"v":1,"i":n}` | salt (8) ‖ text | AES-256-CBC, PKCS #7 |
//! | `{"v":2,"i":n}` | salt (8) ‖ text ‖ tag | AES-256-GCM, nonce of 16 bytes |
//! | `{"v":2,"lsv":2,"i":n}`, `{"v":3,"i":n}` | nonce (12) ‖ text ‖ tag ‖ salt (8) | AES-256-GCM |
//! | `{"v":4,"i":n}` | salt (16) ‖ text ‖ tag | AES-256-GCM |
//!
//! Where no nonce stands in the value, it follows from the password after the key.

use std::num::NonZeroU32;

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, Nonce, Tag};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use ring::pbkdf2;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::error::ImportError;
use crate::keys::rsa::RsaKey;

/// What the input says takes no longer than this many rounds: four times what Lightspark's clients use.
const MAX_ITERATIONS: u32 = 2_000_000;
const KEY: usize = 32;
const TAG: usize = 16;

/// The input.
#[derive(Deserialize)]
struct Encrypted {
    encrypted_value: Zeroizing<String>,
    cipher: String,
}

/// What `cipher` says but for the oldest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    v: u8,
    i: u32,
    #[serde(default)]
    lsv: u8,
}

/// The key in `input`.
pub(super) fn open(input: &[u8], password: &str) -> Result<RsaKey, ImportError> {
    let encrypted: Encrypted = serde_json::from_slice(input).map_err(|_| ImportError::NoOperationKey)?;
    let text = decrypt(&encrypted.cipher, &encrypted.encrypted_value, password)?;
    // In DER, or in base64 of that.
    let pkcs8 = if text.first() == Some(&0x30) {
        text
    } else {
        Zeroizing::new(BASE64_STANDARD.decode(&*text).map_err(|_| ImportError::NodePassword)?)
    };
    RsaKey::from_pkcs8(pkcs8).map_err(|_| ImportError::NoRsaKey)
}

fn decrypt(cipher: &str, value: &str, password: &str) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let value = BASE64_STANDARD.decode(value).map_err(|_| ImportError::NoOperationKey)?;
    let (header, value) = if cipher == "AES_256_CBC_PBKDF2_5000_SHA256" {
        let value = value.strip_prefix(b"Salted__").ok_or(ImportError::NoOperationKey)?;
        (Header { v: 0, i: 5_000, lsv: 0 }, value)
    } else {
        let header: Header = serde_json::from_str(cipher).map_err(|_| ImportError::OperationKeyCipher)?;
        (header, &value[..])
    };
    if !(1..=MAX_ITERATIONS).contains(&header.i) {
        return Err(ImportError::Iterations(header.i));
    }
    let parts = match (header.v, header.lsv) {
        (0 | 1, 0) => split(value, 0, 8, 0).map(|[_, salt, text, _]| (salt, text, 16, None)),
        (2, 0) => split(value, 0, 8, 0).map(|[_, salt, text, _]| (salt, text, 16, None)),
        (2, 2) | (3, 0) => split(value, 12, 0, 8).map(|[nonce, _, text, salt]| (salt, text, 0, Some(nonce))),
        (4, 0) => split(value, 0, 16, 0).map(|[_, salt, text, _]| (salt, text, 12, None)),
        _ => return Err(ImportError::OperationKeyCipher),
    };
    let (salt, text, nonce_len, nonce) = parts.ok_or(ImportError::NoOperationKey)?;
    let mut made = Zeroizing::new(vec![0; KEY + nonce_len]);
    let rounds = NonZeroU32::new(header.i).ok_or(ImportError::Iterations(0))?;
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.as_bytes(), &mut made);
    let (key, made_nonce) = made.split_at(KEY);
    let nonce = nonce.unwrap_or(made_nonce);
    let wrong = ImportError::NodePassword;
    match header.v {
        0 | 1 => {
            let cbc = cbc::Decryptor::<Aes256>::new_from_slices(key, nonce).map_err(|_| wrong)?;
            cbc.decrypt_padded_vec::<Pkcs7>(text).map(Zeroizing::new).map_err(|_| wrong)
        }
        _ => {
            let (text, tag) = text.split_at_checked(text.len().saturating_sub(TAG)).ok_or(wrong)?;
            let mut out = Zeroizing::new(text.to_vec());
            let (buffer, tag) = (InOutBuf::from(&mut out[..]), Tag::try_from(tag).map_err(|_| wrong)?);
            let opened = if nonce.len() == 16 {
                let gcm = AesGcm::<Aes256, U16>::new_from_slice(key).map_err(|_| wrong)?;
                gcm.decrypt_inout_detached(&Nonce::<U16>::try_from(nonce).map_err(|_| wrong)?, &[], buffer, &tag)
            } else {
                let gcm = AesGcm::<Aes256, U12>::new_from_slice(key).map_err(|_| wrong)?;
                gcm.decrypt_inout_detached(&Nonce::<U12>::try_from(nonce).map_err(|_| wrong)?, &[], buffer, &tag)
            };
            opened.map(|()| out).map_err(|_| wrong)
        }
    }
}

/// So many bytes at the start, so many after them, the middle, so many at the end.
fn split(value: &[u8], start: usize, next: usize, end: usize) -> Option<[&[u8]; 4]> {
    let (first, rest) = value.split_at_checked(start)?;
    let (second, rest) = rest.split_at_checked(next)?;
    let (middle, last) = rest.split_at_checked(rest.len().checked_sub(end)?)?;
    Some([first, second, middle, last])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Lightspark's own tests have them: the text is `testtest` under `password`.
    const SAMPLES: [(&str, &str); 6] = [
        ("AES_256_CBC_PBKDF2_5000_SHA256", "U2FsdGVkX18d2yysCotcO4uqqed6xNcrb3zF/3lSxLo="),
        (r#"{"v": 1, "i": 500000}"#, "8dX7K3BAUM4LFuL8qcau2LT2NFEPP/Vb"),
        (r#"{"v": 2, "i": 500000}"#, "PxscHMUeWUQnHp2eURMjDRcY2BB6I+MP/asNyBhVfCI="),
        (r#"{"v": 2, "lsv": 2, "i": 500000}"#, "X7lDIfxMsCj1HDKk9hjF4OUAAoZZPQOsA6xaMJCk7rsciI1VvPWTbi8axRI="),
        (r#"{"v": 3, "i": 500000}"#, "X7lDIfxMsCj1HDKk9hjF4OUAAoZZPQOsA6xaMJCk7rsciI1VvPWTbi8axRI="),
        (r#"{"v": 4, "i": 500000}"#, "HMo/irU7oTQj5GhkUurcZwi+uNeeBMaKirsNOtjj6kFubm74Apa1zA=="),
    ];

    #[test]
    fn every_cipher_that_lightspark_kept_keys_with_is_opened_by_its_password_and_by_no_other() {
        for (cipher, value) in SAMPLES {
            assert_eq!(decrypt(cipher, value, "password").as_deref(), Ok(&b"testtest".to_vec()), "{cipher}");
            // Without a tag a wrong password may leave good padding: then what comes out is no key.
            let wrong = decrypt(cipher, value, "passwort");
            assert_ne!(wrong.as_deref(), Ok(&b"testtest".to_vec()), "{cipher}");
        }
        let (cipher, value) = SAMPLES[0];
        let input = serde_json::json!({ "encrypted_value": value, "cipher": cipher }).to_string();
        assert!(open(input.as_bytes(), "password").is_err(), "it holds no RSA key");
    }

    #[test]
    fn hostile_what_is_no_such_value_is_refused_and_takes_no_long_computation() {
        let (_, value) = SAMPLES[5];
        for (cipher, error) in [
            (r#"{"v":5,"i":5000}"#, ImportError::OperationKeyCipher),
            (r#"{"v":1,"lsv":2,"i":5000}"#, ImportError::OperationKeyCipher),
            (r#"{"v":4}"#, ImportError::OperationKeyCipher),
            (r#"{"v":4,"i":-1}"#, ImportError::OperationKeyCipher),
            (r#"{"v":4,"i":1,"x":1}"#, ImportError::OperationKeyCipher),
            (r#"{"v":4,"i":0}"#, ImportError::Iterations(0)),
            (r#"{"v":4,"i":4294967295}"#, ImportError::Iterations(u32::MAX)),
            ("AES_256_CBC_PBKDF2_5000_SHA256", ImportError::NoOperationKey),
            ("", ImportError::OperationKeyCipher),
        ] {
            assert_eq!(decrypt(cipher, value, "password"), Err(error), "{cipher}");
        }
        for short in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="] {
            for v in 1..=4 {
                let error = decrypt(&format!(r#"{{"v":{v},"i":1}}"#), short, "password").expect_err("too short");
                assert!(matches!(error, ImportError::NoOperationKey | ImportError::NodePassword));
            }
        }
        for input in ["", "{}", r#"{"encrypted_value":"*","cipher":"{\"v\":4,\"i\":1}"}"#] {
            assert_eq!(open(input.as_bytes(), "").err(), Some(ImportError::NoOperationKey), "{input}");
        }
    }
}
