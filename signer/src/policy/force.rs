//! Bundles come into force here, and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::Network;
use claviger_policy::bundle::{Applied, ApplyError, Bundle, BundleError, BundleHash, BundleUnreadable, Files, InForce};

use super::desk::{Desk, State, puts};
use super::shadow::Shadow;
use crate::journal::Put;

/// Why a bundle did not come into force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyFailed {
    /// It is not a valid bundle.
    #[error("{} in the bundle", if .0.len() == 1 { "an error".to_owned() } else { format!("{} errors", .0.len()) })]
    Invalid(Vec<BundleError>),
    /// Its own tests do not pass.
    #[error("the bundle's tests do not pass: {0}")]
    Tests(String),
    /// It cannot be read back from the journal.
    #[error("the bundle to go back to cannot be read: {0}")]
    Unreadable(String),
    /// There is nothing that a shadow could differ from.
    #[error("no policy is in force to judge it beside")]
    NothingBeside,
    /// It may not follow the one in force.
    #[error(transparent)]
    Refused(#[from] ApplyError),
}

impl Desk {
    /// Puts the bundle in force that the entries of the house's tenant name; before any node is [loaded](Self::load).
    pub fn open(&self, entries: &BTreeMap<String, Vec<u8>>, network: Network, now_ms: u64) -> Result<(), String> {
        let Some(in_force) = entries.get(InForce::KEY) else { return Ok(()) };
        let in_force = InForce::read(in_force).map_err(|error| format!("{error}. {}", error.hint()))?;
        let bundle = |applied: Option<Applied>| {
            applied.map(|applied| read(entries, applied.hash, network).map(Arc::new)).transpose()
        };
        let (active, pending) = (bundle(in_force.active)?, bundle(in_force.pending)?);
        // It decides nothing: one that cannot be read keeps nothing from being signed.
        let shadow = bundle(in_force.shadow).unwrap_or_else(|error| {
            tracing::warn!(%error, "there is no shadow policy");
            None
        });
        *self.shadowing() = shadow.map(|bundle| Shadow::new(bundle, now_ms));
        let state = &mut *self.lock();
        (state.in_force, state.bundle, state.pending) = (in_force, active, pending);
        self.activate_due(state, now_ms);
        Ok(())
    }

    /// Puts `preset` in force, or nothing, as long as nobody has applied a bundle. `record` as for [`apply`](Self::apply).
    pub fn begin<E: From<ApplyFailed>>(
        &self,
        preset: Option<&str>,
        network: Network,
        now_ms: u64,
        record: impl FnOnce(Vec<Put>) -> Result<(), E>,
    ) -> Result<(), E> {
        let starter = preset.map(|preset| starter(preset, network)).transpose().map_err(ApplyFailed::Invalid)?;
        let (mut in_force, _) = self.standing(now_ms);
        let changes = in_force.begin(starter.as_ref(), now_ms);
        if changes.is_empty() {
            return Ok(());
        }
        record(puts(changes))?;
        let state = &mut *self.lock();
        (state.in_force, state.bundle) = (in_force, starter.map(Arc::new));
        state.adopt_all(now_ms);
        Ok(())
    }

    /// Lets a bundle follow the one in force, at once or from `from_ms` on, once its own tests pass. `record` makes the
    /// entries of the house's tenant durable; until it has, nothing changes.
    pub fn apply<E: From<ApplyFailed>>(
        &self,
        files: Files,
        network: Network,
        from_ms: Option<u64>,
        now_ms: u64,
        record: impl FnOnce(Vec<Put>) -> Result<(), E>,
    ) -> Result<Arc<Bundle>, E> {
        let bundle = tested(files, network)?;
        let (mut in_force, active) = self.standing(now_ms);
        let changes = in_force.apply(&bundle, active.as_deref(), from_ms, now_ms).map_err(ApplyFailed::Refused)?;
        record(puts(changes))?;
        let state = &mut *self.lock();
        state.in_force = in_force;
        match from_ms {
            None => (state.bundle, state.pending) = (Some(bundle.clone()), None),
            Some(_) => state.pending = Some(bundle.clone()),
        }
        state.adopt_all(now_ms);
        self.end_shadow(&state.in_force);
        Ok(bundle)
    }

    /// Goes back to the bundle before the one in force. `entries` are the house's, `signatures` what its signers made over the
    /// text of the rollback, if it asks for any; `record` as for [`apply`](Self::apply).
    pub fn roll_back<E: From<ApplyFailed>>(
        &self,
        entries: &BTreeMap<String, Vec<u8>>,
        signatures: &Files,
        network: Network,
        now_ms: u64,
        record: impl FnOnce(Vec<Put>) -> Result<(), E>,
    ) -> Result<Arc<Bundle>, E> {
        let (mut in_force, active) = self.standing(now_ms);
        let changes = in_force.roll_back(active.as_deref(), signatures, now_ms).map_err(ApplyFailed::Refused)?;
        let to = in_force.active.ok_or(ApplyFailed::Refused(ApplyError::NoPrevious))?;
        let bundle = Arc::new(read(entries, to.hash, network).map_err(ApplyFailed::Unreadable)?);
        record(puts(changes))?;
        let state = &mut *self.lock();
        (state.in_force, state.bundle, state.pending) = (in_force, Some(bundle.clone()), None);
        state.adopt_all(now_ms);
        Ok(bundle)
    }

    /// What is in force at `now_ms`.
    pub(super) fn standing(&self, now_ms: u64) -> (InForce, Option<Arc<Bundle>>) {
        let state = &mut *self.lock();
        self.activate_due(state, now_ms);
        (state.in_force.clone(), state.bundle.clone())
    }

    /// Puts the bundle in force whose time has come. That it waits is recorded, with its time; what follows from that is not
    /// recorded again.
    pub(super) fn activate_due(&self, state: &mut State, now_ms: u64) {
        if !state.in_force.activate_due(now_ms).is_empty() {
            state.bundle = state.pending.take();
            state.adopt_all(now_ms);
            self.end_shadow(&state.in_force);
        }
    }
}

/// The bundle in `files`, if it is one and its own tests pass.
pub(super) fn tested(files: Files, network: Network) -> Result<Arc<Bundle>, ApplyFailed> {
    let bundle = Bundle::parse(files, network).map_err(ApplyFailed::Invalid)?;
    let suite = claviger_policy::tooling::test(&bundle);
    if suite.passes() { Ok(Arc::new(bundle)) } else { Err(ApplyFailed::Tests(suite.to_string())) }
}

/// The bundle that is a preset and no more.
fn starter(preset: &str, network: Network) -> Result<Bundle, Vec<BundleError>> {
    let mut files = Files::default();
    let manifest = format!("version = 1\npreset = \"{preset}\"\n");
    files.add("policy.toml", manifest.into_bytes()).expect("a bundle takes a short file of that name");
    Bundle::parse(files, network)
}

/// The bundle with this hash, from the house's entries.
fn read(entries: &BTreeMap<String, Vec<u8>>, hash: BundleHash, network: Network) -> Result<Bundle, String> {
    let key = Files::key(hash);
    let value = entries.get(&key).ok_or_else(|| BundleUnreadable::Contents(key.clone()).to_string())?;
    let files = Files::read(&key, value).map_err(|error| error.to_string())?;
    Bundle::parse(files, network).map_err(|errors| first(&errors))
}

fn first(errors: &[BundleError]) -> String {
    errors.first().map_or_else(|| "the bundle in force cannot be read".to_owned(), ToString::to_string)
}
