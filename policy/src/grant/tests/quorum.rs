//! How many distinct people approve, and who does not count.

use super::*;

#[test]
fn nothing_is_granted_without_approvals() {
    let (people, approvals) = world();
    let mut grants = asked(&people, &approvals, &intent());
    let find = |grants: &Grants| grants.find(&approvals, &pay(1, 1), "treasury", &key("1"), NOW_MS);
    assert_eq!(find(&Grants::new(APPLIANCE, NODE)), None);
    assert_eq!(find(&grants), None);
    let refused = grants.consume(&approvals, intent().id, &pay(1, 1), &key("1"), NOW_MS);
    assert_eq!(refused, Err(GrantError::Standing(Standing::Waiting { have: 0, need: 2 })));
    approve(&mut grants, &people, &approvals, &intent(), "alice").expect("approved");
    assert_eq!(find(&grants), None);
    approve(&mut grants, &people, &approvals, &intent(), "bob").expect("approved");
    assert_eq!(find(&grants), Some(intent().id));
}

#[test]
fn the_requester_never_approves_and_another_treasurer_does() {
    let (people, approvals) = world();
    let own = Intent { requester: Requester::Person("alice".into()), ..intent() };
    let mut grants = asked(&people, &approvals, &own);
    let refused = approve(&mut grants, &people, &approvals, &own, "alice");
    assert_eq!(refused, Err(GrantError::OwnRequest("alice".into())));
    for person in ["bob", "carol"] {
        approve(&mut grants, &people, &approvals, &own, person).expect("approved");
    }
    assert_eq!(grants.find(&approvals, &pay(1, 1), "treasury", &key("1"), NOW_MS), Some(own.id));
}

#[test]
fn nobody_asks_in_the_name_of_another() {
    let (people, approvals) = world();
    let mut grants = Grants::new(APPLIANCE, NODE);
    // alice, a treasurer, says that dora asks, to approve it herself.
    let signature = people.sign("alice", REQUEST_NAMESPACE, &intent().text());
    let refused = grants.ask(&approvals, intent(), &signature, NOW_MS);
    let not_alice = GrantError::NotTheRequester { asks: "dora".into(), signed: "alice".into() };
    assert_eq!(refused, Err(not_alice));
    // Nor does she say that the node asks.
    let node = Intent { requester: Requester::Node("alice".into()), ..intent() };
    let signature = people.sign("alice", REQUEST_NAMESPACE, &node.text());
    let not_node = GrantError::NotTheRequester { asks: "alice".into(), signed: "alice".into() };
    assert_eq!(grants.ask(&approvals, node, &signature, NOW_MS), Err(not_node));
    let signature = people.sign("dora", REQUEST_NAMESPACE, &intent().text());
    assert!(grants.ask(&approvals, intent(), &signature, NOW_MS).is_ok());
}

#[test]
fn one_person_with_two_keys_counts_once() {
    let people = People::new(&["alice", "bob", "carol", "dora", "olga"]);
    people.make("alice-token", "ecdsa");
    let list = format!("{}alice {}\n", people.allowed_signers(), people.public("alice-token"));
    let approvals = approvals_of(POLICY, &list).expect("good");
    let mut grants = approved(&people, &approvals, &intent(), &["alice"]);
    let second = people.sign("alice-token", "claviger-grant", &intent().text());
    let refused = grants.approve(&approvals, intent().id, &second, NOW_MS);
    assert_eq!(refused, Err(GrantError::AlreadyApproved("alice".into())));
    let grant = grants.get(intent().id).expect("asked");
    assert_eq!(grant.standing(&approvals, NOW_MS), Standing::Waiting { have: 1, need: 2 });
    approve(&mut grants, &people, &approvals, &intent(), "bob").expect("approved");
    assert!(grants.find(&approvals, &pay(1, 1), "treasury", &key("1"), NOW_MS).is_some());
}

#[test]
fn who_does_not_hold_the_role_does_not_count() {
    let (people, approvals) = world();
    let mut grants = asked(&people, &approvals, &intent());
    let refused = approve(&mut grants, &people, &approvals, &intent(), "olga");
    assert_eq!(refused, Err(GrantError::NotInRole { person: "olga".into(), role: "treasurer".into() }));
    assert!(approve(&mut grants, &people, &approvals, &intent(), "carol").is_ok());
}

#[test]
fn a_request_that_is_signed_is_no_approval() {
    let (people, approvals) = world();
    let mut grants = asked(&people, &approvals, &intent());
    let request = people.sign("alice", REQUEST_NAMESPACE, &intent().text());
    let refused = grants.approve(&approvals, intent().id, &request, NOW_MS);
    let found = REQUEST_NAMESPACE.to_owned();
    let wrong = SignatureError::Namespace { found, wanted: "claviger-grant" };
    assert_eq!(refused, Err(GrantError::Signature(wrong)));
    assert!(approve(&mut grants, &people, &approvals, &intent(), "alice").is_ok());
}

#[test]
fn a_signature_is_not_replayed_for_another_grant_appliance_or_node() {
    let (people, approvals) = world();
    let mut grants = asked(&people, &approvals, &intent());
    let again = Intent { id: GrantId([8; 16]), ..intent() };
    let request = people.sign("dora", REQUEST_NAMESPACE, &again.text());
    grants.ask(&approvals, again.clone(), &request, NOW_MS).expect("asked");
    let signature = people.sign("alice", "claviger-grant", &intent().text());
    let refused = grants.approve(&approvals, again.id, &signature, NOW_MS);
    assert_eq!(refused, Err(GrantError::Signature(SignatureError::Wrong("alice".into()))));
    assert!(grants.approve(&approvals, intent().id, &signature, NOW_MS).is_ok());

    for (other, error) in [
        (Intent { appliance: "appliance-2".into(), ..intent() }, GrantError::OtherAppliance("appliance-2".into())),
        (Intent { node: "bob-node".into(), ..intent() }, GrantError::OtherNode("bob-node".into())),
    ] {
        let request = people.sign("dora", REQUEST_NAMESPACE, &other.text());
        assert_eq!(grants.ask(&approvals, other, &request, NOW_MS), Err(error));
    }
}

