//! What refused: a validator's objection, kept for whoever words the refusal.

use std::sync::{Arc, Mutex, PoisonError};

use lightning_signer::policy::error::ValidationError;

use crate::reasons::Refusal;

/// What refused last.
#[derive(Clone, Default)]
pub struct RefusedBy(Arc<Mutex<Option<Objection>>>);

/// What a validator has against a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// A rule of vls, by its tag.
    Rule(String),
    /// A rule of our own.
    House(Refusal),
}

impl RefusedBy {
    /// Takes the objection out.
    pub fn take(&self) -> Option<Objection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn note(&self, objection: Objection) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(objection);
    }

    pub(super) fn note_rule(&self, error: &ValidationError) {
        self.note(Objection::Rule(error.tag.clone()));
    }
}
