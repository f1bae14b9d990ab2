//! The spending policy in force: what it refuses is refused with its reason, the honest twin is answered, and what was
//! counted is neither lost nor counted twice.

use claviger_policy::actions::Action;
use claviger_policy::bundle::Files;
use claviger_policy::facts::FactId;
use claviger_policy::verdict::Verdict;

use super::book::{OURS_SAT, Stage, incoming, out, secret};
use super::*;
use crate::journal::{Commit, Put};
use crate::lightning::driver::{DriverError, Holdings, invoice_to_pay, keysend};
use crate::policy::ApplyFailed;

/// 50,000 sat an hour over both actions, and nothing to pay at all above 40,000 sat.
const POLICY: &str = r#"
version = 1

[[budget]]
name = "hourly"
actions = ["PayInvoice", "Keysend"]
fact = "amount_msat"
scope = ["node"]
window = "1h"
limit = 50_000_000
"#;

const RULES: &str = r#"
@id("all") permit (principal, action, resource);
@id("large") forbid (principal, action in [Action::"PayInvoice", Action::"Keysend"], resource)
    when { context.amount_msat > 40000000 };
"#;

/// A preset with [`super::onchain::stranger`] on its list of destinations.
pub(super) const LISTED: &[(&str, &str)] = &[
    ("policy.toml", "version = 1\npreset = \"routing-node\"\n"),
    (
        "lists/exchange.toml",
        "[[destination]]\nlabel = \"deposits\"\naddress = \"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080\"\n",
    ),
];

fn bundle(files: &[(&str, &str)]) -> Files {
    let mut bundle = Files::default();
    for (name, text) in files {
        bundle.add(name, text.as_bytes().to_vec()).expect("a file of a bundle");
    }
    bundle
}

pub(super) fn apply(signer: &Signer, files: &[(&str, &str)]) {
    let record = |puts| {
        let commit = Commit { tenant: HOUSE.to_owned(), puts, decision: None };
        signer.journal().commit(commit).expect("recorded");
        Ok::<_, ApplyFailed>(())
    };
    signer.desk.apply(bundle(files), Network::Regtest, None, NOW_MS, record).expect("a bundle");
}

fn signer() -> (Signer, NodeName) {
    let limits = LimitsConfig { max_payment_msat: 10_000_000_000, ..LimitsConfig::default() };
    let limits = LimitsConfig { max_payment_msat_per_hour: 10_000_000_000, ..limits };
    let signer = Signer::start_over(Arc::new(MemoryStore::new()), limits);
    apply(&signer, &[("policy.toml", POLICY), ("rules.cedar", RULES)]);
    let alice = signer.add("alice", NodeKind::Ldk);
    (signer, alice)
}

fn now_ms() -> u64 {
    crate::lightning::clock::NodeClock::default().now_ms()
}

/// Spent and set aside, of the only budget.
fn counted(signer: &Signer) -> (u64, u64) {
    let standings = signer.desk.standings(10, now_ms());
    standings.first().map_or((0, 0), |standing| (standing.spent, standing.reserved))
}

#[test]
fn a_payment_that_a_rule_forbids_is_refused_and_explained_and_the_honest_twin_passes() {
    let (signer, alice) = signer();
    let (request, refusal) = refused(signer.ask(&alice, None, invoice_to_pay(1, 40_000_001)));
    assert_eq!(refusal.reason, Reason::PolicyForbidden);
    assert!(refusal.detail.contains("large") && refusal.detail.contains("at most 40000000"), "{}", refusal.detail);
    let line = signer.journal().explain(&request).expect("readable").expect("recorded");
    let [record] = &line.decision.policy[..] else { panic!("{line:?}") };
    assert_eq!((&record.id, record.request.node.as_str()), (&request, "alice"));
    assert!(matches!(record.verdict, Verdict::Deny(_)));
    assert_eq!(counted(&signer), (0, 0), "nothing is set aside for it");

    replied(signer.ask(&alice, None, invoice_to_pay(2, 40_000_000)));
}

