//! The envelope against its owner, its attacker and its disk.

use super::*;
use crate::passphrase::{Argon2id, PassphraseSlot};
use crate::shares::SharesSlot;

const KEY: [u8; 32] = [0x42; 32];

fn slot(passphrase: &str) -> PassphraseSlot<'_> {
    PassphraseSlot { passphrase: passphrase.as_bytes(), cost: Argon2id { memory_kib: 8, passes: 1, lanes: 1 } }
}

fn envelope() -> Envelope {
    Envelope::create(&KEY, &slot("first")).expect("created")
}

fn opened(envelope: &Envelope, passphrase: &str) -> Result<(SlotId, [u8; 32]), EnvelopeError> {
    let mut key = [0; 32];
    envelope.open(&slot(passphrase), None, &mut key).map(|id| (id, key))
}

/// The file with `edit` applied to its JSON and the checksum made right again: a hostile file, not a damaged one.
fn forged(envelope: &Envelope, edit: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut json = serde_json::to_value(envelope).expect("json");
    edit(&mut json);
    let body = json.to_string();
    format!("{MAGIC} {VERSION} {}\n{body}", checksum(body.as_bytes())).into_bytes()
}

#[test]
fn it_survives_the_file_and_opens_with_its_passphrase_only() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("keyslots");
    let envelope = envelope();
    envelope.write(&path).expect("written");
    let read = Envelope::read(&path).expect("read");
    assert_eq!(read, envelope);
    assert_eq!(opened(&read, "first"), Ok((1, KEY)));
    assert_eq!(opened(&read, "First"), Err(EnvelopeError::WrongSecret(SlotKind::Passphrase)));
    assert!(!read.encode().windows(32).any(|window| window == KEY));
}

#[test]
fn slots_come_and_go_and_the_last_one_stays() {
    let mut envelope = envelope();
    assert_eq!(envelope.add(&KEY, &slot("second")), Ok(2));
    assert_eq!(opened(&envelope, "second"), Ok((2, KEY)));
    assert_eq!(envelope.remove(1, |_| true), Ok(()));
    assert_eq!(opened(&envelope, "first"), Err(EnvelopeError::WrongSecret(SlotKind::Passphrase)));
    assert_eq!(envelope.remove(1, |_| true), Err(EnvelopeError::UnknownSlot(1)));
    assert_eq!(envelope.remove(2, |_| true), Err(EnvelopeError::LastSlot(2)));
    assert_eq!(envelope.slots().collect::<Vec<_>>(), [(2, SlotKind::Passphrase)]);
    assert_eq!((envelope.add(&KEY, &slot("third")), opened(&envelope, "third")), (Ok(1), Ok((1, KEY))));
}

#[test]
fn there_is_an_end_to_slots() {
    let mut envelope = envelope();
    let added = std::iter::from_fn(|| envelope.add(&KEY, &slot("more")).ok()).count();
    assert_eq!(added, MAX_SLOTS - 1);
    assert_eq!(envelope.add(&KEY, &slot("more")), Err(EnvelopeError::Full));
}

#[test]
fn a_missing_file_names_its_path() {
    let path = PathBuf::from("/nonexistent/keyslots");
    assert_eq!(Envelope::read(&path), Err(EnvelopeError::Unreadable { path, kind: io::ErrorKind::NotFound }));
}

#[test]
fn something_else_is_not_taken_for_an_envelope() {
    for bytes in [&b""[..], b"\n", b"hello\n", b"\xff\xfe 1 x\n", b"claviger-keyslots"] {
        assert_eq!(Envelope::decode(bytes), Err(EnvelopeError::NotAnEnvelope));
    }
}

