//! Frames of the node link: any bytes decode to a frame or to an error, and a frame is what it encodes to.

use claviger::names::NodeKind;
use claviger::pipeline::Request;
use claviger_proto::v1::{NodeReply, NodeRequest, node_request};
use prost::Message;

use super::guard_decoder;

/// Decodes `data` as either end of the link does, and hands on what a request carries.
pub fn fuzz(data: &[u8]) {
    if let Ok(frame) = NodeRequest::decode(data) {
        assert_eq!(NodeRequest::decode(frame.encode_to_vec().as_slice()), Ok(frame.clone()));
        if let Some(node_request::Body::Message(message)) = &frame.body {
            assert!(message.len() <= data.len(), "a message is not longer than its frame");
            let request = Request { request_id: frame.request_id, channel: None, message: message.clone() };
            let _ = guard_decoder::read(NodeKind::Ldk, &request);
        }
    }
    if let Ok(frame) = NodeReply::decode(data) {
        assert_eq!(NodeReply::decode(frame.encode_to_vec().as_slice()), Ok(frame));
    }
}
