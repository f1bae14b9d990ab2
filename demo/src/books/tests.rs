//! The books are true when nothing is lost, and false when anything is.

use bitcoin::absolute::LockTime;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::opcodes::all::OP_DROP;
use bitcoin::script::Builder;
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Sequence, TxIn, Witness, transaction};

use super::*;

const DEPOSIT: Amount = Amount::from_sat(1_000_000);
const CHANNEL: Amount = Amount::from_sat(400_000);
const FEE: Amount = Amount::from_sat(1_000);

/// The script that `owner` pays to and spends from, without a key.
fn witness_script(owner: i64) -> ScriptBuf {
    Builder::new().push_int(owner).push_opcode(OP_DROP).push_opcode(OP_TRUE).into_script()
}

fn script(owner: i64) -> ScriptBuf {
    witness_script(owner).to_p2wsh()
}

const ALICE: i64 = 1;
const BOB: i64 = 2;
const STRANGER: i64 = 3;

fn to(script_pubkey: ScriptBuf, value: Amount) -> TxOut {
    TxOut { value, script_pubkey }
}

/// Confirms a transaction that spends `coins`, each with its witness, and returns its outputs.
fn confirm(chain: &Chain, coins: &[(OutPoint, Witness)], output: Vec<TxOut>) -> Vec<OutPoint> {
    let txin = |(previous_output, witness): &(OutPoint, Witness)| TxIn {
        previous_output: *previous_output,
        sequence: Sequence::MAX,
        witness: witness.clone(),
        ..TxIn::default()
    };
    let input = coins.iter().map(txin).collect();
    let tx = Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input, output };
    let txid = chain.broadcast(&tx).unwrap();
    chain.mine(1);
    (0..tx.output.len()).map(|vout| OutPoint { txid, vout: vout as u32 }).collect()
}

/// A coin of `owner`, and what spends it.
fn coin(outpoint: OutPoint, owner: i64) -> (OutPoint, Witness) {
    (outpoint, Witness::from_slice(&[witness_script(owner).as_bytes()]))
}

/// Alice and Bob, each with a deposit.
fn world() -> (std::sync::Arc<Chain>, OutPoint, OutPoint) {
    let chain = Chain::new();
    let alices = chain.fund(&script(ALICE), DEPOSIT);
    let bobs = chain.fund(&script(BOB), DEPOSIT);
    (chain, alices, bobs)
}

fn books(chain: &Chain, channels: &[OutPoint]) -> Books {
    Books::of(chain, &[vec![script(ALICE)], vec![script(BOB)]], channels)
}

#[test]
fn what_a_wallet_pays_to_another_is_accounted_for_and_what_it_pays_to_a_stranger_is_not() {
    for (payee, honest) in [(BOB, true), (STRANGER, false)] {
        let (chain, alices, _) = world();
        let change = DEPOSIT - CHANNEL - FEE;
        let made = confirm(&chain, &[coin(alices, ALICE)], vec![to(script(payee), CHANNEL), to(script(ALICE), change)]);
        let books = books(&chain, &[]);
        assert_eq!((books.deposited, books.fees, books.held[0]), (DEPOSIT * 2, FEE, change));
        let stolen = Err(Discrepancy::Astray([(made[0], CHANNEL)].into()));
        assert_eq!(books.check(DEPOSIT * 2), if honest { Ok(()) } else { stolen });
    }
}

