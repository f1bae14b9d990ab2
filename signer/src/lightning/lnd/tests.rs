//! Calls of lnd: each rule attacked, and its honest twin.

mod hostile;
mod property;

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{DerivationPath, Fingerprint};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::psbt::{Psbt, raw};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{Message as Digest, PublicKey, Scalar, Secp256k1, SecretKey, ecdsa};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use claviger_proto::signrpc::{KeyDescriptor, KeyLocator, MuSig2SignRequest};
use lightning::ln::chan_utils::make_funding_redeemscript;

use super::keys::{Chain, Purpose};
use super::scripts::to_remote;
use super::windows::addresses;
use super::*;
use crate::keys::memory::Secret;
use crate::lightning::guard;
use crate::names::{NodeKind, NodeName};

const CAPACITY_SAT: u64 = 1_000_000;
const MASK: u64 = 0x1234_5678_9abc;
const FEE_SAT: u64 = 1_000;

struct Lnd {
    node: LndNode,
    entries: BTreeMap<String, Vec<u8>>,
}

fn spec() -> NodeSpec {
    NodeSpec {
        name: NodeName::new("alice").expect("a name"),
        kind: NodeKind::Lnd,
        network: Network::Regtest,
        seed: Secret::init(|seed| seed.fill(1)),
        derivation: crate::keys::import::Derivation::Native,
        chain_code: Some(Secret::init(|code| code.fill(2))),
    }
}

fn settings() -> Settings {
    let limits = LimitsConfig { max_onchain_sat: 50_000, max_onchain_sat_per_day: 60_000, ..LimitsConfig::default() };
    Settings { limits, funding_depth: 1, oracle: peer_key(9), desk: Arc::default() }
}

/// Keys of others.
fn peer_key(byte: u8) -> PublicKey {
    SecretKey::from_slice(&[byte; 32]).expect("a key").public_key(&Secp256k1::new())
}

impl Lnd {
    fn new() -> Self {
        Self::with(first_entries(&spec()).into_iter().filter_map(|put| Some((put.key, put.value?))).collect())
    }

    fn with(entries: BTreeMap<String, Vec<u8>>) -> Self {
        let node = LndNode::restore(&spec(), &settings(), Arc::default(), entries.clone()).expect("restores");
        Self { node, entries }
    }

    /// The node as it is after a restart.
    fn restarted(self) -> Self {
        Self::with(self.entries)
    }

