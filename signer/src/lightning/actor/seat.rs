//! The state machine's place in its actor: when it is built from the journal, and when it is let go.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use claviger_policy::grant;

use super::rebuilds::Rebuilds;
use super::work::unrecorded;
use super::{Actor, House, lock};
use crate::journal::store::StoreError;
use crate::journal::{Commit, CommitError, JournalError, Put};
use crate::lightning::issued::Archive;
use crate::lightning::machine::{Machine, first_entries};
use crate::lightning::orders::QUARANTINE;
use crate::reasons::{Reason, Refusal};

/// The state machine, or when it may be built again. Whoever has the turn sits here.
#[derive(Default)]
pub(super) struct Seat {
    pub(super) engine: Option<Machine>,
    rebuilds: Rebuilds,
}

impl Actor {
    /// The seat, for the thread that has the turn.
    pub(super) fn sit_down(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(|poisoned| {
            // The turn before ended with a panic that nobody expected: nobody knows in the middle of what.
            self.seat.clear_poison();
            let mut seat = poisoned.into_inner();
            self.fault(&mut seat, "a turn");
            seat
        })
    }

    /// The state machine, built from the journal if it is not there or cannot be trusted.
    pub(super) fn engine<'a>(&self, seat: &'a mut Seat) -> Result<&'a mut Machine, Refusal> {
        if self.flights.broken.load(Ordering::SeqCst) {
            drop_engine(seat);
            // Where it stood is wrong, and would be told once nothing is broken any more.
            self.note_status(seat);
        }
        if seat.engine.is_none() {
            seat.rebuilds.wait_over()?;
            let begun = Instant::now();
            let built = self.build();
            seat.rebuilds.took(begun.elapsed());
            if let Err(refusal) = &built
                && refusal.reason == Reason::Fault
            {
                lock(&self.status).fault(&refusal.detail);
                seat.rebuilds.failed();
            }
            let built = built?;
            *self.drafter.write().unwrap_or_else(PoisonError::into_inner) = built.drafter();
            seat.engine = Some(built);
        }
        seat.engine.as_mut().ok_or_else(|| Refusal::new(Reason::NodeRestarting, "the node is not there"))
    }

    fn build(&self) -> Result<Machine, Refusal> {
        // What is still on its way belongs to the state that the journal is about to give back.
        self.land_all();
        let tenant = self.spec.name.as_str();
        let mut entries = self.house.journal.load(tenant).map_err(unloaded)?;
        self.flights.broken.store(false, Ordering::SeqCst);
        // What the house may write for a node before its first state is no state.
        if entries.keys().all(|key| key == QUARANTINE || key.starts_with(grant::PREFIX)) {
            // Its grants can be seen and approved while it waits for its first block.
            let loaded = self.house.settings.desk.load(&self.spec.name, &mut entries.clone(), self.clock.now_ms());
            loaded.map_err(|error| Refusal::new(Reason::Fault, error.to_string()))?;
            let puts = self.first_entries()?;
            let commit = Commit { tenant: tenant.to_owned(), puts: puts.clone(), decision: None };
            self.house.journal.commit(commit).map_err(|error| unrecorded(&error))?;
            entries.extend(puts.into_iter().filter_map(|put| Some((put.key, put.value?))));
        }
        let House { settings, chain, .. } = &*self.house;
        let archive = Arc::new(Cold { house: self.house.clone(), tenant: tenant.to_owned() });
        let build = || Machine::restore(&self.spec, settings, chain.clone(), self.clock.clone(), archive, entries);
        match catch_unwind(AssertUnwindSafe(build)) {
            Ok(Ok(engine)) => Ok(engine),
            Ok(Err(error)) => Err(Refusal::new(Reason::Fault, error.to_string())),
            Err(_) => Err(Refusal::new(Reason::Fault, "the node's state cannot be restored")),
        }
    }

    fn first_entries(&self) -> Result<Vec<Put>, Refusal> {
        let unknown = || Refusal::new(Reason::ChainStale, "no block is known yet from which the new node could start");
        first_entries(&self.spec, || self.house.chain.start().ok_or_else(unknown))
    }

    /// vls failed halfway: nothing it remembers is used again.
    pub(super) fn fault(&self, seat: &mut Seat, doing: &str) {
        tracing::error!(node = %self.spec.name, doing, "the node's state machine failed; it is built again from the journal");
        drop_engine(seat);
        seat.rebuilds.failed();
        lock(&self.status).fault(&format!("failed while handling {doing}"));
    }
}

/// The entries of a tenant that are looked up one by one.
struct Cold {
    house: Arc<House>,
    tenant: String,
}

impl Archive for Cold {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        self.house.journal.get(&self.tenant, key).map_err(unloaded)
    }
}

/// Drops the state machine, whatever state a panic left it in.
pub(super) fn drop_engine(seat: &mut Seat) {
    let engine = seat.engine.take();
    if catch_unwind(AssertUnwindSafe(|| drop(engine))).is_err() {
        tracing::error!("a node's state machine could not be dropped cleanly");
    }
}

fn unloaded(error: JournalError) -> Refusal {
    match error {
        JournalError::Unavailable(error) => unrecorded(&error),
        // Between two failures of the disk, reading may fail as well as writing.
        JournalError::Store(error) if !matches!(error, StoreError::Damaged(_)) => {
            unrecorded(&CommitError::Store(error))
        }
        other => Refusal::new(Reason::Fault, other.to_string()),
    }
}
