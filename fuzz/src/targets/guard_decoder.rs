//! The way of a message up to the state machine: any bytes are a message of the dialect, or refused by name.

use claviger::lightning::guard;
use claviger::names::NodeKind;
use claviger::pipeline::{ChannelRef, Request};
use claviger::reasons::{Reason, Refusal};

/// What stands between the link and the state machine, as far as it needs no node: row, scope, layout, decoding, shape.
pub fn read(kind: NodeKind, request: &Request) -> Result<(), Refusal> {
    guard::read(guard::row(kind, &request.message)?, request).map(drop)
}

/// The first byte chooses the dialect, and whether the request names a channel.
pub fn fuzz(data: &[u8]) {
    let Some((first, message)) = data.split_first() else { return };
    let kind = if first & 1 == 0 { NodeKind::Ldk } else { NodeKind::Cln };
    let channel = (first & 2 != 0).then_some(ChannelRef { peer_id: [2; 33], dbid: 1 });
    if let Err(refusal) = read(kind, &Request { request_id: 0, channel, message: message.to_vec() }) {
        let known = [Reason::Malformed, Reason::MessageUnknown, Reason::NotAllowed, Reason::MessageScope];
        assert!(known.contains(&refusal.reason), "{refusal:?}");
        assert!(refusal.detail.chars().count() <= Refusal::MAX_DETAIL + 1, "{refusal:?}");
    }
}
