//! The attack refused with its error, and beside it the honest twin that passes.

mod intents;
mod people;
mod quorum;
mod records;
mod security_keys;
mod signatures;
mod ssh;
mod tickets;
mod uses;

use std::collections::BTreeMap;

use super::*;
use crate::actions::Action;
use crate::budget::ReservationKey;
use crate::facts::FactId;
use crate::request::Request;

use self::ssh::People;

const APPLIANCE: &str = "appliance-1";
const NODE: &str = "alice-node";
/// 2026-11-23T09:00:00Z
const NOW_S: u64 = 1_795_424_400;
const NOW_MS: u64 = NOW_S * 1_000;
const HOUR_MS: u64 = 3_600_000;
const PAYEE: &str = "02aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Two of three treasurers; one of two officers in an emergency.
const POLICY: &str = r#"
[roles]
treasurer = ["alice", "bob", "carol"]
officer = ["olga", "bob"]

[approvals.treasury]
role = "treasurer"
of = 2

[approvals.emergency]
role = "officer"
of = 1
break_glass = true
"#;

/// A person's intent: pay `PAYEE` up to 300,000 sat, once, within a day.
fn intent() -> Intent {
    Intent {
        appliance: APPLIANCE.into(),
        id: GrantId([7; 16]),
        kind: GrantKind::Normal,
        node: NODE.into(),
        actions: vec![Action::PayInvoice],
        pins: BTreeMap::from([(FactId::Payee, PAYEE.to_owned())]),
        max_amount_msat: Some(300_000_000),
        max_fee_msat: Some(1_000_000),
        max_total_msat: None,
        uses: 1,
        valid_from_s: NOW_S,
        valid_until_s: NOW_S + 86_400,
        group: "treasury".into(),
        of: 2,
        role: "treasurer".into(),
        requester: Requester::Person("dora".into()),
        reason: "invoice 17 of the new exchange".into(),
    }
}

/// A break-glass intent, asked by dora.
fn emergency() -> Intent {
    Intent { kind: GrantKind::BreakGlass, group: "emergency".into(), of: 1, role: "officer".into(), ..intent() }
}

fn pay(amount_msat: u64, fee_msat: u64) -> Request {
    let request = Request::new(NODE, Action::PayInvoice, NOW_MS).with(FactId::Payee, PAYEE);
    request.with(FactId::AmountMsat, amount_msat).with(FactId::FeeMsat, fee_msat)
}

fn key(name: &str) -> ReservationKey {
    ReservationKey::new(name)
}

/// The groups of `policy`, with the people's keys.
fn approvals_of(policy: &str, allowed_signers: &str) -> Result<Approvals, Vec<GroupFault>> {
    #[derive(serde::Deserialize)]
    struct File {
        roles: Roles,
        approvals: Groups,
    }
    let file: File = toml::from_str(policy).expect("TOML");
    let approvers = Approvers::parse(allowed_signers).expect("a good file");
    let approvals = Approvals::define(policy, &file.roles, &file.approvals, approvers);
    approvals.map_err(|errors| errors.into_iter().map(|error| error.fault).collect())
}

/// [`POLICY`] with a key for each of its people, and one for dora, who asks.
fn world() -> (People, Approvals) {
    let people = People::new(&["alice", "bob", "carol", "dora", "olga"]);
    let approvals = approvals_of(POLICY, &people.allowed_signers()).expect("good groups");
    (people, approvals)
}

/// `intent`, asked by the person that it names.
fn asked(people: &People, approvals: &Approvals, intent: &Intent) -> Grants {
    let mut grants = Grants::new(APPLIANCE, NODE);
    let Requester::Person(person) = &intent.requester else { panic!("a person's") };
    let signature = people.sign(person, REQUEST_NAMESPACE, &intent.text());
    grants.ask(approvals, intent.clone(), &signature, NOW_MS).expect("asked");
    grants
}

/// `intent`, asked and approved by `approvers`.
fn approved(people: &People, approvals: &Approvals, intent: &Intent, approvers: &[&str]) -> Grants {
    let mut grants = asked(people, approvals, intent);
    for person in approvers {
        approve(&mut grants, people, approvals, intent, person).expect("approved");
    }
    grants
}

fn approve(
    grants: &mut Grants,
    people: &People,
    approvals: &Approvals,
    intent: &Intent,
    person: &str,
) -> Result<Effect, GrantError> {
    let signature = people.sign(person, intent.kind.namespace(), &intent.text());
    grants.approve(approvals, intent.id, &signature, NOW_MS)
}

/// What the journal holds after `changes`.
fn entries(changes: impl IntoIterator<Item = Change>) -> BTreeMap<String, Vec<u8>> {
    let mut entries = BTreeMap::new();
    for Change { key, value } in changes {
        match value {
            Some(value) => entries.insert(key, value),
            None => entries.remove(&key),
        };
    }
    entries
}

fn load(entries: &BTreeMap<String, Vec<u8>>) -> Result<Grants, GrantsUnreadable> {
    Grants::load(APPLIANCE, NODE, entries.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
}
