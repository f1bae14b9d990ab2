//! Each rule of budgets, with the request that it stops and the one beside it that passes.

use super::super::*;
use super::{Disk, HOUR_MS, MINUTE_MS, hourly, key, left, pay, spend, try_reserve};

const T: u64 = 1_000 * HOUR_MS;

#[test]
fn the_limit_itself_fits_and_one_more_does_not_and_the_standing_says_why() {
    let (mut budgets, defs) = (Budgets::default(), [hourly(1_000)]);
    assert!(spend(&mut budgets, &defs, &pay("alice", "shop", 400), 1, T));
    assert!(try_reserve(&mut budgets, &defs, &pay("alice", "shop", 100), 2, T + MINUTE_MS));
    let standing = budgets.check(&defs, &pay("alice", "shop", 501), None, T + MINUTE_MS).remove(0);
    let expected = Standing {
        budget: "hourly".into(),
        fact: Some(FactId::AmountMsat),
        scope: vec![(Scope::Node, "alice".into())],
        limit: 1_000,
        spent: 400,
        reserved: 100,
        asked: 501,
        left: 500,
        refills_at_ms: Some(T + HOUR_MS),
        fits_at_ms: Some(T + HOUR_MS),
        room: Room::Exceeded,
    };
    assert_eq!(standing, expected);
    assert!(!spend(&mut budgets, &defs, &pay("alice", "shop", 501), 3, T + MINUTE_MS));
    assert!(spend(&mut budgets, &defs, &pay("alice", "shop", 500), 3, T + MINUTE_MS));
    let standing = budgets.check(&defs, &pay("alice", "shop", 1_001), None, T + MINUTE_MS).remove(0);
    assert_eq!(standing.fits_at_ms, None, "no waiting makes it fit");
}

#[test]
fn an_amount_counts_until_its_window_is_over_and_not_a_millisecond_longer() {
    let (mut budgets, defs) = (Budgets::default(), [hourly(1_000)]);
    assert!(spend(&mut budgets, &defs, &pay("alice", "shop", 1_000), 1, T));
    assert!(!spend(&mut budgets, &defs, &pay("alice", "shop", 1), 2, T + HOUR_MS - 1));
    assert!(spend(&mut budgets, &defs, &pay("alice", "shop", 1_000), 2, T + HOUR_MS));
}

#[test]
fn a_window_counts_from_when_it_was_spent_not_from_when_it_was_asked_for() {
    let (mut budgets, defs) = (Budgets::default(), [hourly(1_000)]);
    assert!(try_reserve(&mut budgets, &defs, &pay("alice", "shop", 1_000), 1, T));
    budgets.hold("alice", &key(1), T);
    assert!(!spend(&mut budgets, &defs, &pay("alice", "shop", 1), 2, T + 5 * HOUR_MS), "still on its way");
    budgets.settle("alice", &key(1), &[], T + 5 * HOUR_MS);
    assert!(!spend(&mut budgets, &defs, &pay("alice", "shop", 1), 2, T + 6 * HOUR_MS - 1), "left an hour ago");
    assert!(spend(&mut budgets, &defs, &pay("alice", "shop", 1), 2, T + 6 * HOUR_MS));
}

#[test]
fn a_repeat_is_counted_once_before_and_after_it_settles_and_a_larger_one_for_the_difference() {
    let (mut budgets, defs) = (Budgets::default(), [hourly(1_000)]);
    let (request, larger) = (pay("alice", "shop", 600), pay("alice", "shop", 700));
    for _ in 0..5 {
        assert!(try_reserve(&mut budgets, &defs, &request, 1, T));
        assert_eq!(left(&budgets, &defs[0], &request, T), 400);
    }
    assert!(!try_reserve(&mut budgets, &defs, &request, 2, T), "another request is counted beside it");
    budgets.settle("alice", &key(1), &[], T);
    assert_eq!(budgets.settle("alice", &key(1), &[], T), [], "settled once");
    let standing = budgets.check(&defs, &request, Some(&key(1)), T).remove(0);
    assert_eq!((standing.asked, standing.spent), (0, 600));
    assert_eq!(budgets.reserve(&defs, &request, &key(1), T + HOUR_MS, T), Ok(vec![]), "nothing changes");
    assert!(try_reserve(&mut budgets, &defs, &larger, 1, T));
    assert_eq!(left(&budgets, &defs[0], &request, T), 300);
}

