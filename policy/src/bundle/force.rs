//! Which bundle is in force, which one was before, and which one waits for its time.

use serde::{Deserialize, Serialize};

use super::{Bundle, BundleHash, Files, SigningError, text_to_roll_back, text_to_sign};
use crate::budget::Change;

/// One bundle of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// Which.
    pub hash: BundleHash,
    /// Its version.
    pub version: u64,
    /// In force since, or from then on; in milliseconds since the Unix epoch.
    pub from_ms: u64,
}

/// Which bundle is in force. Every change of it is made here, and gives the entries to record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InForce {
    /// The one in force; `None` before the first.
    pub active: Option<Applied>,
    /// The one before: what a rollback goes back to.
    pub previous: Option<Applied>,
    /// The one that comes into force at its time.
    pub pending: Option<Applied>,
    /// Evaluated beside the one in force, without effect.
    pub shadow: Option<Applied>,
    /// The highest version that was ever applied. A rollback does not lower it.
    pub highest_version: u64,
}

/// Why a bundle does not come into force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It is.
    #[error("this bundle is in force already, as version {0}")]
    InForce(u64),
    /// Not above every version before.
    #[error("version {version} is not above {highest}, the highest that was applied")]
    NotNewer {
        /// The bundle's.
        version: u64,
        /// What it must be above.
        highest: u64,
    },
    /// Its time is past.
    #[error("it would come into force in the past, at {from_ms}")]
    Past {
        /// In milliseconds since the Unix epoch.
        from_ms: u64,
    },
    /// The bundle in force asks for signatures.
    #[error(transparent)]
    Unsigned(#[from] SigningError),
    /// The bundle in force locks what is listed anew.
    #[error("'{label}' in lists/{list}.toml is new and counts from {from_ms} on, before {earliest_ms}")]
    TooSoon {
        /// The list.
        list: String,
        /// The entry.
        label: String,
        /// When it would count, in milliseconds since the Unix epoch.
        from_ms: u64,
        /// When it may at the earliest.
        earliest_ms: u64,
    },
    /// The bundle in force locks what is listed anew, and this one does not, or for less long.
    #[error("its [lists] wait_h is shorter, and it would come into force before {earliest_ms}")]
    ShorterWait {
        /// In milliseconds since the Unix epoch.
        earliest_ms: u64,
    },
    /// The bundle before may list what the one in force does not.
    #[error("the bundle in force locks what is listed anew: going back is not locked")]
    RollbackWaits,
    /// Nothing was in force before.
    #[error("there is no bundle to go back to")]
    NoPrevious,
    /// The bundle at hand is not the one that the history names.
    #[error("the bundle {found} is not {wanted}, the one in force")]
    NotInForce {
        /// At hand.
        found: BundleHash,
        /// In force.
        wanted: BundleHash,
    },
}

impl ApplyError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::InForce(_) => "Nothing.".into(),
            Self::NotNewer { highest, .. } => format!(
                "Set version = {} in policy.toml; to go back on purpose, use `claviger policy apply --rollback`.",
                highest.saturating_add(1)
            ),
            Self::Past { .. } => "Give a time to come, or none.".into(),
            Self::TooSoon { .. } => "Give it an effective_from that is so much later.".into(),
            Self::ShorterWait { .. } => "Keep wait_h, or apply the bundle with --at that time.".into(),
            Self::RollbackWaits => {
                "Apply the bundle that you want to go back to with a higher version; what it lists anew waits.".into()
            }
            Self::Unsigned(error) => error.hint(),
            Self::NoPrevious => "Apply the bundle you want with a higher version.".into(),
            Self::NotInForce { .. } => {
                "Another change came first: look at `claviger policy show`, and do it again.".into()
            }
        }
    }
}

impl InForce {
    /// Had `active` been applied first: for what needs no history.
    pub fn of(active: &Bundle) -> Self {
        let mut in_force = Self { highest_version: active.version(), ..Self::default() };
        in_force.active = Some(in_force.entry(active, 0));
        in_force
    }

    /// Whether nobody has applied a bundle yet.
    pub fn is_beginning(&self) -> bool {
        self.highest_version == 0
    }

    /// Puts `starter` in force until somebody applies a bundle, whose version may be any. Returns the entries to record:
    /// none if it is in force already, or a bundle was applied.
    pub fn begin(&mut self, starter: Option<&Bundle>, now_ms: u64) -> Vec<Change> {
        if !self.is_beginning() || self.active.map(|active| active.hash) == starter.map(Bundle::hash) {
            return Vec::new();
        }
        self.active = starter.map(|starter| self.entry(starter, now_ms));
        starter.map(|starter| starter.files().change()).into_iter().chain([self.change()]).collect()
    }

