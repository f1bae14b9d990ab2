//! What a channel may do: one actor per node around vls-core.

pub mod persist;