#[test]
fn settling_for_less_gives_back_the_rest_and_for_more_counts_all_of_it() {
    let (mut budgets, defs) = (Budgets::default(), [hourly(1_000)]);
    assert!(try_reserve(&mut budgets, &defs, &pay("alice", "shop", 600), 1, T));
    budgets.settle("alice", &key(1), &[(FactId::FeeMsat, 5), (FactId::AmountMsat, 250)], T);
    assert_eq!(left(&budgets, &defs[0], &pay("alice", "shop", 1), T), 750);
    assert!(try_reserve(&mut budgets, &defs, &pay("alice", "shop", 600), 2, T));
    budgets.settle("alice", &key(2), &[(FactId::AmountMsat, 700)], T);
    assert_eq!(left(&budgets, &defs[0], &pay("alice", "shop", 1), T), 50);
}

#[test]
fn what_failed_or_expired_is_given_back_at_once_and_what_is_on_its_way_is_not() {
    let (mut budgets, defs) = (Budgets::default(), [hourly(1_000)]);
    let request = pay("alice", "shop", 500);
    assert!(try_reserve(&mut budgets, &defs, &request, 1, T) && try_reserve(&mut budgets, &defs, &request, 2, T));
    budgets.release("alice", &key(1), T);
    assert_eq!(left(&budgets, &defs[0], &request, T), 500);
    assert_eq!(left(&budgets, &defs[0], &request, T + HOUR_MS - 1), 500);
    assert_eq!(left(&budgets, &defs[0], &request, T + HOUR_MS), 1_000, "expired, tidied up or not");
    let mut tidy = budgets.clone();
    assert_eq!(tidy.expire("alice", T + HOUR_MS).len(), 2, "the reservation and the clock");
    assert_eq!(left(&tidy, &defs[0], &request, T + HOUR_MS), 1_000);
    budgets.hold("alice", &key(2), T);
    assert_eq!(budgets.expire("alice", T + 100 * HOUR_MS), []);
    assert_eq!(left(&budgets, &defs[0], &request, T + 100 * HOUR_MS), 500);
}

#[test]
fn each_scope_has_its_own_window_and_the_fleet_one_for_all() {
    let mut budgets = Budgets::default();
    let of = |name: &str, scope: &[Scope]| Budget { name: name.into(), scope: scope.to_vec(), ..hourly(1_000) };
    let (fleet, nodes) = (of("fleet", &[Scope::Fleet]), of("nodes", &[Scope::Node]));
    let (payees, both) = (of("payees", &[Scope::Payee]), of("both", &[Scope::Node, Scope::Payee]));
    let defs = [fleet, nodes, payees, both];
    assert!(spend(&mut budgets, &defs, &pay("alice", "shop", 100), 1, T));
    assert!(spend(&mut budgets, &defs, &pay("bob", "shop", 20), 1, T), "the same key of another node is another");
    assert!(spend(&mut budgets, &defs, &pay("alice", "friend", 3), 2, T));
    let spent = |node, payee| {
        let standings = budgets.check(&defs, &pay(node, payee, 1), None, T);
        standings.into_iter().map(|standing| standing.spent).collect::<Vec<_>>()
    };
    assert_eq!(spent("alice", "shop"), [123, 103, 120, 100]);
    assert_eq!(spent("bob", "shop"), [123, 20, 120, 20]);
    assert_eq!(spent("bob", "friend"), [123, 20, 3, 0]);
    let shown = budgets.show(&defs, 2, T).into_iter().map(|standing| (standing.budget, standing.left));
    let expected = [
        ("fleet", 877),
        ("nodes", 897),
        ("nodes", 980),
        ("payees", 880),
        ("payees", 997),
        ("both", 900),
        ("both", 980),
    ];
    assert_eq!(shown.collect::<Vec<_>>(), expected.map(|(name, left)| (name.to_owned(), left)));
}

