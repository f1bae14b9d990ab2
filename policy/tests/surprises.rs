//! What takes the operators of policy engines by surprise, and does not happen here: an approval of nobody, an order that
//! decides, a name that means something else, a reload that leaves the old behind. docs/security/properties.md maps each to
//! its tests; those that need a whole bundle are here.

#![allow(clippy::unwrap_used)] // what fails may panic

use std::sync::{Arc, Weak};

use bitcoin::Network;
use claviger_policy::actions::Action;
use claviger_policy::budget::{Budgets, ReservationKey};
use claviger_policy::bundle::{Bundle, Files, InForce};
use claviger_policy::decide::{self, State};
use claviger_policy::facts::FactId;
use claviger_policy::grant::Grants;
use claviger_policy::request::Request;
use claviger_policy::verdict::Verdict;
use fastrand::Rng;

/// Another order.
fn shuffled<T: Clone>(dice: &mut Rng, of: &[T]) -> Vec<T> {
    let mut all = of.to_vec();
    dice.shuffle(&mut all);
    all
}

const RULES: [&str; 6] = [
    "@id(\"pay\")\npermit (principal, action in Action::\"Spend\", resource) when { context.amount_msat <= 900 };\n",
    "@id(\"pay-alice\")\npermit (principal == Node::\"alice\", action, resource);\n",
    "@id(\"cap\")\n@unless_approved(\"treasury\")\nforbid (principal, action, resource)\n\
     when { context has amount_msat && context.amount_msat > 700 };\n",
    "@id(\"night\")\nforbid (principal, action in Action::\"Spend\", resource) when { context.hour_utc < 6 };\n",
    "@id(\"no-payee\")\nforbid (principal, action in [Action::\"PayInvoice\"], resource)\n\
     when { context.payee == \"0666\" };\n",
    "@id(\"settle\")\npermit (principal, action in Action::\"Settle\", resource);\n",
];

const BUDGETS: [&str; 3] = [
    "[[budget]]\nname = \"hourly\"\nactions = [\"PayInvoice\"]\nfact = \"amount_msat\"\nscope = [\"node\"]\nwindow = \"1h\"\n\
     limit = 2_000\nunless_approved = \"treasury\"\n",
    "[[budget]]\nname = \"often\"\nactions = [\"PayInvoice\"]\nfact = \"count\"\nscope = [\"payee\"]\nwindow = \"1h\"\n\
     limit = 4\n",
    "[[budget]]\nname = \"fleet\"\nactions = [\"PayInvoice\"]\nfact = \"amount_msat\"\nscope = [\"fleet\"]\nwindow = \"24h\"\n\
     limit = 9_000\n",
];

const PEOPLE: &str = "[roles]\ntreasurer = [\"alice@example.org\", \"bob@example.org\", \"carol@example.org\"]\n\
                      [approvals.treasury]\nrole = \"treasurer\"\nof = 2\n";

