//! What a grant lets pass, counted exactly.

use super::*;

const TREASURY: &str = "treasury";

#[test]
fn a_retry_of_the_same_request_takes_one_use_and_another_request_none() {
    let (people, approvals) = world();
    let mut grants = approved(&people, &approvals, &intent(), &["alice", "bob"]);
    let first = grants.consume(&approvals, intent().id, &pay(5, 1), &key("1"), NOW_MS).expect("in force");
    assert_eq!(first.changes.len(), 1);
    assert_eq!(grants.find(&approvals, &pay(5, 1), TREASURY, &key("1"), NOW_MS), Some(intent().id));
    let again = grants.consume(&approvals, intent().id, &pay(5, 1), &key("1"), NOW_MS);
    assert_eq!(again, Ok(Effect::default()));
    assert_eq!(grants.find(&approvals, &pay(5, 1), TREASURY, &key("2"), NOW_MS), None);
    let third = grants.consume(&approvals, intent().id, &pay(5, 1), &key("2"), NOW_MS);
    assert_eq!(third, Err(GrantError::Standing(Standing::UsedUp)));
}

#[test]
fn a_grant_lifts_what_its_own_group_may_lift() {
    let (people, approvals) = world();
    let grants = approved(&people, &approvals, &intent(), &["alice", "bob"]);
    assert_eq!(grants.find(&approvals, &pay(1, 1), TREASURY, &key("1"), NOW_MS), Some(intent().id));
    for other in ["emergency", "treasury2", "", "Treasury"] {
        assert_eq!(grants.find(&approvals, &pay(1, 1), other, &key("1"), NOW_MS), None, "{other}");
    }
}

#[test]
fn a_grant_holds_from_its_first_second_until_before_its_last() {
    let (people, approvals) = world();
    let later = Intent { valid_from_s: NOW_S + 60, ..intent() };
    let mut grants = approved(&people, &approvals, &later, &["alice", "bob"]);
    let end_ms = later.valid_until_s * 1_000;
    for (now_ms, is_valid) in
        [(NOW_MS + 59_999, false), (NOW_MS + 60_000, true), (end_ms - 1, true), (end_ms, false), (u64::MAX, false)]
    {
        assert_eq!(grants.find(&approvals, &pay(1, 1), TREASURY, &key("1"), now_ms).is_some(), is_valid, "{now_ms}");
    }
    grants.consume(&approvals, later.id, &pay(1, 1), &key("1"), NOW_MS + 60_000).expect("in force");
    let ended = grants.consume(&approvals, later.id, &pay(1, 1), &key("1"), end_ms);
    assert_eq!(ended, Err(GrantError::Standing(Standing::Ended)));
}

#[test]
fn a_revoked_grant_lets_nothing_pass() {
    let (people, approvals) = world();
    let mut grants = approved(&people, &approvals, &intent(), &["alice", "bob"]);
    let revoked = grants.revoke(intent().id, "uid 0", NOW_MS).expect("known");
    assert_eq!(revoked.changes.len(), 1);
    assert_eq!(grants.find(&approvals, &pay(1, 1), TREASURY, &key("1"), NOW_MS), None);
    let refused = grants.consume(&approvals, intent().id, &pay(1, 1), &key("1"), NOW_MS);
    assert_eq!(refused, Err(GrantError::Standing(Standing::Revoked)));
    assert_eq!(grants.revoke(intent().id, "uid 1", NOW_MS), Ok(Effect::default()));
    assert_eq!(grants.revoke(GrantId([9; 16]), "uid 0", NOW_MS), Err(GrantError::Unknown(GrantId([9; 16]))));
}

#[test]
fn uses_and_total_are_exact() {
    let (people, approvals) = world();
    let counted =
        Intent { uses: 3, max_amount_msat: Some(100), max_total_msat: Some(250), max_fee_msat: None, ..intent() };
    let mut grants = approved(&people, &approvals, &counted, &["alice", "bob"]);
    let mut consume = |name: &str, amount_msat| {
        let found = grants.find(&approvals, &pay(amount_msat, 0), TREASURY, &key(name), NOW_MS).is_some();
        let consumed = grants.consume(&approvals, counted.id, &pay(amount_msat, 0), &key(name), NOW_MS);
        assert_eq!(found, consumed.is_ok(), "what is found can be consumed, and nothing else");
        consumed.map(|effect| effect.changes.len())
    };
    assert_eq!(consume("1", 100), Ok(1));
    assert_eq!(consume("2", 60), Ok(1));
    assert_eq!(consume("3", 91), Err(GrantError::TotalExceeded));
    // A repeat with more takes the difference; with less, nothing.
    assert_eq!(consume("2", 70), Ok(1));
    assert_eq!(consume("2", 10), Ok(0));
    assert_eq!(consume("3", 81), Err(GrantError::TotalExceeded));
    assert_eq!(consume("3", 80), Ok(1));
    assert_eq!(consume("3", 81), Err(GrantError::TotalExceeded));
    assert_eq!(consume("4", 0), Err(GrantError::Standing(Standing::UsedUp)));
    assert_eq!(consume("1", 100), Ok(0));
    let grant = grants.get(counted.id).expect("asked");
    assert_eq!((grant.taken_msat(), grant.uses_left()), (250, 0));
}

