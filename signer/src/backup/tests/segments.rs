//! A directory gives back the journal as it was at its last segment, and whatever is wrong with it is named.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::journal::Verified;

/// A base of one segment.
const ONE: u64 = u64::MAX;

/// An appliance whose journal is followed into a directory.
struct Followed {
    scene: Scene,
    store: Arc<MemoryStore>,
    temporary: TempDir,
    directory: Directory,
}

impl Followed {
    fn new() -> Self {
        let mut scene = Scene::new();
        let store = Arc::new(MemoryStore::new());
        scene.journal = Arc::new(open(&scene.data_key, store.clone()));
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(&temporary.path().join("dir"), false).unwrap();
        Self { scene, store, temporary, directory }
    }

    fn dir(&self) -> PathBuf {
        self.temporary.path().join("dir")
    }

    fn try_next(&mut self, base_segment: u64, meanwhile: &mut dyn FnMut()) -> Result<Option<Sent>, BackupError> {
        let Self { scene, directory, .. } = self;
        let mut written = directory.begin()?;
        let mut out = |bytes: Vec<u8>| {
            meanwhile();
            io::Write::write_all(&mut written, &bytes).is_ok()
        };
        let (header, cipher) = (scene.header.clone(), scene.data_key.cipher(Purpose::Backup));
        let sent = segment(&scene.journal, header, &cipher, directory.after(), base_segment, &mut out)?;
        if let Some(sent) = sent {
            directory.end(&written)?;
            assert_eq!(sent.contents.bytes, written.metadata()?.len());
        }
        Ok(sent)
    }

    /// Writes segments until the directory is up to date; how many.
    fn follow(&mut self) -> usize {
        let mut count = 0;
        while self.try_next(ONE, &mut || {}).unwrap().is_some() {
            count += 1;
        }
        count
    }

    /// The journal starts anew: nobody remembers what changed before. The directory is taken up anew as well.
    fn restart(&mut self) {
        self.scene.journal = Arc::new(open(&self.scene.data_key, Arc::new(MemoryStore::new()))); // closes the other
        self.scene.journal = Arc::new(open(&self.scene.data_key, self.store.clone()));
        self.directory = Directory::open(&self.temporary.path().join("elsewhere"), false).unwrap(); // lets go
        self.directory = Directory::open(&self.dir(), false).unwrap();
    }

    fn read_until(&self, until: Option<u32>) -> Result<(Vec<Row>, Verified), BackupError> {
        let mut all = Vec::new();
        let mut take = |rows: Vec<Row>| {
            all.extend(rows);
            Ok(())
        };
        let (_, verified) = Chain::read(&self.dir(), until)?.check(&self.scene.data_key, &mut take)?;
        Ok((all, verified))
    }

    /// What the directory gives back is what the journal has, row by row.
    fn assert_equal(&self) {
        let (rows, _) = self.read_until(None).unwrap();
        let mut expected = Vec::new();
        let mut each = |row: &Row| {
            expected.push(row.clone());
            Ok::<_, BackupError>(())
        };
        self.scene.journal.rows(&mut each).unwrap();
        assert!(rows == expected, "{:?}\n{:?}", keys(&rows), keys(&expected));
    }

    fn put(&self, key: &str, value: Option<&[u8]>) {
        let put = Put { key: key.to_owned(), value: value.map(<[u8]>::to_vec) };
        let commit = Commit { tenant: "bob".to_owned(), puts: vec![put], decision: None };
        self.scene.journal.commit(commit).unwrap();
    }

    fn path(&self, generation: u32, segment: u32) -> PathBuf {
        self.dir().join(format!("{generation:06}-{segment:06}.segment"))
    }
}

fn keys(rows: &[Row]) -> Vec<(&str, u64)> {
    rows.iter().map(|row| (row.key.as_str(), row.version)).collect()
}

#[test]
fn a_directory_gives_back_the_journal_of_its_last_segment_and_of_each_one_before() {
    let mut followed = Followed::new();
    let mut decided = vec![0];
    for n in 0..6 {
        followed.scene.decide(n * 7 + 1..n * 7 + 8);
        followed.put(&format!("state/{n}"), Some(b"one"));
        followed.put(&format!("state/{}", n / 2), (n % 3 > 0).then_some(b"two"));
        assert_eq!(followed.follow(), 1);
        followed.assert_equal();
        decided.push(n * 7 + 7);
    }
    assert_eq!(followed.follow(), 0, "nothing changed, nothing is written");
    for (segment, decided) in (0..).zip(&decided[1..]) {
        assert_eq!(followed.read_until(Some(segment)).unwrap().1.decisions, *decided);
    }
    // What it gives back is a journal that goes on.
    let (rows, _) = followed.read_until(None).unwrap();
    let restored = open(&followed.scene.data_key, store(rows));
    assert_eq!(restored.load("alice").unwrap()["last"], 42u64.to_be_bytes());
    assert_eq!(restored.get("alice", "cold/7").unwrap(), Some(7u64.to_be_bytes().to_vec()));
    restored.commit(commit(43)).unwrap();
    assert_eq!(restored.verify(&mut |_| true).unwrap().decisions, 43);
}

