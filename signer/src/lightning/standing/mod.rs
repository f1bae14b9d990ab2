//! How a channel stands: what the signer knows of it, beside what its node last claimed.
//!
//! ```text
//! view.rs      what the signer knows: numbers, balances, HTLCs, for most nodes out of vls's state
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
pub use self::view::{Balance, ChannelView, Funding, HtlcView, PaymentHash, Side, State, all, one};

pub(super) use self::claims::claim;

use super::book::view::BookView;
use super::orders::Orders;

/// All channels of a node at one moment, as the operator sees them.
#[derive(Clone, Debug)]
pub struct Overview {
    /// Each with what the node last claimed of it.
    pub channels: Vec<(ChannelView, Vec<Claim>)>,
    /// What the channel book holds of them, where it is kept.
    pub book: Option<BookView>,
    /// What is ordered about the node and them.
    pub orders: Orders,
    /// The moment, by the node's clock.
    pub now_ms: u64,
}
