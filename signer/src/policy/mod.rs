//! The operator's spending policy in force: what a node may do with money beyond what safety allows (P3).
//!
//! The rules themselves are in the crate `claviger-policy`, which is pure. Here is what a running signer adds: which bundle
//! is in force, what was spent and approved under it, and the entries that keep both in the journal.
//!
//! ```text
//! desk.rs    decides one request at a time, for all nodes
//! force.rs   puts bundles in force and takes them back
//! shadow.rs  judges a candidate beside the one in force
//! ```

mod desk;
mod force;
mod shadow;

pub use self::desk::{Ask, Decided, Desk, DeskUnreadable, Ends};
pub use self::force::ApplyFailed;
pub use self::shadow::Shadowed;
