//! Holds every answer against what its request says.

use std::collections::HashMap;

use bitcoin::key::TapTweak;

use super::*;

/// What signatures had in common so far.
#[derive(Default)]
pub(super) struct Oracle {
    /// By the public nonce: the key, and what it signed.
    nonces: HashMap<[u8; 32], (PublicKey, [u8; 32])>,
    /// Public nonces whose secrets the caller has.
    pub(super) callers: Vec<[u8; 32]>,
    pub(super) classes: BTreeMap<String, u32>,
}

impl Oracle {
    pub(super) fn nonce(&mut self, r: &[u8], key: PublicKey, digest: [u8; 32]) {
        let r: [u8; 32] = r.try_into().expect("32 bytes");
        assert!(!self.callers.contains(&r), "the caller's nonce");
        let first = *self.nonces.entry(r).or_insert((key, digest));
        assert_eq!(first, (key, digest), "a nonce is used once");
    }

    /// A signature verifies for what the transaction says, with a key that the script names for its purpose.
    pub(super) fn psbt(&mut self, lnd: &Lnd, asked: &Psbt, signed: &Psbt) {
        let tx = &asked.unsigned_tx;
        assert_eq!(&signed.unsigned_tx, tx);
        let mut cache = SighashCache::new(tx);
        let keys = &lnd.node.keys;
        let mut new = 0;
        for (at, (before, after)) in asked.inputs.iter().zip(&signed.inputs).enumerate() {
            let spent = after.witness_utxo.clone().or_else(|| {
                let made = after.non_witness_utxo.as_ref()?;
                made.output.get(tx.input[at].previous_output.vout as usize).cloned()
            });
            let record = |record: u8| before.unknown.get(&raw::Key { type_value: record, key: vec![] });
            let (single, double) = (record(0x51).is_some(), record(0xd0).is_some());
            for (key, signature) in after.partial_sigs.iter().filter(|(key, _)| !before.partial_sigs.contains_key(key))
            {
                new += 1;
                let spent = spent.clone().expect("nothing is signed without its amount");
                let (script, kind) = (before.witness_script.clone().unwrap_or_default(), signature.sighash_type);
                let is_key_hash = addresses(keys.secp(), Purpose::Nested, key.inner).contains(&spent.script_pubkey);
                let digest = if is_key_hash {
                    let program = ScriptBuf::new_p2wpkh(&key.wpubkey_hash().expect("compressed"));
                    cache.p2wpkh_signature_hash(at, &program, spent.value, kind).expect("a digest").to_byte_array()
                } else {
                    assert_eq!(spent.script_pubkey, script.to_p2wsh());
                    cache.p2wsh_signature_hash(at, &script, spent.value, kind).expect("a digest").to_byte_array()
                };
                let verifies = keys.secp().verify_ecdsa(&Digest::from_digest(digest), &signature.signature, &key.inner);
                assert!(verifies.is_ok(), "a signature is on what the transaction says");
                self.nonce(&signature.signature.serialize_compact()[..32], key.inner, digest);
                let path = before.bip32_derivation.iter().find_map(|(named, (_, path))| {
                    let numbers: Vec<u32> = path.into_iter().map(|number| u32::from(*number)).collect();
                    let path = keys.path(path.as_ref()).filter(|path| keys.public(*path) == *named)?;
                    assert_eq!(numbers.len(), 5);
                    Some((path, *named))
                });
                let (path, untweaked) = path.expect("the key was named by its path");
                assert_eq!(single || double, untweaked != key.inner, "a tweak is used when there is one");
                let names = |key: &PublicKey| script.as_bytes().windows(33).any(|part| part == key.serialize());
                let all = kind == EcdsaSighashType::All;
                match path {
                    KeyPath::Wallet(..) => assert!(is_key_hash && all && !single && !double),
                    KeyPath::Channel(Family::Multisig, _) => assert!(names(&key.inner) && all && !single && !double),
                    KeyPath::Channel(Family::RevocationBase, _) => {
                        let hash = bitcoin::PubkeyHash::hash(&key.inner.serialize()).to_byte_array();
                        let hashed = script.as_bytes().windows(20).any(|part| part == hash);
                        assert!(double && all && (names(&key.inner) || hashed));
                        assert_ours(lnd, tx);
                    }
                    KeyPath::Channel(Family::HtlcBase, _) => {
                        let one = kind == EcdsaSighashType::SinglePlusAnyoneCanPay;
                        assert!(single && names(&key.inner) && (all || one));
                    }
                    KeyPath::Channel(Family::PaymentBase, _) => {
                        assert!(all && !single && !double && (is_key_hash || names(&key.inner)));
                        assert_ours(lnd, tx);
                    }
                    KeyPath::Channel(Family::DelayBase, _) => {
                        assert!(single && all && names(&key.inner));
                        assert_ours(lnd, tx);
                    }
                    KeyPath::Channel(family, _) => panic!("{family:?} signs no transaction"),
                }
            }
            if let (None, Some(signature)) = (before.tap_key_sig, after.tap_key_sig) {
                new += 1;
                let prevouts: Vec<TxOut> =
                    asked.inputs.iter().map(|input| input.witness_utxo.clone().expect("all amounts")).collect();
                let kind = signature.sighash_type;
                assert!(matches!(kind, TapSighashType::Default | TapSighashType::All));
                let digest = cache.taproot_key_spend_signature_hash(at, &Prevouts::All(&prevouts), kind);
                let digest = digest.expect("a digest").to_byte_array();
                let (internal, (_, (_, path))) = before.tap_key_origins.first_key_value().expect("a path");
                assert!(matches!(keys.path(path.as_ref()), Some(KeyPath::Wallet(Purpose::Taproot, ..))));
                let output = internal.tap_tweak(keys.secp(), None).0.serialize();
                let output = XOnlyPublicKey::from_slice(&output).expect("a key");
                let verifies = keys.secp().verify_schnorr(&signature.signature, &Digest::from_digest(digest), &output);
                assert!(verifies.is_ok());
                let key = PublicKey::from_x_only_public_key(output, Parity::Even);
                self.nonce(&signature.signature.as_ref()[..32], key, digest);
            }
            assert_eq!(before.tap_script_sigs, after.tap_script_sigs);
        }
        assert!(new > 0, "an answer has a signature");
    }