#[test]
fn a_newer_format_is_named_before_its_content_is_judged() {
    let newer = b"claviger-keyslots 7 whatever that means then\n\x00";
    assert_eq!(Envelope::decode(newer), Err(EnvelopeError::NewerVersion { found: 7 }));
    for version in ["0", "x", "-1", "70000"] {
        let bytes = format!("claviger-keyslots {version} \n");
        assert_eq!(Envelope::decode(bytes.as_bytes()), Err(EnvelopeError::Damaged("its version is unreadable")));
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let bytes = envelope().encode();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(Envelope::decode(&flipped).is_err(), "byte {at} flipped");
        assert!(Envelope::decode(&bytes[..at]).is_err(), "cut to {at} bytes");
    }
}

#[test]
fn a_hostile_file_is_refused_without_being_worked_for() {
    let envelope = envelope();
    let costly = forged(&envelope, |json| json["slots"][0]["wrapped"]["argon2id"]["memory_kib"] = u32::MAX.into());
    let costly = Envelope::decode(&costly).expect("well formed");
    assert_eq!(opened(&costly, "first"), Err(SlotError::Parameters("memory".into()).into()));

    let doubled = forged(&envelope, |json| json["slots"] = vec![json["slots"][0].clone(); 2].into());
    let empty = forged(&envelope, |json| json["slots"] = serde_json::json!([]));
    for bytes in [doubled, empty] {
        assert_eq!(Envelope::decode(&bytes), Err(EnvelopeError::Damaged("its slots are missing, doubled or too many")));
    }
    for unknown in [
        forged(&envelope, |json| json["extra"] = true.into()),
        forged(&envelope, |json| json["slots"][0]["wrapped"]["kind"] = "telepathy".into()),
        forged(&envelope, |json| json["slots"][0]["wrapped"]["note"] = "x".into()),
    ] {
        assert_eq!(Envelope::decode(&unknown), Err(EnvelopeError::Damaged("its content cannot be decoded")));
    }
}

#[test]
fn a_previous_data_key_is_kept_until_it_is_forgotten_and_unknown_to_earlier_versions() {
    let mut envelope = envelope();
    assert_eq!(envelope.previous(), None);
    envelope.keep_previous(vec![7; 73]);
    let read = Envelope::decode(&envelope.encode()).expect("its own");
    assert_eq!((read.previous(), opened(&read, "first")), (Some(&[7; 73][..]), Ok((1, KEY))));

    let body = serde_json::to_string(&serde_json::to_value(&envelope).expect("json")).expect("json");
    let body = body.replace("\"version\":3", "\"version\":2");
    let earlier = format!("{MAGIC} 2 {}\n{body}", checksum(body.as_bytes()));
    let error = EnvelopeError::Damaged("it has a previous data key, which its version does not know");
    assert_eq!(Envelope::decode(earlier.as_bytes()), Err(error));

    envelope.forget_previous();
    assert!(!envelope.encode().windows(8).any(|window| window == b"previous"));
}

#[test]
fn a_wrapped_key_moved_to_another_slot_or_installation_does_not_open() {
    let envelope = envelope();
    for moved in [
        forged(&envelope, |json| json["slots"][0]["id"] = 2.into()),
        forged(&envelope, |json| json["installation"] = "00".repeat(16).into()),
    ] {
        let moved = Envelope::decode(&moved).expect("well formed");
        assert_eq!(opened(&moved, "first"), Err(EnvelopeError::WrongSecret(SlotKind::Passphrase)));
    }
}

#[test]
fn the_last_slot_that_can_be_used_stays_and_another_goes() {
    let mut envelope = envelope();
    assert_eq!(envelope.add(&KEY, &SharesSlot::deal(2, 2).expect("dealt")), Ok(2));
    let passphrases_only = |wrapped: &Wrapped| wrapped.kind() == SlotKind::Passphrase;
    assert_eq!(envelope.remove(1, passphrases_only), Err(EnvelopeError::LastUsable(1)));
    assert_eq!(envelope.remove(2, passphrases_only), Ok(()));
}