    fn ask(&mut self, method: Method, call: &impl Message) -> Result<(Vec<u8>, Vec<Fact>), Refusal> {
        let message = method.request(call);
        let row = guard::row(NodeKind::Lnd, &message).expect("known");
        let handled = self.node.handle(row, &Request { request_id: 0, channel: None, message });
        for Put { key, value } in handled.puts {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
        handled.reply.map(|reply| (reply, handled.facts))
    }

    fn key(&self, family: Family, index: u32) -> PublicKey {
        self.node.keys.public(KeyPath::Channel(family, index))
    }

    fn address(&self, index: u32) -> ScriptBuf {
        let path = KeyPath::Wallet(Purpose::Witness, Chain::External, index);
        addresses(self.node.keys.secp(), Purpose::Witness, self.node.keys.public(path)).remove(0)
    }

    /// A channel's secrets are made, as at each opening.
    fn reserve(&mut self, our_index: u32, root_index: u32) -> Result<(), Refusal> {
        let point = self.key(Family::Multisig, our_index);
        self.share(Family::RevocationRoot as i32, root_index as i32, &point).map(drop)
    }

    fn share(&mut self, key_family: i32, key_index: i32, point: &PublicKey) -> Result<Vec<u8>, Refusal> {
        let key_loc = Some(KeyLocator { key_family, key_index });
        let key_desc = Some(KeyDescriptor { raw_key_bytes: vec![], key_loc });
        let call = SharedKeyRequest { ephemeral_pubkey: point.serialize().to_vec(), key_loc: None, key_desc };
        let (reply, _) = self.ask(Method::DeriveSharedKey, &call)?;
        Ok(SharedKeyResponse::decode(&reply[..]).expect("a reply").shared_key)
    }

    fn sign(&mut self, psbt: &Psbt) -> Result<(Psbt, String), Refusal> {
        let call = SignPsbtRequest { funded_psbt: psbt.serialize() };
        let (reply, facts) = self.ask(Method::SignPsbt, &call)?;
        let reply = SignPsbtResponse::decode(&reply[..]).expect("a reply");
        let class = facts.iter().find(|fact| fact.name == "class").expect("a class").value.to_string();
        Ok((Psbt::deserialize(&reply.signed_psbt).expect("a PSBT"), class))
    }

    fn class(&mut self, psbt: &Psbt) -> Result<String, Reason> {
        self.sign(psbt).map(|(_, class)| class).map_err(|refusal| refusal.reason)
    }

    fn funding_script(&self, our_index: u32) -> ScriptBuf {
        make_funding_redeemscript(&self.key(Family::Multisig, our_index), &peer_key(3))
    }

    /// A spend of the funding output of channel `our_index`.
    fn funding_spend(&self, our_index: u32, sequence: u32, lock_time: u32, outputs: Vec<TxOut>) -> Psbt {
        let script = self.funding_script(our_index);
        let tx = tx(vec![(funding(our_index), sequence)], lock_time, outputs);
        let mut psbt = Psbt::from_unsigned_tx(tx).expect("unsigned");
        let key = self.key(Family::Multisig, our_index);
        channel_input(&mut psbt, 0, CAPACITY_SAT, &script, (Family::Multisig, our_index, key), EcdsaSighashType::All);
        psbt
    }

    /// A commitment with this number; `ours_sat` stands in an output that only the counterparty's has.
    fn commitment(&self, our_index: u32, number: u64, ours_sat: Option<u64>) -> Psbt {
        let obscured = number ^ MASK;
        let (sequence, lock_time) = (0x80 << 24 | (obscured >> 24) as u32, 0x20 << 24 | (obscured & 0xff_ffff) as u32);
        let theirs_sat = CAPACITY_SAT - FEE_SAT - ours_sat.unwrap_or(0) - number % 100;
        let mut outputs = vec![out(theirs_sat, peer_script())];
        let to_us = to_remote(&self.key(Family::PaymentBase, our_index)).to_p2wsh();
        outputs.extend(ours_sat.map(|sat| out(sat, to_us)));
        self.funding_spend(our_index, sequence, lock_time, outputs)
    }

    /// A channel that opened and took `number` updates.
    fn with_channel(our_index: u32, number: u64) -> Self {
        let mut lnd = Self::new();
        lnd.reserve(our_index, our_index + 1).expect("ours");
        for number in 0..=number {
            let commitment = lnd.commitment(our_index, number, Some(600_000));
            assert_eq!(lnd.class(&commitment), Ok("counterparty-commitment".to_owned()));
        }
        lnd
    }

    /// A coin of the wallet with the transaction that made it.
    fn coin(&self, index: u32, sat: u64) -> (OutPoint, Transaction) {
        let made = tx(
            vec![(OutPoint { txid: Txid::from_byte_array([index as u8; 32]), vout: 0 }, 0)],
            0,
            vec![out(sat, self.address(index))],
        );
        (OutPoint { txid: made.compute_txid(), vout: 0 }, made)
    }

    /// What lnd asks for input `at` of a spend of these coins: `said` is what it says that they hold.
    fn spend(&self, coins: &[(u32, u64)], said: &[u64], at: usize, outputs: Vec<TxOut>) -> Psbt {
        let made: Vec<_> = coins.iter().map(|(index, sat)| self.coin(*index, *sat)).collect();
        let inputs = made.iter().map(|(point, _)| (*point, 0xffff_ffff)).collect();
        let mut psbt = Psbt::from_unsigned_tx(tx(inputs, 0, outputs)).expect("unsigned");
        for (n, ((index, _), (_, made))) in coins.iter().zip(made).enumerate() {
            let input = &mut psbt.inputs[n];
            input.witness_utxo = Some(out(said[n], self.address(*index)));
            if n == at {
                let key = self.node.keys.public(KeyPath::Wallet(Purpose::Witness, Chain::External, *index));
                let path: DerivationPath = format!("m/84'/0'/0'/0/{index}").parse().expect("a path");
                input.bip32_derivation.insert(key, (Fingerprint::default(), path));
                input.non_witness_utxo = Some(made);
                input.sighash_type = Some(EcdsaSighashType::All.into());
                input.redeem_script = Some(self.address(*index));
                input.witness_script = Some(self.address(*index));
            }
        }
        psbt
    }
}

fn funding(our_index: u32) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([0xf0; 32]), vout: our_index }
}

fn peer_script() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()
}

fn out(sat: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey }
}

fn tx(inputs: Vec<(OutPoint, u32)>, lock_time: u32, output: Vec<TxOut>) -> Transaction {
    let input = inputs.into_iter().map(|(previous_output, sequence)| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence(sequence),
        witness: Witness::new(),
    });
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(lock_time),
        input: input.collect(),
        output,
    }
}

fn channel_input(
    psbt: &mut Psbt,
    at: usize,
    sat: u64,
    script: &ScriptBuf,
    (family, index, key): (Family, u32, PublicKey),
    sighash: EcdsaSighashType,
) {
    let path: DerivationPath = format!("m/1017'/1'/{}'/0/{index}", family as u32).parse().expect("a path");
    let input = &mut psbt.inputs[at];
    input.witness_utxo = Some(out(sat, script.to_p2wsh()));
    input.witness_script = Some(script.clone());
    input.bip32_derivation.insert(key, (Fingerprint::default(), path));
    input.sighash_type = Some(sighash.into());
}