    /// A message was one of Lightning's, and the digest is its hash.
    pub(super) fn message(&mut self, lnd: &Lnd, asked: &SignMessageReq, signature: &[u8]) {
        let locator = asked.key_loc.expect("a key was named");
        let key = match (locator.key_family, locator.key_index) {
            (6, 0) => lnd.node.keys.node_id(),
            (0, index) => lnd.key(Family::Multisig, index as u32),
            other => panic!("{other:?} signs no message"),
        };
        assert!(!asked.schnorr_sig && asked.tag.is_empty());
        let text = asked.msg.starts_with(b"Lightning Signed Message:");
        let chain = bitcoin::constants::ChainHash::using_genesis_block(Network::Regtest).to_bytes();
        let has = |part: &[u8]| asked.msg.windows(part.len()).any(|window| window == part);
        let gossip = asked.double_hash && (has(&chain) || has(&lnd.node.keys.node_id().serialize()));
        if locator.key_family == 0 {
            assert!(gossip && has(&chain) && has(&key.serialize()) && asked.msg.len() < 228);
        } else {
            assert!(text || gossip || asked.msg.starts_with(b"lnbcrt"));
        }
        let digest = if asked.double_hash {
            sha256d::Hash::hash(&asked.msg).to_byte_array()
        } else {
            bitcoin::hashes::sha256::Hash::hash(&asked.msg).to_byte_array()
        };
        let signature = match asked.compact_sig {
            true => ecdsa::Signature::from_compact(&signature[1..]),
            false => ecdsa::Signature::from_der(signature),
        };
        let signature = signature.expect("a signature");
        assert!(lnd.node.keys.secp().verify_ecdsa(&Digest::from_digest(digest), &signature, &key).is_ok());
        self.nonce(&signature.serialize_compact()[..32], key, digest);
    }

    pub(super) fn secret(&mut self, lnd: &Lnd, family: i32, index: i32, point: &PublicKey) {
        match (family, index) {
            (6 | 9, 0) | (8, _) => {}
            (5, _) => assert!((0..64).any(|index| lnd.key(Family::Multisig, index) == *point), "our own funding key"),
            other => panic!("{other:?} shares no secret"),
        }
    }
}

/// Every output pays the wallet.
fn assert_ours(lnd: &Lnd, tx: &Transaction) {
    for out in &tx.output {
        let ours = (0..64).any(|index| lnd.address(index) == out.script_pubkey);
        assert!(ours, "a claim pays ourselves");
    }
}
