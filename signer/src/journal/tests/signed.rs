//! The end of the log, signed by a device key: met where it was signed, by what was signed.

use claviger_hsm::device_key::software::SoftwareKey;
use claviger_hsm::{DeviceKey, KeyKind, KeyRecord};

use super::super::record;
use super::super::store::MemoryStore;
use super::*;

/// A journal with ten decisions, then `signed` as whoever has the data key records it, then ten more.
fn checked(signed: impl FnOnce(&LogLine) -> SignedHead) -> Result<Verified, JournalError> {
    let journal = open(MemoryStore::new());
    let go_on = |numbers: std::ops::RangeInclusive<u64>| {
        for n in numbers {
            journal.commit(commit("alice", n, "channel/1", b"state")).unwrap();
        }
    };
    go_on(1..=10);
    let last = journal.tail(1).unwrap().pop().unwrap();
    let put = Put { key: SignedHead::KEY.to_owned(), value: Some(signed(&last).encode()) };
    journal.commit(Commit { tenant: HOUSE.to_owned(), puts: vec![put], decision: None }).unwrap();
    go_on(11..=20);
    journal.verify(&mut |_| true)
}

fn head_of(line: &LogLine) -> HeadAt {
    HeadAt { seq: line.seq, hash: hex::FromHex::from_hex(&line.hash).unwrap(), at_ms: 5 }
}

fn signed(key: &KeyRecord, head: HeadAt) -> SignedHead {
    let signature = SoftwareKey.sign(key, &head.message()).unwrap();
    SignedHead::new(head, KeyKind::Software, key.public, signature)
}

#[test]
fn a_log_that_was_signed_says_so_and_one_that_was_written_anew_is_damaged_there() {
    let key = SoftwareKey.create().unwrap();
    let honest = checked(|line| signed(&key, head_of(line))).unwrap().signed.unwrap();
    assert_eq!((honest.head.seq, honest.key), (10, key.public));

    let damage = |seq, what| Err(Damage { key: record::log_key(seq), what }.into());
    let anew = checked(|line| signed(&key, HeadAt { hash: [1; 32], ..head_of(line) }));
    assert_eq!(anew, damage(10, DamageKind::OtherThanSigned));
    let cut = checked(|line| signed(&key, HeadAt { seq: 21, ..head_of(line) }));
    assert_eq!(cut, damage(21, DamageKind::Missing));
}

#[test]
fn a_signature_of_another_head_or_another_key_is_damage() {
    let [key, other] = [(); 2].map(|()| SoftwareKey.create().unwrap());
    let entry = record::entry_key(HOUSE, SignedHead::KEY);
    let damage = |what| Err(Damage { key: entry.clone(), what }.into());
    let signature = SoftwareKey.sign(&other, b"something else").unwrap();
    let forged = checked(|line| SignedHead::new(head_of(line), KeyKind::Tpm, key.public, signature));
    assert_eq!(forged, damage(DamageKind::Signature));
}