#[test]
fn requests_are_counted_whatever_they_are_worth() {
    let (mut budgets, defs) = (Budgets::default(), [Budget { fact: None, ..hourly(2) }]);
    assert!(spend(&mut budgets, &defs, &pay("alice", "shop", 0), 1, T));
    assert!(spend(&mut budgets, &defs, &pay("alice", "shop", 1_000_000), 2, T));
    assert!(!spend(&mut budgets, &defs, &pay("alice", "shop", 0), 3, T));
}

#[test]
fn a_missing_fact_is_no_permit_and_an_action_without_the_budget_needs_none() {
    let mut budgets = Budgets::default();
    let defs = [Budget { scope: vec![Scope::Payee], ..hourly(1_000) }];
    let bare = |action| Request::new("alice", action, 0).with(FactId::AmountMsat, 1);
    let standing = budgets.check(&defs, &bare(crate::actions::Action::PayInvoice), None, T).remove(0);
    assert_eq!(standing.room, Room::FactMissing(FactId::Payee));
    assert!(standing.refuses() && !standing.is_countable());
    let before = budgets.clone();
    let refused = budgets.reserve(&defs, &bare(crate::actions::Action::PayInvoice), &key(1), T, T);
    assert_eq!(refused.map_err(|standing| standing.room), Err(Room::FactMissing(FactId::Payee)));
    assert_eq!(budgets, before);
    assert_eq!(budgets.check(&defs, &bare(crate::actions::Action::Withdraw), None, T), []);
    assert!(spend(&mut budgets, &defs, &pay("alice", "shop", 1), 1, T));
}

#[test]
fn a_clock_set_back_frees_nothing_and_one_set_forward_nothing_before_its_time() {
    let (mut budgets, defs) = (Budgets::default(), [hourly(1_000)]);
    assert!(spend(&mut budgets, &defs, &pay("alice", "shop", 1_000), 1, T));
    for now_ms in [0, T - 1, T, T + HOUR_MS - 1] {
        assert!(!spend(&mut budgets, &defs, &pay("alice", "shop", 1), 2, now_ms));
    }
    assert!(spend(&mut budgets, &defs, &pay("alice", "shop", 1_000), 2, T + HOUR_MS));
    // Back again: counts until the clock has come to the end of the window that was opened ahead.
    assert!(!spend(&mut budgets, &defs, &pay("alice", "shop", 1), 3, T));
    assert!(spend(&mut budgets, &defs, &pay("alice", "shop", 1), 3, T + 2 * HOUR_MS));
}

#[test]
fn a_kill_between_reserving_and_settling_neither_frees_nor_doubles_the_reservation() {
    let (mut budgets, mut disk, defs) = (Budgets::default(), Disk::default(), [hourly(1_000)]);
    let request = pay("alice", "shop", 600);
    disk.write("alice", budgets.reserve(&defs, &request, &key(1), T + HOUR_MS, T).expect("fits"));
    let mut again = disk.start();
    assert_eq!(again, budgets);
    assert_eq!(left(&again, &defs[0], &request, T), 400, "not freed");
    assert!(try_reserve(&mut again, &defs, &request, 1, T), "the node asks again, as nobody told it");
    assert_eq!(left(&again, &defs[0], &request, T), 400, "not doubled");
    again.settle("alice", &key(1), &[], T);
    // Killed before that was recorded: the settling is repeated.
    let mut again = disk.start();
    disk.write("alice", again.settle("alice", &key(1), &[], T));
    let mut again = disk.start();
    assert_eq!(again.settle("alice", &key(1), &[], T), []);
    assert_eq!(left(&again, &defs[0], &request, T), 400, "once");
}

#[test]
fn a_node_that_is_read_again_keeps_the_others_as_they_are() {
    let (mut budgets, mut disk) = (Budgets::default(), Disk::default());
    let defs = [Budget { scope: vec![Scope::Fleet], ..hourly(1_000) }];
    let request = pay("alice", "shop", 100);
    disk.write("alice", budgets.reserve(&defs, &request, &key(1), T + HOUR_MS, T).expect("fits"));
    assert!(try_reserve(&mut budgets, &defs, &pay("bob", "shop", 10), 1, T));
    assert!(try_reserve(&mut budgets, &defs, &request, 2, T), "its commit fails");
    budgets.load("alice", disk.read("alice")).expect("readable");
    assert_eq!(left(&budgets, &defs[0], &request, T), 890);
}