#[test]
fn an_id_is_one_grants_and_asking_the_same_again_changes_nothing() {
    let (people, approvals) = world();
    let mut grants = asked(&people, &approvals, &intent());
    let more = Intent { max_amount_msat: Some(400_000_000), ..intent() };
    for (intent, expected) in [(more.clone(), Err(GrantError::IdTaken(more.id))), (intent(), Ok(Effect::default()))] {
        let signature = people.sign("dora", REQUEST_NAMESPACE, &intent.text());
        assert_eq!(grants.ask(&approvals, intent, &signature, NOW_MS), expected);
    }
}

#[test]
fn what_is_over_or_revoked_is_not_approved_or_asked_again() {
    let (people, approvals) = world();
    let request = people.sign("dora", REQUEST_NAMESPACE, &intent().text());
    let signature = people.sign("alice", "claviger-grant", &intent().text());
    let mut grants = asked(&people, &approvals, &intent());
    let end_ms = NOW_MS + 24 * HOUR_MS;
    let ended = GrantError::Standing(Standing::Ended);
    assert_eq!(grants.approve(&approvals, intent().id, &signature, end_ms), Err(ended.clone()));
    assert!(grants.approve(&approvals, intent().id, &signature, end_ms - 1).is_ok());
    grants.revoke(intent().id, "uid 0", NOW_MS).expect("known");
    let refused = approve(&mut grants, &people, &approvals, &intent(), "bob");
    assert_eq!(refused, Err(GrantError::Standing(Standing::Revoked)));
    // Forgotten with its end, and not back by the same text.
    assert!(!grants.tidy(end_ms).is_empty());
    assert_eq!(grants.get(intent().id), None);
    assert_eq!(grants.ask(&approvals, intent(), &request, end_ms), Err(ended));
}

#[test]
fn an_approval_ends_with_the_approvers_role_or_key() {
    let (people, approvals) = world();
    let grants = approved(&people, &approvals, &intent(), &["alice", "bob"]);
    let find = |approvals: &Approvals| grants.find(approvals, &pay(1, 1), "treasury", &key("1"), NOW_MS);
    assert_eq!(find(&approvals), Some(intent().id));
    let left = POLICY.replace("\"alice\", \"bob\", \"carol\"", "\"bob\", \"carol\"");
    assert_eq!(find(&approvals_of(&left, &people.allowed_signers()).expect("good")), None);
    people.make("bob-new", "ed25519");
    let list = people.allowed_signers().replace(&people.public("bob"), &people.public("bob-new"));
    assert_eq!(find(&approvals_of(POLICY, &list).expect("good")), None);
    let ended = people.allowed_signers().replace("bob ssh", "bob valid-before=\"20261123085959Z\" ssh");
    assert_eq!(find(&approvals_of(POLICY, &ended).expect("good")), None);
    let later = people.allowed_signers().replace("bob ssh", "bob valid-before=\"20261123090001Z\" ssh");
    assert_eq!(find(&approvals_of(POLICY, &later).expect("good")), Some(intent().id));
}

#[test]
fn a_group_name_that_means_something_else_takes_no_old_approvals() {
    let (people, approvals) = world();
    let grants = approved(&people, &approvals, &intent(), &["alice", "bob"]);
    let grant = grants.get(intent().id).expect("asked");
    for (was, is) in [("of = 2", "of = 3"), ("of = 2", "of = 1"), ("role = \"treasurer\"", "role = \"officer\"")] {
        let policy = POLICY.replacen(was, is, 1);
        let changed = approvals_of(&policy, &people.allowed_signers()).expect("good");
        assert_eq!(grant.standing(&changed, NOW_MS), Standing::GroupChanged, "{is}");
        assert_eq!(grants.find(&changed, &pay(1, 1), "treasury", &key("1"), NOW_MS), None);
    }
    assert_eq!(grant.standing(&approvals, NOW_MS), Standing::InForce);
}

#[test]
fn an_intent_says_what_its_group_means_and_can_be_met() {
    let (people, approvals) = world();
    let ask = |intent: &Intent, policy: &Approvals| {
        let Requester::Person(person) = &intent.requester else { panic!("a person's") };
        let signature = people.sign(person, REQUEST_NAMESPACE, &intent.text());
        Grants::new(APPLIANCE, NODE).ask(policy, intent.clone(), &signature, NOW_MS)
    };
    for wrong in [
        Intent { of: 1, ..intent() },
        Intent { role: "officer".into(), ..intent() },
        Intent { kind: GrantKind::BreakGlass, ..intent() },
        Intent { kind: GrantKind::Normal, ..emergency() },
    ] {
        assert_eq!(ask(&wrong, &approvals), Err(GrantError::GroupChanged(wrong.group.clone())));
    }
    let all = POLICY.replace("of = 2", "of = 3");
    let all = approvals_of(&all, &people.allowed_signers()).expect("good");
    let own = Intent { of: 3, requester: Requester::Person("carol".into()), ..intent() };
    let cannot = GrantError::CannotBeMet { of: 3, role: "treasurer".into(), people: 2 };
    assert_eq!(ask(&own, &all), Err(cannot));
    assert!(ask(&Intent { of: 3, ..intent() }, &all).is_ok());
}
