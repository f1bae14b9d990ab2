//! A directory follows a signer whose data key is replaced and which is closed meanwhile.

#![allow(clippy::unwrap_used)] // what fails may panic

use std::io::Write;
use std::path::Path;

use claviger_hsm::Argon2id;
use claviger_proto::v1::RotationProgress;

use super::*;
use crate::admin::api::AdminApi;
use crate::backup::{Chain, Directory};
use crate::daemon::tests::{List, World, passphrase};
use crate::keys::data_key::{self, NewSlot};
use crate::keys::memory::Secret;

/// Writes segments until the directory is up to date.
fn follow(world: &World, directory: &mut Directory) -> Result<(), AdminFailure> {
    loop {
        let mut pieces = List::default();
        let request = BackupRequest { segment: true, after: directory.after().to_vec() };
        world.daemon.backup(&request, &mut pieces)?;
        let mut written = directory.begin().unwrap();
        let end = pieces.0.pop().unwrap();
        assert!(end.done && end.bytes.is_empty());
        if pieces.0.is_empty() {
            return Ok(());
        }
        pieces.0.iter().try_for_each(|piece| written.write_all(&piece.bytes)).unwrap();
        directory.end(&written).unwrap();
    }
}

/// How many decisions the directory gives back, opened with the passphrase.
fn decisions(directory: &Path) -> u64 {
    let chain = Chain::read(directory, None).unwrap();
    let (data_key, _) = data_key::unlock(chain.last().envelope(), &passphrase()).unwrap();
    chain.check(&data_key, &mut |_| Ok(())).unwrap().1.decisions
}

#[test]
fn a_directory_follows_through_a_rotation_of_the_data_key_and_a_seal() {
    let world = World::new();
    fs::write(world.daemon.dir.config(), "network = \"regtest\"\n").unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("followed");
    let mut directory = Directory::open(&path, false).unwrap();
    let mut step = |world: &World| {
        world.decide("alice", 40);
        follow(world, &mut directory).unwrap();
        assert_eq!(decisions(&path), world.unsealed().journal.stats().last_seq);
    };
    step(&world);
    step(&world);

    let file = world.daemon.dir.keyslots();
    let mut envelope = Envelope::read(&file).unwrap();
    let (data_key, slot) = data_key::unlock(&envelope, &passphrase()).unwrap();
    let slots = [(slot, NewSlot::Passphrase(passphrase(), Argon2id { memory_kib: 8, passes: 1, lanes: 1 }))];
    let turned = data_key::turn(&mut envelope, data_key, &slots).unwrap();
    envelope.write(&file).unwrap();
    step(&world); // the key slots know the new key, the signer does not
    let key = turned.current().expose(|key| Secret::init(|copy| copy.copy_from_slice(key)));
    let mut told = List::<RotationProgress>::default();
    world.daemon.rotate(key, "operator", &mut told).unwrap();
    step(&world);
    world.reopen().unwrap();
    step(&world);

    world.daemon.close(crate::reasons::Reason::Sealed);
    let request = BackupRequest { segment: true, after: Vec::new() };
    let sealed = world.daemon.backup(&request, &mut List::default());
    assert_eq!(sealed.map_err(|failure| failure.kind), Err(FailureKind::Sealed));
}

#[test]
fn a_beginning_that_is_none_or_of_another_signer_is_named() {
    let (world, other) = (World::new(), World::new());
    for world in [&world, &other] {
        fs::write(world.daemon.dir.config(), "network = \"regtest\"\n").unwrap();
    }
    let temporary = tempfile::tempdir().unwrap();
    let mut directory = Directory::open(&temporary.path().join("followed"), false).unwrap();
    follow(&world, &mut directory).unwrap();
    let ask = |after: &[u8]| {
        let request = BackupRequest { segment: true, after: after.to_vec() };
        let failure = world.daemon.backup(&request, &mut List::default()).unwrap_err();
        assert!(!failure.hint.is_empty());
        (failure.kind, failure.what)
    };
    assert_eq!(ask(b"something"), (FailureKind::Damaged, BackupError::NotABackup.to_string()));
    let cut = &directory.after()[..directory.after().len() - 1];
    assert_eq!(ask(cut), (FailureKind::Damaged, BackupError::Truncated { part: 0 }.to_string()));
    assert_eq!(follow(&other, &mut directory).unwrap_err().kind, FailureKind::Invalid, "another signer's");
    follow(&world, &mut directory).unwrap();
}
