//! What a channel may do: node actors around vls's state machine.

pub mod clock;
pub mod limits;
pub mod messages;
pub mod pool;
pub mod refusals;
pub mod shapes;
pub mod validator;
