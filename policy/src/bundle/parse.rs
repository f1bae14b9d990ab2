//! A bundle is read: every file, every error at once.

use std::collections::BTreeMap;
use std::fmt;

use bitcoin::Network;
use toml::Spanned;

use super::error::{BundleError, BundleFault, MAX_ERRORS};
use super::manifest::{Manifest, SigningEntry};
use super::signing::{NAMESPACE, Signing};
use super::{BundleHash, Files, Part};
use crate::budget::{self, Budget};
use crate::decide::Policy;
use crate::engine::{Rules, Source};
use crate::grant::{Approvals, Approvers, GroupError};
use crate::limits::{Limit, Limits};
use crate::lists::{List, Lists};
use crate::place::Place;
use crate::preset::{self, Expanded};
use crate::tooling;

const POLICY: &str = "policy.toml";
/// The longest time lock: thirty days.
const MAX_WAIT_H: u64 = 720;

/// A bundle that was read and checked: what it says, and the files that say it.
pub struct Bundle {
    version: u64,
    preset: Option<String>,
    numbers: BTreeMap<String, u64>,
    policy: Policy,
    signing: Option<Signing>,
    wait_ms: u64,
    files: Files,
}

impl Bundle {
    /// Reads the files of a bundle for a signer on `network`. Lists must be of that network.
    ///
    /// Returns every error that is found, sorted by place, at most [`MAX_ERRORS`].
    pub fn parse(files: Files, network: Network) -> Result<Self, Vec<BundleError>> {
        let mut reader = Reader::default();
        let parsed = reader.bundle(&files, network);
        let mut errors = reader.errors;
        match parsed {
            Some(parsed) if errors.is_empty() => {
                let Parsed { version, preset, numbers, rules, budgets, lists, approvals, limits, signing, wait_ms } =
                    parsed;
                let policy = Policy { rules, budgets, lists, approvals, limits, hash: files.hash().0 };
                Ok(Self { version, preset, numbers, policy, signing, wait_ms, files })
            }
            _ => {
                errors.sort();
                errors.truncate(MAX_ERRORS);
                Err(errors)
            }
        }
    }

    /// At least 1; each bundle that is applied has a higher one.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Over all files but the signatures.
    pub fn hash(&self) -> BundleHash {
        BundleHash(self.policy.hash)
    }

    /// The preset it builds on.
    pub fn preset(&self) -> Option<&str> {
        self.preset.as_deref()
    }

    /// The preset's numbers that the bundle sets, by name.
    pub fn numbers(&self) -> &BTreeMap<String, u64> {
        &self.numbers
    }

    /// What decides.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Who signs the bundle that follows this one; `None`: nobody has to.
    pub fn signing(&self) -> Option<&Signing> {
        self.signing.as_ref()
    }

    /// How long after it was applied an entry of a list counts at the earliest, of the bundle that follows this one; 0: at once.
    pub fn wait_ms(&self) -> u64 {
        self.wait_ms
    }

    /// The files it was read from.
    pub fn files(&self) -> &Files {
        &self.files
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({} {})", self.version, self.hash())
    }
}

struct Parsed {
    version: u64,
    preset: Option<String>,
    numbers: BTreeMap<String, u64>,
    rules: Rules,
    budgets: Vec<Budget>,
    lists: Lists,
    approvals: Approvals,
    limits: Limits,
    signing: Option<Signing>,
    wait_ms: u64,
}

#[derive(Default)]
struct Reader {
    errors: Vec<BundleError>,
}

impl Reader {
    /// What could be read. It is whole only if there are no errors.
    fn bundle(&mut self, files: &Files, network: Network) -> Option<Parsed> {
        for (file, contents) in files.of(Part::Tests) {
            self.errors.extend(tooling::read(file, contents).err().into_iter().flatten());
        }
        let approvers = self.approvers(files);
        let lists = self.lists(files, network);
        let mut sources = self.sources(files);
        let Some(text) = self.text(POLICY, files.get(POLICY)) else {
            if files.get(POLICY).is_none() {
                let hint = "Begin with `version = 1` and `preset = \"routing-node\"`.";
                self.errors.push(BundleError::new(POLICY, None, BundleFault::NoPolicy, hint));
            }
            self.rules(&sources);
            return None;
        };
        let manifest: Manifest = match toml::from_str(text) {
            Ok(manifest) => manifest,
            Err(error) => {
                let place = error.span().map(|span| Place::of(text, span.start));
                let hint = "docs/policy/bundles.md lists the keys of policy.toml with their units.";
                self.errors.push(BundleError::new(POLICY, place, BundleFault::Syntax(error.message().into()), hint));
                self.rules(&sources);
                return None;
            }
        };
        let mut of_policy = OfPolicy { text, errors: &mut self.errors };
        if *manifest.version.get_ref() == 0 {
            of_policy.fault(&manifest.version, BundleFault::VersionZero, "Begin with version = 1.");
        }
        let approvals = of_policy.approvals(&manifest, approvers);
        let mut budgets = of_policy.budgets(&manifest);
        let signing = manifest.signing.as_ref().map(|entry| of_policy.signing(entry, &manifest, approvals.as_ref()));
        let limits = of_policy.limits(&manifest);
        let wait_ms = manifest.lists.as_ref().map_or(0, |lists| of_policy.wait_ms(&lists.wait_h));
        let expanded = of_policy.preset(&manifest);
        if let (Some(expanded), Some(preset)) = (expanded, &manifest.preset) {
            sources.insert(0, Source { file: format!("preset {}", preset.get_ref()), text: expanded.cedar });
            budgets.extend(expanded.budgets);
        }
        let rules = self.rules(&sources)?;
        for rule in rules.iter() {
            if let Some(group) = rule.unless_approved().filter(|group| !manifest.approvals.contains_key(*group)) {
                let fault = BundleFault::NoSuchGroup(group.to_owned());
                self.errors.push(BundleError::new(rule.file(), rule.place(), fault, define_group(group)));
            }
        }
        Some(Parsed {
            version: *manifest.version.get_ref(),
            preset: manifest.preset.map(Spanned::into_inner),
            numbers: plain(&manifest.numbers),
            rules,
            budgets,
            lists,
            approvals: approvals.unwrap_or_default(),
            limits,
            signing,
            wait_ms,
        })
    }

