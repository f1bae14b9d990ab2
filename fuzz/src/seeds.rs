//! Seeds that are computed: one for each message of the table, so that a new one is fuzzed without anybody's help.

use claviger::lightning::driver::{invoice_to_pay, invoice_to_sign, keysend};
use claviger::lightning::guard::TABLE;
use claviger_proto::v1::{ChannelRef, Hello, NodeReply, NodeRequest, Reason, Refusal, node_reply, node_request};
use prost::Message;

/// The computed seeds of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "link_frames" => frames(),
        "guard_decoder" => (0..4).flat_map(|kind| messages().map(move |m| [&[kind], &m[..]].concat())).collect(),
        _ => Vec::new(),
    }
}

/// Every number with bodies of some lengths, and whole messages.
fn messages() -> impl Iterator<Item = Vec<u8>> {
    let lengths = [0, 8, 33, 64, 200];
    let rows = TABLE
        .iter()
        .flat_map(move |row| lengths.map(|length| [&row.number.to_be_bytes()[..], &vec![0; length]].concat()));
    rows.chain([keysend(1, 1_000), invoice_to_pay(1, 1_000), invoice_to_sign(1, 1_000)])
}

fn frames() -> Vec<Vec<u8>> {
    let request = |channel, body| NodeRequest { request_id: 7, channel, body: Some(body) }.encode_to_vec();
    let reply = |body| NodeReply { request_id: 7, body: Some(body) }.encode_to_vec();
    let hello = Hello { client: "claviger-ldk".to_owned(), instance: vec![7; 16] };
    let channel = ChannelRef { peer_id: vec![2; 33], dbid: 1 };
    let reasons =
        vec![Reason { id: "limit".to_owned(), detail: "7 > 5".to_owned(), hint: "wait".to_owned(), facts: Vec::new() }];
    let refusal = Refusal { request: "alice-1".to_owned(), reasons, retry: false };
    let mut frames = vec![request(None, node_request::Body::Hello(hello)), reply(node_reply::Body::Refusal(refusal))];
    frames.extend(messages().map(|message| request(Some(channel.clone()), node_request::Body::Message(message))));
    frames
}
