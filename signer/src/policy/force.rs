//! Bundles come into force here, and go.

use std::sync::Arc;

use bitcoin::Network;
use claviger_policy::bundle::{ApplyError, Bundle, BundleError, BundleUnreadable, Files, InForce, PREFIX};

use super::desk::Desk;
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
    /// It may not follow the one in force.
    #[error(transparent)]
    Refused(#[from] ApplyError),
}

/// The entries of the house's tenant that hold bundles, by the beginning of their keys.
pub fn bundle_keys() -> &'static str {
    PREFIX
}

impl Desk {
    /// Puts the bundle in force that the entries of the house's tenant name.
    pub fn open(
        &self,
        entries: &std::collections::BTreeMap<String, Vec<u8>>,
        network: Network,
        now_ms: u64,
    ) -> Result<(), String> {
        let Some(in_force) = entries.get(InForce::KEY) else { return Ok(()) };
        let in_force = InForce::read(in_force).map_err(|error| format!("{error}. {}", error.hint()))?;
        let bundle = in_force.active.map(|active| {
            let key = format!("{PREFIX}bundle/{}", active.hash);
            let value = entries.get(&key).ok_or_else(|| BundleUnreadable::Contents(key.clone()).to_string())?;
            let files = Files::read(&key, value).map_err(|error| error.to_string())?;
            let bundle = Bundle::parse(files, network).map_err(|errors| first(&errors))?;
            Ok::<_, String>(Arc::new(bundle))
        });
        let bundle = bundle.transpose()?;
        let state = &mut *self.lock();
        (state.in_force, state.bundle) = (in_force, bundle);
        state.adopt_all(now_ms);
        Ok(())
    }

    /// Lets a bundle follow the one in force, once its own tests pass. `record` makes the entries of the house's tenant
    /// durable; until it has, nothing changes.
    pub fn apply<E: From<ApplyFailed>>(
        &self,
        files: Files,
        network: Network,
        now_ms: u64,
        record: impl FnOnce(Vec<Put>) -> Result<(), E>,
    ) -> Result<Arc<Bundle>, E> {
        let bundle = Arc::new(Bundle::parse(files, network).map_err(ApplyFailed::Invalid)?);
        let suite = claviger_policy::tooling::test(&bundle);
        if !suite.passes() {
            return Err(ApplyFailed::Tests(suite.to_string()).into());
        }
        let (mut in_force, active) = {
            let state = self.lock();
            (state.in_force.clone(), state.bundle.clone())
        };
        let changes = in_force.apply(&bundle, active.as_deref(), None, now_ms).map_err(ApplyFailed::Refused)?;
        record(changes.into_iter().map(|change| Put { key: change.key, value: change.value }).collect())?;
        let state = &mut *self.lock();
        (state.in_force, state.bundle) = (in_force, Some(bundle.clone()));
        state.adopt_all(now_ms);
        Ok(bundle)
    }
}

fn first(errors: &[BundleError]) -> String {
    errors.first().map_or_else(|| "the bundle in force cannot be read".to_owned(), ToString::to_string)
}
