//! A data key is taken up only where it belongs, and then everything is sealed with it.

#![allow(clippy::unwrap_used)] // what fails may panic

use std::sync::PoisonError;

use claviger_hsm::Argon2id;

use super::*;
use crate::admin::api::AdminApi;
use crate::daemon::tests::{List, World, passphrase};
use crate::keys::data_key::{self, NewSlot};

/// Turns the key slot file of `world`; the data key before and the one from now on.
fn turned(world: &World) -> (DataKey, DataKey) {
    let file = world.daemon.dir.keyslots();
    let mut envelope = Envelope::read(&file).unwrap();
    let unlock = |envelope: &Envelope| data_key::unlock(envelope, &passphrase()).unwrap();
    let ((before, _), (data_key, slot)) = (unlock(&envelope), unlock(&envelope));
    let slots = [(slot, NewSlot::Passphrase(passphrase(), Argon2id { memory_kib: 8, passes: 1, lanes: 1 }))];
    let after = data_key::turn(&mut envelope, data_key, &slots).unwrap();
    envelope.write(&file).unwrap();
    (before, after)
}

fn copy(key: &Secret<32>) -> Secret<32> {
    key.expose(|key| Secret::init(|copy| copy.copy_from_slice(key)))
}

fn rotate(world: &World, key: &Secret<32>) -> Result<RotationProgress, AdminFailure> {
    let mut told = List::default();
    world.daemon.rotate(copy(key), "operator", &mut told)?;
    Ok(told.0.pop().unwrap())
}

fn node_ids(world: &World) -> Vec<String> {
    world.daemon.node_list().unwrap().into_iter().map(|node| node.node_id).collect()
}

/// Whether `data_key` alone opens the journal of `world`, which is closed, and every seed in it.
fn opens(world: &World, data_key: &DataKey) -> bool {
    let store = crate::journal::store::LoggedStore::open(&world.daemon.dir.journal(), 1 << 20).unwrap();
    let of = |purpose| RecordCipher::new(subkey(data_key.current(), purpose));
    let Ok(journal) = Journal::open(Arc::new(store), of(Purpose::Records), Default::default()) else { return false };
    let whole = journal.verify(&mut |_| true).is_ok();
    let seeds = journal.load(HOUSE).unwrap();
    let mut seeds = seeds.iter().filter(|(name, _)| name.starts_with("seed/")).peekable();
    assert!(seeds.peek().is_some());
    whole && seeds.all(|(name, sealed)| of(Purpose::Seeds).open(name.as_bytes(), sealed).is_ok())
}

#[test]
fn everything_is_sealed_with_the_key_that_is_taken_up_and_the_one_before_opens_nothing() {
    let world = World::new();
    world.add("alice", None).unwrap();
    world.decide("alice", 300);
    let ids = node_ids(&world);
    let (before, after) = turned(&world);
    let done = rotate(&world, after.current()).unwrap();
    assert!(done.finished && done.total > 300 && done.done == done.total, "{done:?}");
    assert!(rotate(&world, after.current()).unwrap().finished, "taken up once");
    assert_eq!(Envelope::read(&world.daemon.dir.keyslots()).unwrap().previous(), None);
    world.add("bob", None).unwrap();

    world.daemon.close(crate::reasons::Reason::Sealed);
    assert_eq!([&after, &before].map(|key| opens(&world, key)), [true, false]);
    world.reopen().unwrap();
    assert_eq!(node_ids(&world)[..1], ids);
    assert!(world.unsealed().rotation_progress().is_none(), "there is nothing left to do");
}

#[test]
fn a_key_that_does_not_follow_the_one_in_use_is_refused_and_changes_nothing() {
    let world = World::new();
    world.add("alice", None).unwrap();
    let stranger = Secret::random();
    assert_eq!(rotate(&world, &stranger).unwrap_err().kind, FailureKind::Invalid, "no key follows it");
    let (before, after) = turned(&world);
    assert_eq!(rotate(&world, &stranger).unwrap_err().kind, FailureKind::Damaged, "another one follows it");
    assert!(rotate(&world, before.current()).unwrap().finished, "in use already");
    assert!(world.unsealed().rotation_progress().is_none());

    // What follows it in another signer's file is none for this one.
    let other = World::new();
    std::fs::copy(world.daemon.dir.keyslots(), other.daemon.dir.keyslots()).unwrap();
    assert_eq!(rotate(&other, after.current()).unwrap_err().kind, FailureKind::Invalid);
    assert!(rotate(&world, after.current()).unwrap().finished);
}

#[test]
fn a_key_that_was_replaced_while_the_signer_was_sealed_is_taken_up_by_itself() {
    let world = World::new();
    world.add("alice", None).unwrap();
    let ids = node_ids(&world);
    world.daemon.close(crate::reasons::Reason::Sealed);
    let (before, after) = turned(&world);
    world.reopen().unwrap();
    assert!(rotate(&world, after.current()).unwrap().finished, "watched, not begun again");
    assert_eq!(node_ids(&world), ids);
    world.daemon.close(crate::reasons::Reason::Sealed);
    assert_eq!([&after, &before].map(|key| opens(&world, key)), [true, false]);
    world.reopen().unwrap();
}

#[test]
fn a_backup_that_is_being_made_is_finished_under_the_key_that_it_began_with() {
    let world = World::new();
    let (_, after) = turned(&world);
    let unsealed = world.unsealed();
    let making = unsealed.backup.read().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(rotate(&world, after.current()).unwrap_err().kind, FailureKind::Exists);
    drop(making);
    assert!(rotate(&world, after.current()).unwrap().finished);
}
