//! What the journal holds of grants.

use super::*;

#[test]
fn grants_survive_a_restart_entry_by_entry() {
    let (people, approvals) = world();
    let counted = Intent { uses: 5, max_total_msat: Some(400_000_000), ..intent() };
    let mut grants = Grants::new(APPLIANCE, NODE);
    let mut changes = Vec::new();
    let request = people.sign("dora", REQUEST_NAMESPACE, &counted.text());
    changes.extend(grants.ask(&approvals, counted.clone(), &request, NOW_MS).expect("asked").changes);
    for person in ["alice", "bob"] {
        changes.extend(approve(&mut grants, &people, &approvals, &counted, person).expect("approved").changes);
    }
    for (name, amount_msat) in [("1", 7), ("2", 8), ("1", 9)] {
        let used = grants.consume(&approvals, counted.id, &pay(amount_msat, 1), &key(name), NOW_MS);
        let used = used.expect("in force").changes;
        assert_eq!(used.len(), 1, "only what changed");
        changes.extend(used);
    }
    let ticket = grants.ticket(&approvals, &pay(1, 1), &["treasury"], "rule", NOW_MS).expect("a ticket");
    changes.extend(grants.open(&ticket, NOW_MS).changes);
    changes.extend(grants.revoke(ticket.intents()[0].id, "uid 0", NOW_MS).expect("known").changes);
    assert!(changes.iter().all(|change| change.key.starts_with(PREFIX)));
    let mut stored = entries(changes.clone());
    assert_eq!(load(&stored), Ok(grants.clone()));
    stored.insert("budget/clock".into(), vec![1, b'c', 0]);
    assert_eq!(load(&stored), Ok(grants.clone()), "other rooms' entries are passed over");
    changes.extend(grants.tidy(u64::MAX));
    assert_eq!(entries(changes), BTreeMap::new());
    assert_eq!(grants, Grants::new(APPLIANCE, NODE));
}

#[test]
fn a_newer_damaged_or_foreign_entry_is_named() {
    let (people, approvals) = world();
    let mut grants = Grants::new(APPLIANCE, NODE);
    let request = people.sign("dora", REQUEST_NAMESPACE, &intent().text());
    let mut changes = grants.ask(&approvals, intent(), &request, NOW_MS).expect("asked").changes;
    for person in ["alice", "bob"] {
        changes.extend(approve(&mut grants, &people, &approvals, &intent(), person).expect("approved").changes);
    }
    changes.extend(grants.consume(&approvals, intent().id, &pay(1, 1), &key("1"), NOW_MS).expect("used").changes);
    let stored = entries(changes);
    assert_eq!(stored.len(), 4);
    for (key, value) in &stored {
        let with = |value: &[u8]| {
            let mut stored = stored.clone();
            stored.insert(key.clone(), value.to_vec());
            load(&stored)
        };
        let damaged = Err(GrantsUnreadable::Damaged(key.clone()));
        let newer = [&[9], &value[1..]].concat();
        assert_eq!(with(&newer), Err(GrantsUnreadable::Newer { key: key.clone(), version: 9 }));
        assert_eq!(with(&value[..value.len() - 1]), damaged);
        assert_eq!(with(&[value, &[0_u8][..]].concat()), damaged);
        assert_eq!(with(&[1, b'x']), damaged);
        assert_eq!(with(&[]), damaged);
    }
    let grant = format!("{PREFIX}{}", intent().id);
    for key in ["grant/x", "grant/x/by/alice", &format!("{grant}/use/00"), &format!("{grant}/what/alice")] {
        let mut stored = stored.clone();
        stored.insert(key.to_owned(), vec![1, b'u', 0]);
        assert_eq!(load(&stored), Err(GrantsUnreadable::Damaged(key.to_owned())));
    }
    // More uses than the grant has.
    let mut more = stored.clone();
    more.insert(format!("{grant}/use/{}", "00".repeat(32)), vec![1, b'u', 0]);
    assert!(matches!(load(&more), Err(GrantsUnreadable::Damaged(_))));
    let iter = || stored.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
    assert!(Grants::load(APPLIANCE, "bob-node", iter()).is_err(), "another node's");
    assert!(Grants::load("appliance-2", NODE, iter()).is_err(), "another appliance's");
    assert_eq!(load(&stored), Ok(grants));
}