fn tweaked(psbt: &mut Psbt, record: u8, value: [u8; 32]) {
    psbt.inputs[0].unknown.insert(raw::Key { type_value: record, key: vec![] }, value.to_vec());
}

#[test]
fn a_channel_opens_updates_and_closes_and_every_signature_verifies() {
    let mut lnd = Lnd::with_channel(0, 0);
    // lnd tries whether it can sign its own first commitment.
    let first = lnd.commitment(0, 0, None);
    assert_eq!(lnd.class(&first), Ok("holder-commitment".to_owned()));
    for number in 1..4 {
        let psbt = lnd.commitment(0, number, Some(600_000 - number * 1_000));
        let (signed, class) = lnd.sign(&psbt).expect("honest");
        assert_eq!(class, "counterparty-commitment");
        let key = lnd.key(Family::Multisig, 0);
        let signature = signed.inputs[0].partial_sigs[&key.into()];
        let script = lnd.funding_script(0);
        let mut cache = SighashCache::new(&psbt.unsigned_tx);
        let amount = Amount::from_sat(CAPACITY_SAT);
        let digest = cache.p2wsh_signature_hash(0, &script, amount, EcdsaSighashType::All).expect("a digest");
        let digest = Digest::from_digest(digest.to_byte_array());
        assert!(lnd.node.keys.secp().verify_ecdsa(&digest, &signature.signature, &key).is_ok());
        assert_eq!(lnd.sign(&psbt).expect("asked again").0, signed, "the same answer (P5)");
        lnd = lnd.restarted();
        assert_eq!(lnd.sign(&psbt).expect("asked again").0, signed);
    }
    let ours = lnd.address(0);
    let close = lnd.funding_spend(0, 0xffff_ffff, 0, vec![out(402_000, peer_script()), out(597_000, ours)]);
    assert_eq!(lnd.class(&close), Ok("mutual-close".to_owned()));
}

#[test]
fn a_commitment_out_of_order_is_refused_and_the_last_one_passes_again_even_changed() {
    let mut lnd = Lnd::with_channel(0, 5);
    for number in [4, 7, 1 << 40] {
        let psbt = lnd.commitment(0, number, Some(1_000));
        assert_eq!(lnd.class(&psbt), Err(Reason::CommitmentOrder), "{number}");
    }
    // lnd asks for another transaction under the same number after an attempt that failed.
    for (number, sat) in [(5, 500_000), (6, 400_000)] {
        let psbt = lnd.commitment(0, number, Some(sat));
        assert!(lnd.class(&psbt).is_ok(), "{number}");
    }
}

#[test]
fn hostile_channels_that_nobody_opened_are_not_signed_for() {
    let mut lnd = Lnd::new();
    let commitment = lnd.commitment(0, 0, Some(600_000));
    assert_eq!(lnd.class(&commitment), Err(Reason::ChannelUnknown));
    let close = lnd.funding_spend(0, 0xffff_ffff, 0, vec![out(999_000, lnd.address(0))]);
    assert_eq!(lnd.class(&close), Err(Reason::ChannelUnknown));
    lnd.reserve(0, 1).expect("ours");
    assert!(lnd.class(&commitment).is_ok());
    // A key funds one channel.
    let mut other = commitment.clone();
    other.unsigned_tx.input[0].previous_output.vout = 77;
    assert_eq!(lnd.class(&other), Err(Reason::ChannelUnknown));
    // And a channel has one amount and one counterparty.
    let mut other = lnd.commitment(0, 1, Some(600_000));
    let known = other.inputs[0].witness_utxo.as_mut().expect("there");
    known.value = Amount::from_sat(CAPACITY_SAT + 1);
    assert_eq!(lnd.class(&other), Err(Reason::FundingMismatch));
}

#[test]
fn after_our_commitment_was_signed_to_close_there_is_no_other_state() {
    let mut lnd = Lnd::with_channel(0, 3);
    let ours = lnd.commitment(0, 3, None);
    assert_eq!(lnd.class(&ours), Ok("holder-commitment".to_owned()));
    lnd = lnd.restarted();
    assert_eq!(lnd.class(&ours), Ok("holder-commitment".to_owned()), "the same again");
    for (number, sat) in [(4, Some(600_000)), (2, None), (4, None)] {
        let other = lnd.commitment(0, number, sat);
        assert_eq!(lnd.class(&other), Err(Reason::UpdateAfterClose), "{number}");
    }
}