#[test]
fn a_budget_is_shared_by_actions_counts_a_repeat_once_and_survives_a_restart() {
    let (mut signer, alice) = signer();
    for _ in 0..3 {
        replied(signer.ask(&alice, None, invoice_to_pay(1, 30_000_000)));
    }
    assert_eq!(refused(signer.ask(&alice, None, keysend(2, 20_000_001))).1.reason, Reason::PolicyBudgetExceeded);
    signer.restart();
    signer.add("alice", NodeKind::Ldk);
    replied(signer.ask(&alice, None, invoice_to_pay(1, 30_000_000)));
    assert_eq!(counted(&signer), (0, 30_000_000));
    assert_eq!(refused(signer.ask(&alice, None, keysend(2, 20_000_001))).1.reason, Reason::PolicyBudgetExceeded);
    replied(signer.ask(&alice, None, keysend(3, 20_000_000)));
    assert_eq!(counted(&signer), (0, 50_000_000));
}

#[test]
fn a_refused_repeat_frees_nothing_of_the_payment_that_may_be_on_its_way() {
    let (signer, alice) = signer();
    let pay = |amount_msat| invoice_to_pay(1, amount_msat);
    replied(signer.ask(&alice, None, pay(30_000_000)));
    // Another invoice for the same hash, as a payee who helps can sign: the state machine refuses it.
    refused(signer.ask(&alice, None, pay(29_000_000)));
    assert_eq!(counted(&signer), (0, 30_000_000));
    assert_eq!(refused(signer.ask(&alice, None, keysend(2, 20_000_001))).1.reason, Reason::PolicyBudgetExceeded);
}

#[test]
fn a_payment_is_spent_once_it_has_left_whole_and_not_before() {
    let mut stage = Stage::new();
    apply(&stage.signer, &[("policy.toml", POLICY), ("rules.cedar", RULES)]);
    stage.approve(1, 30_000);
    assert_eq!(counted(&stage.signer), (0, 30_000_000));
    stage.advance(0, OURS_SAT - 30_000, &[out(1, 30_000, 500)]).expect("on its way");
    assert_eq!(counted(&stage.signer), (0, 30_000_000));
    stage.restart();
    stage.learn(0, secret(1).0);
    stage.advance(0, OURS_SAT - 30_000, &[]).expect("settled");
    assert_eq!(counted(&stage.signer), (30_000_000, 0));
    stage.restart();
    stage.advance(0, OURS_SAT - 30_000, &[]).expect("goes on");
    assert_eq!(counted(&stage.signer), (30_000_000, 0));
}

#[test]
fn a_first_request_that_is_refused_elsewhere_sets_nothing_aside() {
    let limits = LimitsConfig { max_payment_msat: 20_000_000, ..LimitsConfig::default() };
    let signer = Signer::start_over(Arc::new(MemoryStore::new()), limits);
    apply(&signer, &[("policy.toml", POLICY), ("rules.cedar", RULES)]);
    let alice = signer.add("alice", NodeKind::Ldk);
    assert_eq!(refused(signer.ask(&alice, None, keysend(1, 30_000_000))).1.reason, Reason::Limit);
    assert_eq!(counted(&signer), (0, 0));
    replied(signer.ask(&alice, None, keysend(2, 20_000_000)));
    assert_eq!(counted(&signer), (0, 20_000_000));
}

#[test]
fn a_payment_that_failed_stays_set_aside_as_long_as_it_may_be_tried_again() {
    let mut stage = Stage::new();
    apply(&stage.signer, &[("policy.toml", POLICY), ("rules.cedar", RULES)]);
    stage.approve(1, 30_000);
    for _ in 0..2 {
        stage.advance(0, OURS_SAT - 30_000, &[out(1, 30_000, 500)]).expect("tried");
        stage.advance(0, OURS_SAT, &[]).expect("failed");
        assert_eq!(counted(&stage.signer), (0, 30_000_000));
    }
}

#[test]
fn no_policy_lets_pass_what_safety_forbids() {
    let mut stage = Stage::new();
    apply(
        &stage.signer,
        &[("policy.toml", "version = 1\n"), ("rules.cedar", "@id(\"all\") permit (principal, action, resource);")],
    );
    assert_eq!(stage.refused(0, OURS_SAT - 1, &[]), Reason::ValueNotConserved);
    assert_eq!(stage.refused(0, OURS_SAT - 30_000, &[out(1, 30_000, 500)]), Reason::PaymentNotApproved);
    stage.advance(0, OURS_SAT, &[]).expect("the honest twin");
}