#[test]
fn a_segment_has_what_changed_and_not_what_there_is() {
    let mut followed = Followed::new();
    followed.scene.decide(1..200);
    followed.follow();
    followed.put("state", Some(b"one"));
    let sent = followed.try_next(ONE, &mut || {}).unwrap().unwrap();
    assert_eq!((sent.contents.rows, sent.more), (2, false), "the head and the entry");
}

#[test]
fn a_directory_goes_on_after_a_restart_of_either_side_whatever_went_on_meanwhile() {
    let mut followed = Followed::new();
    for n in 0..40 {
        followed.put(&format!("state/{n}"), Some(b"one"));
        followed.put(&format!("cold/{n}"), Some(b"kept"));
    }
    followed.scene.decide(1..10);
    followed.follow();
    followed.put("state/early", Some(b"in a segment, then gone"));
    followed.follow();
    // Not shipped before the end.
    followed.put("state/3", None);
    followed.put("state/early", None);
    followed.put("state/4", Some(b"two"));
    followed.put("state/new", Some(b"one"));
    followed.scene.decide(10..20);
    followed.restart();
    followed.put("state/5", None);
    assert_eq!(followed.follow(), 1);
    followed.assert_equal();
    // And again, over what the last listing kept.
    followed.put("state/3", Some(b"back"));
    followed.follow();
    followed.put("state/6", None);
    followed.put("state/3", None);
    followed.restart();
    assert_eq!(followed.follow(), 1);
    followed.assert_equal();
    followed.restart();
    assert_eq!(followed.follow(), 0, "nothing happened");
    followed.assert_equal();
}

#[test]
fn an_interrupted_base_goes_on_with_the_piece_that_is_missing() {
    let mut followed = Followed::new();
    followed.scene.decide(1..60);
    for n in 0..40 {
        followed.put(&format!("state/{n}"), Some(&[7; 100]));
    }
    let mut number = 60;
    for piece in 0.. {
        let before = fs::read_dir(followed.dir()).unwrap().count();
        let journal = followed.scene.journal.clone();
        let mut meanwhile = || {
            journal.commit(commit(number)).unwrap();
            number += 1;
        };
        // Cut off: what was finished stays.
        let (header, cipher) = (followed.scene.header.clone(), followed.scene.data_key.cipher(Purpose::Backup));
        let after = followed.directory.after().to_vec();
        let cut = segment(&followed.scene.journal, header, &cipher, &after, 2_000, &mut |_| false);
        assert_eq!(cut, Err(BackupError::Interrupted));
        let sent = followed.try_next(2_000, &mut meanwhile).unwrap().unwrap();
        assert_eq!(fs::read_dir(followed.dir()).unwrap().count(), before + 1);
        if !sent.more {
            assert!(piece > 5, "{piece}");
            break;
        }
        assert_eq!(followed.read_until(None).map(drop), Err(BackupError::Unfinished { last: piece }));
        followed.put(&format!("state/{piece}"), None);
        followed.put(&format!("state/later/{piece}"), Some(b"one"));
        drop(journal);
        if piece % 3 == 0 {
            followed.restart();
        }
    }
    followed.follow();
    followed.assert_equal();
}

#[test]
fn a_directory_that_is_written_under_load_is_of_one_moment_at_each_segment() {
    let mut followed = Followed::new();
    let mut number = 1;
    for _ in 0..12 {
        let journal = followed.scene.journal.clone();
        let mut meanwhile = || {
            for n in number..number + 3 {
                journal.commit(commit(n)).unwrap();
            }
            number += 3;
        };
        followed.try_next(ONE, &mut meanwhile).unwrap();
        let (rows, verified) = followed.read_until(None).unwrap();
        let entries = open(&followed.scene.data_key, store(rows)).load("alice").unwrap();
        let of_last = entries.get("last").map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap()));
        assert_eq!(of_last, verified.decisions, "entries and decisions of one moment");
    }
}