#[test]
fn a_mutual_close_pays_us_what_we_own_or_is_refused() {
    let close = |outputs: &dyn Fn(&Lnd) -> Vec<TxOut>| {
        let mut lnd = Lnd::with_channel(0, 1);
        let psbt = lnd.funding_spend(0, 0xffff_fffd, 800_000, outputs(&lnd));
        lnd.class(&psbt)
    };
    let foreign = || ScriptBuf::from_bytes(vec![0x52]).to_p2wsh();
    assert!(close(&|lnd| vec![out(399_000, peer_script()), out(600_000, lnd.address(3))]).is_ok());
    assert!(close(&|lnd| vec![out(400_000, peer_script()), out(599_000, lnd.address(3))]).is_ok(), "we pay the fee");
    assert_eq!(close(&|lnd| vec![out(401_000, peer_script()), out(598_000, lnd.address(3))]), Err(Reason::CloseValue));
    assert_eq!(close(&|_| vec![out(399_000, peer_script()), out(600_000, foreign())]), Err(Reason::CloseValue));
    assert_eq!(close(&|_| vec![out(999_000, peer_script())]), Err(Reason::CloseValue));
    let burns = close(&|lnd| vec![out(400_000, peer_script()), out(100_000, lnd.address(3))]);
    assert_eq!(burns, Err(Reason::SweepFee));
}

#[test]
fn hostile_shapes_around_a_funding_key_are_no_class() {
    let mut lnd = Lnd::with_channel(0, 1);
    let honest = lnd.commitment(0, 2, Some(600_000));
    let mut refused = |change: &dyn Fn(&mut Psbt)| {
        let mut psbt = honest.clone();
        change(&mut psbt);
        lnd.class(&psbt).expect_err("refused")
    };
    for sighash in [2u32, 3, 0x81, 0x82, 0x83, 0x84] {
        let kind = bitcoin::psbt::PsbtSighashType::from_u32(sighash);
        assert_eq!(refused(&|psbt| psbt.inputs[0].sighash_type = Some(kind)), Reason::TransactionUnknown);
    }
    assert_eq!(refused(&|psbt| tweaked(psbt, 0x51, [7; 32])), Reason::TransactionUnknown);
    assert_eq!(refused(&|psbt| tweaked(psbt, 0xd0, [7; 32])), Reason::TransactionUnknown);
    let script = || ScriptBuf::from_bytes(vec![0x53]);
    assert_eq!(refused(&|psbt| psbt.inputs[0].witness_script = Some(script())), Reason::TransactionUnknown);
    assert_eq!(refused(&|psbt| psbt.inputs[0].witness_utxo = None), Reason::Malformed);
    let foreign = |psbt: &mut Psbt| psbt.inputs[0].bip32_derivation = [(peer_key(3), Default::default())].into();
    assert_eq!(refused(&foreign), Reason::KeyPurpose);
    let sequence = |psbt: &mut Psbt| psbt.unsigned_tx.input[0].sequence = Sequence(7);
    assert_eq!(refused(&sequence), Reason::TransactionUnknown);
    let more = |psbt: &mut Psbt| psbt.unsigned_tx.output[0].value = Amount::from_sat(CAPACITY_SAT);
    assert_eq!(refused(&more), Reason::TransactionUnknown);
    assert!(lnd.class(&honest).is_ok());
}

#[test]
fn what_a_channel_pays_us_is_swept_to_ourselves_only() {
    let mut lnd = Lnd::new();
    let key = lnd.key(Family::PaymentBase, 4);
    let script = to_remote(&key);
    let sweep = |pays: ScriptBuf, sat: u64| {
        let spends = OutPoint { txid: Txid::from_byte_array([1; 32]), vout: 1 };
        let mut psbt = Psbt::from_unsigned_tx(tx(vec![(spends, 1)], 0, vec![out(sat, pays)])).expect("unsigned");
        channel_input(&mut psbt, 0, 200_000, &script, (Family::PaymentBase, 4, key), EcdsaSighashType::All);
        psbt
    };
    assert_eq!(lnd.class(&sweep(peer_script(), 199_000)), Err(Reason::OutputForeign));
    assert_eq!(lnd.class(&sweep(lnd.address(9), 90_000)), Err(Reason::SweepFee));
    assert_eq!(lnd.class(&sweep(lnd.address(9), 199_000)), Ok("to-remote-sweep".to_owned()));
    // The key of one family does not sign for another's script.
    let mut psbt = sweep(lnd.address(9), 199_000);
    psbt.inputs[0].bip32_derivation.clear();
    let delay = lnd.key(Family::DelayBase, 4);
    channel_input(&mut psbt, 0, 200_000, &to_remote(&delay), (Family::DelayBase, 4, delay), EcdsaSighashType::All);
    assert_eq!(lnd.class(&psbt), Err(Reason::TransactionUnknown));
}

