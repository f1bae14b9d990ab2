//! What a channel may do: one actor per node around vls's state machine.

pub mod clock;
pub mod limits;
pub mod messages;
pub mod persist;
pub mod pool;
pub mod refusals;
pub mod shapes;
pub mod validator;
