//! Budgets, the slow way: one list of everything that was spent, one of everything that is set aside, and sums over both.

use std::collections::BTreeMap;

use super::super::{Budget, Room, Scope, Standing};
use crate::facts::FactId;
use crate::request::Request;
use crate::value::Value;

type Values = Vec<(Scope, String)>;

/// A window's name: node, budget, fact, values.
type Name = (String, String, Option<FactId>, Values);

#[derive(Clone, Debug, PartialEq)]
struct Spent {
    name: Name,
    /// Spent in the same chunk as others with this number.
    chunk: u64,
    at_ms: u64,
    keep_ms: u64,
    amount: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Held {
    node: String,
    id: u64,
    expires_ms: u64,
    state: &'static str,
    /// Window, its length, set aside, spent.
    charges: Vec<(Name, u64, u64, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) clock_ms: u64,
    /// By node: what it recorded.
    clocks: BTreeMap<String, u64>,
    spent: Vec<Spent>,
    held: Vec<Held>,
    chunks: u64,
}

fn text(request: &Request, fact: FactId) -> String {
    match request.get(fact) {
        Some(Value::Text(text)) => text.clone(),
        _ => panic!("the tests' requests have all facts"),
    }
}

fn name(def: &Budget, request: &Request) -> Name {
    let mut values = Values::new();
    for (scope, fact) in [(Scope::Channel, FactId::Channel), (Scope::Payee, FactId::Payee)] {
        if def.scope.contains(&scope) {
            values.push((scope, text(request, fact)));
        }
    }
    (request.node.clone(), def.name.clone(), def.fact, values)
}

fn amount(def: &Budget, request: &Request) -> u64 {
    match def.fact.map(|fact| request.get(fact)) {
        None => 1,
        Some(Some(Value::Number(amount))) => *amount,
        _ => panic!("the tests' requests have all facts"),
    }
}

fn concerns(def: &Budget, asked: &Name, name: &Name) -> bool {
    let same_node = !def.scope.contains(&Scope::Node) || asked.0 == name.0;
    let agrees =
        |(scope, value): &(Scope, String)| asked.3.iter().all(|(other, theirs)| other != scope || theirs == value);
    same_node && asked.1 == name.1 && asked.2 == name.2 && name.3.iter().all(agrees)
}

impl Model {
    pub(super) fn standing(&self, def: &Budget, request: &Request, id: u64, now_ms: u64) -> Standing {
        let now_ms = now_ms.max(self.clock_ms);
        let asked = name(def, request);
        let held = self.held.iter().filter(|held| held.state == "held" || held.expires_ms > now_ms);
        let mut reserved = 0u128;
        let mut counted = 0;
        for held in held {
            for (name, _, set_aside, spent) in &held.charges {
                if held.state != "settled" && concerns(def, &asked, name) {
                    reserved += u128::from(*set_aside);
                }
                if held.node == request.node && held.id == id && *name == asked {
                    counted += set_aside + spent;
                }
            }
        }
        let extra = amount(def, request).saturating_sub(counted);
        let concerning = self.spent.iter().filter(|spent| concerns(def, &asked, &spent.name));
        let ends = concerning.map(|spent| (spent.at_ms + spent.keep_ms.min(def.window_s * 1_000), spent.amount));
        let ends: Vec<_> = ends.filter(|(until_ms, _)| *until_ms > now_ms).collect();
        let sum = |at_ms: u64| {
            let counting = ends.iter().filter(|(until_ms, _)| *until_ms > at_ms);
            counting.map(|(_, amount)| u128::from(*amount)).sum::<u128>()
        };
        let fits = |at_ms| extra == 0 || sum(at_ms) + reserved + u128::from(extra) <= u128::from(def.limit);
        let untils = || ends.iter().map(|(until_ms, _)| *until_ms);
        let node = def.scope.contains(&Scope::Node).then(|| (Scope::Node, request.node.clone()));
        Standing {
            budget: def.name.clone(),
            fact: def.fact,
            scope: node.into_iter().chain(name(def, request).3).collect(),
            limit: def.limit,
            spent: sum(now_ms) as u64,
            reserved: reserved as u64,
            asked: extra,
            left: u128::from(def.limit).saturating_sub(sum(now_ms) + reserved) as u64,
            refills_at_ms: untils().min(),
            fits_at_ms: if fits(now_ms) { None } else { untils().filter(|at_ms| fits(*at_ms)).min() },
            room: if fits(now_ms) { Room::Fits } else { Room::Exceeded },
        }
    }

    pub(super) fn reserve(&mut self, defs: &[Budget], request: &Request, id: u64, expires_ms: u64, now_ms: u64) {
        self.change(&request.node, now_ms, |model, now_ms| {
            model.held.retain(|held| held.node != request.node || held.state == "held" || held.expires_ms > now_ms);
            if model.find(&request.node, id).is_none() {
                let (node, charges) = (request.node.clone(), Vec::new());
                model.held.push(Held { node, id, expires_ms: 0, state: "open", charges });
            }
            let held = model.find(&request.node, id).expect("there");
            let before = held.charges.clone();
            for def in defs {
                let (name, amount, window_ms) = (name(def, request), amount(def, request), def.window_s * 1_000);
                match held.charges.iter_mut().find(|charge| charge.0 == name) {
                    Some(charge) => {
                        charge.1 = window_ms;
                        charge.2 += amount.saturating_sub(charge.2 + charge.3);
                    }
                    None => held.charges.push((name, window_ms, amount, 0)),
                }
            }
            if held.state != "settled" || held.charges != before {
                held.expires_ms = held.expires_ms.max(expires_ms);
                held.state = if held.state == "held" { "held" } else { "open" };
            }
        });
    }