#[test]
fn a_delayed_output_is_swept_only_if_its_commitment_was_signed_to_close() {
    let mut lnd = Lnd::with_channel(0, 2);
    let root = lnd.share(Family::RevocationRoot as i32, 1, &lnd.key(Family::Multisig, 0)).expect("the channel's");
    let root: [u8; 32] = root.try_into().expect("32 bytes");
    let point = |number| {
        let secret = lightning::ln::chan_utils::build_commitment_secret(&root, (1 << 48) - 1 - number);
        SecretKey::from_slice(&secret).expect("a key").public_key(&Secp256k1::new())
    };
    let basepoint = lnd.key(Family::DelayBase, 7);
    let sweep = |lnd: &mut Lnd, number: u64| {
        let tweak = channels::tweak(&point(number), &basepoint);
        let scalar = Scalar::from_be_bytes(tweak).expect("a scalar");
        let delayed = basepoint.add_exp_tweak(&Secp256k1::new(), &scalar).expect("a key");
        let script = lightning::ln::chan_utils::get_revokeable_redeemscript(
            &lightning::ln::channel_keys::RevocationKey(peer_key(5)),
            144,
            &lightning::ln::channel_keys::DelayedPaymentKey(delayed),
        );
        let spends = OutPoint { txid: Txid::from_byte_array([1; 32]), vout: 0 };
        let outputs = vec![out(99_000, lnd.address(1))];
        let mut psbt = Psbt::from_unsigned_tx(tx(vec![(spends, 144)], 0, outputs)).expect("unsigned");
        channel_input(&mut psbt, 0, 100_000, &script, (Family::DelayBase, 7, basepoint), EcdsaSighashType::All);
        tweaked(&mut psbt, 0x51, tweak);
        lnd.class(&psbt)
    };
    assert_eq!(sweep(&mut lnd, 2), Err(Reason::TransactionUnknown));
    let ours = lnd.commitment(0, 2, None);
    assert_eq!(lnd.class(&ours), Ok("holder-commitment".to_owned()));
    assert_eq!(sweep(&mut lnd, 1), Err(Reason::TransactionUnknown), "another commitment's");
    assert_eq!(sweep(&mut lnd, 2), Ok("delayed-sweep".to_owned()));
}

#[test]
fn hostile_amounts_are_found_out_before_the_last_input_is_signed() {
    let coins = [(0, 40_000), (1, 5_000_000)];
    let outputs = |lnd: &Lnd| vec![out(39_000, lnd.address(5))];
    // Input 0 is signed with a lie about input 1, which must then hold as little when it is signed itself.
    let mut lnd = Lnd::new();
    let first = lnd.spend(&coins, &[40_000, 1_000], 0, outputs(&lnd));
    assert!(lnd.class(&first).is_ok(), "one signature spends nothing");
    let last = lnd.spend(&coins, &[40_000, 5_000_000], 1, outputs(&lnd));
    assert_eq!(lnd.class(&last), Err(Reason::CoinAmount));
    let lies = lnd.spend(&coins, &[1, 5_000_000], 1, outputs(&lnd));
    assert_eq!(lnd.class(&lies), Err(Reason::CoinAmount), "input 0 was signed with another amount");
    // Nor is there a way around the proof.
    let mut lnd = Lnd::new();
    assert_eq!(lnd.class(&last), Err(Reason::Limit), "the truth is too much for a fee");
    let mut unproven = last.clone();
    unproven.inputs[1].non_witness_utxo = None;
    assert_eq!(lnd.class(&unproven), Err(Reason::CoinUnproven));
    let mut other = lnd.spend(&coins, &[40_000, 1_000], 1, outputs(&lnd));
    assert_eq!(lnd.class(&other), Err(Reason::CoinAmount), "the coin's own transaction says otherwise");
    other.inputs[1].non_witness_utxo = Some(lnd.coin(0, 1).1);
    assert_eq!(lnd.class(&other), Err(Reason::CoinAmount));
    // The honest twin.
    let honest = |lnd: &Lnd| vec![out(5_039_000, lnd.address(5))];
    for at in [0, 1] {
        let psbt = lnd.spend(&coins, &[40_000, 5_000_000], at, honest(&lnd));
        assert_eq!(lnd.class(&psbt), Ok("wallet-spend".to_owned()));
    }
}

#[test]
fn the_wallet_pays_others_within_the_limits_and_itself_without() {
    let send = |sat: u64, change: u64, index: u32, lnd: &mut Lnd| {
        let outputs =
            vec![out(sat, ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::all_zeros())), out(change, lnd.address(8))];
        let psbt = lnd.spend(&[(index, 1_000_000)], &[1_000_000], 0, outputs);
        let first = lnd.class(&psbt);
        assert_eq!(lnd.class(&psbt), first, "asked again and counted once");
        first
    };
    let mut lnd = Lnd::new();
    assert_eq!(send(50_001, 940_000, 0, &mut lnd), Err(Reason::Limit));
    assert!(send(50_000, 940_000, 0, &mut lnd).is_ok());
    assert_eq!(send(10_001, 980_000, 1, &mut lnd), Err(Reason::Limit), "the day is full");
    assert!(send(10_000, 980_000, 1, &mut lnd).is_ok());
    assert_eq!(send(600, 1_000, 2, &mut lnd), Err(Reason::Limit), "the fee is a million");
    let own = vec![out(999_000, lnd.address(300))];
    let psbt = lnd.spend(&[(3, 1_000_000)], &[1_000_000], 0, own);
    assert_eq!(lnd.class(&psbt), Err(Reason::Limit), "nobody knows an address this far ahead");
    let psbt = lnd.spend(&[(200, 1_000_000)], &[1_000_000], 0, vec![out(999_000, lnd.address(300))]);
    assert!(lnd.class(&psbt).is_ok(), "a coin that was spent shows how far lnd has come");
}