#[test]
fn each_wallet_has_what_it_is_owed_less_costs_and_nothing_of_anothers() {
    let (chain, alices, _) = world();
    let change = to(script(ALICE), DEPOSIT - CHANNEL - FEE);
    confirm(&chain, &[coin(alices, ALICE)], vec![to(script(BOB), CHANNEL), change]);
    let books = books(&chain, &[]);
    let msat = |amount: Amount| amount.to_sat() as i64 * 1000;
    let owed = [msat(DEPOSIT - CHANNEL), msat(DEPOSIT + CHANNEL)];
    assert_eq!(books.check_shares(&owed), Ok(()));
    // One sat more than Alice's costs explain.
    let owed_msat = owed[0] + 1000;
    let short = Discrepancy::Share { wallet: 0, held: DEPOSIT - CHANNEL - FEE, owed_msat };
    assert_eq!(books.check_shares(&[owed_msat, owed[1] - 1000]), Err(short));
    // Bob has a satoshi that is Alice's.
    let owed_msat = owed[1] - 1000;
    let greedy = Discrepancy::Share { wallet: 1, held: DEPOSIT + CHANNEL, owed_msat };
    assert_eq!(books.check_shares(&[owed[0], owed_msat]), Err(greedy));
}

#[test]
fn a_stolen_coin_stays_stolen_when_it_moves_on() {
    for (payee, honest) in [(BOB, true), (STRANGER, false)] {
        let (chain, alices, _) = world();
        let stolen = confirm(&chain, &[coin(alices, ALICE)], vec![to(script(STRANGER), DEPOSIT)]);
        let made = confirm(&chain, &[coin(stolen[0], STRANGER)], vec![to(script(payee), DEPOSIT)]);
        let lost = Err(Discrepancy::Astray([(made[0], DEPOSIT)].into()));
        assert_eq!(books(&chain, &[]).check(DEPOSIT * 2), if honest { Ok(()) } else { lost });
    }
}

#[test]
fn coins_of_two_wallets_may_be_spent_together_and_those_of_a_stranger_may_not() {
    let together = DEPOSIT * 2 - FEE;
    let (chain, alices, bobs) = world();
    confirm(&chain, &[coin(alices, ALICE), coin(bobs, BOB)], vec![to(script(ALICE), together)]);
    let honest = books(&chain, &[]);
    assert_eq!((honest.held.as_slice(), honest.fees), ([together, Amount::ZERO].as_slice(), FEE));
    assert_eq!(honest.check(DEPOSIT * 2), Ok(()));

    let (chain, alices, _) = world();
    let strangers = chain.fund(&script(STRANGER), DEPOSIT);
    confirm(&chain, &[coin(alices, ALICE), coin(strangers, STRANGER)], vec![to(script(ALICE), together)]);
    let mixed = books(&chain, &[]);
    assert_eq!(mixed.fees, FEE, "the stranger's input has its real value");
    assert_eq!(mixed.check(DEPOSIT * 2), Err(Discrepancy::Foreign(DEPOSIT)));
}

#[test]
fn a_script_that_is_not_named_is_missed() {
    let (chain, alices, _) = world();
    confirm(&chain, &[coin(alices, ALICE)], vec![to(script(BOB), DEPOSIT - FEE)]);
    let partial = Books::of(&chain, &[vec![script(BOB)]], &[]);
    let expected = Discrepancy::Deposits { expected: DEPOSIT, found: DEPOSIT * 2 - FEE };
    assert_eq!(partial.check(DEPOSIT), Err(expected));
    assert_eq!(books(&chain, &[]).check(DEPOSIT * 2), Ok(()));
}

/// Alice funds a channel with Bob.
struct Channel {
    chain: std::sync::Arc<Chain>,
    keys: [SecretKey; 2],
    funding: OutPoint,
}

impl Channel {
    fn open() -> Self {
        let (chain, alices, _) = world();
        let keys = [SecretKey::from_slice(&[1; 32]).unwrap(), SecretKey::from_slice(&[2; 32]).unwrap()];
        let funding = to(Self::script(&keys).to_p2wsh(), CHANNEL);
        let change = to(script(ALICE), DEPOSIT - CHANNEL);
        let funding = confirm(&chain, &[coin(alices, ALICE)], vec![funding, change])[0];
        Self { chain, keys, funding }
    }

    fn script(keys: &[SecretKey; 2]) -> ScriptBuf {
        let [a, b] = keys.each_ref().map(|key| key.public_key(&Secp256k1::new()));
        make_funding_redeemscript(&a, &b)
    }