#[test]
fn a_slot_stays_of_the_version_that_it_was_made_in() {
    let second = envelope();
    let as_first = |envelope: &Envelope| {
        let text = String::from_utf8(envelope.encode()).expect("text");
        text.replacen(&format!("{MAGIC} {VERSION}"), &format!("{MAGIC} 1"), 1).into_bytes()
    };
    // A heading that says less than the slots, a slot that says less than it is, and a kind before its time.
    let mixed = Err(EnvelopeError::Damaged("a slot is of another version than the file"));
    assert_eq!(Envelope::decode(&as_first(&second)), mixed);
    let downgraded = Envelope::decode(&forged(&second, |json| json["slots"][0]["version"] = 1.into())).expect("reads");
    assert_eq!(opened(&downgraded, "first"), Err(EnvelopeError::WrongSecret(SlotKind::Passphrase)));
    let mut shares = envelope();
    shares.add(&KEY, &SharesSlot::deal(2, 2).expect("dealt")).expect("added");
    assert_eq!(Envelope::decode(&forged(&shares, |json| json["slots"][1]["version"] = 1.into())), mixed);

    // A file of the first version opens, and its slot stays as it is when another joins it.
    let mut first = Envelope { installation: [5; 16], slots: Vec::new(), previous: Vec::new() };
    let wrapped = slot("old").wrap(&first.binding_of(1, 1, SlotKind::Passphrase), &KEY).expect("wraps");
    first.slots.push(Slot { id: 1, version: 1, wrapped });
    let mut read = Envelope::decode(&as_first(&first)).expect("reads");
    assert_eq!(opened(&read, "old"), Ok((1, KEY)));
    assert_eq!(read.add(&KEY, &slot("new")), Ok(2));
    let read = Envelope::decode(&read.encode()).expect("reads");
    assert_eq!((opened(&read, "old"), opened(&read, "new")), (Ok((1, KEY)), Ok((2, KEY))));
}

#[test]
fn a_slot_is_rewrapped_in_its_place_by_its_own_kind() {
    let mut envelope = envelope();
    assert_eq!(envelope.rewrap(1, &KEY, &slot("changed")), Ok(()));
    assert_eq!(opened(&envelope, "changed"), Ok((1, KEY)));
    assert_eq!(opened(&envelope, "first"), Err(EnvelopeError::WrongSecret(SlotKind::Passphrase)));
    let shares = SharesSlot::deal(2, 2).expect("dealt");
    assert_eq!(envelope.rewrap(1, &KEY, &shares), Err(SlotError::OtherKind(SlotKind::Passphrase).into()));
    assert_eq!(envelope.rewrap(2, &KEY, &shares), Err(EnvelopeError::UnknownSlot(2)));
}

#[test]
fn shares_are_judged_one_by_one_and_the_slot_that_is_named_is_the_one_that_is_tried() {
    let mut envelope = envelope();
    let [one, two] = [(); 2].map(|()| SharesSlot::deal(2, 3).expect("dealt"));
    assert_eq!((envelope.add(&KEY, &one), envelope.add(&KEY, &two)), (Ok(2), Ok(3)));
    let judged = |share: &Share, entered: &[Share]| envelope.judge_share(share, entered).map(|(id, _)| id);
    assert_eq!(judged(&one.shares()[0], &[]), Ok(2));
    assert_eq!(judged(&two.shares()[2], &[]), Ok(3));
    let twice = SlotError::from(shares::ShareError::Twice { index: 1 });
    assert_eq!(judged(&two.shares()[0], &two.shares()[..1]), Err(twice.into()));
    let foreign = SlotError::from(shares::ShareError::Foreign { index: 2 });
    assert_eq!(judged(&SharesSlot::deal(2, 3).expect("dealt").shares()[1], &[]), Err(foreign.into()));

    let open = |only| envelope.open(&one, only, &mut [0; 32]);
    assert_eq!(open(Some(2)), Ok(2));
    assert_eq!(open(None), Ok(2));
    assert_eq!(open(Some(1)), Err(SlotError::OtherKind(SlotKind::Passphrase).into()));
    assert_eq!(open(Some(9)), Err(EnvelopeError::UnknownSlot(9)));
    let foreign = SlotError::from(shares::ShareError::Foreign { index: 1 });
    assert_eq!(open(Some(3)), Err(foreign.into()));
}
