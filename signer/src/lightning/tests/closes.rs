//! Mutual closes: what is owed, to a place that is ours.

use bitcoin::{ScriptBuf, Transaction};
use vls_protocol::msgs::{self, SerBolt};

use super::onchain::{stranger, taproot, wallet_key};
use super::operator::order;
use super::*;
use crate::lightning::orders::Order;
use crate::reasons::Reason;

const OURS_SAT: u64 = 400_000;

/// A channel that the peer funded and in which it gave us 400,000 sat; `upfront` is our shutdown script and its index.
fn channel(signer: &mut Signer, alice: &NodeName, dbid: u64, upfront: Option<(ScriptBuf, u32)>) -> Driver {
    let change = |setup: &mut msgs::SetupChannel| {
        if let Some((script, index)) = upfront {
            setup.local_shutdown_script = script.into_bytes().into();
            setup.local_shutdown_wallet_index = Some(index);
        }
    };
    let fund = |script: &bitcoin::Script, value| Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::from_consensus(dbid as u32),
        input: vec![bitcoin::TxIn::default()],
        output: vec![bitcoin::TxOut { value, script_pubkey: script.to_owned() }],
    };
    let opened = Driver::open_with(&mut signer.asking(alice), dbid, OURS_SAT, change, fund);
    let driver = opened.unwrap_or_else(|error| panic!("{error}"));
    signer.confirm(&[alice], vec![driver.funding().clone()]);
    driver
}

fn close(driver: &Driver, to_local_sat: u64, script: &ScriptBuf, index: Option<u32>) -> Vec<u8> {
    msgs::SignMutualCloseTx2 {
        to_local_value_sat: to_local_sat,
        to_remote_value_sat: driver.to_peer_sat(),
        local_script: script.to_bytes().into(),
        remote_script: stranger().to_bytes().into(),
        local_wallet_path_hint: index.into_iter().collect::<Vec<_>>().into(),
    }
    .as_vec()
}

fn refusal(outcome: Outcome) -> Option<Reason> {
    match outcome {
        Outcome::Reply(_) => None,
        Outcome::Refused { refusal, .. } => Some(refusal.reason),
    }
}

#[test]
fn a_hostile_close_that_pays_a_satoshi_less_than_owed_is_refused() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let driver = channel(&mut signer, &alice, 1, None);
    let ours = taproot(wallet_key(&signer, &alice, 5));
    let ask = |message| refusal(signer.ask(&alice, Some(driver.channel()), message));
    assert_eq!(ask(close(&driver, OURS_SAT - 1, &ours, Some(5))), Some(Reason::CloseValue));
    assert_eq!(ask(close(&driver, 0, &ours, Some(5))), Some(Reason::Validation), "vls is the first to see it");
    assert_eq!(ask(close(&driver, OURS_SAT, &ours, Some(5))), None);
}

#[test]
fn an_honest_close_goes_to_the_own_wallet_to_an_allowed_address_or_to_the_upfront_script() {
    let allow = vec!["bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080".to_owned()];
    for allowed in [false, true] {
        let allow = if allowed { allow.clone() } else { Vec::new() };
        let limits = LimitsConfig { allow, ..LimitsConfig::default() };
        let mut signer = Signer::start_over(Arc::new(MemoryStore::new()), limits);
        let alice = signer.add("alice", NodeKind::Ldk);
        let ours = taproot(wallet_key(&signer, &alice, 5));
        let free = channel(&mut signer, &alice, 1, None);
        let ask = |signer: &Signer, driver: &Driver, script: &ScriptBuf, index| {
            refusal(signer.ask(&alice, Some(driver.channel()), close(driver, OURS_SAT, script, index)))
        };
        let abroad = (!allowed).then_some(Reason::Validation);
        assert_eq!(ask(&signer, &free, &stranger(), None), abroad);
        assert_eq!(ask(&signer, &free, &ours, Some(4)), Some(Reason::Validation), "not at this index");
        assert_eq!(ask(&signer, &free, &ours, Some(5)), None);

        let bound = channel(&mut signer, &alice, 2, Some((ours.clone(), 5)));
        let elsewhere = taproot(wallet_key(&signer, &alice, 6));
        assert_eq!(ask(&signer, &bound, &elsewhere, Some(6)), Some(Reason::Validation), "another promise was made");
        assert_eq!(ask(&signer, &bound, &ours, None), None, "judged when the channel was set up");
    }
}

#[test]
fn an_honest_close_of_a_frozen_node_is_signed_and_a_hostile_one_is_not() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let drivers = [1, 2].map(|dbid| channel(&mut signer, &alice, dbid, None));
    let ours = taproot(wallet_key(&signer, &alice, 5));
    order(&signer, &alice, Order::Freeze(None)).expect("frozen");
    order(&signer, &alice, Order::Freeze(Some(drivers[0].channel().into()))).expect("frozen");
    for driver in drivers {
        let ask = |message| refusal(signer.ask(&alice, Some(driver.channel()), message));
        assert_eq!(ask(close(&driver, OURS_SAT - 1, &ours, Some(5))), Some(Reason::CloseValue));
        assert_eq!(ask(close(&driver, OURS_SAT, &ours, Some(5))), None);
        assert_eq!(ask(msgs::SignLocalCommitmentTx2 { commitment_number: 0 }.as_vec()), None, "or by force");
    }
}

/// What the list names, the rules judge: to be on a list permits nothing by itself.
#[test]
fn an_honest_close_may_pay_a_destination_of_the_bundles_lists_where_the_rules_let_it() {
    let closed_to_all = "@id(\"here\") permit (principal, action, resource) when { context has amount_msat && context.amount_msat == 0 };";
    let (policy, list) = (policy::LISTED[0], policy::LISTED[1]);
    let rules = [("policy.toml", "version = 1\n"), ("rules.cedar", closed_to_all)];
    let cases: [(&[_], _); 3] = [
        (&[policy], Some(Reason::Validation)),
        (&[rules[0], rules[1], list], Some(Reason::PolicyNothingPermits)),
        (&[policy, list], None),
    ];
    for (files, expected) in cases {
        for is_frozen in [false, true] {
            let mut signer = Signer::start();
            let alice = signer.add("alice", NodeKind::Ldk);
            let driver = channel(&mut signer, &alice, 1, None);
            if is_frozen {
                order(&signer, &alice, Order::Freeze(None)).expect("frozen");
            }
            policy::apply(&signer, files);
            let ask = |script: &ScriptBuf| {
                refusal(signer.ask(&alice, Some(driver.channel()), close(&driver, OURS_SAT, script, None)))
            };
            assert_eq!(ask(&stranger()), expected, "{files:?}");
            let other = ScriptBuf::new_p2wsh(&stranger().wscript_hash());
            assert_eq!(ask(&other), Some(Reason::Validation), "{files:?}");
        }
    }
}

/// With payments on the way nobody knows yet what is owed.
#[test]
fn a_hostile_close_with_pending_htlcs_is_refused_and_an_honest_one_after_they_are_settled_passes() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = channel(&mut signer, &alice, 1, None);
    let ours = taproot(wallet_key(&signer, &alice, 5));
    driver.advance(&mut signer.asking(&alice), 2).expect("advances");
    let early = refusal(signer.ask(&alice, Some(driver.channel()), close(&driver, OURS_SAT, &ours, Some(5))));
    assert_eq!(early, Some(Reason::Validation));
    driver.advance(&mut signer.asking(&alice), 0).expect("advances");
    let settled = refusal(signer.ask(&alice, Some(driver.channel()), close(&driver, OURS_SAT, &ours, Some(5))));
    assert_eq!(settled, None);
}
