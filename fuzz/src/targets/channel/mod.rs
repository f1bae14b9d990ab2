//! Honest channels over the real state machine, with hostile requests in between, in a world that lives through many
//! executions. Whatever is asked: what was revoked is not signed, what was signed is not revealed, nothing that is ours
//! goes without an approved payment, a matched forward or a bounded fee, what is refused leaves no trace, nothing panics,
//! the state comes back from what was recorded, memory is bounded, and a channel on which no hostile message got anything
//! done is never refused anything.

mod choices;
mod desk;
mod hostile;
mod ledger;
mod line;
mod signer;
mod world;

pub use self::world::World;
use crate::World as _;

/// Plays a world of its own: its number, then executions, each after a byte with its length.
pub fn fuzz(data: &[u8]) {
    let Some((number, mut data)) = data.split_first() else { return };
    let mut world = World::new(u64::from(*number));
    while let Some((length, rest)) = data.split_first() {
        let (input, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        world.run(input);
        data = rest;
    }
    world.end();
}
