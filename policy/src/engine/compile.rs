//! From text to rules: bounds, syntax, annotations, then strict validation. Everything that is wrong is told at once.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{
    Authorizer, Effect, EntityId, EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, Schema, ValidationMode,
    Validator,
};
use miette::Diagnostic;

use super::bounds::{self, MAX_RULES, MAX_TEXT};
use super::fault::{RuleError, RuleFault};
use super::looks::Looks;
use super::slices::slices;
use super::{Compiled, Rules, Source};
use crate::actions::Action;
use crate::names::{is_name, is_rule_id};
use crate::place::Place;
use crate::schema;
use crate::verdict::RuleId;

/// So many errors are told; more help nobody.
const MAX_ERRORS: usize = 100;

pub(super) fn compile(sources: &[Source]) -> Result<Rules, Vec<RuleError>> {
    let mut compiler = Compiler { rules: Vec::new(), by_id: HashMap::new(), errors: Vec::new() };
    if sources.iter().map(|source| source.text.len()).sum::<usize>() > MAX_TEXT {
        compiler.error(&sources[0].file, Place { line: 1, column: 1 }, RuleFault::TooMuch);
        return Err(compiler.errors);
    }
    let (schema, _) = Schema::from_cedarschema_str(&schema::text()).expect("a test makes and reads it");
    let entities = schema.action_entities().expect("made from the same schema");
    let validator = Validator::new(schema);
    for source in sources {
        compiler.read(source, &validator);
    }
    let Compiler { rules, by_id, mut errors } = compiler;
    if !errors.is_empty() {
        errors.truncate(MAX_ERRORS);
        return Err(errors);
    }
    let name = |text| EntityTypeName::from_str(text).expect("a plain name");
    let uid = |kind, id: &str| EntityUid::from_type_name_and_id(name(kind), EntityId::new(id));
    Ok(Rules {
        slices: slices(&rules),
        rules,
        by_id,
        actions: Action::ALL.iter().map(|action| uid("Action", action.id())).collect(),
        node: name(schema::NODE),
        fleet: uid(schema::FLEET, schema::FLEET_ID),
        entities,
        authorizer: Authorizer::new(),
    })
}

struct Compiler {
    rules: Vec<Compiled>,
    by_id: HashMap<Arc<str>, usize>,
    errors: Vec<RuleError>,
}

