//! Honest requests of all ten calls, and changed ones.

use super::*;
use crate::lightning::lnd::scripts::Htlc;

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
    let htlc = |owner: PublicKey, other: PublicKey, revocation: &PublicKey| {
        let (owner, other) = (owner.serialize(), other.serialize());
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
pub(super) fn channel_request(lnd: &Lnd, dice: &mut Dice) -> Psbt {
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
pub(super) fn honest_request(lnd: &Lnd, dice: &mut Dice, number: &mut u64) -> Psbt {
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

pub(super) fn taproot_request(lnd: &Lnd, dice: &mut Dice) -> Psbt {
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
pub(super) fn mutate(lnd: &Lnd, dice: &mut Dice, psbt: &mut Psbt) {
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
        6 => psbt.unsigned_tx.output[0].value = Amount::from_sat(dice.0.u64(..1_000_000)),
        7 => psbt.unsigned_tx.lock_time = LockTime::from_consensus(dice.0.u32(..)),
        8 => psbt.unsigned_tx.input[at].sequence = Sequence(dice.0.u32(..)),
        9 => psbt.inputs[at].non_witness_utxo = None,
        10 => psbt.inputs[at].witness_utxo.iter_mut().for_each(|out| out.value = Amount::from_sat(40_001)),
        11 => psbt.inputs[at].redeem_script = Some(to_remote(&lnd.key(family, index))),
        12 => psbt.inputs[at].tap_merkle_root = Some(bitcoin::TapNodeHash::from_byte_array(dice.bytes())),
        _ => psbt.unsigned_tx.input[at].previous_output.vout ^= 1,
    }
}

pub(super) fn message_request(lnd: &Lnd, dice: &mut Dice) -> SignMessageReq {
    let chain = bitcoin::constants::ChainHash::using_genesis_block(Network::Regtest).to_bytes();
    let (node, funding) = (lnd.node.keys.node_id().serialize(), lnd.key(Family::Multisig, 0).serialize());
    let (other, theirs) = (peer_key(8).serialize(), peer_key(3).serialize());
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
pub(super) fn musig_request(lnd: &mut Lnd, dice: &mut Dice, oracle: &mut Oracle) {
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
