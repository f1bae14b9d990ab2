//! Every preset compiles, and its numbers bound what it permits.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::engine::{Memberships, Rules, Source};
use crate::request::Request;

fn rules(name: &str, numbers: &[(&str, u64)]) -> Rules {
    let numbers = numbers.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let expanded = expand(name, &numbers).unwrap();
    let sources = [Source { file: format!("preset:{name}"), text: expanded.cedar }];
    Rules::compile(&sources).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn permits(rules: &Rules, request: &Request, unknown_destinations: u64) -> bool {
    let memberships = Memberships { unknown_destinations, ..Memberships::default() };
    let evaluation = rules.evaluate(request, &memberships).unwrap();
    evaluation.forbids.is_empty() && !evaluation.permits.is_empty()
}

fn keysend(amount_msat: u64) -> Request {
    Request::new("alice", Action::Keysend, 0)
        .with(FactId::AmountMsat, amount_msat)
        .with(FactId::Payee, "03cd")
        .with(FactId::PaymentHash, "e3b0")
}

fn withdraw(amount_msat: u64, fee_msat: u64) -> Request {
    let request = Request::new("alice", Action::Withdraw, 0).paying_to(vec!["bc1q".into()]);
    request.with(FactId::AmountMsat, amount_msat).with(FactId::FeeMsat, fee_msat)
}

#[test]
fn every_preset_compiles_and_every_number_of_its_parts_has_one_default() {
    for preset in Preset::all() {
        rules(preset.name, &[]);
        let numbers = preset.numbers().map(|(number, _)| number.name).collect::<Vec<_>>();
        let mut defaults = preset.defaults.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(numbers, defaults, "{}", preset.name);
        defaults.dedup();
        assert_eq!(numbers.len(), defaults.len());
        assert!(numbers.iter().all(|name| name.ends_with("_msat")), "a unit in every name");
        let expanded = expand(preset.name, &BTreeMap::new()).unwrap();
        assert!(!expanded.cedar.contains("_msat}"), "{}", expanded.cedar);
        for budget in &expanded.budgets {
            assert!(budget.limit > 0 && budget.actions.iter().all(|action| budget.fact.unwrap().always(*action)));
        }
    }
    assert!(Preset::by_name(DEFAULT).is_some());
}

#[test]
fn no_preset_permits_everything() {
    let all_money = MAX_MONEY_MSAT;
    for preset in Preset::all() {
        let rules = rules(preset.name, &[]);
        assert!(!permits(&rules, &keysend(all_money), 0), "{}", preset.name);
        assert!(!permits(&rules, &withdraw(all_money, 0), 0), "{}", preset.name);
        assert!(!permits(&rules, &withdraw(1, 0), 1), "{}: to nobody knows whom", preset.name);
        let open = Request::new("alice", Action::OpenChannel, 0).with(FactId::Peer, "02ab").with(FactId::PushMsat, 0);
        assert!(!permits(&rules, &open.clone().with(FactId::AmountMsat, all_money), 0), "{}", preset.name);
        let gift = open.with(FactId::AmountMsat, 1_000).with(FactId::PushMsat, 1);
        assert!(!permits(&rules, &gift, 0), "{}", preset.name);
        let key = Request::new("alice", Action::UseDeviceKey, 0).with(FactId::DeviceKey, "operations");
        assert!(!permits(&rules, &key, 0), "{}", preset.name);
    }
}

#[test]
fn a_number_bounds_what_it_says_and_one_more_is_refused() {
    let rules =
        rules("routing-node", &[("max_payment_msat", 700), ("max_withdrawal_msat", 800), ("max_chain_fee_msat", 9)]);
    assert!(permits(&rules, &keysend(700), 0));
    assert!(!permits(&rules, &keysend(701), 0));
    assert!(permits(&rules, &withdraw(800, 9), 0));
    assert!(!permits(&rules, &withdraw(801, 9), 0));
    assert!(!permits(&rules, &withdraw(800, 10), 0));
}

#[test]
fn channels_close_and_sweep_home_under_every_preset() {
    for preset in Preset::all() {
        let rules = rules(preset.name, &[]);
        let close = Request::new("alice", Action::CloseChannel, 0).with(FactId::Channel, "02ab:1");
        let home = close.with(FactId::AmountMsat, 0).paying_to(vec![]);
        assert!(permits(&rules, &home, 0), "{}", preset.name);
        let away = home.with(FactId::AmountMsat, 1).paying_to(vec!["bc1q".into()]);
        assert!(permits(&rules, &away, 0) && !permits(&rules, &away, 1), "{}", preset.name);
        let force = Request::new("alice", Action::ForceClose, 0).with(FactId::Channel, "02ab:1");
        assert!(permits(&rules, &force, 0), "{}", preset.name);
    }
}

#[test]
fn what_only_receives_pays_nothing() {
    let rules = rules("receive-only", &[]);
    assert!(!permits(&rules, &keysend(1), 0));
    assert!(!permits(&rules, &withdraw(1, 0), 0));
    assert!(permits(&rules, &Request::new("alice", Action::IssueInvoice, 0), 0));
}

#[test]
fn a_wrong_name_or_number_is_told_with_what_there_is() {
    let unknown = expand("routing", &BTreeMap::new()).unwrap_err().remove(0);
    assert_eq!(unknown, PresetError::Unknown("routing".into()));
    assert!(unknown.hint().contains("routing-node"));
    let numbers = BTreeMap::from([("max_payment_sat".to_owned(), 5), ("max_chain_fee_msat".to_owned(), u64::MAX)]);
    let errors = expand("receive-only", &numbers).unwrap_err();
    assert_eq!(errors[0], PresetError::NoSuchNumber { preset: "receive-only", number: "max_payment_sat".into() });
    assert_eq!(errors[1], PresetError::TooLarge { number: "max_chain_fee_msat", value: u64::MAX });
    assert_eq!(errors[0].number(), Some("max_payment_sat"));
}

#[test]
fn no_preset_looks_at_who_requested_what_leaves_a_channel() {
    for preset in Preset::all() {
        let looks = rules(preset.name, &[]).look_at(FactId::UnrequestedMsat, Action::UpdateChannel, "alice");
        assert!(!looks, "{}: payments begin elsewhere, too", preset.name);
    }
}