#[test]
fn what_no_rule_permits_is_refused_and_safety_goes_on() {
    let (signer, alice) = signer();
    let mut driver = Driver::open(&mut signer.asking(&alice), 1).expect("opens");
    apply(
        &signer,
        &[
            ("policy.toml", "version = 2\n"),
            ("rules.cedar", "@id(\"open\") permit (principal, action == Action::\"OpenChannel\", resource);"),
        ],
    );
    assert_eq!(refused(signer.ask(&alice, None, keysend(1, 1))).1.reason, Reason::PolicyNothingPermits);
    driver.advance(&mut signer.asking(&alice), 0).expect_err("no commitment either");
}

/// Forwards of 60,000 sat at most, with a fee, that outlast by 40 blocks; 100,000 sat an hour.
const FORWARDS: &str = r#"
version = 1

[[budget]]
name = "hourly"
actions = ["Forward"]
fact = "amount_msat"
scope = ["node"]
window = "1h"
limit = 100_000_000
"#;

const FORWARD_RULES: &str = r#"
@id("rest") permit (principal, action, resource) unless { action == Action::"Forward" };
@id("forward") permit (principal, action == Action::"Forward", resource)
    when {
        context.amount_msat <= 60000000 && context.amount_msat < context.incoming_msat
        && context has cltv_delta_blocks && context.cltv_delta_blocks >= 40
    };
"#;

#[test]
fn a_forward_is_judged_by_what_the_book_knows_of_it_and_counted_once() {
    let mut stage = Stage::new();
    apply(&stage.signer, &[("policy.toml", FORWARDS), ("rules.cedar", FORWARD_RULES)]);
    stage.advance(0, OURS_SAT, &[incoming(1, 50_000, 540)]).expect("it comes");
    for wrong in [out(1, 50_000, 500), out(1, 49_000, 501)] {
        let to_us_sat = OURS_SAT - wrong.amount_sat;
        let holdings = Holdings { to_us_sat, htlcs: vec![wrong] };
        let refused = stage.channels[1].sign_next(&mut stage.signer.asking(&stage.alice), &holdings);
        assert!(
            matches!(refused, Err(DriverError::Refused { refusal, .. }) if refusal.reason == Reason::PolicyNothingPermits)
        );
    }
    assert_eq!(counted(&stage.signer), (0, 0), "nothing left");
    let ours_sat = OURS_SAT - 49_000;
    stage.advance(1, ours_sat, &[out(1, 49_000, 500)]).expect("with a fee, and in time");
    stage.advance(1, ours_sat, &[out(1, 49_000, 500)]).expect("goes on");
    stage.restart();
    stage.advance(1, ours_sat, &[out(1, 49_000, 500)]).expect("goes on");
    assert_eq!(counted(&stage.signer), (49_000_000, 0));
    let decided: Vec<_> = stage.signer.journal().decisions(1, 1_000).expect("readable");
    let forwards = decided.iter().flat_map(|line| &line.decision.policy);
    let forwards = forwards.filter(|record| record.request.action == Action::Forward && record.verdict.permits());
    let [record] = &forwards.collect::<Vec<_>>()[..] else { panic!("asked once") };
    assert_eq!(record.request.number(FactId::IncomingMsat), Some(50_000_000));
    assert_eq!(record.request.number(FactId::CltvDeltaBlocks), Some(40));
}

