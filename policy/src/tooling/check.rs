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
    /// Over its files. What signers sign.
    pub sha256: BundleHash,
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
                sha256,
                rules: bundle.policy().rules.iter().count(),
                tests: suite::count(&bundle),
                errors: Vec::new(),
                findings: lint(&bundle),
            };
            (report, Some(bundle))
        }
        Err(errors) => {
            let report =
                CheckReport { version: None, sha256, rules: 0, tests: BTreeMap::new(), errors, findings: Vec::new() };
            (report, None)
        }
    }
}

impl CheckReport {
    /// Whether nothing is wrong. Findings are for people to judge.
    pub fn passes(&self) -> bool {
        self.errors.is_empty()
    }
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
                let findings = self.findings.len();
                writeln!(f, "version {version}: {} rules, {tests} tests, {findings} warnings", self.rules)?;
            }
            None => writeln!(f, "{} errors", self.errors.len())?,
        }
        write!(f, "sha256 {}", self.sha256)
    }
}
