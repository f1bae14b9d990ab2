//! The way of a message up to the state machine: any bytes are a message of the dialect, or refused by name.

use claviger::lightning::{messages, shapes};
use claviger::names::NodeKind;
use claviger::reasons::{Reason, Refusal};

/// What stands between the link and the state machine: the message's row, its decoding, its shape.
pub fn guard(kind: NodeKind, message: &[u8]) -> Result<(), Refusal> {
    let row = messages::row(kind, message)?;
    shapes::check(&messages::decode(row, message)?)
}

/// The first byte chooses the dialect.
pub fn fuzz(data: &[u8]) {
    let Some((first, message)) = data.split_first() else { return };
    let kind = if first % 2 == 0 { NodeKind::Ldk } else { NodeKind::Cln };
    if let Err(refusal) = guard(kind, message) {
        let known = [Reason::Malformed, Reason::MessageUnknown, Reason::NotAllowed];
        assert!(known.contains(&refusal.reason), "{refusal:?}");
        assert!(refusal.detail.chars().count() <= Refusal::MAX_DETAIL + 1, "{refusal:?}");
    }
}
