//! The real transactions of Lightspark's recovery kits: four channels' commitments, their HTLCs and sweeps, as signing jobs.

use super::*;
use crate::lightning::lightspark::transactions::{input, names, p2wpkh, read};

/// In each line: the key below `m/3`, the transaction, what it spends in sat, the digest, and what is added to the key:
/// nothing, what follows from the commitment of ours with this number, or a number that the counterparty's point makes.
const JOBS: &str = include_str!("recovery_kits.tsv");
const SEED: &str = "f520e5271623fe21c76b0212f855c97a";

#[test]
fn digests_keys_and_tweaks_of_the_recovery_kits_are_recomputed_from_transaction_amount_and_seed() {
    let keys = keys_of(SEED, Network::Regtest);
    for line in JOBS.lines() {
        let [path, transaction, amount, digest, tweak] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let key_path = KeyPath::parse(&format!("m/3/{path}"), Network::Regtest).expect("canonical");
        let KeyPath::ChannelKey(channel, purpose) = key_path else { panic!("a channel's key") };
        let transaction = hex::decode(transaction).expect("hex");
        let tx = read(&transaction).expect("a transaction");
        let add = match tweak {
            "-" => None,
            hex if hex.len() == 64 => Some(<[u8; 32]>::try_from(hex::decode(hex).expect("hex")).expect("32 bytes")),
            number => {
                let index = MAX_INDEX - number.parse::<u64>().expect("a number");
                Some(keys.add_tweak(channel, purpose, &keys.per_commitment_point(channel, index)))
            }
        };
        let secret = tweaked(keys.secret(key_path), None, add.as_ref()).expect("a key");
        let key = secret.public_key(keys.secp());
        let shown = tx.input[0].witness.last().expect("a script or a key");
        let script = if purpose == ChannelKey::Payment { p2wpkh(&key).into_bytes() } else { shown.to_vec() };
        assert!(names(&script, &key), "{path}: the tweaked key stands in the script");
        let job = Job {
            id: path.to_owned(),
            path: key_path,
            message: hex::decode(digest).expect("hex").try_into().expect("32 bytes"),
            add_tweak: add,
            mul_tweak: None,
            script,
            transaction,
            amount_sat: amount.parse().expect("a number"),
            destination: None,
        };
        assert_eq!(input(&job, &tx), Ok(0), "{path}: the digest");
        let other = Job { amount_sat: job.amount_sat + 1, ..job };
        assert_eq!(Spark::reason(input(&other, &tx)), Some(Reason::DigestMismatch), "{path}: another amount");
    }
}
