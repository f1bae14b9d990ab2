//! How a channel stands: what the signer knows of it, beside what its node last claimed.
//!
//! ```text
//! view.rs      what the signer knows: numbers, balances, HTLCs, out of vls's state
//! claims.rs    what the node last asked, in memory only
//! compare.rs   whether the two fit
//! ```
//!
//! A node says where it stands by what it asks: each commitment message carries a number, and most a state. LDK offers
//! no better source: neither `ChannelDetails` nor `ChannelMonitor` tells commitment numbers.

mod claims;
mod compare;
mod view;

pub use self::claims::{Claim, Claims, Step};
pub use self::compare::{Finding, Standing, compare, expected};
pub use self::view::{Balance, ChannelView, Funding, HtlcView, Side, State, all, one};

pub(super) use self::claims::claim;
