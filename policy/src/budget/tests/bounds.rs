//! Memory and records are bounded whatever is sent, and what is rounded is rounded against the spender.

use fastrand::Rng;

use super::super::*;
use super::{Disk, HOUR_MS, MINUTE_MS, hourly, key, left, pay, spend, try_reserve};
use crate::value::MAX_MONEY_MSAT;

const T: u64 = 1_000 * HOUR_MS;

#[test]
fn many_amounts_are_rounded_by_less_than_a_64th_of_the_window_and_never_in_favour_of_the_spender() {
    for seed in 0..6 {
        let (mut budgets, def, mut dice) = (Budgets::default(), hourly(MAX_MONEY_MSAT), Rng::with_seed(seed));
        let (mut disk, mut spent, mut now_ms) = (Disk::default(), Vec::new(), T);
        let pace_ms = [2, 100, 2_000, MINUTE_MS, 2, 3_000][seed as usize];
        for id in 0..4_000 {
            now_ms += dice.u64(..pace_ms) + u64::from(seed == 4 && dice.u64(..50) == 0) * MINUTE_MS;
            let (amount, defs) = (1 + dice.u64(..1_000), std::slice::from_ref(&def));
            let request = pay("alice", "shop", amount);
            let changes = budgets.reserve(defs, &request, &key(id), now_ms, now_ms).expect("countable");
            disk.write("alice", changes);
            let changes = budgets.settle("alice", &key(id), &[], now_ms);
            assert!(changes.iter().all(|change| change.value.as_ref().is_none_or(|value| value.len() < 400)));
            disk.write("alice", changes);
            spent.push((now_ms, amount));
            let look_ms = now_ms + dice.u64(..2 * HOUR_MS);
            let sum = |window_ms| {
                let counting = spent.iter().filter(|(at_ms, _)| at_ms + window_ms > look_ms);
                counting.map(|(_, amount)| *amount).sum::<u64>()
            };
            let counted = MAX_MONEY_MSAT - left(&budgets, &def, &request, look_ms);
            assert!((sum(HOUR_MS)..=sum(HOUR_MS + HOUR_MS / 64)).contains(&counted), "seed {seed}, {id}");
            let chunks = disk.read("alice").filter(|(key, _)| key.starts_with("budget/spent/")).count();
            assert!(chunks <= 67, "{chunks} chunks");
        }
        let busiest = spent.windows(9).any(|nine| nine[8].0 - nine[0].0 < HOUR_MS / 64);
        if !busiest {
            assert_eq!(seed, 3, "one seed is slow enough to be exact");
        }
    }
}

#[test]
fn few_amounts_are_exact() {
    let (mut budgets, defs) = (Budgets::default(), [hourly(MAX_MONEY_MSAT)]);
    for id in 0..8 * 64 {
        assert!(spend(&mut budgets, &defs, &pay("alice", "shop", 1), id, T + id * HOUR_MS / 512));
    }
    for id in 0..8 * 64 {
        let look_ms = T + HOUR_MS + id * HOUR_MS / 512;
        assert_eq!(MAX_MONEY_MSAT - left(&budgets, &defs[0], &pay("alice", "shop", 1), look_ms - 1), 512 - id);
    }
}

#[test]
fn a_node_that_fills_its_windows_is_refused_by_name_and_another_node_is_not() {
    let mut budgets = Budgets::default();
    let defs = [Budget { scope: vec![Scope::Payee], ..hourly(1_000) }];
    for id in 0..MAX_WINDOWS as u64 {
        assert!(spend(&mut budgets, &defs, &pay("alice", &id.to_string(), 1), id, T));
    }
    let check =
        |budgets: &Budgets, node, payee, now_ms| budgets.check(&defs, &pay(node, payee, 1), None, now_ms)[0].room;
    assert_eq!(check(&budgets, "alice", "one more", T), Room::TooManyWindows);
    assert_eq!(check(&budgets, "alice", "17", T), Room::Fits, "a window that is there takes more");
    assert_eq!(check(&budgets, "bob", "one more", T), Room::Fits);
    assert_eq!(check(&budgets, "alice", "one more", T + HOUR_MS), Room::Fits, "the windows are over, tidied up or not");
    assert!(budgets.expire("alice", T + HOUR_MS).len() > MAX_WINDOWS);
    assert!(budgets.nodes["alice"].series("hourly", defs[0].fact).is_none(), "empty windows are dropped");
}

#[test]
fn reservations_are_bounded_open_ones_by_refusing_and_settled_ones_by_forgetting() {
    let (mut budgets, defs) = (Budgets::default(), [hourly(MAX_MONEY_MSAT)]);
    let request = pay("alice", "shop", 1);
    for id in 0..MAX_RESERVATIONS as u64 {
        assert!(try_reserve(&mut budgets, &defs, &request, id, T));
    }
    let room = |budgets: &Budgets, id, now_ms| budgets.check(&defs, &request, Some(&key(id)), now_ms)[0].room;
    let (first, next) = (0, MAX_RESERVATIONS as u64);
    assert_eq!(room(&budgets, next, T), Room::TooManyReservations);
    assert_eq!(room(&budgets, first, T), Room::Fits, "a repeat needs no room");
    assert_eq!(room(&budgets, next, T + HOUR_MS), Room::Fits, "expired");
    for id in 0..=MAX_REMEMBERED as u64 {
        budgets.settle("alice", &key(id), &[], T + id);
    }
    assert_eq!(room(&budgets, next, T), Room::Fits);
    let asked = |id| budgets.check(&defs, &request, Some(&key(id)), T)[0].asked;
    assert_eq!((asked(0), asked(1)), (1, 0), "the first to end is forgotten");
}

#[test]
fn one_reservation_does_not_grow_without_bound() {
    let mut budgets = Budgets::default();
    let defs = [Budget { scope: vec![Scope::Payee], ..hourly(1_000) }];
    let mut payees = 0..1_000;
    let full = payees.find(|id| !try_reserve(&mut budgets, &defs, &pay("alice", &id.to_string(), 1), 1, T));
    assert_eq!(full, Some(MAX_CHARGES as u64));
    assert!(try_reserve(&mut budgets, &defs, &pay("alice", "17", 1), 1, T), "what it counts may be repeated");
    assert!(try_reserve(&mut budgets, &defs, &pay("alice", "another", 1), 2, T));
}

#[test]
fn long_names_and_huge_amounts_are_counted_in_little_space() {
    let (mut budgets, defs) = (Budgets::default(), [Budget { scope: vec![Scope::Payee], ..hourly(MAX_MONEY_MSAT) }]);
    let long = "x".repeat(100_000);
    let request = pay("alice", &long, MAX_MONEY_MSAT);
    for id in 0..20 {
        let changes = budgets.reserve(&defs, &request, &key(id), u64::MAX, T).expect("countable");
        assert!(
            changes.iter().all(|change| change.key.len() < 100 && change.value.as_ref().is_none_or(|v| v.len() < 400))
        );
        budgets.settle("alice", &key(id), &[(FactId::AmountMsat, u64::MAX)], T);
    }
    let standing = budgets.check(&defs, &request, None, T).remove(0);
    assert_eq!((standing.spent, standing.left, standing.room), (u64::MAX, 0, Room::Exceeded));
    assert_eq!(left(&budgets, &defs[0], &pay("alice", &format!("{long}y"), 1), T), MAX_MONEY_MSAT, "another name");
    assert_eq!(budgets.check(&defs, &request, None, u64::MAX)[0].spent, 0, "at the end of time");
}
