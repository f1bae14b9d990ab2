//! `claviger policy check`: everything that can be said of a bundle without running anything.

use std::collections::BTreeMap;
use std::fmt;

use bitcoin::Network;
use serde::Serialize;

use super::lint::{Finding, lint};
use super::suite;
use crate::bundle::{Bundle, BundleError, BundleHash, Files};

/// What a check says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The bundle's version, if it can be read.
    pub version: Option<u64>,
    /// Over its files. What signers sign. `None` if not all of them are at hand.
    pub sha256: Option<BundleHash>,
    /// How many rules there are, the preset's included.
    pub rules: usize,
    /// How many tests each file has.
    pub tests: BTreeMap<String, usize>,
    /// What is wrong: the bundle cannot be applied.
    pub errors: Vec<BundleError>,
    /// What is odd: it can.
    pub findings: Vec<Finding>,
}

/// Checks the files of a bundle for a signer on `network`. Gives the bundle if nothing is wrong.
pub fn check(files: Files, network: Network) -> (CheckReport, Option<Bundle>) {
    let sha256 = files.hash();
    match Bundle::parse(files, network) {
        Ok(bundle) => {
            let report = CheckReport {
                version: Some(bundle.version()),
                sha256: Some(sha256),
                rules: bundle.policy().rules.iter().count(),
                tests: suite::count(&bundle),
                errors: Vec::new(),
                findings: lint(&bundle),
            };
            (report, Some(bundle))
        }
        Err(errors) => (CheckReport { sha256: Some(sha256), ..CheckReport::refused(errors) }, None),
    }
}

impl CheckReport {
    /// Of files that are no bundle.
    pub fn refused(errors: Vec<BundleError>) -> Self {
        Self { version: None, sha256: None, rules: 0, tests: BTreeMap::new(), errors, findings: Vec::new() }
    }

    /// Whether nothing is wrong. Findings are for people to judge.
    pub fn passes(&self) -> bool {
        self.errors.is_empty()
    }
}

/// `1 rule`, `2 rules`.
fn counted((number, what): (usize, &str)) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "error: {error}\n  hint: {}", error.hint)?;
        }
        for finding in &self.findings {
            writeln!(f, "warning: {finding}\n  hint: {}", finding.lint.hint())?;
        }
        match self.version {
            Some(version) => {
                let tests: usize = self.tests.values().sum();
                let [rules, tests, warnings] =
                    [(self.rules, "rule"), (tests, "test"), (self.findings.len(), "warning")].map(counted);
                writeln!(f, "version {version}: {rules}, {tests}, {warnings}")?;
            }
            None => f.write_str(&counted((self.errors.len(), "error")))?,
        }
        match (self.version, self.sha256) {
            (Some(_), Some(sha256)) => write!(f, "sha256 {sha256}"),
            _ => Ok(()),
        }
    }
}
