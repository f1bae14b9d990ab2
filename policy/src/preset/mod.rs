//! Ready-made policies: a name and a few numbers become Cedar rules and budgets that can be read.

mod starter;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::actions::Action;
use crate::budget::{Budget, Scope};
use crate::facts::FactId;
use crate::value::MAX_MONEY_MSAT;

/// What a new appliance starts with.
pub const DEFAULT: &str = "routing-node";

/// A ready-made policy.
#[derive(Debug)]
pub struct Preset {
    /// As `policy.toml` names it.
    pub name: &'static str,
    /// Whom it is for and what it lets happen.
    pub doc: &'static str,
    parts: &'static [&'static Part],
    defaults: &'static [(&'static str, u64)],
}

/// What several presets share.
#[derive(Debug)]
struct Part {
    doc: &'static str,
    /// Cedar, with `{number}` where a number goes.
    rules: &'static str,
    numbers: &'static [Number],
    budgets: &'static [PartBudget],
}

/// A number that the operator may choose.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// As `[numbers]` names it; ends with the unit.
    pub name: &'static str,
    /// What it bounds.
    pub doc: &'static str,
}

/// A budget of a part: for each node.
#[derive(Debug)]
struct PartBudget {
    name: &'static str,
    actions: &'static [Action],
    fact: FactId,
    window_s: u64,
    limit: &'static str,
}

/// A preset with its numbers in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expanded {
    /// Its rules.
    pub cedar: String,
    /// Its budgets.
    pub budgets: Vec<Budget>,
}

/// What cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PresetError {
    /// No preset has this name.
    #[error("there is no preset '{0}'")]
    Unknown(String),
    /// The preset has no such number.
    #[error("the preset '{preset}' has no number '{number}'")]
    NoSuchNumber {
        /// The preset.
        preset: &'static str,
        /// The number.
        number: String,
    },
    /// More than all money.
    #[error("{number} = {value} is more than all bitcoin in msat")]
    TooLarge {
        /// The number.
        number: &'static str,
        /// Its value.
        value: u64,
    },
}

impl PresetError {
    /// The number that is wrong, as it was written.
    pub fn number(&self) -> Option<&str> {
        match self {
            Self::Unknown(_) => None,
            Self::NoSuchNumber { number, .. } => Some(number),
            Self::TooLarge { number, .. } => Some(number),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        let list = |names: Vec<&str>| format!("Use one of: {}.", names.join(", "));
        match self {
            Self::Unknown(_) => list(Preset::all().iter().map(|preset| preset.name).collect()),
            Self::NoSuchNumber { preset, .. } => {
                let numbers = Preset::by_name(preset).into_iter().flat_map(Preset::numbers);
                list(numbers.map(|(number, _)| number.name).collect())
            }
            Self::TooLarge { .. } => format!("Write at most {MAX_MONEY_MSAT}."),
        }
    }
}

/// The preset called `name`, with `numbers` in place of its defaults. Returns every error that is found.
pub fn expand(name: &str, numbers: &BTreeMap<String, u64>) -> Result<Expanded, Vec<PresetError>> {
    let preset = Preset::by_name(name).ok_or_else(|| vec![PresetError::Unknown(name.to_owned())])?;
    preset.expand(numbers)
}

impl Preset {
    /// All presets.
    pub fn all() -> &'static [Preset] {
        table::PRESETS
    }

    /// The preset with this name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        Self::all().iter().find(|preset| preset.name == name)
    }

    /// Its numbers with their defaults, in the order of its page.
    pub fn numbers(&self) -> impl Iterator<Item = (&'static Number, u64)> {
        let default =
            |number: &Number| self.defaults.iter().find(|(name, _)| *name == number.name).map(|(_, value)| *value);
        // A test holds every number to have one; without, nothing of it would pass.
        self.parts.iter().flat_map(|part| part.numbers).map(move |number| (number, default(number).unwrap_or(0)))
    }

    /// What it lets happen, part by part.
    pub fn docs(&self) -> impl Iterator<Item = &'static str> {
        self.parts.iter().map(|part| part.doc)
    }

    fn expand(&'static self, chosen: &BTreeMap<String, u64>) -> Result<Expanded, Vec<PresetError>> {
        let mut errors = Vec::new();
        for number in chosen.keys().filter(|name| self.numbers().all(|(number, _)| number.name != **name)) {
            errors.push(PresetError::NoSuchNumber { preset: self.name, number: number.clone() });
        }
        let mut numbers = BTreeMap::new();
        for (Number { name, .. }, default) in self.numbers() {
            let value = chosen.get(*name).copied().unwrap_or(default);
            if value > MAX_MONEY_MSAT {
                errors.push(PresetError::TooLarge { number: name, value });
            }
            numbers.insert(*name, value);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut cedar = format!("// The preset {}: {}\n", self.name, self.doc);
        for part in self.parts {
            // Nothing but numbers goes into the text, so that nothing in them can be read as a rule.
            let rules = numbers.iter().fold(part.rules.to_owned(), |rules, (name, value)| {
                rules.replace(&format!("{{{name}}}"), &value.to_string())
            });
            let _ = write!(cedar, "\n// {}\n{rules}", part.doc);
        }
        let budget = |budget: &PartBudget| Budget {
            name: budget.name.to_owned(),
            actions: budget.actions.to_vec(),
            fact: Some(budget.fact),
            scope: vec![Scope::Node],
            window_s: budget.window_s,
            limit: numbers[budget.limit],
            unless_approved: None,
        };
        let budgets = self.parts.iter().flat_map(|part| part.budgets).map(budget).collect();
        Ok(Expanded { cedar, budgets })
    }
}