#[test]
fn a_payment_of_our_own_is_no_forward_however_often_it_is_tried() {
    let mut stage = Stage::new();
    let rules = r#"@id("rest") permit (principal, action, resource) unless { action == Action::"Forward" };"#;
    apply(&stage.signer, &[("policy.toml", "version = 1\n"), ("rules.cedar", rules)]);
    stage.approve(1, 30_000);
    for n in [0, 0, 1] {
        stage.advance(n, OURS_SAT - 33_000, &[out(1, 33_000, 500)]).expect("tried, with a fee");
        stage.advance(n, OURS_SAT, &[]).expect("failed");
    }
    stage.advance(0, OURS_SAT, &[incoming(2, 50_000, 600)]).expect("it comes");
    let holdings = Holdings { to_us_sat: OURS_SAT - 49_000, htlcs: vec![out(2, 49_000, 500)] };
    let refused = stage.channels[1].sign_next(&mut stage.signer.asking(&stage.alice), &holdings);
    refused.expect_err("no rule permits forwards");
}

#[test]
fn a_shadow_counts_what_it_would_decide_otherwise_in_budgets_of_its_own_and_answers_nothing() {
    let (mut signer, alice) = signer();
    // 45,000 sat an hour, and no limit for one payment.
    let wider = POLICY.replace("version = 1", "version = 2").replace("limit = 50_000_000", "limit = 45_000_000");
    let rules = r#"@id("all") permit (principal, action, resource);"#;
    let candidate = [("policy.toml", wider.as_str()), ("rules.cedar", rules)];
    let record = |puts| {
        signer.journal().commit(Commit { tenant: HOUSE.to_owned(), puts, decision: None }).expect("recorded");
        Ok::<_, ApplyFailed>(())
    };
    signer.desk.shadow(Some(bundle(&candidate)), Network::Regtest, NOW_MS, record).expect("a shadow");

    assert_eq!(refused(signer.ask(&alice, None, invoice_to_pay(1, 41_000_000))).1.reason, Reason::PolicyForbidden);
    for _ in 0..2 {
        replied(signer.ask(&alice, None, invoice_to_pay(2, 20_000_000)));
    }
    replied(signer.ask(&alice, None, invoice_to_pay(3, 4_000_000)));
    assert_eq!(counted(&signer), (4_000_000, 20_000_000), "as without it: small ones are spent at once");
    let shadowed = signer.desk.shadowed().expect("one");
    let report = &shadowed.report;
    assert_eq!(
        (report.decisions, report.newly_permitted, report.newly_refused, report.refused_otherwise),
        (4, 1, 2, 0)
    );
    let [permitted, first, second] = &shadowed.differing[..] else { panic!("{shadowed:?}") };
    assert_eq!(first.id, second.id, "one payment, asked for twice");
    assert_eq!((permitted.then.id(), permitted.now.id()), ("deny", "permit"));
    assert_eq!((first.then.id(), first.now.id()), ("permit", "deny"));

    signer.restart();
    signer.add("alice", NodeKind::Ldk);
    let again = signer.desk.shadowed().expect("still");
    assert_eq!((again.bundle.hash(), again.report.decisions), (shadowed.bundle.hash(), 0));
    apply(&signer, &candidate);
    assert!(signer.desk.shadowed().is_none(), "it is in force");
}

/// Above 20,000 sat, two treasurers approve.
const FOUR_EYES: &str = r#"
version = 1

[roles]
treasurer = ["ann", "ben", "cleo"]

[approvals.treasury]
role = "treasurer"
of = 2
"#;

const FOUR_EYES_RULES: &str = r#"
@id("all") permit (principal, action, resource);
@id("large") @unless_approved("treasury") forbid (principal, action == Action::"PayInvoice", resource)
    when { context.amount_msat > 20000000 };
"#;

/// People with keys of their own, and `ssh-keygen` to sign with.
struct People(tempfile::TempDir);

