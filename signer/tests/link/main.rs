//! The node link end to end: the signer's server and a node's client over real sockets on loopback.

mod calls;
mod hostile;
mod identity;
mod mending;
mod world;
