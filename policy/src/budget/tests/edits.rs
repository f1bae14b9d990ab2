//! What was spent stays spent when a budget is edited.

use super::super::*;
use super::{HOUR_MS, MINUTE_MS, hourly, key, left, pay, spend, try_reserve};

const T: u64 = 1_000 * HOUR_MS;

#[test]
fn an_edit_of_the_limit_keeps_what_was_spent() {
    let mut budgets = Budgets::default();
    assert!(spend(&mut budgets, &[hourly(1_000)], &pay("alice", "shop", 700), 1, T));
    assert!(!spend(&mut budgets, &[hourly(500)], &pay("alice", "shop", 1), 2, T));
    assert_eq!(left(&budgets, &hourly(2_000), &pay("alice", "shop", 1), T), 1_300);
}

#[test]
fn a_repeat_of_what_is_reserved_passes_although_the_limit_was_lowered_and_a_new_request_does_not() {
    let mut budgets = Budgets::default();
    assert!(try_reserve(&mut budgets, &[hourly(1_000)], &pay("alice", "shop", 700), 1, T));
    assert!(try_reserve(&mut budgets, &[hourly(100)], &pay("alice", "shop", 700), 1, T));
    assert!(!try_reserve(&mut budgets, &[hourly(100)], &pay("alice", "shop", 1), 2, T));
}

#[test]
fn a_longer_window_counts_what_a_shorter_one_still_knew_when_it_was_replaced() {
    let (mut budgets, short) = (Budgets::default(), hourly(1_000));
    let long = Budget { window_s: 86_400, ..hourly(1_000) };
    assert!(spend(&mut budgets, std::slice::from_ref(&short), &pay("alice", "shop", 700), 1, T));
    assert!(try_reserve(&mut budgets, std::slice::from_ref(&short), &pay("alice", "shop", 100), 2, T));
    assert!(!budgets.adopt("alice", std::slice::from_ref(&long), T + 30 * MINUTE_MS).is_empty());
    budgets.settle("alice", &key(2), &[], T + 30 * MINUTE_MS);
    budgets.expire("alice", T + 2 * HOUR_MS);
    let request = pay("alice", "shop", 1);
    assert_eq!(left(&budgets, &long, &request, T + 24 * HOUR_MS - 1), 200);
    assert_eq!(left(&budgets, &long, &request, T + 24 * HOUR_MS), 900);
    assert_eq!(left(&budgets, &long, &request, T + 24 * HOUR_MS + 30 * MINUTE_MS), 1_000);
}

#[test]
fn a_shorter_window_forgets_nothing_that_a_rollback_would_count() {
    let (mut budgets, long) = (Budgets::default(), Budget { window_s: 86_400, ..hourly(1_000) });
    let short = hourly(1_000);
    assert!(spend(&mut budgets, std::slice::from_ref(&long), &pay("alice", "shop", 700), 1, T));
    budgets.adopt("alice", std::slice::from_ref(&short), T + 2 * HOUR_MS);
    budgets.expire("alice", T + 2 * HOUR_MS);
    let request = pay("alice", "shop", 1);
    assert_eq!(left(&budgets, &short, &request, T + 2 * HOUR_MS), 1_000);
    budgets.adopt("alice", std::slice::from_ref(&long), T + 3 * HOUR_MS);
    assert_eq!(left(&budgets, &long, &request, T + 3 * HOUR_MS), 300);
}

#[test]
fn another_scope_counts_whatever_may_belong_to_it() {
    let mut budgets = Budgets::default();
    let of = |scope: &[Scope]| Budget { scope: scope.to_vec(), ..hourly(1_000) };
    let fine = of(&[Scope::Node, Scope::Payee]);
    for (id, (node, payee, amount)) in
        [("alice", "shop", 100), ("alice", "friend", 20), ("bob", "shop", 3)].into_iter().enumerate()
    {
        assert!(spend(&mut budgets, std::slice::from_ref(&fine), &pay(node, payee, amount), id as u64, T));
    }
    let spent =
        |budgets: &Budgets, scope: &[Scope], node, payee| 1_000 - left(budgets, &of(scope), &pay(node, payee, 1), T);
    assert_eq!(spent(&budgets, &[Scope::Node], "alice", "shop"), 120, "coarser: exact");
    assert_eq!(spent(&budgets, &[Scope::Fleet], "alice", "shop"), 123);
    assert_eq!(spent(&budgets, &[Scope::Payee], "alice", "shop"), 103);
    assert_eq!(spent(&budgets, &[Scope::Node, Scope::Channel], "alice", "x"), 120, "unknown: against the spender");
    assert!(spend(&mut budgets, &[of(&[Scope::Node])], &pay("alice", "shop", 4_000 / 10), 9, T));
    assert_eq!(spent(&budgets, &[Scope::Node, Scope::Payee], "alice", "shop"), 500, "it may have been to any payee");
    assert_eq!(spent(&budgets, &[Scope::Node, Scope::Payee], "bob", "shop"), 3, "but not from another node");
}

#[test]
fn another_fact_starts_anew_as_its_unit_is_another_and_the_old_one_is_kept() {
    let (mut budgets, msat) = (Budgets::default(), hourly(1_000));
    let count = Budget { fact: None, ..hourly(10) };
    assert!(spend(&mut budgets, std::slice::from_ref(&msat), &pay("alice", "shop", 700), 1, T));
    assert!(spend(&mut budgets, std::slice::from_ref(&count), &pay("alice", "shop", 700), 2, T));
    assert_eq!(left(&budgets, &count, &pay("alice", "shop", 1), T), 9);
    assert_eq!(left(&budgets, &msat, &pay("alice", "shop", 1), T), 300);
}
