//! LDK's signer traits over the node link: a Lightning node built on LDK keeps no keys, a Claviger signer does.

mod transport;

pub use transport::{ChannelRef, LinkError, Refusal, RefusalReason, Transport};
