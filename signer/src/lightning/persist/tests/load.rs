//! Entries that cannot be restored are named; nothing panics and nothing is taken for nothing.

use lightning_signer::persist::{Error, Persist};

use super::super::{LoadError, NodePersister};
use super::world::{Side, Store, hash, open};

fn store() -> Store {
    let (mut a, mut b) = (Side::new(1), Side::new(2));
    let link = open(&mut a, &mut b, 1);
    a.keysend(hash(1), 1_000);
    a.mine(vec![link.funding]);
    a.mine(vec![]);
    a.store
}

fn error(change: impl FnOnce(&mut Store)) -> LoadError {
    let mut entries = store();
    change(&mut entries);
    NodePersister::load(entries).map(|_| ()).unwrap_err()
}

fn key(store: &Store, prefix: &str) -> String {
    store.keys().find(|key| key.starts_with(prefix)).unwrap().clone()
}

#[test]
fn every_damaged_value_is_named() {
    for name in store().into_keys() {
        let damaged = error(|store| store.get_mut(&name).unwrap().truncate(1));
        assert!(matches!(&damaged, LoadError::Damaged { key, .. } if *key == name), "{name}: {damaged}");
        let newer = error(|store| store.get_mut(&name).unwrap()[0] = 2);
        assert_eq!(newer, LoadError::Newer { key: name, version: 2 });
    }
}

#[test]
fn a_key_that_cannot_be_ours_is_named() {
    let name = "payment/zz".to_owned();
    let damaged = error(|store| drop(store.insert(name.clone(), vec![1])));
    assert!(matches!(damaged, LoadError::Damaged { key, .. } if key == name));
}

#[test]
fn missing_parts_are_named() {
    for kind in ["node", "allowlist", "tracker"] {
        let missing = error(|store| drop(store.remove(kind)));
        assert_eq!(missing, LoadError::Incomplete(format!("entry {kind} is missing")));
    }
    for prefix in ["listener/", "channel/", "payment/", "header/0000000101"] {
        let missing = error(|store| drop(store.remove(&key(store, prefix))));
        assert!(matches!(missing, LoadError::Incomplete(_)), "{prefix}: {missing}");
    }
}

#[test]
fn entries_of_other_rooms_are_left_alone() {
    let mut entries = store();
    entries.insert("limits/onchain".to_owned(), vec![9]);
    entries.insert("nodes".to_owned(), vec![9]);
    entries.insert("channels/book".to_owned(), vec![9]);
    assert!(NodePersister::load(entries).is_ok());
}

#[test]
fn what_was_handed_out_is_not_handed_out_again() {
    let persister = NodePersister::load(store()).unwrap();
    let (node_id, _) = persister.get_nodes().unwrap().pop().unwrap();
    assert_eq!(persister.get_node_channels(&node_id).unwrap().len(), 1);
    assert!(matches!(persister.get_nodes(), Err(Error::Unavailable(_))));
    assert!(matches!(persister.get_node_channels(&node_id), Err(Error::Unavailable(_))));
}