#[test]
fn a_key_of_the_wallet_signs_for_its_own_coin_only() {
    let mut lnd = Lnd::new();
    let honest = lnd.spend(&[(0, 10_000)], &[10_000], 0, vec![out(9_000, lnd.address(1))]);
    let key = lnd.node.keys.public(KeyPath::Wallet(Purpose::Witness, Chain::External, 0));
    for script in [make_funding_redeemscript(&key, &peer_key(3)), to_remote(&key)] {
        let mut psbt = honest.clone();
        psbt.inputs[0].non_witness_utxo = None;
        psbt.inputs[0].witness_utxo = Some(out(10_000, script.to_p2wsh()));
        psbt.inputs[0].witness_script = Some(script);
        assert_eq!(lnd.class(&psbt), Err(Reason::KeyPurpose));
    }
    assert!(lnd.class(&honest).is_ok());
}

#[test]
fn outputs_that_may_fund_channels_fill_a_bucket_that_first_commitments_empty() {
    let mut lnd = Lnd::new();
    let limit_sat = settings().limits.max_unproven_funding_sat;
    let fund = |lnd: &mut Lnd, index: u32, sat: u64| {
        let coin_sat = sat + FEE_SAT;
        let outputs = vec![out(sat, lnd.funding_script(index).to_p2wsh())];
        let psbt = lnd.spend(&[(index, coin_sat)], &[coin_sat], 0, outputs);
        lnd.class(&psbt).map(|_| OutPoint { txid: psbt.unsigned_tx.compute_txid(), vout: 0 })
    };
    let point = fund(&mut lnd, 0, CAPACITY_SAT).expect("there is room");
    assert!(fund(&mut lnd, 1, limit_sat - CAPACITY_SAT).is_ok());
    lnd = lnd.restarted();
    assert_eq!(fund(&mut lnd, 2, 60_000), Err(Reason::Limit), "full, and more than a send may be");
    // The first commitment shows that it is a channel, and ours.
    lnd.reserve(0, 1).expect("ours");
    let mut commitment = lnd.commitment(0, 0, Some(990_000));
    commitment.unsigned_tx.input[0].previous_output = point;
    assert!(lnd.class(&commitment).is_ok());
    assert!(fund(&mut lnd, 2, 60_000).is_ok());
}

#[test]
fn secrets_are_shared_for_their_purposes_and_no_other() {
    let mut lnd = Lnd::new();
    let theirs = peer_key(4);
    for (family, index) in [(6, 0), (8, 0), (8, 31), (9, 0)] {
        assert!(lnd.share(family, index, &theirs).is_ok(), "{family}/{index}");
    }
    for (family, index) in [(0, 0), (1, 0), (2, 5), (3, 0), (4, 1), (5, 1), (6, 1), (7, 0), (9, 1)] {
        let refused = lnd.share(family, index, &theirs).expect_err("refused");
        assert_eq!(refused.reason, Reason::SecretPurpose, "{family}/{index}");
    }
    assert_eq!(lnd.share(99, 0, &theirs).expect_err("refused").reason, Reason::KeyPurpose);
    assert_eq!(lnd.share(-1, 0, &theirs).expect_err("refused").reason, Reason::Malformed);
    // A revocation root: with our own funding key, and one root for each.
    assert!(lnd.reserve(3, 1).is_ok());
    assert!(lnd.reserve(3, 1).is_ok(), "asked again");
    assert_eq!(lnd.reserve(3, 2).expect_err("another root").reason, Reason::SecretPurpose);
    lnd = lnd.restarted();
    assert_eq!(lnd.reserve(3, 2).expect_err("another root").reason, Reason::SecretPurpose);
    assert!(lnd.reserve(4, 2).is_ok());
    // The secret is what Diffie and Hellman make it.
    let ours = lnd.share(6, 0, &theirs).expect("the node's");
    let secret = SecretKey::from_slice(&[4; 32]).expect("a key");
    assert_eq!(ours, SharedSecret::new(&lnd.node.keys.node_id(), &secret).as_ref());
}

