//! Signing keys of a token: made inside it, and never told.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use sha2::{Digest as _, Sha256};

use super::token::Failure;
use super::{KeyHome, Pkcs11Key, Pkcs11Slot};
use crate::device_key::{self, Curve, DeviceKey, DeviceKeyError, KeyKind, KeyRecord, PublicKey, Signature};
use crate::kek::random;

const KEY_LABEL: &[u8] = b"claviger device key";

/// A curve's object identifier (RFC 5480, 2.1.1.1; SEC 2, A.2), in DER.
const fn identifier(curve: Curve) -> &'static [u8] {
    match curve {
        Curve::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
        Curve::Secp256k1 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a],
    }
}

impl DeviceKey for Pkcs11Key<'_> {
    fn kind(&self) -> KeyKind {
        KeyKind::Pkcs11
    }

    fn create(&self) -> Result<KeyRecord, DeviceKeyError> {
        let key_id = random::<16>();
        let named = [Attribute::Token(true), Attribute::Id(key_id.to_vec()), Attribute::Label(KEY_LABEL.to_vec())];
        let for_all =
            [&named[..], &[Attribute::Verify(true), Attribute::EcParams(identifier(self.curve).to_vec())]].concat();
        let for_token = [
            &named[..],
            &[
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Sign(true),
                Attribute::Derive(false),
            ],
        ]
        .concat();
        let (point, serial) = self.slot().with_session(self.module, self.token, None, |session, token| {
            let (public, _) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &for_all, &for_token)?;
            let point = session.get_attributes(public, &[AttributeType::EcPoint])?.into_iter().next();
            Ok((point, token.serial_number().to_owned()))
        })?;
        let Some(Attribute::EcPoint(point)) = point else { return Err(DeviceKeyError::Faulty) };
        // An octet string in DER around the point (PKCS#11, 6.3.3); some tokens leave it out.
        let point = point.strip_prefix(&[0x04, 0x41]).unwrap_or(&point);
        let public = PublicKey::from_sec1(self.curve, point).ok_or(DeviceKeyError::Faulty)?;
        let home = KeyHome { module: self.module.to_owned(), token: self.token.to_owned(), serial, key_id };
        Ok(KeyRecord { public, home: device_key::KeyHome::Pkcs11(home) })
    }

    fn sign(&self, record: &KeyRecord, message: &[u8]) -> Result<Signature, DeviceKeyError> {
        let device_key::KeyHome::Pkcs11(home) = &record.home else {
            return Err(DeviceKeyError::OtherKind(record.kind()));
        };
        let wanted = [
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Id(home.key_id.to_vec()),
            Attribute::Label(KEY_LABEL.to_vec()),
        ];
        let signed = self.slot().with_session(&home.module, &home.token, Some(&home.serial), |session, _| {
            let key = session.find_objects(&wanted)?.into_iter().next().ok_or(Failure::NoKey)?;
            Ok(session.sign(&Mechanism::Ecdsa, key, &Sha256::digest(message))?)
        })?;
        record.checked(signed.try_into().ok(), message)
    }
}

impl Pkcs11Key<'_> {
    /// The same token, for its sessions.
    fn slot(&self) -> Pkcs11Slot<'_> {
        Pkcs11Slot { module: self.module, token: self.token, pin: self.pin, tries: self.tries }
    }
}