#[test]
fn whatever_is_missing_moved_foreign_or_cut_is_named_and_what_is_before_it_can_be_had() {
    let mut followed = Followed::new();
    for n in 1..6 {
        followed.scene.decide(n..n + 1);
        assert_eq!(followed.follow(), 1);
    }
    let read = |followed: &Followed| followed.read_until(None).map(drop);
    let keep = |path: &PathBuf| (path.clone(), fs::read(path).unwrap());
    let whole: Vec<_> = (0..5).map(|segment| keep(&followed.path(1, segment))).collect();
    let put_back = || whole.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let in_segment = |error, segment| Err(BackupError::Segment { segment, error: Box::new(error) });

    fs::remove_file(&whole[2].0).unwrap();
    assert_eq!(read(&followed), Err(BackupError::Missing { segment: 2 }));
    assert_eq!(followed.read_until(Some(1)).unwrap().1.decisions, 2, "what is before it");
    put_back();
    fs::remove_file(&whole[0].0).unwrap();
    assert_eq!(read(&followed), Err(BackupError::Missing { segment: 0 }));
    put_back();
    fs::rename(&whole[1].0, &whole[3].0).unwrap();
    fs::write(&whole[1].0, &whole[3].1).unwrap();
    assert_eq!(read(&followed), Err(BackupError::Unchained { segment: 1 }), "in another order");
    put_back();
    fs::write(&whole[3].0, &whole[2].1).unwrap();
    assert_eq!(read(&followed), Err(BackupError::Unchained { segment: 3 }), "twice");
    put_back();
    fs::write(&whole[2].0, &whole[2].1[..whole[2].1.len() - 1]).unwrap();
    assert_eq!(read(&followed), in_segment(BackupError::Truncated { part: 1 }, 2));
    fs::write(&whole[2].0, &whole[2].1[..40]).unwrap();
    assert_eq!(read(&followed), in_segment(BackupError::Truncated { part: 0 }, 2));
    fs::write(&whole[2].0, b"").unwrap();
    assert_eq!(read(&followed), in_segment(BackupError::NotABackup, 2));
    put_back();
    let mut newer = whole[4].1.clone();
    newer[17] = 9;
    fs::write(&whole[4].0, newer).unwrap();
    assert_eq!(read(&followed), in_segment(BackupError::NewerVersion { found: 9 }, 4));
    put_back();
    // Of another directory of the same signer, at the same place.
    let mut other = Followed { directory: followed.directory, ..Followed::new() };
    other.scene.data_key = followed.scene.data_key.clone();
    other.scene.header = followed.scene.header.clone();
    other.scene.journal = followed.scene.journal.clone();
    other.directory = Directory::open(&other.dir(), false).unwrap();
    for n in 6..9 {
        other.scene.decide(n..n + 1);
        other.follow();
    }
    fs::copy(other.path(1, 2), &whole[2].0).unwrap();
    let chain = Chain::read(&followed.temporary.path().join("dir"), None);
    assert_eq!(chain.map(drop), Err(BackupError::Unchained { segment: 2 }));
    put_back();
    // A single segment is no backup, and a single backup no segment.
    let one = Closed::read(&whole[0].1[..]).unwrap().open(&other.scene.data_key).check(&mut |_| Ok(()));
    assert_eq!(one.map(drop), Err(BackupError::OneSegment { segment: 0 }));
    fs::write(&whole[0].0, other.scene.backup()).unwrap();
    let chain = Chain::read(&followed.temporary.path().join("dir"), None);
    assert_eq!(chain.map(drop), Err(BackupError::Unchained { segment: 0 }));
    put_back();
    assert!(Chain::read(&followed.temporary.path().join("dir"), None).is_ok(), "as it was");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(Chain::read(empty.path(), None).map(drop), Err(BackupError::NoSegments));
    for error in [BackupError::Missing { segment: 2 }, BackupError::Truncated { part: 1 }.of(2)] {
        assert!(error.hint().contains("--until"), "{error}");
    }
}

#[test]
fn a_segment_with_any_byte_changed_is_refused() {
    let mut followed = Followed::new();
    for n in 1..4 {
        followed.scene.decide(n..n + 1);
        followed.follow();
    }
    for segment in 0..3 {
        let path = followed.path(1, segment);
        let good = fs::read(&path).unwrap();
        // Every byte of the beginning's end and of the part; one in so many of the JSON.
        for at in (0..good.len()).filter(|at| at % 17 == 0 || good.len() - at < 300) {
            let mut changed = good.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            assert!(followed.read_until(None).is_err(), "segment {segment}, byte {at}");
        }
        fs::write(&path, good).unwrap();
    }
    followed.assert_equal();
}

