//! Signing keys of a TPM: made under its storage key, which only this TPM has. They need no PIN: whoever is on the machine may ask it
//! to sign, and nobody takes the key along.

use sha2::{Digest as _, Sha256};
use tss_esapi::Error;
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::interface_types::algorithm::PublicAlgorithm;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::structures::{
    Digest, EccPoint, EccScheme, HashScheme, HashcheckTicket, KeyDerivationFunctionScheme, Private, Public,
    PublicBuilder, PublicEccParametersBuilder, Signature as Signed, SignatureScheme, SymmetricDefinitionObject,
};
use tss_esapi::traits::{Marshall, UnMarshall};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

use super::chip::{Chip, SHA256};
use super::{KeyHome, TpmError, TpmKey};
use crate::device_key::{self, Curve, DeviceKey, DeviceKeyError, KeyKind, KeyRecord, PublicKey, Signature};

impl DeviceKey for TpmKey<'_> {
    fn kind(&self) -> KeyKind {
        KeyKind::Tpm
    }

    fn create(&self) -> Result<KeyRecord, DeviceKeyError> {
        let mut chip = Chip::connect(self.tcti)?;
        let (parent, name) = chip.storage_key()?;
        let template = chip.made(template())?;
        let session = chip.session(SessionType::Hmac, parent)?;
        let created = chip.asked("make a key", |tpm| {
            tpm.execute_with_session(Some(session), |tpm| tpm.create(parent, template, None, None, None, None))
        })?;
        let Public::Ecc { unique, .. } = &created.out_public else { return Err(DeviceKeyError::Faulty) };
        let point = [&[4][..], &padded(unique.x().value())?, &padded(unique.y().value())?].concat();
        let public = PublicKey::from_sec1(Curve::P256, &point).ok_or(DeviceKeyError::Faulty)?;
        let home = KeyHome {
            tcti: self.tcti.to_owned(),
            parent: name,
            public: chip.made(created.out_public.marshall())?,
            private: created.out_private.value().to_vec(),
        };
        Ok(KeyRecord { public, home: device_key::KeyHome::Tpm(home) })
    }

    fn sign(&self, record: &KeyRecord, message: &[u8]) -> Result<Signature, DeviceKeyError> {
        let device_key::KeyHome::Tpm(home) = &record.home else {
            return Err(DeviceKeyError::OtherKind(record.kind()));
        };
        let mut chip = Chip::connect(&home.tcti)?;
        let (parent, name) = chip.storage_key()?;
        if name != home.parent {
            return Err(TpmError::OtherTpm(home.tcti.clone()).into());
        }
        let (public, private) = (Public::unmarshall(&home.public), Private::try_from(&home.private[..]));
        let (Ok(public), Ok(private)) = (public, private) else { return Err(TpmError::Altered.into()) };
        let session = chip.session(SessionType::Hmac, parent)?;
        let key = chip.asked("load a key", |tpm| {
            tpm.execute_with_session(Some(session), |tpm| tpm.load(parent, private, public))
        })?;
        let digest = chip.made(Digest::try_from(&Sha256::digest(message)[..]))?;
        let ticket = chip.made(no_ticket())?;
        let signed = chip.asked("sign", |tpm| {
            tpm.execute_with_session(Some(session), |tpm| tpm.sign(key, digest, scheme(), ticket))
        })?;
        let Signed::EcDsa(signed) = signed else { return Err(DeviceKeyError::Faulty) };
        let mut rs = [0; 64];
        rs[..32].copy_from_slice(&padded(signed.signature_r().value())?);
        rs[32..].copy_from_slice(&padded(signed.signature_s().value())?);
        record.checked(Some(rs), message)
    }
}

/// A number of 32 bytes, of which the TPM leaves out zeros in front.
fn padded(number: &[u8]) -> Result<[u8; 32], DeviceKeyError> {
    let mut whole = [0; 32];
    let start = whole.len().checked_sub(number.len()).ok_or(DeviceKeyError::Faulty)?;
    whole[start..].copy_from_slice(number);
    Ok(whole)
}

fn scheme() -> SignatureScheme {
    SignatureScheme::EcDsa { hash_scheme: HashScheme::new(SHA256) }
}

/// The key may sign what was hashed outside the TPM.
fn no_ticket() -> Result<HashcheckTicket, Error> {
    HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: Default::default(),
    })
}

/// A key on P-256 for ECDSA with SHA-256 alone.
fn template() -> Result<Public, Error> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_sign_encrypt(true)
        .build()?;
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::Null)
        .with_ecc_scheme(EccScheme::EcDsa(HashScheme::new(SHA256)))
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_signing_key(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(SHA256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}