impl People {
    fn new(names: &[&str]) -> Self {
        let people = Self(tempfile::tempdir().expect("a directory"));
        for name in names {
            people.run(&["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name]);
        }
        people
    }

    fn run(&self, arguments: &[&str]) {
        let done = std::process::Command::new("ssh-keygen").args(arguments).current_dir(&self.0).output();
        assert!(done.expect("ssh-keygen is installed").status.success());
    }

    fn allowed_signers(&self, names: &[&str]) -> String {
        let line = |name: &&str| {
            let key = std::fs::read_to_string(self.0.path().join(format!("{name}.pub"))).expect("a key");
            format!("{name} {key}")
        };
        names.iter().map(line).collect()
    }

    fn sign(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.path().join("text"), text).expect("written");
        let _ = std::fs::remove_file(self.0.path().join("text.sig"));
        self.run(&["-q", "-Y", "sign", "-n", "claviger-grant", "-f", name, "text"]);
        std::fs::read_to_string(self.0.path().join("text.sig")).expect("a signature")
    }
}

#[test]
fn a_payment_that_two_people_approve_passes_on_retry_once_and_no_other_does() {
    let names = ["ann", "ben", "cleo"];
    let people = People::new(&names);
    let limits = LimitsConfig { max_payment_msat: 1_000_000_000, ..LimitsConfig::default() };
    let mut signer = Signer::start_over(Arc::new(MemoryStore::new()), limits);
    let signers = people.allowed_signers(&names);
    apply(&signer, &[("policy.toml", FOUR_EYES), ("rules.cedar", FOUR_EYES_RULES), ("allowed_signers", &signers)]);
    let alice = signer.add("alice", NodeKind::Ldk);
    let large = invoice_to_pay(1, 30_000_000);
    for _ in 0..2 {
        let (_, refusal) = refused(signer.ask(&alice, None, large.clone()));
        assert_eq!(refusal.reason, Reason::PolicyApprovalNeeded);
    }
    for (person, passes) in [("ann", false), ("ben", true)] {
        approve(&signer, &alice, |text| people.sign(person, text));
        signer.restart();
        signer.add("alice", NodeKind::Ldk);
        match passes {
            true => drop(replied(signer.ask(&alice, None, large.clone()))),
            false => {
                assert_eq!(refused(signer.ask(&alice, None, large.clone())).1.reason, Reason::PolicyApprovalNeeded)
            }
        }
    }
    let other = refused(signer.ask(&alice, None, invoice_to_pay(2, 30_000_000))).1.reason;
    assert_eq!(other, Reason::PolicyApprovalNeeded, "one use, for one payment");
    replied(signer.ask(&alice, None, large));
    replied(signer.ask(&alice, None, invoice_to_pay(3, 20_000_000)));
}

#[test]
fn a_node_for_which_a_grant_was_recorded_before_its_first_state_runs_and_has_the_grant() {
    let names = ["ann", "ben", "cleo"];
    let signers = People::new(&names).allowed_signers(&names);
    let bundle = [("policy.toml", FOUR_EYES), ("rules.cedar", FOUR_EYES_RULES), ("allowed_signers", &signers)];
    let signer = Signer::start();
    apply(&signer, &bundle);
    let alice = signer.add("alice", NodeKind::Ldk);
    refused(signer.ask(&alice, None, invoice_to_pay(1, 30_000_000)));
    let entries = signer.journal().load("alice").expect("readable").into_iter();
    let asked = entries.filter(|(key, _)| key.starts_with("grant/"));
    let puts: Vec<_> = asked.map(|(key, value)| Put { key, value: Some(value) }).collect();
    assert_eq!(puts.len(), 1);

    let other = Signer::start();
    apply(&other, &bundle);
    other.journal().commit(Commit { tenant: "alice".to_owned(), puts, decision: None }).expect("recorded");
    let alice = other.add("alice", NodeKind::Ldk);
    replied(other.ask(&alice, None, invoice_to_pay(2, 20_000_000)));
    assert_eq!(other.desk.look_at_grants(|grants, _| grants["alice"].iter().count()), Some(1));
}

/// Approves the only grant that waits, as the administration socket does.
fn approve(signer: &Signer, node: &NodeName, sign: impl FnOnce(&str) -> String) {
    let waiting = signer.desk.look_at_grants(|grants, _| {
        let (id, grant) = grants[node.as_str()].iter().next().expect("one waits");
        (id, grant.intent.text())
    });
    let (id, text) = waiting.expect("a policy is in force");
    let signature = sign(&text);
    let puts =
        signer.desk.with_grants(node, |grants, policy| grants.approve(&policy.approvals, id, &signature, now_ms()));
    let puts = puts.expect("in force").expect("approved");
    signer.journal().commit(Commit { tenant: node.to_string(), puts, decision: None }).expect("recorded");
}
