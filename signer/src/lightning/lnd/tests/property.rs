//! No request of any kind signs with a nonce the caller knows, a digest the caller chose, or a key outside its purpose:
//! honest requests of all ten calls, changed at random, and every answer held against an oracle of its own.

use std::collections::HashMap;

use bitcoin::XOnlyPublicKey;
use bitcoin::key::TapTweak;
use bitcoin::psbt::PsbtSighashType;
use bitcoin::secp256k1::Parity;
use bitcoin::sighash::{Prevouts, TapSighashType};
use claviger_proto::signrpc::{
    MuSig2CleanupRequest, MuSig2CombineSigRequest, MuSig2GetCombinedNonceRequest, MuSig2RegisterCombinedNonceRequest,
    MuSig2RegisterNoncesRequest,
};

use super::*;
use crate::lightning::lnd::scripts::Htlc;

const REQUESTS: u64 = 3_000;

/// Splitmix64: the same requests in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn bytes(&mut self) -> [u8; 32] {
        let words = [self.roll(), self.roll(), self.roll(), self.roll()];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.try_into().expect("32 bytes")
    }
}

/// What signatures had in common so far.
#[derive(Default)]
struct Oracle {
    /// By the public nonce: the key, and what it signed.
    nonces: HashMap<[u8; 32], (PublicKey, [u8; 32])>,
    /// Public nonces whose secrets the caller has.
    callers: Vec<[u8; 32]>,
    classes: BTreeMap<String, u32>,
}

impl Oracle {
    fn nonce(&mut self, r: &[u8], key: PublicKey, digest: [u8; 32]) {
        let r: [u8; 32] = r.try_into().expect("32 bytes");
        assert!(!self.callers.contains(&r), "the caller's nonce");
        let first = *self.nonces.entry(r).or_insert((key, digest));
        assert_eq!(first, (key, digest), "a nonce is used once");
    }

