//! `claviger policy show`: what a bundle says, in words and in Cedar.

use std::fmt;

use serde::Serialize;

use super::diff::{Change, diff};
use crate::bundle::{Bundle, BundleHash};

/// A bundle, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShowReport {
    /// Its version.
    pub version: u64,
    /// Over its files.
    pub sha256: BundleHash,
    /// Everything that it says, as the difference from saying nothing.
    pub says: Vec<Change>,
    /// Every rule in Cedar, the preset's included.
    pub rules: Vec<ShownRule>,
}

/// A rule as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownRule {
    /// Its `@id`.
    pub id: String,
    /// Its file, or the preset.
    pub file: String,
    /// Its text.
    pub cedar: String,
}

/// What `bundle` says.
pub fn show(bundle: &Bundle) -> ShowReport {
    let rules = bundle.policy().rules.iter().map(|rule| ShownRule {
        id: rule.id().to_string(),
        file: rule.file().to_owned(),
        cedar: rule.cedar(),
    });
    ShowReport {
        version: bundle.version(),
        sha256: bundle.hash(),
        says: diff(None, bundle).changes,
        rules: rules.collect(),
    }
}

impl ShowReport {
    /// All rules as one text in Cedar: what `--cedar` prints.
    pub fn cedar(&self) -> String {
        let rules = self.rules.iter().map(|rule| format!("// {}\n{}\n", rule.file, rule.cedar));
        rules.collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for ShowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {}\nsha256 {}", self.version, self.sha256)?;
        for Change { subject, name, after, .. } in &self.says {
            let name = [subject.id(), name.as_str()].join(" ");
            write!(f, "\n{}: {}", name.trim_end(), after.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}