    pub(super) fn hold(&mut self, node: &str, id: u64, now_ms: u64) {
        self.change(node, now_ms, |model, _| {
            for held in model.find(node, id).into_iter().filter(|held| held.state == "open") {
                held.state = "held";
            }
        });
    }

    pub(super) fn settle(&mut self, node: &str, id: u64, amounts: &[(FactId, u64)], now_ms: u64) {
        self.change(node, now_ms, |model, now_ms| {
            let Some(held) = model.find(node, id).filter(|held| held.state != "settled") else { return };
            held.state = "settled";
            held.expires_ms = held.expires_ms.max(now_ms + 86_400_000);
            let mut spends = Vec::new();
            for (name, window_ms, set_aside, spent) in &mut held.charges {
                let actual = amounts.iter().find(|(fact, _)| name.2 == Some(*fact));
                let amount = actual.map_or(*set_aside, |(_, amount)| *amount);
                (*set_aside, *spent) = (0, *spent + amount);
                spends.push((name.clone(), *window_ms, amount));
            }
            for (name, window_ms, amount) in spends {
                model.forget(now_ms, |spent| spent.name == name);
                model.spend(name, window_ms, amount, now_ms);
            }
        });
    }

    pub(super) fn release(&mut self, node: &str, id: u64, now_ms: u64) {
        self.change(node, now_ms, |model, _| {
            let Some(held) = model.find(node, id).filter(|held| held.state != "settled") else { return };
            held.state = "settled";
            held.charges.iter_mut().for_each(|charge| charge.2 = 0);
            let spent = held.charges.iter().any(|charge| charge.3 > 0);
            model.held.retain(|held| spent || held.node != node || held.id != id);
        });
    }

    pub(super) fn expire(&mut self, node: &str, now_ms: u64) {
        self.change(node, now_ms, |model, now_ms| {
            model.held.retain(|held| held.node != node || held.state == "held" || held.expires_ms > now_ms);
            model.forget(now_ms, |spent| spent.name.0 == node);
        });
    }

    pub(super) fn adopt(&mut self, node: &str, defs: &[Budget], now_ms: u64) {
        self.change(node, now_ms, |model, now_ms| {
            for def in defs {
                let window_ms = def.window_s * 1_000;
                let live = model.live(now_ms);
                let spent = model.spent.iter_mut().filter(|spent| spent.name.0 == node && spent.name.1 == def.name);
                for spent in spent.filter(|spent| live.contains(&spent.chunk)) {
                    spent.keep_ms = spent.keep_ms.max(window_ms);
                }
                let held = model.held.iter_mut().filter(|held| held.node == node && held.state != "settled");
                for charge in held.flat_map(|held| &mut held.charges).filter(|charge| charge.0.1 == def.name) {
                    charge.1 = charge.1.max(window_ms);
                }
            }
        });
    }

    /// What was not recorded is gone, but not the time.
    pub(super) fn fail(&mut self, before: Model) {
        *self = Model { clock_ms: self.clock_ms, ..before };
    }

    pub(super) fn restart(&mut self) {
        self.clock_ms = self.clocks.values().copied().max().unwrap_or(0);
    }

    fn change(&mut self, node: &str, now_ms: u64, change: impl FnOnce(&mut Self, u64)) {
        let (now_ms, before) = (now_ms.max(self.clock_ms), self.clone());
        change(self, now_ms);
        if *self != before {
            self.clock_ms = now_ms;
            self.clocks.insert(node.to_owned(), now_ms);
        }
    }

    fn find(&mut self, node: &str, id: u64) -> Option<&mut Held> {
        self.held.iter_mut().find(|held| held.node == node && held.id == id)
    }

    /// Chunks of which something is still kept.
    fn live(&self, now_ms: u64) -> Vec<u64> {
        self.spent.iter().filter(|spent| spent.at_ms + spent.keep_ms > now_ms).map(|spent| spent.chunk).collect()
    }

    fn forget(&mut self, now_ms: u64, which: impl Fn(&Spent) -> bool) {
        let live = self.live(now_ms);
        self.spent.retain(|spent| !which(spent) || live.contains(&spent.chunk));
    }

    /// Eight amounts to a chunk, then one for the rest of the 64th part of the window.
    fn spend(&mut self, name: Name, window_ms: u64, amount: u64, now_ms: u64) {
        if amount == 0 {
            return;
        }
        let chunk = self.spent.iter().rev().find(|spent| spent.name == name).map(|spent| (spent.chunk, spent.keep_ms));
        let mut keep_ms = window_ms;
        if let Some((chunk, kept_ms)) = chunk.filter(|(_, kept_ms)| *kept_ms >= window_ms) {
            let mut in_it = self.spent.iter_mut().filter(|spent| spent.chunk == chunk);
            let (first_ms, count) = (in_it.next().expect("one").at_ms, in_it.count() + 1);
            let last = self.spent.iter_mut().rev().find(|spent| spent.chunk == chunk).expect("one");
            if last.at_ms == now_ms || (count == 8 && now_ms - first_ms < window_ms / 64) {
                (last.at_ms, last.amount) = (now_ms, last.amount + amount);
                return;
            }
            if count < 8 {
                keep_ms = kept_ms;
                self.spent.push(Spent { name, chunk, at_ms: now_ms, keep_ms, amount });
                return;
            }
        }
        self.chunks += 1;
        self.spent.push(Spent { name, chunk: self.chunks, at_ms: now_ms, keep_ms, amount });
    }
}