    fn text<'a>(&mut self, file: &str, contents: Option<&'a [u8]>) -> Option<&'a str> {
        let contents = contents?;
        std::str::from_utf8(contents)
            .inspect_err(|error| self.errors.push(BundleError::not_text(file, contents, error.valid_up_to())))
            .ok()
    }

    fn approvers(&mut self, files: &Files) -> Approvers {
        let file = "allowed_signers";
        let Some(text) = self.text(file, files.get(file)) else { return Approvers::default() };
        Approvers::parse(text).unwrap_or_else(|errors| {
            self.errors.extend(errors.into_iter().map(|error| {
                let hint = error.fault.hint();
                BundleError::new(file, error.place, BundleFault::AllowedSigners(error.fault.to_string()), hint)
            }));
            Approvers::default()
        })
    }

    fn lists(&mut self, files: &Files, network: Network) -> Lists {
        let mut lists = Vec::new();
        for (file, contents) in files.of(Part::List) {
            let Some(text) = self.text(file, Some(contents)) else { continue };
            let name = file.trim_start_matches("lists/").trim_end_matches(".toml");
            match List::parse(name, text, network) {
                Ok(list) => lists.push(list),
                Err(errors) => self.errors.extend(errors.into_iter().map(|error| {
                    let hint = error.fault.hint();
                    BundleError::new(file, error.place, BundleFault::List(error.fault.to_string()), hint)
                })),
            }
        }
        Lists::new(lists).unwrap_or_else(|error| {
            self.errors.push(BundleError::new("lists", None, BundleFault::List(error.to_string()), error.hint()));
            Lists::default()
        })
    }

    fn sources(&mut self, files: &Files) -> Vec<Source> {
        let texts = files.of(Part::Rules).map(|(file, contents)| (file, self.text(file, Some(contents))));
        texts.filter_map(|(file, text)| Some(Source { file: file.to_owned(), text: text?.to_owned() })).collect()
    }

    fn rules(&mut self, sources: &[Source]) -> Option<Rules> {
        Rules::compile(sources)
            .map_err(|errors| {
                self.errors.extend(errors.into_iter().map(|error| {
                    let hint = error.fault.hint();
                    BundleError::new(&error.file, error.place, BundleFault::Rule(error.fault.to_string()), hint)
                }));
            })
            .ok()
    }
}

/// The parts of `policy.toml`, each checked by the room it belongs to.
struct OfPolicy<'a> {
    text: &'a str,
    errors: &'a mut Vec<BundleError>,
}

