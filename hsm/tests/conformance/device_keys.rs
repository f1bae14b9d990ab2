//! What every device that keeps signing keys must do.

use claviger_hsm::device_key::software::SoftwareKey;
use claviger_hsm::{DeviceKey, DeviceKeyError, KeyRecord};

/// A device, and what it is like without it.
trait Device {
    fn keys(&self) -> Box<dyn DeviceKey + '_>;

    /// Another device of the kind, to which the keys of this one mean nothing; none if there is no such thing.
    fn another(&self, record: &KeyRecord) -> Option<DeviceKeyError>;

    /// What may stand in no error, record that is not sealed, or `Debug`.
    fn secrets(&self, record: &KeyRecord) -> Vec<String>;
}

struct Software;

impl Device for Software {
    fn keys(&self) -> Box<dyn DeviceKey + '_> {
        Box::new(SoftwareKey)
    }

    fn another(&self, _: &KeyRecord) -> Option<DeviceKeyError> {
        None
    }

    fn secrets(&self, record: &KeyRecord) -> Vec<String> {
        vec![serde_json::to_value(record).unwrap()["home"]["software"].as_str().unwrap().to_owned()]
    }
}

#[cfg(feature = "tpm")]
impl Device for crate::tpm::Swtpm {
    fn keys(&self) -> Box<dyn DeviceKey + '_> {
        Box::new(claviger_hsm::TpmKey { tcti: self.tcti() })
    }

    fn another(&self, record: &KeyRecord) -> Option<DeviceKeyError> {
        // The same address, behind which another TPM is by now.
        let other = Self::start();
        let text = serde_json::to_string(record).unwrap().replace(self.tcti(), other.tcti());
        let record: KeyRecord = serde_json::from_str(&text).unwrap();
        let error = other.keys().sign(&record, b"message").expect_err("not its key");
        assert_eq!(error, claviger_hsm::tpm::TpmError::OtherTpm(other.tcti().to_owned()).into());
        Some(error)
    }

    fn secrets(&self, _: &KeyRecord) -> Vec<String> {
        Vec::new()
    }
}

/// A token with a key on one of the curves.
#[cfg(feature = "pkcs11")]
struct Token {
    token: crate::backends::pkcs11::Pkcs11,
    curve: claviger_hsm::Curve,
}

#[cfg(feature = "pkcs11")]
impl Token {
    fn with(curve: claviger_hsm::Curve) -> Self {
        Self { token: crate::backends::pkcs11::Pkcs11::new(), curve }
    }
}

#[cfg(feature = "pkcs11")]
impl Device for Token {
    fn keys(&self) -> Box<dyn DeviceKey + '_> {
        Box::new(claviger_hsm::Pkcs11Key { curve: self.curve, ..self.token.device_key() })
    }

    fn another(&self, record: &KeyRecord) -> Option<DeviceKeyError> {
        // A token of this label that has no such key.
        let text = serde_json::to_string(record).unwrap();
        let id = serde_json::to_value(record).unwrap()["home"]["pkcs11"]["key_id"].as_str().unwrap().to_owned();
        let record: KeyRecord = serde_json::from_str(&text.replace(&id, &"00".repeat(16))).unwrap();
        let error = self.keys().sign(&record, b"message").expect_err("not its key");
        assert_eq!(error, claviger_hsm::pkcs11::Pkcs11Error::NoKey("claviger".to_owned()).into());
        Some(error)
    }

    fn secrets(&self, _: &KeyRecord) -> Vec<String> {
        vec!["271828".to_owned()]
    }
}

macro_rules! conformance {
    ($(#[$attribute:meta])* $name:ident: $make:expr) => {
        mod $name {
            #[test]
            $(#[$attribute])*
            fn what_it_signs_is_checked_by_its_public_key_and_by_no_other() {
                super::what_it_signs_is_checked_by_its_public_key_and_by_no_other(&$make);
            }

            #[test]
            $(#[$attribute])*
            fn a_key_is_found_again_by_its_record_and_only_by_its_own_device() {
                super::a_key_is_found_again_by_its_record_and_only_by_its_own_device(&$make);
            }
        }
    };
}

conformance!(software: super::Software);
#[cfg(feature = "tpm")]
conformance!(#[ignore = "needs swtpm: hsm/tests/run"] tpm: crate::tpm::Swtpm::start());
#[cfg(feature = "pkcs11")]
conformance!(#[ignore = "needs SoftHSM2: hsm/tests/run"] pkcs11: super::Token::with(claviger_hsm::Curve::P256));
#[cfg(feature = "pkcs11")]
conformance!(#[ignore = "needs SoftHSM2: hsm/tests/run"] pkcs11_secp256k1: super::Token::with(claviger_hsm::Curve::Secp256k1));

fn what_it_signs_is_checked_by_its_public_key_and_by_no_other(device: &impl Device) {
    let keys = device.keys();
    let [mine, other] = [(); 2].map(|()| keys.create().expect("made"));
    assert_ne!(mine.public, other.public);
    assert_eq!(mine.kind(), keys.kind());
    // Often enough to meet a number that begins with a zero, and a high s.
    for round in 0..20_u8 {
        let message = [&b"message "[..], &[round]].concat();
        let signature = keys.sign(&mine, &message).expect("signs");
        assert!(mine.public.verifies(&message, &signature));
        assert!(!mine.public.verifies(b"message", &signature));
        assert!(!other.public.verifies(&message, &signature));
        let text = serde_json::to_string(&signature).unwrap();
        // The order of either curve begins with ff: its lower half ends with 7f.
        let s = u8::from_str_radix(&text[65..67], 16).unwrap();
        assert!(s < 0x80, "s is in the upper half: {text}");
        let flipped = text.replacen(&text[1..2], if &text[1..2] == "0" { "1" } else { "0" }, 1);
        let flipped = serde_json::from_str(&flipped).expect("64 bytes");
        assert!(!mine.public.verifies(&message, &flipped));
    }
}

fn a_key_is_found_again_by_its_record_and_only_by_its_own_device(device: &impl Device) {
    let record = device.keys().create().expect("made");
    let stored: KeyRecord = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
    assert_eq!(stored, record);
    let signature = device.keys().sign(&stored, b"message").expect("signs");
    assert!(record.public.verifies(b"message", &signature));

    let mut said = format!("{record:?}");
    if let Some(error) = device.another(&record) {
        assert!(!error.hint().is_empty());
        said += &format!("{error} {error:?} {}", error.hint());
    }
    for secret in device.secrets(&record) {
        assert!(!said.contains(&secret), "a secret in: {said}");
    }
    let of_another_kind = match record.kind() {
        claviger_hsm::KeyKind::Software => return,
        _ => SoftwareKey.sign(&record, b"message"),
    };
    assert_eq!(of_another_kind, Err(DeviceKeyError::OtherKind(record.kind())));
}
