//! Who may talk to the signer: the CA, the registry of nodes, enrolment, and the administration socket.

pub mod api;
pub mod ca;
pub mod enrol;
pub mod fingerprint;
pub mod record;
pub mod registry;
pub mod socket;