/// The rules in these files, the budgets in this order.
fn bundle(version: u64, rules: &[(String, String)], budgets: &[&str]) -> Bundle {
    let mut files = Files::default();
    let policy = format!("version = {version}\n{}{PEOPLE}", budgets.concat());
    files.add("policy.toml", policy.into_bytes()).unwrap();
    let signers = include_bytes!("../../docs/policy/examples/treasury-team/allowed_signers");
    files.add("allowed_signers", signers.to_vec()).unwrap();
    for (name, text) in rules {
        files.add(name, text.clone().into_bytes()).unwrap();
    }
    Bundle::parse(files, Network::Regtest).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn plain(version: u64) -> Bundle {
    bundle(version, &[("rules.cedar".to_owned(), RULES.concat())], &BUDGETS)
}

fn requests(dice: &mut Rng, many: u64) -> Vec<Request> {
    let request = |index: u64| {
        let node = ["alice", "bob"][dice.usize(..2)];
        let at_ms = 1_796_083_200_000 + index * 600_000;
        Request::new(node, Action::PayInvoice, at_ms)
            .with(FactId::AmountMsat, dice.u64(..1_000))
            .with(FactId::Payee, ["0666", "03cd", "03ce"][dice.usize(..3)])
            .with(FactId::PaymentHash, format!("{index:064x}"))
    };
    (0..many).map(request).collect()
}

/// All verdicts, with what is spent on the way counted along.
fn verdicts(bundle: &Bundle, requests: &[Request]) -> Vec<Verdict> {
    let mut budgets = Budgets::default();
    let verdict = |request: &Request| {
        let (key, now_ms) = (ReservationKey::new(request.text(FactId::PaymentHash).unwrap()), request.time_ms);
        let grants = Grants::new("appliance", &request.node);
        let state = State { budgets: &budgets, grants: &grants };
        let inputs = decide::inputs(bundle.policy(), state, request, Some(&key), now_ms);
        let verdict = decide::judge(bundle.policy(), request, &inputs);
        if verdict.permits() {
            budgets.reserve(&bundle.policy().budgets, request, &key, now_ms + 1, now_ms).unwrap();
            budgets.settle(&request.node, &key, &[], now_ms);
        }
        verdict
    };
    requests.iter().map(verdict).collect()
}

/// What a verdict says, without the order in which it says it.
fn meaning(verdict: &Verdict) -> (bool, Vec<String>) {
    let mut words = match verdict {
        Verdict::Permit(permit) => permit.determining.iter().map(ToString::to_string).collect(),
        Verdict::Deny(denials) => denials.iter().map(ToString::to_string).collect(),
        Verdict::NeedsApproval { groups, denials } => {
            denials.iter().map(ToString::to_string).chain(groups.iter().cloned()).collect::<Vec<_>>()
        }
        Verdict::Fault(fault) => vec![fault.message.clone()],
    };
    words.sort();
    (verdict.permits(), words)
}

/// There is no first match, and nothing has to stand before anything else.
#[test]
fn neither_the_order_of_rules_nor_of_files_nor_of_budgets_changes_a_verdict() {
    let dice = &mut Rng::with_seed(7);
    let requests = requests(dice, 120);
    let expected: Vec<_> = verdicts(&plain(1), &requests).iter().map(meaning).collect();
    assert!(expected.iter().any(|(permits, _)| *permits) && expected.iter().any(|(permits, _)| !permits));
    for _ in 0..20 {
        let names = shuffled(dice, &["a.cedar", "m.cedar", "z.cedar"]);
        let mut files: Vec<(String, String)> = names.iter().map(|name| (name.to_string(), String::new())).collect();
        for rule in shuffled(dice, &RULES) {
            files[dice.usize(..3)].1 += rule;
        }
        let other = bundle(1, &files, &shuffled(dice, &BUDGETS));
        let found: Vec<_> = verdicts(&other, &requests).iter().map(meaning).collect();
        assert_eq!(found, expected, "{files:?}");
    }
}

/// A group of none cannot be written, and one that nobody has approved lifts nothing.
#[test]
fn no_approvals_are_never_enough() {
    let none = PEOPLE.replace("of = 2", "of = 0");
    let mut files = Files::default();
    let signers = include_bytes!("../../docs/policy/examples/treasury-team/allowed_signers");
    files.add("policy.toml", format!("version = 1\n{none}").into_bytes()).unwrap();
    files.add("allowed_signers", signers.to_vec()).unwrap();
    let errors = Bundle::parse(files, Network::Regtest).unwrap_err();
    assert!(errors.iter().any(|error| error.to_string().starts_with("policy.toml:6:6: ")), "{errors:?}");

    let request = Request::new("alice", Action::PayInvoice, 1_796_119_200_000)
        .with(FactId::AmountMsat, 800)
        .with(FactId::Payee, "03cd")
        .with(FactId::PaymentHash, "e3b0");
    let policy = plain(1);
    assert!(
        matches!(&verdicts(&policy, std::slice::from_ref(&request))[..], [Verdict::NeedsApproval { groups, .. }] if groups == &["treasury"])
    );
    let below = request.with(FactId::AmountMsat, 700);
    assert!(verdicts(&policy, &[below])[0].permits());
}

/// A policy is replaced as a whole: nothing of the one before decides, nothing of it stays in memory, a rule that comes
/// back decides as it did, and what does not come into force changes nothing.
#[test]
fn a_policy_that_is_replaced_leaves_nothing_behind_and_decides_as_before_when_it_comes_back() {
    let dice = &mut Rng::with_seed(11);
    let requests = requests(dice, 60);
    let narrow = |version| {
        let only = RULES.iter().filter(|rule| !rule.contains("pay-alice")).copied().collect::<String>();
        bundle(version, &[("rules.cedar".to_owned(), only)], &BUDGETS[1..])
    };
    let wide: Vec<_> = verdicts(&plain(1), &requests).iter().map(meaning).collect();
    let narrowed: Vec<_> = verdicts(&narrow(1), &requests).iter().map(meaning).collect();
    assert_ne!(wide, narrowed);

    let (mut in_force, mut active) = (InForce::default(), None::<Arc<Bundle>>);
    let mut gone: Vec<Weak<Bundle>> = Vec::new();
    let mut sizes = Vec::new();
    for version in 1..=20 {
        let next = Arc::new(if version % 2 == 1 { plain(version) } else { narrow(version) });
        // One that is refused before changes nothing.
        let before = in_force.clone();
        if version > 1 {
            in_force.apply(&plain(version - 1), active.as_deref(), None, version).unwrap_err();
            assert_eq!(in_force, before);
        }
        let changes = in_force.apply(&next, active.as_deref(), None, version * 1_000).unwrap();
        sizes.push(changes.last().unwrap().value.as_ref().unwrap().len());
        gone.extend(active.replace(next).as_ref().map(Arc::downgrade));
        let found: Vec<_> = verdicts(active.as_ref().unwrap(), &requests).iter().map(meaning).collect();
        assert_eq!(found, if version % 2 == 1 { wide.clone() } else { narrowed.clone() }, "version {version}");
    }
    assert!(gone.iter().all(|bundle| bundle.strong_count() == 0), "one is in memory");
    assert!(sizes.iter().max().unwrap() - sizes[2] < 16, "what is recorded does not grow: {sizes:?}");
}