    /// Lets `candidate` follow `active`, the bundle in force: now, or at `from_ms`. A bundle that waits is replaced.
    ///
    /// Whether its tests pass is for the caller to see to before. Returns the entries to record.
    pub fn apply(
        &mut self,
        candidate: &Bundle,
        active: Option<&Bundle>,
        from_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<Vec<Change>, ApplyError> {
        self.is_active(active)?;
        if self.active.is_some_and(|active| active.hash == candidate.hash()) {
            return Err(ApplyError::InForce(candidate.version()));
        }
        if candidate.version() <= self.highest_version {
            return Err(ApplyError::NotNewer { version: candidate.version(), highest: self.highest_version });
        }
        if let Some(from_ms) = from_ms.filter(|from_ms| *from_ms <= now_ms) {
            return Err(ApplyError::Past { from_ms });
        }
        let text = text_to_sign(candidate.version(), candidate.hash());
        signed(active, &text, candidate.files(), now_ms)?;
        waits(candidate, active, from_ms.unwrap_or(now_ms), now_ms)?;
        self.highest_version = candidate.version();
        let applied = self.entry(candidate, from_ms.unwrap_or(now_ms));
        self.pending = Some(applied);
        if from_ms.is_none() {
            self.activate(now_ms);
        }
        Ok(vec![candidate.files().change(), self.change()])
    }

    /// Puts the bundle in force whose time has come. Returns the entries to record: none if there is none.
    pub fn activate_due(&mut self, now_ms: u64) -> Vec<Change> {
        match self.pending {
            Some(pending) if pending.from_ms <= now_ms => {
                self.activate(now_ms);
                vec![self.change()]
            }
            _ => Vec::new(),
        }
    }

    /// Goes back to the bundle before: `signatures` holds what signers of the bundle in force made over
    /// [`text_to_roll_back`], if it asks for any. What waits is dropped; the next version is above all before.
    pub fn roll_back(
        &mut self,
        active: Option<&Bundle>,
        signatures: &Files,
        now_ms: u64,
    ) -> Result<Vec<Change>, ApplyError> {
        self.is_active(active)?;
        let (Some(from), Some(to)) = (self.active, self.previous) else { return Err(ApplyError::NoPrevious) };
        signed(active, &text_to_roll_back(from.hash, to.hash), signatures, now_ms)?;
        if active.is_some_and(|active| active.wait_ms() > 0) {
            return Err(ApplyError::RollbackWaits);
        }
        self.active = Some(Applied { from_ms: now_ms, ..to });
        (self.previous, self.pending) = (None, None);
        Ok(vec![self.change()])
    }

    /// Evaluates `candidate` beside the bundle in force from now on, without effect; `None` ends it.
    pub fn set_shadow(&mut self, candidate: Option<&Bundle>, now_ms: u64) -> Vec<Change> {
        self.shadow = candidate.map(|candidate| self.entry(candidate, now_ms));
        candidate.map(|candidate| candidate.files().change()).into_iter().chain([self.change()]).collect()
    }

    fn activate(&mut self, now_ms: u64) {
        if let Some(pending) = self.pending.take() {
            self.previous = self.active.replace(Applied { from_ms: pending.from_ms.max(now_ms), ..pending });
            self.shadow = self.shadow.filter(|shadow| shadow.hash != pending.hash);
        }
    }

    fn entry(&self, bundle: &Bundle, from_ms: u64) -> Applied {
        Applied { hash: bundle.hash(), version: bundle.version(), from_ms }
    }

    fn is_active(&self, bundle: Option<&Bundle>) -> Result<(), ApplyError> {
        match (self.active, bundle) {
            (None, None) => Ok(()),
            (Some(active), Some(bundle)) if active.hash == bundle.hash() => Ok(()),
            (active, bundle) => Err(ApplyError::NotInForce {
                found: bundle.map_or(BundleHash([0; 32]), Bundle::hash),
                wanted: active.map_or(BundleHash([0; 32]), |active| active.hash),
            }),
        }
    }
}

/// Whether what `candidate` lists anew counts no earlier than `active` lets it, nor the wait ends earlier.
fn waits(candidate: &Bundle, active: Option<&Bundle>, from_ms: u64, now_ms: u64) -> Result<(), ApplyError> {
    let Some(active) = active.filter(|active| active.wait_ms() > 0) else { return Ok(()) };
    let earliest_ms = now_ms.saturating_add(active.wait_ms());
    let mut added = candidate.policy().lists.additions(&active.policy().lists);
    if let Some(entry) = added.find(|entry| entry.effective_from_ms.max(from_ms) < earliest_ms) {
        let (list, label, from_ms) = (entry.list.clone(), entry.label.clone(), entry.effective_from_ms);
        return Err(ApplyError::TooSoon { list, label, from_ms, earliest_ms });
    }
    match candidate.wait_ms() < active.wait_ms() && from_ms < earliest_ms {
        true => Err(ApplyError::ShorterWait { earliest_ms }),
        false => Ok(()),
    }
}

/// Whether the signatures of `files` over `text` are those that `active` asks for.
fn signed(active: Option<&Bundle>, text: &str, files: &Files, now_ms: u64) -> Result<(), SigningError> {
    match active.and_then(|active| Some((active, active.signing()?))) {
        Some((active, signing)) => signing.signers(text, files, &active.policy().approvals, now_ms).map(drop),
        None => Ok(()),
    }
}
