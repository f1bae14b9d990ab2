//! Requests that ask for their own approval.

use super::*;

const GROUPS: &[&str] = &["treasury"];

fn ticket(grants: &Grants, approvals: &Approvals, request: &Request, now_ms: u64) -> Result<Ticket, TicketError> {
    grants.ticket(approvals, request, GROUPS, "rule hourly", now_ms)
}

#[test]
fn a_refused_payment_passes_once_after_two_treasurers_approve_its_ticket() {
    let (people, approvals) = world();
    let mut grants = Grants::new(APPLIANCE, NODE);
    let request = pay(500_000_000, 1_000).with(FactId::PaymentHash, "aa11");
    assert_eq!(grants.find(&approvals, &request, "treasury", &key("aa11"), NOW_MS), None);
    let refused = ticket(&grants, &approvals, &request, NOW_MS).expect("a ticket");
    assert_eq!(grants.open(&refused, NOW_MS).changes.len(), 1);
    let [intent] = refused.intents() else { panic!("one group, one intent") };
    for person in ["alice", "carol"] {
        approve(&mut grants, &people, &approvals, intent, person).expect("approved");
    }
    let later_ms = NOW_MS + HOUR_MS;
    let retry = pay(500_000_000, 1_000).with(FactId::PaymentHash, "aa11");
    assert_eq!(grants.find(&approvals, &retry, "treasury", &key("aa11"), later_ms), Some(intent.id));
    grants.consume(&approvals, intent.id, &retry, &key("aa11"), later_ms).expect("in force");
    let third = pay(500_000_000, 1_000).with(FactId::PaymentHash, "bb22");
    assert_eq!(grants.find(&approvals, &third, "treasury", &key("bb22"), later_ms), None);
    assert_ne!(ticket(&grants, &approvals, &third, later_ms), Ok(refused));
}

#[test]
fn a_ticket_pins_what_the_request_shows_and_says_who_asks() {
    let (_, approvals) = world();
    let grants = Grants::new(APPLIANCE, NODE);
    let request = pay(500, 7).with(FactId::PaymentHash, "aa11");
    let ticket = ticket(&grants, &approvals, &request, NOW_MS + 999).expect("a ticket");
    let [intent] = ticket.intents() else { panic!("one group, one intent") };
    let pins = BTreeMap::from([(FactId::Payee, PAYEE.to_owned()), (FactId::PaymentHash, "aa11".to_owned())]);
    assert_eq!(intent.pins, pins);
    assert_eq!((intent.max_amount_msat, intent.max_fee_msat, intent.uses), (Some(500), Some(7), 1));
    assert_eq!((intent.valid_from_s, intent.valid_until_s), (NOW_S, NOW_S + TICKET_S));
    assert_eq!(intent.requester, Requester::Node(NODE.into()));
    assert_eq!(intent.reason, "rule hourly");
    assert_eq!(Intent::parse(&intent.text()).as_ref(), Ok(intent));
    assert_eq!(intent.covers(&request), Ok(()));
}

#[test]
fn the_same_request_gets_the_same_ticket_while_it_is_open_and_a_new_one_after() {
    let (people, approvals) = world();
    let mut grants = Grants::new(APPLIANCE, NODE);
    let first = ticket(&grants, &approvals, &pay(5, 1), NOW_MS).expect("a ticket");
    assert_eq!(ticket(&grants, &approvals, &pay(5, 1), NOW_MS).as_ref(), Ok(&first), "asking changes nothing");
    grants.open(&first, NOW_MS);
    let later_ms = NOW_MS + HOUR_MS;
    assert_eq!(ticket(&grants, &approvals, &pay(5, 1), later_ms).as_ref(), Ok(&first));
    assert_eq!(grants.open(&first, later_ms), Effect::default());
    assert_ne!(ticket(&grants, &approvals, &pay(6, 1), later_ms).as_ref(), Ok(&first));
    // Used up by one request, the next of the same kind asks anew: the old approvals are not for it.
    let intent = first.intents()[0].clone();
    for person in ["alice", "bob"] {
        approve(&mut grants, &people, &approvals, &intent, person).expect("approved");
    }
    grants.consume(&approvals, intent.id, &pay(5, 1), &key("1"), NOW_MS).expect("in force");
    let second = ticket(&grants, &approvals, &pay(5, 1), NOW_MS).expect("a ticket");
    assert_ne!(second.intents()[0].id, intent.id);
    grants.open(&second, NOW_MS);
    let old = people.sign("alice", "claviger-grant", &intent.text());
    let refused = grants.approve(&approvals, second.intents()[0].id, &old, NOW_MS);
    assert_eq!(refused, Err(GrantError::Signature(SignatureError::Wrong("alice".into()))));
    // And after its end.
    let end_ms = NOW_MS + TICKET_S * 1_000;
    let third = ticket(&grants, &approvals, &pay(5, 1), end_ms).expect("a ticket");
    assert!(grants.get(third.intents()[0].id).is_none());
    assert_eq!(grants.open(&third, end_ms).changes.iter().filter(|change| change.value.is_some()).count(), 1);
    assert_eq!(grants.iter().count(), 1, "what is over is forgotten");
}

