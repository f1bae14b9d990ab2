//! One decision over rules, budgets and grants: what is refused, and what beside it passes.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::actions::Action;
use crate::engine::Source;
use crate::lists::List;
use crate::reasons::Reason;
use crate::verdict::Passes;

const NODE_ID: &str = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619";
const KNOWN: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const STRANGE: &str = "script:0014000102030405060708090a0b0c0d0e0f10111213";
const NOW_MS: u64 = 1_795_456_799_999;

const RULES: &str = r#"
@id("pay") permit (principal, action in [Action::"PayInvoice", Action::"Keysend"], resource);
@id("withdraw") permit (principal, action == Action::"Withdraw", resource);
@id("large") @unless_approved("treasury")
forbid (principal, action == Action::"PayInvoice", resource) when { context.amount_msat > 1000 };
@id("unknown") @unless_approved("security")
forbid (principal, action == Action::"Withdraw", resource) when { context.unknown_destinations > 0 };
@id("huge") forbid (principal, action in Action::"Spend", resource) when { context.amount_msat > 9000 };
"#;

fn policy() -> Policy {
    let list = format!(
        "[[destination]]\nlabel = \"exchange\"\naddress = \"{KNOWN}\"\n\n[[payee]]\nlabel = \"ACME\"\nnode_id = \"{NODE_ID}\"\n"
    );
    let list = List::parse("exchange", &list, bitcoin::Network::Regtest).unwrap();
    Policy {
        rules: Rules::compile(&[Source { file: "rules.cedar".into(), text: RULES.into() }]).unwrap(),
        budgets: vec![hourly()],
        lists: Lists::new(vec![list]).unwrap(),
        approvals: Approvals::default(),
        limits: Limits::new(),
        hash: [0; 32],
    }
}

fn hourly() -> Budget {
    Budget {
        name: "hourly".into(),
        actions: vec![Action::PayInvoice, Action::Withdraw],
        fact: Some(FactId::AmountMsat),
        scope: vec![Scope::Node],
        window_s: 3_600,
        limit: 2_000,
        unless_approved: Some("treasury".into()),
    }
}

fn pay(amount_msat: u64) -> Request {
    Request::new("alice", Action::PayInvoice, NOW_MS)
        .with(FactId::AmountMsat, amount_msat)
        .with(FactId::Payee, NODE_ID)
        .with(FactId::PaymentHash, "e3b0")
}

fn withdraw(to: &[&str]) -> Request {
    let request = Request::new("alice", Action::Withdraw, NOW_MS).with(FactId::AmountMsat, 5).with(FactId::FeeMsat, 1);
    request.paying_to(to.iter().map(|text| (*text).to_owned()).collect())
}

fn looked_up(policy: &Policy, budgets: &Budgets, request: &Request) -> Inputs {
    let grants = Grants::new("appliance", "alice");
    inputs(policy, State { budgets, grants: &grants }, request, None, NOW_MS)
}

/// The verdict when the groups have approved.
fn verdict(request: &Request, approved: &[&str]) -> Verdict {
    let policy = policy();
    let mut inputs = looked_up(&policy, &Budgets::default(), request);
    inputs.approved = approved.iter().map(|group| ((*group).to_owned(), GrantId([7; 16]))).collect();
    judge(&policy, request, &inputs)
}

#[test]
fn a_forbid_that_approval_may_lift_asks_for_it_and_passes_with_it() {
    let Verdict::NeedsApproval { groups, denials } = verdict(&pay(1_001), &[]) else { panic!("not asked for") };
    assert_eq!(groups, ["treasury"]);
    let [Denial::Forbidden { rule, compared, .. }] = &denials[..] else { panic!("{denials:?}") };
    assert_eq!((rule.as_str(), &compared[0].passes), ("large", &Some(Passes::AtMost(1_000))));
    let Verdict::Permit(permit) = verdict(&pay(1_001), &["treasury"]) else { panic!("not lifted") };
    assert_eq!((permit.groups, permit.budgets), (vec!["treasury".to_owned()], vec!["hourly".to_owned()]));
    assert!(verdict(&pay(1_000), &[]).permits(), "the twin needs none");
}

#[test]
fn a_grant_of_one_group_lifts_nothing_of_another() {
    for groups in [&["security"][..], &["treasur"], &["Treasury"], &["large"]] {
        assert_eq!(verdict(&pay(1_001), groups).reason(), Some(Reason::ApprovalNeeded), "{groups:?}");
    }
    assert!(verdict(&pay(1_001), &["security", "treasury"]).permits());
}

#[test]
fn what_no_approval_may_lift_is_denied_and_not_asked_for() {
    let Verdict::Deny(denials) = verdict(&pay(9_001), &["treasury"]) else { panic!("not denied") };
    assert_eq!(denials.iter().map(Denial::reason).collect::<Vec<_>>(), [Reason::Forbidden]);
    let unasked = verdict(&pay(9_001), &[]);
    assert_eq!(unasked.reason(), Some(Reason::Forbidden), "a ticket would not help");
}