#[test]
fn a_new_base_takes_the_place_of_the_one_before_once_it_is_a_whole() {
    let mut followed = Followed::new();
    followed.scene.decide(1..30);
    followed.follow();
    followed.scene.decide(30..40);
    followed.follow();
    followed.directory = Directory::open(&followed.temporary.path().join("elsewhere"), false).unwrap();
    followed.directory = Directory::open(&followed.dir(), true).unwrap();
    followed.scene.decide(40..50);
    assert!(followed.try_next(2_000, &mut || {}).unwrap().unwrap().more);
    assert_eq!(followed.read_until(None).unwrap().1.decisions, 39, "the base before, until then");
    let journal = followed.scene.journal.clone();
    journal.commit(commit(50)).unwrap();
    while followed.try_next(2_000, &mut || {}).unwrap().unwrap().more {}
    assert!(!followed.path(1, 0).exists() && !followed.path(1, 1).exists());
    followed.assert_equal();
    assert_eq!(followed.read_until(Some(0)).map(drop), Err(BackupError::Unfinished { last: 0 }));
}

#[test]
fn a_directory_is_followed_by_one_process_and_for_one_signer() {
    let mut followed = Followed::new();
    followed.scene.decide(1..3);
    followed.follow();
    assert_eq!(Directory::open(&followed.dir(), false).map(drop), Err(BackupError::InUse));
    followed.scene = Scene::new();
    assert_eq!(followed.try_next(ONE, &mut || {}), Err(BackupError::OtherSigner));
    assert!(followed.path(1, 0).exists());
}

#[test]
fn a_journal_that_is_an_older_copy_does_not_go_on_in_the_directory_of_a_later_one() {
    let mut followed = Followed::new();
    followed.scene.decide(1..5);
    followed.follow();
    let mut old = Vec::new();
    let mut each = |row: &Row| {
        old.push(row.clone());
        Ok::<_, BackupError>(())
    };
    followed.scene.journal.rows(&mut each).unwrap();
    followed.scene.decide(5..9);
    followed.follow();
    let copy = || Arc::new(open(&followed.scene.data_key, store(old.clone())));
    let (older, gone_on) = (copy(), copy());
    for n in 0..20 {
        gone_on.commit(commit(100 + n)).unwrap();
    }
    let latest = followed.scene.journal.clone();
    for journal in [older, gone_on] {
        followed.scene.journal = journal;
        let refused = followed.try_next(ONE, &mut || {});
        assert_eq!(refused, Err(BackupError::Journal(JournalError::Diverged)));
    }
    followed.scene.journal = latest;
    assert_eq!(followed.follow(), 0);
    followed.scene.decide(9..12);
    assert_eq!(followed.follow(), 1);
    followed.assert_equal();
}

#[test]
fn another_data_key_begins_a_new_base_and_so_does_its_end() {
    let mut followed = Followed::new();
    followed.scene.decide(1..10);
    followed.follow();
    let mut envelope = Envelope::decode(followed.scene.header.keyslots.as_bytes()).unwrap();
    let (data_key, slot) = data_key::unlock(&envelope, &passphrase()).unwrap();
    let slots = [(slot, NewSlot::Passphrase(passphrase(), COST))];
    followed.scene.data_key = Arc::new(data_key::turn(&mut envelope, data_key, &slots).unwrap());
    let text = |envelope: &Envelope| String::from_utf8(envelope.encode()).unwrap();
    followed.scene.header.keyslots = text(&envelope);
    followed.scene.journal.turn(subkey(followed.scene.data_key.current(), Purpose::Records));
    assert_eq!(followed.follow(), 1);
    assert!(followed.path(2, 0).exists() && !followed.path(1, 0).exists());
    followed.assert_equal();
    // Sealed anew meanwhile: the base's decisions still bear the key before, which the key slots still have.
    let mut next = Some(String::new());
    while let Some(after) = next {
        next = followed.scene.journal.reseal(&after).unwrap().last;
    }
    followed.scene.decide(10..12);
    assert_eq!(followed.follow(), 1);
    assert!(followed.read_until(None).is_ok());
    envelope.forget_previous();
    followed.scene.header.keyslots = text(&envelope);
    followed.scene.journal.retire();
    followed.scene.data_key = Arc::new(data_key::unlock(&envelope, &passphrase()).unwrap().0);
    assert_eq!(followed.follow(), 1);
    assert!(followed.path(3, 0).exists());
    followed.assert_equal();
    // A slot that is added begins nothing.
    let (data_key, _) = data_key::unlock(&envelope, &passphrase()).unwrap();
    let new = NewSlot::Passphrase(Passphrase::copy_from(b"two").unwrap(), COST);
    data_key::add(&mut envelope, &data_key, &new).unwrap();
    followed.scene.header.keyslots = text(&envelope);
    followed.scene.decide(12..13);
    followed.follow();
    let chain = Chain::read(&followed.dir(), None).unwrap();
    assert_eq!((chain.segments(), chain.last().envelope().slots().count()), (2, 2));
}