#[test]
fn a_request_that_needs_two_groups_asks_both() {
    let (people, approvals) = world();
    let mut grants = Grants::new(APPLIANCE, NODE);
    let groups = ["treasury", "emergency", "treasury"];
    let ticket = grants.ticket(&approvals, &pay(5, 1), &groups, "rules", NOW_MS).expect("a ticket");
    let groups: Vec<_> = ticket.intents().iter().map(|intent| intent.group.as_str()).collect();
    assert_eq!(groups, ["treasury", "emergency"]);
    assert_eq!(grants.open(&ticket, NOW_MS).alarm.map(|alarm| alarm.event), Some(AlarmEvent::Asked));
    let treasury = &ticket.intents()[0];
    for person in ["alice", "bob"] {
        approve(&mut grants, &people, &approvals, treasury, person).expect("approved");
    }
    assert!(grants.find(&approvals, &pay(5, 1), "treasury", &key("1"), NOW_MS).is_some());
    assert!(grants.find(&approvals, &pay(5, 1), "emergency", &key("1"), NOW_MS).is_none());
}

#[test]
fn a_revoked_ticket_is_not_opened_again_until_its_time_is_over() {
    let (_, approvals) = world();
    let mut grants = Grants::new(APPLIANCE, NODE);
    let first = ticket(&grants, &approvals, &pay(5, 1), NOW_MS).expect("a ticket");
    grants.open(&first, NOW_MS);
    let id = first.intents()[0].id;
    grants.revoke(id, "uid 0", NOW_MS).expect("known");
    assert_eq!(ticket(&grants, &approvals, &pay(5, 1), NOW_MS), Err(TicketError::Revoked(id)));
    assert!(ticket(&grants, &approvals, &pay(6, 1), NOW_MS).is_ok());
    assert!(ticket(&grants, &approvals, &pay(5, 1), NOW_MS + TICKET_S * 1_000).is_ok());
}

#[test]
fn tickets_are_bounded_in_number_and_room_comes_back() {
    let (_, approvals) = world();
    let mut grants = Grants::new(APPLIANCE, NODE);
    for amount_msat in 0..MAX_WAITING as u64 {
        let ticket = ticket(&grants, &approvals, &pay(amount_msat, 1), NOW_MS).expect("room");
        grants.open(&ticket, NOW_MS);
    }
    let more = pay(1_000_000, 1);
    assert_eq!(ticket(&grants, &approvals, &more, NOW_MS), Err(TicketError::Grant(GrantError::Full)));
    assert!(ticket(&grants, &approvals, &pay(0, 1), NOW_MS).is_ok(), "what is open needs no room");
    assert!(ticket(&grants, &approvals, &more, NOW_MS + TICKET_S * 1_000).is_ok());
}

#[test]
fn a_request_that_cannot_be_pinned_gets_no_ticket() {
    let (_, approvals) = world();
    let grants = Grants::new(APPLIANCE, NODE);
    let withdraw = |to: &[&str]| {
        let to: Vec<_> = to.iter().map(|text| (*text).to_owned()).collect();
        let request = Request::new(NODE, Action::Withdraw, NOW_MS).with(FactId::Destinations, to);
        ticket(&grants, &approvals, &request.with(FactId::AmountMsat, 5).with(FactId::FeeMsat, 1), NOW_MS)
    };
    assert!(withdraw(&["bcrt1qa"]).is_ok());
    assert_eq!(withdraw(&["bcrt1qa", "bcrt1qb"]), Err(TicketError::NotPinnable("destinations")));
    assert_eq!(withdraw(&[]).expect("a ticket").intents()[0].pins[&FactId::Destinations], "none");
    assert!(matches!(withdraw(&["a\nuses: 9"]), Err(TicketError::Intent(IntentError::Pin { .. }))));
    let unbounded = Request::new(NODE, Action::PayInvoice, NOW_MS).with(FactId::Payee, PAYEE);
    let refused = ticket(&grants, &approvals, &unbounded, NOW_MS);
    assert_eq!(refused, Err(TicketError::Intent(IntentError::Unbounded("PayInvoice"))));
    let nobody = grants.ticket(&approvals, &pay(1, 1), &["nobody"], "", NOW_MS);
    assert_eq!(nobody, Err(TicketError::NoGroup("nobody".into())));
}

#[test]
fn a_ticket_reads_back_as_it_was_written() {
    let (_, approvals) = world();
    let ticket = ticket(&Grants::new(APPLIANCE, NODE), &approvals, &pay(5, 1), NOW_MS).expect("a ticket");
    let mut bytes = Vec::new();
    ciborium::into_writer(&ticket, &mut bytes).expect("written");
    assert_eq!(ciborium::from_reader::<Ticket, _>(bytes.as_slice()).expect("read"), ticket);
}