impl Compiler {
    fn error(&mut self, file: &str, place: Place, fault: RuleFault) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(RuleError { file: file.to_owned(), place, fault });
        }
    }

    fn read(&mut self, Source { file, text }: &Source, validator: &Validator) {
        if let Err((place, fault)) = bounds::check(text) {
            return self.error(file, place, fault);
        }
        let parsed = match PolicySet::from_str(text) {
            Ok(parsed) => parsed,
            Err(errors) => {
                return errors
                    .iter()
                    .for_each(|error| self.error(file, place(text, error), RuleFault::Syntax(words(error))));
            }
        };
        if parsed.templates().next().is_some() {
            return self.error(file, Place { line: 1, column: 1 }, RuleFault::Template);
        }
        let rest = MAX_RULES - self.rules.len();
        if parsed.num_of_policies() > rest {
            return self.error(file, Place { line: 1, column: 1 }, RuleFault::TooMany);
        }
        let shared = Arc::from(file.as_str());
        let mut accepted = PolicySet::new();
        for (policy, place) in in_order(&parsed, text) {
            match self.rule(policy, &shared, place) {
                Ok(rule) => {
                    accepted.add(rule.policy.clone()).expect("ids are unique, and rules no templates");
                    self.by_id.insert(rule.id.0.clone(), self.rules.len());
                    self.rules.push(rule);
                }
                Err(fault) => self.error(file, place, fault),
            }
        }
        let checked = validator.validate(&accepted, ValidationMode::Strict);
        let errors = checked.validation_errors().map(|error| (place(text, error), words(error))).collect();
        let errors = once_for_all_actions(errors).into_iter();
        let mut found = errors.map(|(place, error)| (place, RuleFault::Schema(error))).collect::<Vec<_>>();
        if found.is_empty() {
            // Of a rule that is wrong, that it never applies is no news.
            let warnings = checked.validation_warnings();
            found.extend(warnings.map(|warning| (place(text, warning), RuleFault::Suspect(words(warning)))));
        }
        found.sort_by_key(|(place, _)| *place);
        found.dedup();
        found.into_iter().for_each(|(place, fault)| self.error(file, place, fault));
    }

    fn rule(&self, policy: &Policy, file: &Arc<str>, place: Place) -> Result<Compiled, RuleFault> {
        if let Some((name, _)) = policy.annotations().find(|(name, _)| !["id", "doc", "unless_approved"].contains(name))
        {
            return Err(RuleFault::Annotation(name.to_owned()));
        }
        let id = policy.annotation("id").ok_or(RuleFault::IdMissing)?;
        if !is_rule_id(id) {
            return Err(RuleFault::IdShape(id.to_owned()));
        }
        if let Some(at) = self.by_id.get(id) {
            let Compiled { file, place, .. } = &self.rules[*at];
            return Err(RuleFault::IdTwice { id: id.to_owned(), file: file.to_string(), place: *place });
        }
        let forbid = policy.effect() == Effect::Forbid;
        let unless_approved = match policy.annotation("unless_approved") {
            None => None,
            Some(_) if !forbid => return Err(RuleFault::GroupOnPermit),
            Some(group) if !is_name(group) => return Err(RuleFault::GroupShape(group.to_owned())),
            Some(group) => Some(group.to_owned()),
        };
        let policy = policy.new_id(PolicyId::new(id));
        let looks = policy.to_pst().map_or_else(|_| Looks::unknown(), |pst| Looks::of(&pst, forbid));
        Ok(Compiled { id: RuleId::from(id), file: file.clone(), place, forbid, unless_approved, looks, policy })
    }
}

/// The file's rules in its order, each with where it begins. Cedar numbers them `policy0`, `policy1`, … and keeps the
/// text of each.
fn in_order<'a>(parsed: &'a PolicySet, text: &str) -> Vec<(&'a Policy, Place)> {
    let number = |policy: &&Policy| AsRef::<str>::as_ref(policy.id()).trim_start_matches("policy").parse::<usize>();
    let mut policies = parsed.policies().collect::<Vec<_>>();
    policies.sort_by_key(|policy| number(policy).unwrap_or(usize::MAX));
    let mut from = 0;
    let place = |policy: &'a Policy| {
        let own = policy.to_cedar().unwrap_or_default();
        let at = text[from..].find(&own).map_or(from, |at| from + at);
        from = (at + own.len()).min(text.len());
        (policy, Place::of(text, at))
    };
    policies.into_iter().map(place).collect()
}

/// Where Cedar says that the error is.
fn place(text: &str, error: &dyn Diagnostic) -> Place {
    let offset = error.labels().and_then(|mut labels| labels.next()).map_or(0, |label| label.offset());
    Place::of(text, offset)
}

/// What Cedar says, and what it advises.
/// A mistake in a rule for several actions is found for each of them: it is told once.
fn once_for_all_actions(mut errors: Vec<(Place, String)>) -> Vec<(Place, String)> {
    const ACTION: &str = " for Action::";
    errors.sort();
    errors.dedup();
    let what = |(place, error): &(Place, String)| (*place, error.split(ACTION).next().map(str::to_owned));
    errors
        .chunk_by(|one, other| what(one) == what(other))
        .map(|found| match found {
            [(place, error), others @ ..] if !others.is_empty() && error.contains(ACTION) => {
                (*place, format!("{error}; the same for {} more actions", others.len()))
            }
            found => found[0].clone(),
        })
        .collect()
}

fn words(error: &(impl Diagnostic + std::fmt::Display)) -> String {
    match error.help() {
        Some(help) => format!("{error} ({help})"),
        None => error.to_string(),
    }
}
