//! What a token on secp256k1 does and does not do for the identity of a Lightning node: facts about tokens, seen in SoftHSM2, that
//! docs/adr/0015-node-identities.md decides by. No code of Claviger's does it.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use secp256k1::ecdsa::Signature;
use secp256k1::{Message, PublicKey, Scalar, Secp256k1, SecretKey};
use sha2::{Digest, Sha256};

use crate::backends::pkcs11::Pkcs11 as Token;

/// secp256k1 (SEC 2, A.2), in DER.
const SECP256K1: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

/// A key that the token never tells, and its public half.
struct Key<'a> {
    session: &'a Session,
    private: ObjectHandle,
    public: PublicKey,
}

impl Key<'_> {
    /// Its product with a point: the token tells x alone.
    fn x_of_product(&self, point: &PublicKey) -> [u8; 32] {
        let point = point.serialize_uncompressed();
        let derive = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), &point));
        let wanted = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::ValueLen(32.into()),
            Attribute::Token(false),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
        ];
        let derived = self.session.derive_key(&derive, self.private, &wanted).unwrap();
        let value = self.session.get_attributes(derived, &[AttributeType::Value]).unwrap().remove(0);
        self.session.destroy_object(derived).unwrap();
        let Attribute::Value(value) = value else { panic!("no value") };
        value.try_into().expect("32 bytes")
    }

    /// Its product with a point P, from two derivations: x of d·P leaves two points, and x of d·(P + G) = d·P + D tells which.
    fn product(&self, point: &PublicKey) -> PublicKey {
        let one = SecretKey::from_slice(&Scalar::ONE.to_be_bytes()).unwrap().public_key(&Secp256k1::new());
        let x = self.x_of_product(point);
        let next = self.x_of_product(&point.combine(&one).unwrap());
        let candidates = [2, 3].map(|parity| PublicKey::from_slice(&[&[parity][..], &x].concat()).unwrap());
        let is_it =
            |candidate: &PublicKey| candidate.combine(&self.public).is_ok_and(|sum| sum.serialize()[1..] == next);
        candidates.into_iter().find(is_it).expect("one of them")
    }
}

/// Runs `work` with a new key of the token's.
fn with_key(work: impl FnOnce(&Key<'_>)) {
    let token = Token::new();
    let device = token.device_key();
    let context = Pkcs11::new(device.module).unwrap();
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => panic!("{error}"),
    }
    let slots = context.get_slots_with_token().unwrap();
    let slot =
        slots.into_iter().find(|slot| context.get_token_info(*slot).is_ok_and(|info| info.label() == device.token));
    let session = context.open_rw_session(slot.unwrap()).unwrap();
    session.login(UserType::User, Some(&AuthPin::from(str::from_utf8(device.pin).unwrap()))).unwrap();
    let for_all = [Attribute::Token(false), Attribute::EcParams(SECP256K1.to_vec())];
    let for_token = [
        Attribute::Token(false),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Derive(true),
    ];
    let (public, private) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &for_all, &for_token).unwrap();
    let point = session.get_attributes(public, &[AttributeType::EcPoint]).unwrap().remove(0);
    let Attribute::EcPoint(point) = point else { panic!("no point") };
    let public = PublicKey::from_slice(point.strip_prefix(&[0x04, 0x41]).unwrap_or(&point)).unwrap();
    work(&Key { session: &session, private, public });
    session.close().unwrap();
    context.finalize().unwrap();
}

#[test]
#[ignore = "needs SoftHSM2: hsm/tests/run"]
fn a_token_signs_with_either_s_and_no_signature_twice() {
    with_key(|key| {
        let digest: [u8; 32] = Sha256::digest(b"message").into();
        let mut signatures: Vec<_> =
            (0..64).map(|_| key.session.sign(&Mechanism::Ecdsa, key.private, &digest).unwrap()).collect();
        let secp = Secp256k1::new();
        let verifies = |signature: &Signature| secp.verify_ecdsa(&Message::from_digest(digest), signature, &key.public);
        let mut high = 0;
        for raw in &signatures {
            let mut signature = Signature::from_compact(raw).unwrap();
            high += usize::from(verifies(&signature).is_err());
            signature.normalize_s();
            assert_eq!(verifies(&signature), Ok(()));
        }
        println!("{high} of {} signatures have the higher s", signatures.len());
        assert!(high > 0 && high < signatures.len());
        signatures.sort();
        signatures.dedup();
        assert_eq!(signatures.len(), 64, "each with a nonce of its own: an answer that was lost cannot be given again");
    });
}

/// Lightning's shared secret is the hash of the whole point (BOLT 4, BOLT 8).
#[test]
#[ignore = "needs SoftHSM2: hsm/tests/run"]
fn a_product_with_its_parity_takes_two_derivations() {
    with_key(|key| {
        let secp = Secp256k1::new();
        for round in 1..=40_u8 {
            let secret = SecretKey::from_slice(&Sha256::digest([round])).unwrap();
            let expected = key.public.mul_tweak(&secp, &secret.into()).unwrap();
            assert_eq!(key.product(&secret.public_key(&secp)), expected);
        }
    });
}
