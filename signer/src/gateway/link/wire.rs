//! Between the link's messages and the pipeline's.

use claviger_proto::{MAX_MESSAGE_BYTES, v1};
use prost::Message;
use tonic::{Code, Status};

use crate::facts::{Fact, Unit};
use crate::pipeline::{ChannelRef, Outcome, Request};
use crate::reasons::{Reason, Refusal};

/// A request from its frame's parts.
pub(super) fn request(request_id: u64, channel: Option<v1::ChannelRef>, message: Vec<u8>) -> Result<Request, Refusal> {
    if message.len() > MAX_MESSAGE_BYTES {
        let detail = format!("{} bytes, at most {MAX_MESSAGE_BYTES}", message.len());
        let fact = Fact::number("message", message.len() as u64, Unit::Bytes).at_most(MAX_MESSAGE_BYTES as u64);
        return Err(Refusal::new(Reason::Malformed, detail).with_fact(fact));
    }
    let channel = channel.map(channel_ref).transpose()?;
    Ok(Request { request_id, channel, message })
}

fn channel_ref(channel: v1::ChannelRef) -> Result<ChannelRef, Refusal> {
    let bytes = channel.peer_id.len();
    let peer_id = channel.peer_id.try_into().map_err(|_| {
        Refusal::new(Reason::Malformed, format!("the channel's peer id has {bytes} bytes instead of 33"))
    })?;
    Ok(ChannelRef { peer_id, dbid: channel.dbid })
}

/// The frame that answers `request_id`.
pub(super) fn reply(request_id: u64, outcome: Outcome) -> v1::NodeReply {
    use v1::node_reply::Body;
    let body = match outcome {
        Outcome::Reply(message) if message.len() <= MAX_MESSAGE_BYTES => Body::Message(message),
        Outcome::Reply(message) => {
            let detail = format!("the reply has {} bytes, the link carries {MAX_MESSAGE_BYTES}", message.len());
            Body::Refusal(refusal(String::new(), &Refusal::new(Reason::Fault, detail)))
        }
        Outcome::Refused { request, refusal: why } => Body::Refusal(refusal(request, &why)),
    };
    v1::NodeReply { request_id, body: Some(body) }
}

/// A refusal as the node sees it. `request` is empty when no decision was recorded.
pub(super) fn refusal(request: String, refusal: &Refusal) -> v1::Refusal {
    let reason = refusal.reason;
    let detail = format!("{} {}", reason.meaning(), refusal.detail).trim_end().to_owned();
    let facts = refusal.facts.iter().map(v1::Fact::from).collect();
    let reasons = vec![v1::Reason { id: reason.id().to_owned(), detail, hint: reason.hint().to_owned(), facts }];
    v1::Refusal { request, reasons, retry: reason.retry() }
}

/// The status that ends a stream: the refusal travels in its details. Never `Unavailable` or `DeadlineExceeded`.
pub(super) fn status(why: &Refusal) -> Status {
    refused("", why)
}

/// The status of a call that is refused; `request` as in [`refusal`].
pub(in crate::gateway) fn refused(request: &str, why: &Refusal) -> Status {
    let code = match why.reason {
        Reason::CertificateUnknown | Reason::CertificateRevoked | Reason::CertificateExpired => Code::PermissionDenied,
        Reason::LinkProtocol => Code::InvalidArgument,
        Reason::FrameTooLarge => Code::OutOfRange,
        _ => Code::FailedPrecondition,
    };
    let details = refusal(request.to_owned(), why);
    let words = details.reasons.first().map(|reason| format!("{}: {} {}", reason.id, reason.detail, reason.hint));
    Status::with_details(code, words.unwrap_or_default(), details.encode_to_vec().into())
}