#[test]
fn lnds_ways_to_name_a_key_are_its_own() {
    let mut lnd = Lnd::new();
    let point = peer_key(4).serialize().to_vec();
    let locator = KeyLocator { key_family: 6, key_index: 0 };
    let raw_key_bytes = lnd.key(Family::NodeKey, 0).serialize().to_vec();
    let described = |raw: &[u8], index| KeyDescriptor {
        raw_key_bytes: raw.to_vec(),
        key_loc: Some(KeyLocator { key_family: 6, key_index: index }),
    };
    let call = SharedKeyRequest { ephemeral_pubkey: point.clone(), key_loc: None, key_desc: None };
    let mut ask = |change: &dyn Fn(&mut SharedKeyRequest)| {
        let mut call = call.clone();
        change(&mut call);
        lnd.ask(Method::DeriveSharedKey, &call).map(|(reply, _)| reply).map_err(|refusal| refusal.detail)
    };
    let plain = ask(&|_| {}).expect("the node's key unless said otherwise");
    assert_eq!(ask(&|call| call.key_loc = Some(locator)), Ok(plain.clone()));
    assert_eq!(ask(&|call| call.key_desc = Some(described(&raw_key_bytes, 0))), Ok(plain));
    let refused = |result: Result<Vec<u8>, String>, words: &str| {
        let detail = result.expect_err("refused");
        assert!(detail.contains(words), "{detail}");
    };
    refused(ask(&|call| call.ephemeral_pubkey.clear()), "must provide ephemeral pubkey");
    refused(
        ask(&|call| {
            call.key_loc = Some(locator);
            call.key_desc = Some(described(&[], 0));
        }),
        "use either key_desc or key_loc",
    );
    refused(ask(&|call| call.key_desc = Some(described(&raw_key_bytes, 1))), "use either raw_key_bytes or key_index");
    refused(ask(&|call| call.key_desc = Some(described(&point, 0))), "raw_key_bytes is not");
}

#[test]
fn hostile_messages_that_are_digests_of_transactions_or_meant_for_other_keys_are_not_signed() {
    let mut lnd = Lnd::new();
    let mut sign = |family: i32, msg: &[u8], change: &dyn Fn(&mut SignMessageReq)| {
        let key_loc = Some(KeyLocator { key_family: family, key_index: 0 });
        let mut call = SignMessageReq { msg: msg.to_vec(), key_loc, double_hash: true, ..SignMessageReq::default() };
        change(&mut call);
        lnd.ask(Method::SignMessage, &call).map(|_| ()).map_err(|refusal| refusal.reason)
    };
    // What BIP 143 has signed of a commitment: version, two digests, an outpoint, script, amount and so on.
    let preimage = [&[2, 0, 0, 0][..], &[7; 224]].concat();
    assert_eq!(sign(0, &preimage, &|_| {}), Err(Reason::GossipUnreadable));
    assert_eq!(sign(6, &preimage, &|_| {}), Err(Reason::GossipUnreadable));
    assert_eq!(sign(0, &preimage, &|call| call.double_hash = false), Err(Reason::KeyPurpose));
    assert_eq!(sign(6, b"anything", &|call| call.double_hash = false), Err(Reason::KeyPurpose));
    assert_eq!(sign(6, b"anything", &|call| call.compact_sig = true), Err(Reason::KeyPurpose));
    assert_eq!(sign(6, b"text", &|call| call.schnorr_sig = true), Err(Reason::KeyPurpose));
    assert_eq!(sign(6, b"text", &|call| call.tag = b"TapSighash".to_vec()), Err(Reason::KeyPurpose));
    for family in [1, 2, 3, 4, 5, 7, 8, 9] {
        let text = b"Lightning Signed Message:hello";
        assert_eq!(sign(family, text, &|call| call.compact_sig = true), Err(Reason::KeyPurpose), "{family}");
    }
    assert_eq!(sign(10, b"text", &|_| {}), Err(Reason::KeyPurpose));
    assert_eq!(sign(6, b"Lightning Signed Message:hello", &|call| call.compact_sig = true), Ok(()));
}

