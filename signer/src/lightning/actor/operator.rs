//! The operator's calls, taken in the node's own turn: they see it between two requests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use super::seat::Seat;
use super::{Actor, Work};
use crate::journal::Commit;
use crate::lightning::engine::Engine;
use crate::lightning::lnd::adopt::{Adopted, BackupError};
use crate::lightning::machine::Machine;
use crate::lightning::orders::{Given, Order, OrderError};
use crate::lightning::record;
use crate::lightning::standing::Overview;
use crate::reasons::{Reason, Refusal};

/// Why channels are not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptFailed {
    /// The backup cannot be read.
    #[error("{0}")]
    Backup(BackupError),
    /// The node is not there, is no lnd, or its journal cannot be written.
    #[error("the node cannot take channels over now: {0}")]
    Unavailable(String),
}

/// What is done in the node's turn.
pub(super) type Call = Box<dyn FnOnce(&Arc<Actor>, &mut Seat) + Send>;

impl Actor {
    /// What `look` sees of the node, as of now: it may be ahead of the journal by the requests in flight. Refuses if the
    /// node is not there. Waits for the node's turn.
    pub fn inspect<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.look(move |machine| machine.vls().map(|engine| look(engine)))
    }

    /// The node's channels, as of now; otherwise as [`inspect`](Self::inspect).
    pub fn overview(self: &Arc<Self>) -> Result<Overview, Refusal> {
        self.look(|machine| Ok(machine.overview()))
    }

    fn look<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&mut Machine) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, outcome) = sync_channel(1);
        let call: Call = Box::new(move |actor, seat| {
            let seen = match actor.engine(seat) {
                Ok(machine) => catch_unwind(AssertUnwindSafe(|| look(machine))).unwrap_or_else(|_| {
                    actor.fault(seat, "the operator's look");
                    Err(Refusal::new(Reason::Fault, "the node's state cannot be read"))
                }),
                Err(refusal) => Err(refusal),
            };
            let _ = reply.send(seen); // whoever asked may be gone
        });
        let gone = || Refusal::new(Reason::Sealed, "the node is shutting down");
        self.push_urgent(Work::Operator(call)).map_err(|()| gone())?;
        outcome.recv().unwrap_or_else(|_| Err(gone()))
    }

    /// Takes over the channels in an lnd's static channel backup, which `by` brought. Returns the name of that in the journal,
    /// and what came of each channel, once it is durable.
    pub fn adopt(self: &Arc<Self>, backup: Vec<u8>, by: String) -> Result<(String, Adopted), AdoptFailed> {
        let (reply, outcome) = sync_channel(1);
        let call: Call = Box::new(move |actor, seat| {
            let adopted = match actor.engine(seat).and_then(|machine| machine.lnd()) {
                Ok(node) => catch_unwind(AssertUnwindSafe(|| node.adopt(&backup))).unwrap_or_else(|_| {
                    actor.fault(seat, "a backup");
                    Err(BackupError::Malformed)
                }),
                Err(refusal) => return drop(reply.send(Err(AdoptFailed::Unavailable(refusal.detail)))),
            };
            let (adopted, puts) = match adopted {
                Ok(adopted) => adopted,
                Err(error) => return drop(reply.send(Err(AdoptFailed::Backup(error)))),
            };
            actor.note_status(seat);
            let name = actor.next_name();
            let decision = Some(record::adoption(&name, actor.clock.now_ms(), &adopted, &by));
            actor.send(Commit { tenant: actor.spec.name.to_string(), puts, decision }, move |result| {
                let result = result.map(|()| (name, adopted)).map_err(|e| AdoptFailed::Unavailable(e.to_string()));
                let _ = reply.send(result); // whoever asked may be gone
            });
        });
        let gone = || AdoptFailed::Unavailable("it is shutting down".to_owned());
        self.push_urgent(Work::Operator(call)).map_err(|()| gone())?;
        outcome.recv().unwrap_or_else(|_| Err(gone()))
    }

    /// Carries out an order, given by `by` for the reason `why`. Returns its name in the journal once it is durable.
    pub fn order(self: &Arc<Self>, order: Order, by: String, why: String) -> Result<String, OrderError> {
        let (reply, outcome) = sync_channel(1);
        let call: Call = Box::new(move |actor, seat| {
            let given = Given { at_ms: actor.clock.now_ms(), by, why };
            let ordered = match actor.engine(seat) {
                Ok(engine) => {
                    catch_unwind(AssertUnwindSafe(|| engine.order(&order, given.clone()))).unwrap_or_else(|_| {
                        actor.fault(seat, "an order");
                        Err(OrderError::Unavailable("its state cannot be read".to_owned()))
                    })
                }
                Err(refusal) => Err(OrderError::Unavailable(refusal.detail)),
            };
            let puts = match ordered {
                Ok(puts) => puts,
                Err(error) => return drop(reply.send(Err(error))),
            };
            actor.note_status(seat); // who orders looks at the status next
            let name = actor.next_name();
            let decision = Some(record::order(&name, &order, &given));
            // If this fails, the engine goes with what it was told.
            actor.send(Commit { tenant: actor.spec.name.to_string(), puts, decision }, move |result| {
                let result = result.map(|()| name).map_err(|error| OrderError::Unavailable(error.to_string()));
                let _ = reply.send(result); // whoever asked may be gone
            });
        });
        let gone = || OrderError::Unavailable("it is shutting down".to_owned());
        self.push_urgent(Work::Operator(call)).map_err(|()| gone())?;
        outcome.recv().unwrap_or_else(|_| Err(gone()))
    }
}
