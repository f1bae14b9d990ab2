//! Random operations, restarts, steps of the clock and edits: budgets and model agree on every number.

use fastrand::Rng;

use super::super::*;
use super::model::Model;
use super::{Disk, HOUR_MS, MINUTE_MS, hourly, key, pay, pick};

const SEEDS: u64 = 24;
const STEPS: usize = 1_000;
const NODES: [&str; 3] = ["alice", "bob", "carol"];
const PAYEES: [&str; 3] = ["shop", "exchange", "friend"];

struct World {
    dice: Rng,
    now_ms: u64,
    defs: Vec<Budget>,
    budgets: Budgets,
    model: Model,
    disk: Disk,
    exceeded: usize,
}

#[test]
fn budgets_and_a_naive_model_agree_on_random_histories() {
    let mut exceeded = 0;
    for seed in 0..SEEDS {
        let defs = vec![
            Budget { name: "fleet".into(), scope: vec![Scope::Fleet], window_s: 600, ..hourly(60_000) },
            hourly(50_000),
            Budget {
                name: "payees".into(),
                scope: vec![Scope::Node, Scope::Payee],
                window_s: 86_400,
                ..hourly(90_000)
            },
            Budget { name: "often".into(), fact: None, window_s: 60, scope: vec![Scope::Payee], ..hourly(12) },
        ];
        let (budgets, model) = (Budgets::default(), Model::default());
        let now_ms = 1_000 * HOUR_MS;
        let mut world =
            World { dice: Rng::with_seed(seed), now_ms, defs, budgets, model, disk: Disk::default(), exceeded: 0 };
        for step in 0..STEPS {
            world.step();
            world.compare(&format!("seed {seed}, step {step}"));
            if step % 8 == 0 {
                world.compare_records(&format!("seed {seed}, step {step}"));
            }
        }
        exceeded += world.exceeded;
    }
    assert!(exceeded > 1_000, "{exceeded} requests were refused: the limits are met");
}

impl World {
    fn step(&mut self) {
        self.tick();
        let (node, id) = (*pick(&mut self.dice, &NODES), self.dice.u64(..12));
        let before = self.model.clone();
        let mut budgets = self.budgets.clone();
        let now_ms = self.now_ms;
        let changes = match self.dice.u64(..40) {
            0..20 => {
                let request = self.request(node);
                let standings = budgets.check(&self.defs, &request, Some(&key(id)), now_ms);
                let fits = !standings.iter().any(Standing::refuses);
                self.exceeded += usize::from(!fits);
                if !fits && self.dice.u64(..10) > 0 {
                    return;
                }
                let expires_ms = now_ms + self.dice.u64(..2 * HOUR_MS);
                self.model.reserve(&self.defs, &request, id, expires_ms, now_ms);
                budgets.reserve(&self.defs, &request, &key(id), expires_ms, now_ms).expect("countable")
            }
            20..30 => {
                let (amount_msat, fee_msat) = (self.dice.u64(..8_000), self.dice.u64(..800));
                let amounts = [(FactId::AmountMsat, amount_msat), (FactId::FeeMsat, fee_msat)];
                let amounts = &amounts[..self.dice.usize(..3)];
                self.model.settle(node, id, amounts, now_ms);
                budgets.settle(node, &key(id), amounts, now_ms)
            }
            30..32 => {
                self.model.hold(node, id, now_ms);
                budgets.hold(node, &key(id), now_ms)
            }
            32..34 => {
                self.model.release(node, id, now_ms);
                budgets.release(node, &key(id), now_ms)
            }
            34..36 => {
                self.model.expire(node, now_ms);
                budgets.expire(node, now_ms)
            }
            36 | 37 => {
                self.budgets = self.disk.start();
                self.model.restart();
                return;
            }
            _ => return self.edit(),
        };
        if self.dice.u64(..20) == 0 {
            // The commit failed: the node's part is read again, and the change never was.
            budgets.load(node, self.disk.read(node)).expect("readable");
            self.model.fail(before);
        } else {
            self.disk.write(node, changes);
        }
        self.budgets = budgets;
    }

    /// Mostly on by little, at times by much, at times back.
    fn tick(&mut self) {
        self.now_ms += match self.dice.u64(..100) {
            0..50 => self.dice.u64(..3),
            50..90 => self.dice.u64(..MINUTE_MS),
            90..96 => self.dice.u64(..HOUR_MS),
            _ => 0,
        };
        match self.dice.u64(..200) {
            0 => self.now_ms += 40 * HOUR_MS,
            1..4 => self.now_ms -= self.dice.u64(..20 * HOUR_MS),
            _ => {}
        }
    }

    fn request(&mut self, node: &str) -> Request {
        let (payee, amount_msat) = (*pick(&mut self.dice, &PAYEES), self.dice.u64(..8_000));
        let request = pay(node, payee, amount_msat);
        request.with(FactId::Channel, *pick(&mut self.dice, &["1", "2"]))
    }

    fn edit(&mut self) {
        let index = self.dice.usize(..self.defs.len());
        let scopes = [
            &[Scope::Fleet][..],
            &[Scope::Node],
            &[Scope::Payee],
            &[Scope::Node, Scope::Payee],
            &[Scope::Channel, Scope::Payee],
            &[Scope::Node, Scope::Channel],
        ];
        let def = &mut self.defs[index];
        match self.dice.u64(..6) {
            0 | 1 => def.limit = if def.fact.is_some() { self.dice.u64(..100_000) } else { self.dice.u64(..20) },
            2 | 3 => def.window_s = *pick(&mut self.dice, &[60, 600, 3_600, 86_400]),
            4 => def.scope = pick(&mut self.dice, &scopes).to_vec(),
            _ => def.fact = *pick(&mut self.dice, &[Some(FactId::AmountMsat), Some(FactId::FeeMsat), None]),
        }
        for node in NODES {
            self.model.adopt(node, &self.defs, self.now_ms);
            let changes = self.budgets.adopt(node, &self.defs, self.now_ms);
            self.disk.write(node, changes);
        }
    }

    fn compare(&mut self, when: &str) {
        let node = *pick(&mut self.dice, &NODES);
        let (request, id) = (self.request(node), self.dice.u64(..12));
        let (standings, now_ms) = (self.budgets.check(&self.defs, &request, Some(&key(id)), self.now_ms), self.now_ms);
        let expected = self.defs.iter().map(|def| self.model.standing(def, &request, id, now_ms));
        assert_eq!(standings, expected.collect::<Vec<_>>(), "{when}");
    }

    fn compare_records(&self, when: &str) {
        for node in NODES {
            let mut again = Budgets::default();
            again.load(node, self.disk.read(node)).expect("readable");
            let known = self.budgets.nodes.get(node).cloned().unwrap_or_default();
            assert_eq!(again.nodes[node], known, "{when}: {node} is recorded as it is");
        }
    }
}