impl OfPolicy<'_> {
    fn fault<T>(&mut self, at: &Spanned<T>, fault: BundleFault, hint: impl Into<String>) {
        let place = Place::of(self.text, at.span().start);
        self.errors.push(BundleError::new(POLICY, place, fault, hint));
    }

    /// `None` if a role or group is wrong. Whether a name is known is asked of what is written, so that one mistake is told
    /// once.
    fn approvals(&mut self, manifest: &Manifest, approvers: Approvers) -> Option<Approvals> {
        let defined = Approvals::define(self.text, &manifest.roles, &manifest.approvals, approvers);
        let tell = |errors: Vec<GroupError>| {
            self.errors.extend(errors.into_iter().map(|error| {
                let hint = error.fault.hint();
                BundleError::new(POLICY, error.place, BundleFault::Group(error.fault.to_string()), hint)
            }));
        };
        defined.map_err(tell).ok()
    }

    fn budgets(&mut self, manifest: &Manifest) -> Vec<Budget> {
        let budgets = budget::define(self.text, &manifest.budget).unwrap_or_else(|errors| {
            self.errors.extend(errors.into_iter().map(|error| {
                let hint = error.fault.hint();
                BundleError::new(POLICY, error.place, BundleFault::Budget(error.fault.to_string()), hint)
            }));
            Vec::new()
        });
        for (budget, entry) in budgets.iter().zip(&manifest.budget) {
            if let Some(group) =
                budget.unless_approved.as_ref().filter(|group| !manifest.approvals.contains_key(group.as_str()))
            {
                self.fault(entry, BundleFault::NoSuchGroup(group.clone()), define_group(group));
            }
        }
        budgets
    }

    fn limits(&mut self, manifest: &Manifest) -> Limits {
        let mut limits = Limits::new();
        for (name, number) in &manifest.limits {
            let Some(limit) = Limit::by_id(name.get_ref()) else {
                let fault = BundleFault::Limit(format!("there is no limit '{}'", name.get_ref()));
                self.fault(name, fault, "docs/policy/limits.md lists them, with their units.");
                continue;
            };
            let ((least, most), set) = (limit.range(), *number.get_ref());
            if set < least || set > most {
                let fault = BundleFault::Limit(format!("{} = {set} is not from {least} to {most}", limit.id()));
                self.fault(number, fault, "Write it in the unit that its name ends with.");
            }
            limits.insert(limit, set);
        }
        for (least, most) in
            [(Limit::MinDelayBlocks, Limit::MaxDelayBlocks), (Limit::MinFeerateSatPerKw, Limit::MaxFeerateSatPerKw)]
        {
            if let (Some(low), Some(high)) = (limits.get(&least), limits.get(&most))
                && low > high
                && let Some(at) = manifest.limits.keys().find(|known| known.get_ref() == least.id())
            {
                let fault = BundleFault::Limit(format!("{} is above {}: nothing passes", least.id(), most.id()));
                self.fault(at, fault, "Lower it, or raise the other.");
            }
        }
        limits
    }

    fn wait_ms(&mut self, wait_h: &Spanned<u64>) -> u64 {
        if !(1..=MAX_WAIT_H).contains(wait_h.get_ref()) {
            let fault = BundleFault::Limit(format!("wait_h = {} is not from 1 to {MAX_WAIT_H}", wait_h.get_ref()));
            self.fault(wait_h, fault, "Write hours, or leave [lists] out.");
        }
        wait_h.get_ref().saturating_mul(3_600_000)
    }

    fn preset(&mut self, manifest: &Manifest) -> Option<Expanded> {
        let Some(preset) = &manifest.preset else {
            if let Some((number, _)) = manifest.numbers.first_key_value() {
                let fault = BundleFault::Preset(format!("'{}' is a number of no preset", number.get_ref()));
                self.fault(number, fault, "Add preset = \"…\", or take [numbers] out.");
            }
            return None;
        };
        let errors = match preset::expand(preset.get_ref(), &plain(&manifest.numbers)) {
            Ok(expanded) => {
                let taken = |entry: &&Spanned<budget::Entry>| {
                    expanded.budgets.iter().any(|budget| budget.name == entry.get_ref().name())
                };
                for entry in manifest.budget.iter().filter(taken) {
                    let name = entry.get_ref().name();
                    let fault = BundleFault::Budget(format!("the preset has a budget '{name}' already"));
                    self.fault(entry, fault, "Give it another name: what was spent is kept under it.");
                }
                return Some(expanded);
            }
            Err(errors) => errors,
        };
        for error in errors {
            let at = manifest.numbers.keys().find(|known| Some(known.get_ref().as_str()) == error.number());
            self.fault(at.unwrap_or(preset), BundleFault::Preset(error.to_string()), error.hint());
        }
        None
    }

    fn signing(&mut self, entry: &SigningEntry, manifest: &Manifest, approvals: Option<&Approvals>) -> Signing {
        let signing = Signing { role: entry.role.get_ref().clone(), of: *entry.of.get_ref() };
        if !manifest.roles.contains_key(signing.role.as_str()) {
            let hint = format!("Add [roles] {} = [\"…\"].", signing.role);
            self.fault(&entry.role, BundleFault::NoSuchRole(signing.role.clone()), hint);
            return signing;
        }
        if signing.of == 0 {
            self.fault(&entry.of, BundleFault::SigningNeedsNone(0), "Write of = 2, or leave [signing] out.");
        }
        let Some(approvals) = approvals else { return signing };
        let can_sign = |person: &&str| approvals.approvers().can_sign(person, NAMESPACE);
        let people = u32::try_from(approvals.people(&signing.role).filter(can_sign).count()).unwrap_or(u32::MAX);
        if signing.of > people {
            let fault = BundleFault::SigningNeverMet { role: signing.role.clone(), of: signing.of, people };
            let hint = format!(
                "Add people to the role, with a key in allowed_signers whose namespaces, if any, hold {NAMESPACE}."
            );
            self.fault(&entry.of, fault, hint);
        }
        signing
    }
}

/// The hint where a group is missing.
fn define_group(group: &str) -> String {
    format!("Add [approvals.{group}] with role and of, or correct the name.")
}

fn plain(numbers: &BTreeMap<Spanned<String>, Spanned<u64>>) -> BTreeMap<String, u64> {
    numbers.iter().map(|(name, number)| (name.get_ref().clone(), *number.get_ref())).collect()
}