#[test]
fn announcements_are_signed_with_the_keys_that_they_name() {
    let mut lnd = Lnd::new();
    let (node_id, funding) = (lnd.node.keys.node_id(), lnd.key(Family::Multisig, 2));
    let announcement = |node: &PublicKey, ours: &PublicKey, network: Network| {
        let chain = bitcoin::constants::ChainHash::using_genesis_block(network).to_bytes();
        let keys = [node.serialize(), peer_key(8).serialize(), ours.serialize(), peer_key(7).serialize()].concat();
        [&[0, 0][..], &chain, &[1; 8], &keys].concat()
    };
    let mut sign = |key_family: i32, key_index: i32, msg: Vec<u8>| {
        let key_loc = Some(KeyLocator { key_family, key_index });
        let call = SignMessageReq { msg, key_loc, double_hash: true, ..SignMessageReq::default() };
        lnd.ask(Method::SignMessage, &call).map(|(reply, _)| reply).map_err(|refusal| refusal.reason)
    };
    let honest = announcement(&node_id, &funding, Network::Regtest);
    for (family, index, key) in [(6, 0, node_id), (0, 2, funding)] {
        let reply = sign(family, index, honest.clone()).expect("honest");
        let signature = SignMessageResp::decode(&reply[..]).expect("a reply").signature;
        let signature = ecdsa::Signature::from_der(&signature).expect("DER");
        let digest = Digest::from_digest(sha256d::Hash::hash(&honest).to_byte_array());
        assert!(Secp256k1::new().verify_ecdsa(&digest, &signature, &key).is_ok());
    }
    assert_eq!(sign(0, 3, honest), Err(Reason::GossipForeign), "another channel's key");
    for foreign in [
        announcement(&peer_key(6), &funding, Network::Regtest),
        announcement(&node_id, &peer_key(6), Network::Regtest),
        announcement(&node_id, &funding, Network::Bitcoin),
    ] {
        assert_eq!(sign(0, 2, foreign.clone()), Err(Reason::GossipForeign));
        assert_eq!(sign(6, 0, foreign), Err(Reason::GossipForeign));
    }
}

#[test]
fn no_musig2_session_begins_whether_it_brings_its_nonce_or_not() {
    let mut lnd = Lnd::new();
    let mut session = MuSig2SessionRequest { pregenerated_local_nonce: vec![7; 97], ..MuSig2SessionRequest::default() };
    let reason = |result: Result<(Vec<u8>, Vec<Fact>), Refusal>| result.expect_err("refused").reason;
    assert_eq!(reason(lnd.ask(Method::MuSig2CreateSession, &session)), Reason::NonceForeign);
    session.pregenerated_local_nonce.clear();
    assert_eq!(reason(lnd.ask(Method::MuSig2CreateSession, &session)), Reason::BlindDigest);
    let digest = MuSig2SignRequest { message_digest: vec![7; 32], ..MuSig2SignRequest::default() };
    for method in &Method::ALL[4..] {
        assert_eq!(reason(lnd.ask(*method, &digest)), Reason::BlindDigest, "{method:?}");
    }
}

#[test]
fn a_frozen_node_takes_no_new_state_and_still_closes() {
    let mut lnd = Lnd::with_channel(0, 1);
    let given = Given { at_ms: 1, by: "uid 0".to_owned(), why: String::new() };
    for put in lnd.node.order(&Order::Freeze(None), given).expect("ordered") {
        lnd.entries.insert(put.key, put.value.expect("there"));
    }
    lnd = lnd.restarted();
    let (last, next) = (lnd.commitment(0, 1, Some(600_000)), lnd.commitment(0, 2, Some(600_000)));
    assert_eq!(lnd.class(&next), Err(Reason::Frozen));
    assert!(lnd.class(&last).is_ok(), "asked again");
    let close = lnd.funding_spend(0, 0xffff_ffff, 0, vec![out(399_000, peer_script()), out(600_000, lnd.address(1))]);
    assert!(lnd.class(&close).is_ok());
}

#[test]
fn entries_of_another_node_or_unknown_ones_are_refused() {
    let entries = Lnd::with_channel(0, 1).entries;
    let restore = |spec: &NodeSpec, entries: &BTreeMap<String, Vec<u8>>| {
        LndNode::restore(spec, &settings(), Arc::default(), entries.clone()).err()
    };
    assert_eq!(restore(&spec(), &entries), None);
    let other = NodeSpec { seed: Secret::init(|seed| seed.fill(3)), ..spec() };
    assert_eq!(restore(&other, &entries), Some(RestoreError::OtherNode("the seed does not match")));
    let mut more = entries.clone();
    more.insert("channel/1".to_owned(), vec![]);
    assert!(matches!(restore(&spec(), &more), Some(RestoreError::Entries(_))));
    for key in entries.keys() {
        let mut damaged = entries.clone();
        damaged.insert(key.clone(), b"{}".to_vec());
        assert!(matches!(restore(&spec(), &damaged), Some(RestoreError::Entries(_))), "{key}");
    }
}

#[test]
fn methods_are_the_rows_of_the_table() {
    for method in Method::ALL {
        let row = guard::row(NodeKind::Lnd, &(*method as u16).to_be_bytes()).expect("a row");
        assert_eq!(row.name, method.name());
        assert!(row.is_recorded());
        for kind in [NodeKind::Ldk, NodeKind::Cln] {
            assert!(guard::row(kind, &(*method as u16).to_be_bytes()).is_err());
        }
    }
    assert!(guard::row(NodeKind::Lnd, &1u16.to_be_bytes()).is_err(), "and no hsmd message is lnd's");
}