    /// A signature verifies for what the transaction says, with a key that the script names for its purpose.
    fn psbt(&mut self, lnd: &Lnd, asked: &Psbt, signed: &Psbt) {
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
    fn message(&mut self, lnd: &Lnd, asked: &SignMessageReq, signature: &[u8]) {
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

    fn secret(&mut self, lnd: &Lnd, family: i32, index: i32, point: &PublicKey) {
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

/// A script that a node's key may meet: `key`, or what it becomes by a tweak, stands in its place.
fn script(dice: &mut Dice, kind: usize, key: &PublicKey, signs: &PublicKey, expiry: Option<u32>) -> ScriptBuf {
    let delayed = |revocation: PublicKey, delayed: PublicKey| {
        lightning::ln::chan_utils::get_revokeable_redeemscript(
            &lightning::ln::channel_keys::RevocationKey(revocation),
            144,
            &lightning::ln::channel_keys::DelayedPaymentKey(delayed),
        )
    };
    let anchors = dice.below(4) > 0;
    let htlc = |owner, other, revocation: &PublicKey| {
        let revocation_hash = bitcoin::PubkeyHash::hash(&revocation.serialize()).to_byte_array();
        Htlc { revocation_hash, owner, other, payment_hash160: [5; 20], received_until: expiry, anchors }.script()
    };
    let peer = peer_key(3);
    match kind {
        0 => make_funding_redeemscript(key, &peer),
        1 => lightning::ln::chan_utils::get_keyed_anchor_redeemscript(key),
        2 => to_remote(signs),
        3 => delayed(peer, *signs),
        4 => delayed(*signs, peer),
        5 => htlc(*signs, peer, &peer),
        6 => htlc(peer, *signs, &peer),
        _ => htlc(peer, peer_key(7), signs),
    }
}

/// A spend of a channel's output as some key may be asked for: half of them as an honest lnd would, but for small things.
fn channel_request(lnd: &Lnd, dice: &mut Dice) -> Psbt {
    let honest = dice.one_of(&[
        (Family::Multisig, 0, 1),
        (Family::PaymentBase, 0, 2),
        (Family::DelayBase, 0x51, 3),
        (Family::RevocationBase, 0xd0, 4),
        (Family::HtlcBase, 0x51, 5),
        (Family::HtlcBase, 0x51, 6),
        (Family::RevocationBase, 0xd0, 7),
    ]);
    let any = (dice.one_of(Family::ALL), dice.one_of(&[0, 0x51, 0xd0]), dice.below(8));
    let (family, record, kind) = dice.one_of(&[honest, any]);
    let index = dice.below(3) as u32;
    let key = lnd.key(family, index);
    let signs = tweaked_key(&key, record, [9; 32]);
    let expiry = dice.one_of(&[None, Some(700)]);
    let script = script(dice, kind, &key, &signs, expiry);
    let sat = if kind == 1 { 330 } else { 100_000 };
    let timeout = if expiry.is_none() { 700 } else { 0 };
    let (sequence, lock_time) = dice.one_of(&[(1, timeout), (1, timeout), (0, timeout), (144, 0)]);
    let pays = dice.one_of(&[lnd.address(1), lnd.address(2), peer_script()]);
    let spends = OutPoint { txid: Txid::from_byte_array(dice.bytes()), vout: 0 };
    let outputs = vec![out(sat - dice.below(200) as u64, pays)];
    let mut psbt = Psbt::from_unsigned_tx(tx(vec![(spends, sequence)], lock_time, outputs)).expect("unsigned");
    let sighash = dice.one_of(&[EcdsaSighashType::All, EcdsaSighashType::SinglePlusAnyoneCanPay]);
    channel_input(&mut psbt, 0, sat, &script, (family, index, key), sighash);
    if record != 0 {
        tweaked(&mut psbt, record, [9; 32]);
    }
    psbt
}

/// The key that verifies what `key` signs with this tweak.
fn tweaked_key(key: &PublicKey, record: u8, tweak: [u8; 32]) -> PublicKey {
    let secp = Secp256k1::new();
    match record {
        0x51 => key.add_exp_tweak(&secp, &Scalar::from_be_bytes(tweak).expect("a scalar")).expect("a key"),
        0xd0 => {
            let secret = SecretKey::from_slice(&tweak).expect("a key");
            let point = secret.public_key(&secp);
            lightning::ln::channel_keys::RevocationKey::from_basepoint(
                &secp,
                &lightning::ln::channel_keys::RevocationBasepoint::from(*key),
                &point,
            )
            .to_public_key()
        }
        _ => *key,
    }
}

/// What a watch-only lnd asks of a channel's funding key and of the wallet.
fn honest_request(lnd: &Lnd, dice: &mut Dice, number: &mut u64) -> Psbt {
    match dice.below(6) {
        0 | 1 => {
            *number += 1;
            lnd.commitment(0, *number, Some(600_000))
        }
        2 => lnd.commitment(0, *number, Some(600_000)),
        3 => lnd.funding_spend(1, 0xffff_ffff, 0, vec![out(399_000, peer_script()), out(600_000, lnd.address(1))]),
        4 => lnd.spend(&[(1, 40_000)], &[40_000], 0, vec![out(39_000, lnd.address(2))]),
        _ => {
            let at = dice.below(2);
            lnd.spend(&[(1, 40_000), (2, 50_000)], &[40_000, 50_000], at, vec![out(89_000, lnd.address(2))])
        }
    }
}

fn taproot_request(lnd: &Lnd, dice: &mut Dice) -> Psbt {
    let index = dice.below(4) as u32;
    let key = lnd.node.keys.public(KeyPath::Wallet(Purpose::Taproot, Chain::Internal, index));
    let spends = OutPoint { txid: Txid::from_byte_array(dice.bytes()), vout: 0 };
    let outputs = vec![out(9_000, dice.one_of(&[lnd.address(2), peer_script()]))];
    let mut psbt = Psbt::from_unsigned_tx(tx(vec![(spends, 0)], 0, outputs)).expect("unsigned");
    let internal = XOnlyPublicKey::from(key);
    let script = addresses(lnd.node.keys.secp(), Purpose::Taproot, key).remove(0);
    psbt.inputs[0].witness_utxo = Some(out(10_000, script));
    let path: DerivationPath = format!("m/86'/0'/0'/1/{index}").parse().expect("a path");
    psbt.inputs[0].tap_key_origins.insert(internal, (vec![], (Fingerprint::default(), path)));
    psbt
}

/// Changes one thing.
fn mutate(lnd: &Lnd, dice: &mut Dice, psbt: &mut Psbt) {
    let at = dice.below(psbt.inputs.len());
    let (family, index) = (dice.one_of(Family::ALL), dice.below(3) as u32);
    match dice.below(14) {
        0 => psbt.inputs[at].sighash_type = Some(PsbtSighashType::from_u32(dice.one_of(&[0u32, 1, 2, 3, 0x81, 0x83]))),
        1 => tweaked(psbt, 0x51, dice.bytes()),
        2 => tweaked(psbt, 0xd0, dice.bytes()),
        3 => {
            let key = lnd.key(family, index);
            let path = format!("m/1017'/1'/{}'/0/{index}", family as u32).parse().expect("a path");
            psbt.inputs[at].bip32_derivation = [(key, (Fingerprint::default(), path))].into();
        }
        4 => {
            let signs = lnd.key(family, index);
            let kind = dice.below(8);
            let script = script(dice, kind, &signs, &signs, None);
            psbt.inputs[at].witness_utxo.iter_mut().for_each(|out| out.script_pubkey = script.to_p2wsh());
            psbt.inputs[at].witness_script = Some(script);
            psbt.inputs[at].non_witness_utxo = None;
        }
        5 => psbt.unsigned_tx.output[0].script_pubkey = peer_script(),
        6 => psbt.unsigned_tx.output[0].value = Amount::from_sat(dice.roll() % 1_000_000),
        7 => psbt.unsigned_tx.lock_time = LockTime::from_consensus(dice.roll() as u32),
        8 => psbt.unsigned_tx.input[at].sequence = Sequence(dice.roll() as u32),
        9 => psbt.inputs[at].non_witness_utxo = None,
        10 => psbt.inputs[at].witness_utxo.iter_mut().for_each(|out| out.value = Amount::from_sat(40_001)),
        11 => psbt.inputs[at].redeem_script = Some(to_remote(&lnd.key(family, index))),
        12 => psbt.inputs[at].tap_merkle_root = Some(bitcoin::TapNodeHash::from_byte_array(dice.bytes())),
        _ => psbt.unsigned_tx.input[at].previous_output.vout ^= 1,
    }
}

fn message_request(lnd: &Lnd, dice: &mut Dice) -> SignMessageReq {
    let chain = bitcoin::constants::ChainHash::using_genesis_block(Network::Regtest).to_bytes();
    let (node, funding) = (lnd.node.keys.node_id().serialize(), lnd.key(Family::Multisig, 0).serialize());
    let (other, theirs) = (peer_key(8).serialize(), peer_key(7).serialize());
    let tagged = bitcoin::hashes::sha256::Hash::hash(b"TapSighash").to_byte_array();
    let preimage = {
        let psbt = lnd.commitment(0, 3, None);
        let (mut preimage, script) = (Vec::new(), lnd.funding_script(0));
        let mut cache = SighashCache::new(&psbt.unsigned_tx);
        let value = Amount::from_sat(CAPACITY_SAT);
        cache
            .segwit_v0_encode_signing_data_to(&mut preimage, 0, &script, value, EcdsaSighashType::All)
            .expect("a Vec grows");
        preimage
    };
    let mut msg = match dice.below(6) {
        0 => [&b"Lightning Signed Message:"[..], &dice.bytes()].concat(),
        1 => [&[0, 0][..], &chain, &[1; 8], &node, &other, &funding, &theirs].concat(),
        2 => preimage,
        3 => [&tagged[..], &tagged, &dice.bytes()].concat(),
        4 => [&chain[..], &[1; 8], &[2; 4], &[1, 0], &[0; 2 + 8 + 4 + 4 + 8]].concat(),
        _ => dice.bytes().to_vec(),
    };
    if dice.below(4) == 0 {
        let at = dice.below(msg.len());
        msg[at] ^= 1 << dice.below(8);
    }
    let key_loc =
        Some(KeyLocator { key_family: dice.one_of(&[6, 6, 0, 1, 3, 9]), key_index: dice.one_of(&[0, 0, 0, 1]) });
    SignMessageReq {
        msg,
        key_loc,
        double_hash: dice.below(3) > 0,
        compact_sig: dice.below(3) == 0,
        schnorr_sig: dice.below(8) == 0,
        schnorr_sig_tap_tweak: vec![],
        tag: dice.one_of(&[vec![], vec![], vec![], b"BIP0340/challenge".to_vec()]),
    }
}

/// MuSig2 in every call of it; none is answered.
fn musig_request(lnd: &mut Lnd, dice: &mut Dice, oracle: &mut Oracle) {
    let nonce = SecretKey::from_slice(&dice.bytes()).expect("a key");
    let secp = Secp256k1::new();
    oracle.callers.push(nonce.x_only_public_key(&secp).0.serialize());
    let session = dice.bytes().to_vec();
    let (family, index) = (dice.below(12) as i32, dice.below(3) as i32);
    let our = lnd.key(Family::Multisig, 0).serialize();
    let secret_nonce = [&nonce.secret_bytes()[..], &nonce.secret_bytes(), &our].concat();
    let create = MuSig2SessionRequest {
        key_loc: Some(KeyLocator { key_family: family, key_index: index }),
        all_signer_pubkeys: vec![our.to_vec(), peer_key(3).serialize().to_vec()],
        pregenerated_local_nonce: dice.one_of(&[vec![], secret_nonce]),
        version: 2,
        ..MuSig2SessionRequest::default()
    };
    let message_digest = dice.bytes().to_vec();
    let answered = match dice.below(7) {
        0 => lnd.ask(Method::MuSig2CreateSession, &create),
        1 => lnd.ask(
            Method::MuSig2RegisterNonces,
            &MuSig2RegisterNoncesRequest { session_id: session, other_signer_public_nonces: vec![vec![2; 66]] },
        ),
        2 => lnd.ask(
            Method::MuSig2RegisterCombinedNonce,
            &MuSig2RegisterCombinedNonceRequest { session_id: session, combined_public_nonce: vec![2; 66] },
        ),
        3 => lnd.ask(Method::MuSig2GetCombinedNonce, &MuSig2GetCombinedNonceRequest { session_id: session }),
        4 => lnd.ask(Method::MuSig2Sign, &MuSig2SignRequest { session_id: session, message_digest, cleanup: false }),
        5 => lnd.ask(
            Method::MuSig2CombineSig,
            &MuSig2CombineSigRequest { session_id: session, other_partial_signatures: vec![vec![3; 32]] },
        ),
        _ => lnd.ask(Method::MuSig2Cleanup, &MuSig2CleanupRequest { session_id: session }),
    };
    assert!(answered.is_err(), "no session exists");
}

#[test]
fn no_request_signs_with_a_known_nonce_a_chosen_digest_or_a_key_outside_its_purpose() {
    let (mut lnd, mut dice, mut oracle) = (Lnd::with_channel(0, 0), Dice(20_261_123), Oracle::default());
    lnd.reserve(1, 2).expect("ours");
    assert!(lnd.class(&lnd.commitment(1, 0, Some(600_000))).is_ok());
    let mut number = 0;
    for _ in 0..REQUESTS {
        match dice.below(10) {
            0 => musig_request(&mut lnd, &mut dice, &mut oracle),
            1 => {
                let call = message_request(&lnd, &mut dice);
                if let Ok((reply, facts)) = lnd.ask(Method::SignMessage, &call) {
                    let reply = SignMessageResp::decode(&reply[..]).expect("a reply");
                    oracle.message(&lnd, &call, &reply.signature);
                    *oracle.classes.entry(facts[0].value.to_string()).or_default() += 1;
                }
            }
            2 => {
                let (family, index) = (dice.below(12) as i32 - 1, dice.below(3) as i32);
                let point = dice.one_of(&[peer_key(4), lnd.key(Family::Multisig, 7), lnd.key(Family::PaymentBase, 0)]);
                if lnd.share(family, index, &point).is_ok() {
                    oracle.secret(&lnd, family, index, &point);
                    *oracle.classes.entry(format!("secret {family}")).or_default() += 1;
                }
            }
            kind => {
                let before = number;
                let mut psbt = match kind {
                    3 => taproot_request(&lnd, &mut dice),
                    4..=7 => channel_request(&lnd, &mut dice),
                    _ => honest_request(&lnd, &mut dice, &mut number),
                };
                for _ in 0..dice.one_of(&[0, 0, 1, 1, 2]) {
                    mutate(&lnd, &mut dice, &mut psbt);
                }
                match lnd.sign(&psbt) {
                    Ok((signed, class)) => {
                        oracle.psbt(&lnd, &psbt, &signed);
                        *oracle.classes.entry(class).or_default() += 1;
                    }
                    Err(_) => number = before,
                }
            }
        }
    }
    // The dice reach what is honest, too: a test that sees refusals only shows nothing.
    for class in [
        "counterparty-commitment",
        "mutual-close",
        "anchor-spend",
        "counterparty-htlc",
        "htlc-claim",
        "to-remote-sweep",
        "justice",
        "wallet-spend",
        "Text",
        "ChannelAnnouncement",
        "secret 5",
        "secret 6",
        "secret 8",
    ] {
        assert!(oracle.classes.contains_key(class), "{class} is not among {:?}", oracle.classes);
    }
}