#[test]
fn approval_never_makes_up_for_a_missing_permit() {
    let forward = Request::new("alice", Action::Forward, NOW_MS)
        .with(FactId::AmountMsat, 5)
        .with(FactId::IncomingMsat, 6)
        .with(FactId::PaymentHash, "e3b0");
    assert_eq!(verdict(&forward, &["treasury", "security"]).reason(), Some(Reason::NothingPermits));
}

#[test]
fn a_budget_refuses_what_is_not_left_and_says_what_is() {
    let policy = policy();
    let mut budgets = Budgets::default();
    let key = ReservationKey::new("payment:1");
    budgets.reserve(&policy.budgets, &pay(1_000), &key, NOW_MS + 60_000, NOW_MS).unwrap();
    let judged = |amount_msat| {
        let request = pay(amount_msat);
        judge(&policy, &request, &looked_up(&policy, &budgets, &request))
    };
    assert!(judged(1_000).permits(), "exact at the boundary");
    let key = ReservationKey::new("payment:2");
    budgets.reserve(&policy.budgets, &pay(1_000), &key, NOW_MS + 60_000, NOW_MS).unwrap();
    let request = pay(1);
    let Verdict::NeedsApproval { groups, denials } = judge(&policy, &request, &looked_up(&policy, &budgets, &request))
    else {
        panic!("not refused")
    };
    assert_eq!(groups, ["treasury"]);
    assert_eq!(denials[0].reason(), Reason::BudgetExceeded);
    assert_eq!(denials[0].to_string(), "budget hourly (node=alice): amount_msat 1, 0 left of 2000");
}

#[test]
fn a_destination_is_known_by_its_script_and_all_must_be_known() {
    let policy = policy();
    let found = |to: &[&str]| memberships(&policy.lists, &withdraw(to), NOW_MS);
    assert_eq!(found(&[KNOWN]).destination_lists, ["exchange"]);
    assert_eq!(found(&[KNOWN, STRANGE]).destination_lists, Vec::<String>::new());
    assert_eq!(found(&[KNOWN, STRANGE]).unknown_destinations, 1);
    assert_eq!(found(&["no address"]).unknown_destinations, 1);
    assert_eq!(found(&[]).unknown_destinations, 0);
    assert_eq!(memberships(&policy.lists, &pay(1), NOW_MS).payee_lists, ["exchange"]);
    assert!(verdict(&withdraw(&[KNOWN]), &[]).permits());
    assert_eq!(verdict(&withdraw(&[KNOWN, STRANGE]), &[]).reason(), Some(Reason::ApprovalNeeded));
}

#[test]
fn a_request_that_cannot_be_judged_is_a_fault_whatever_is_approved() {
    let bare = Request::new("alice", Action::PayInvoice, NOW_MS);
    assert_eq!(verdict(&bare, &["treasury"]).reason(), Some(Reason::Fault));
}

#[test]
fn a_decision_is_made_again_from_its_record_byte_for_byte() {
    let policy = policy();
    for request in [pay(5), pay(1_001), pay(9_001), withdraw(&[STRANGE]), Request::new("alice", Action::Forward, 0)] {
        let inputs = looked_up(&policy, &Budgets::default(), &request);
        let verdict = judge(&policy, &request, &inputs);
        let json = serde_json::to_string(&(&request, &inputs, &verdict)).unwrap();
        let (again, inputs, recorded): (Request, Inputs, Verdict) = serde_json::from_str(&json).unwrap();
        assert_eq!((&again, &recorded), (&request, &verdict));
        let made_again = judge(&policy, &again, &inputs);
        assert_eq!(serde_json::to_string(&made_again).unwrap(), serde_json::to_string(&verdict).unwrap());
    }
}

#[test]
fn a_policy_tells_what_it_looks_at_for_an_action_of_a_node() {
    let bobs = "@id(\"bob\") forbid (principal == Node::\"bob\", action == Action::\"UpdateChannel\", resource)\n\
        when { context has unrequested_msat && context.unrequested_msat > 0 };";
    let policy = Policy {
        rules: Rules::compile(&[Source { file: "rules.cedar".into(), text: format!("{RULES}{bobs}") }]).unwrap(),
        ..policy()
    };
    for (fact, action, node, looks) in [
        (FactId::UnrequestedMsat, Action::UpdateChannel, "bob", true),
        (FactId::UnrequestedMsat, Action::UpdateChannel, "alice", false),
        (FactId::UnrequestedMsat, Action::Withdraw, "bob", false),
        (FactId::UnknownDestinations, Action::Withdraw, "alice", true),
        (FactId::UnknownDestinations, Action::PayInvoice, "alice", false),
    ] {
        assert_eq!(policy.looks_at(fact, action, node), looks, "{} {action} {node}", fact.id());
    }
    let counted = Budget { actions: vec![Action::UpdateChannel], fact: Some(FactId::UnrequestedMsat), ..hourly() };
    let policy = Policy { budgets: vec![counted], ..policy };
    assert!(policy.looks_at(FactId::UnrequestedMsat, Action::UpdateChannel, "alice"), "a budget counts it");
}
