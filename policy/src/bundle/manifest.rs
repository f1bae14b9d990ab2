//! `policy.toml` as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::budget;
use crate::grant::GroupEntry;

/// The file. What its parts mean is checked by the rooms they belong to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// Each bundle that is applied has a higher one than the one before.
    pub(super) version: Spanned<u64>,
    /// Rules and budgets that come ready-made, under [`Manifest::numbers`].
    pub(super) preset: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) numbers: BTreeMap<Spanned<String>, Spanned<u64>>,
    #[serde(default)]
    pub(super) budget: Vec<Spanned<budget::Entry>>,
    #[serde(default)]
    pub(super) roles: BTreeMap<Spanned<String>, Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    pub(super) approvals: BTreeMap<Spanned<String>, GroupEntry>,
    /// Who signs the bundle that follows this one.
    pub(super) signing: Option<SigningEntry>,
    /// The time lock of what the bundle that follows this one lists anew.
    pub(super) lists: Option<ListsEntry>,
    /// Numbers of the channel rules.
    #[serde(default)]
    pub(super) limits: BTreeMap<Spanned<String>, Spanned<u64>>,
}

/// `[lists]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListsEntry {
    pub(super) wait_h: Spanned<u64>,
}

/// `[signing]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SigningEntry {
    pub(super) role: Spanned<String>,
    pub(super) of: Spanned<u32>,
}
