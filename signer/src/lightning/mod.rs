//! What a channel may do: one actor per node around vls's state machine.

pub mod actor;
pub mod answers;
mod asked;
pub mod book;
pub mod bookkeeper;
pub mod clock;
pub mod counter;
pub mod driver;
pub mod engine;
pub mod guard;
mod identity;
pub mod issued;
mod ldk;
pub mod lightspark;
pub mod limits;
mod live;
pub mod lnd;
mod machine;
pub mod mailbox;
pub mod nodes;
pub mod orders;
mod payments;
pub mod persist;
pub mod pool;
pub mod preimages;
pub mod recent;
mod record;
pub mod refusals;
pub mod standing;
pub mod status;
pub mod validator;

#[cfg(test)]
mod tests;