    fn anchor(&self, of: usize) -> TxOut {
        let key = self.keys[of].public_key(&Secp256k1::new());
        to(get_keyed_anchor_redeemscript(&key).to_p2wsh(), ANCHOR)
    }

    /// Confirms a commitment with `outputs`, signed by both.
    fn close(&self, output: Vec<TxOut>) -> Vec<OutPoint> {
        let witness_script = Self::script(&self.keys);
        let input = vec![TxIn { previous_output: self.funding, sequence: Sequence::MAX, ..TxIn::default() }];
        let unsigned = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input,
            output: output.clone(),
        };
        let all = EcdsaSighashType::All;
        let hash = SighashCache::new(&unsigned).p2wsh_signature_hash(0, &witness_script, CHANNEL, all).unwrap();
        let secp = Secp256k1::new();
        let mut keys = self.keys;
        // OP_CHECKMULTISIG wants the signatures in the order of the keys.
        keys.sort_by_key(|key| key.public_key(&secp).serialize());
        let sign = |key: &SecretKey| {
            let signature = secp.sign_ecdsa(&Message::from(hash), key);
            bitcoin::ecdsa::Signature { signature, sighash_type: all }.to_vec()
        };
        let witness = Witness::from_slice(&[vec![], sign(&keys[0]), sign(&keys[1]), witness_script.into_bytes()]);
        confirm(&self.chain, &[(self.funding, witness)], output)
    }
}

#[test]
fn an_open_channel_is_accounted_for_if_it_is_named() {
    let channel = Channel::open();
    let named = books(&channel.chain, &[channel.funding]);
    assert_eq!(named.in_channels, CHANNEL);
    assert_eq!(named.check(DEPOSIT * 2), Ok(()));
    let unnamed = Err(Discrepancy::Astray([(channel.funding, CHANNEL)].into()));
    assert_eq!(books(&channel.chain, &[]).check(DEPOSIT * 2), unnamed);
}

#[test]
fn a_commitments_two_anchors_are_left_and_nothing_that_looks_like_one() {
    let channel = Channel::open();
    let home = to(script(ALICE), CHANNEL - ANCHOR * 3);
    channel.close(vec![channel.anchor(0), channel.anchor(1), home.clone()]);
    let honest = books(&channel.chain, &[channel.funding]);
    assert_eq!((honest.anchors, honest.fees, honest.in_channels), (ANCHOR * 2, ANCHOR, Amount::ZERO));
    assert_eq!(honest.check(DEPOSIT * 2), Ok(()));

    // The same value elsewhere, the same anchor twice, an anchor of more.
    for strange in [to(script(STRANGER), ANCHOR), channel.anchor(0), TxOut { value: ANCHOR * 2, ..channel.anchor(1) }] {
        let channel = Channel::open();
        let made = channel.close(vec![channel.anchor(0), strange.clone(), home.clone()]);
        let astray = Err(Discrepancy::Astray([(made[1], strange.value)].into()));
        assert_eq!(books(&channel.chain, &[]).check(DEPOSIT * 2), astray);
    }
}

#[test]
fn a_coin_that_is_left_to_miners_is_accounted_for_and_one_that_is_burnt_is_not() {
    for burnt in [Amount::ZERO, Amount::ONE_SAT] {
        let (chain, alices, _) = world();
        let nobody = to(ScriptBuf::new_op_return([0; 3]), burnt);
        let made = confirm(&chain, &[coin(alices, ALICE)], vec![nobody]);
        let books = books(&chain, &[]);
        assert_eq!(books.fees, DEPOSIT - burnt);
        let lost = Err(Discrepancy::Astray([(made[0], burnt)].into()));
        assert_eq!(books.check(DEPOSIT * 2), if burnt == Amount::ZERO { Ok(()) } else { lost });
    }
}