#[test]
fn a_request_outside_the_grant_takes_nothing_of_it() {
    let (people, approvals) = world();
    let mut grants = approved(&people, &approvals, &intent(), &["alice", "bob"]);
    let over = pay(300_000_001, 1);
    let mismatch = Mismatch::Above { fact: "amount_msat", asked_msat: 300_000_001, max_msat: 300_000_000 };
    assert_eq!(grants.find(&approvals, &over, TREASURY, &key("1"), NOW_MS), None);
    let refused = grants.consume(&approvals, intent().id, &over, &key("1"), NOW_MS);
    assert_eq!(refused, Err(GrantError::NotCovered(mismatch.clone())));
    let near: Vec<_> = grants.near(&approvals, &over, NOW_MS).collect();
    assert_eq!(near, [(intent().id, mismatch)]);
    assert_eq!(grants.get(intent().id).map(Grant::uses_left), Some(1));
}

#[test]
fn the_grant_that_ends_first_is_taken_first() {
    let (people, approvals) = world();
    let soon = Intent { id: GrantId([9; 16]), valid_until_s: NOW_S + 60, ..intent() };
    let mut grants = approved(&people, &approvals, &intent(), &["alice", "bob"]);
    let request = people.sign("dora", REQUEST_NAMESPACE, &soon.text());
    grants.ask(&approvals, soon.clone(), &request, NOW_MS).expect("asked");
    for person in ["bob", "carol"] {
        approve(&mut grants, &people, &approvals, &soon, person).expect("approved");
    }
    let find = |grants: &Grants, name| grants.find(&approvals, &pay(1, 1), TREASURY, &key(name), NOW_MS);
    assert_eq!(find(&grants, "1"), Some(soon.id));
    grants.consume(&approvals, intent().id, &pay(1, 1), &key("1"), NOW_MS).expect("in force");
    assert_eq!(find(&grants, "1"), Some(intent().id), "what took a use before takes no other");
    assert_eq!(find(&grants, "2"), Some(soon.id));
}

#[test]
fn break_glass_lifts_any_group_once_and_always_raises_an_alarm() {
    let (people, approvals) = world();
    let intent = emergency();
    let mut grants = Grants::new(APPLIANCE, NODE);
    let alarm = |event| Some(Alarm { grant: intent.id, event });
    let request = people.sign("dora", REQUEST_NAMESPACE, &intent.text());
    let asked = grants.ask(&approvals, intent.clone(), &request, NOW_MS).expect("asked");
    assert_eq!(asked.alarm, alarm(AlarmEvent::Asked));
    let as_normal = people.sign("olga", "claviger-grant", &intent.text());
    let refused = grants.approve(&approvals, intent.id, &as_normal, NOW_MS);
    assert!(matches!(refused, Err(GrantError::Signature(SignatureError::Namespace { .. }))));
    let given = approve(&mut grants, &people, &approvals, &intent, "olga").expect("approved");
    assert_eq!(given.alarm, alarm(AlarmEvent::Approved));
    assert_eq!(grants.find(&approvals, &pay(1, 1), TREASURY, &key("1"), NOW_MS), Some(intent.id));
    let used = grants.consume(&approvals, intent.id, &pay(1, 1), &key("1"), NOW_MS).expect("in force");
    assert_eq!(used.alarm, alarm(AlarmEvent::Used));
    assert_eq!(grants.find(&approvals, &pay(1, 1), TREASURY, &key("2"), NOW_MS), None);
    assert_eq!(grants.revoke(intent.id, "uid 0", NOW_MS).expect("known").alarm, alarm(AlarmEvent::Revoked));
}

#[test]
fn a_normal_grant_raises_no_alarm_and_goes_before_break_glass() {
    let (people, approvals) = world();
    let normal = Intent { id: GrantId([8; 16]), ..intent() };
    let mut grants = approved(&people, &approvals, &emergency(), &["olga"]);
    let request = people.sign("dora", REQUEST_NAMESPACE, &normal.text());
    assert_eq!(grants.ask(&approvals, normal.clone(), &request, NOW_MS).expect("asked").alarm, None);
    let find = |grants: &Grants| grants.find(&approvals, &pay(1, 1), TREASURY, &key("1"), NOW_MS);
    assert_eq!(find(&grants), Some(emergency().id));
    for person in ["alice", "bob"] {
        let given = approve(&mut grants, &people, &approvals, &normal, person).expect("approved");
        assert_eq!(given.alarm, None);
    }
    assert_eq!(find(&grants), Some(normal.id));
    assert_eq!(grants.consume(&approvals, normal.id, &pay(1, 1), &key("1"), NOW_MS).expect("in force").alarm, None);
}
