//! What an LDK node asks that vls does not answer when secrets leave only through RevokeCommitmentTx.

use bitcoin::secp256k1::{All, Secp256k1, ecdsa};
use lightning_signer::channel::{Channel, ChannelBase, ChannelId};
use lightning_signer::node::Node;
use lightning_signer::util::status::Status;
use vls_protocol::model::PubKey;
use vls_protocol::msgs::{self, Message, SerBolt};

use crate::pipeline::ChannelRef;

/// LDK counts commitments backwards from here.
const FIRST_COMMITMENT: u64 = (1 << 48) - 1;

/// The encoded reply, if `message` is one of these. Everything else, and every refusal, is the state machine's.
pub(super) fn answer(node: &Node, secp: &Secp256k1<All>, channel: ChannelRef, message: &Message) -> Option<Vec<u8>> {
    let id = ChannelId::new_from_peer_id_and_oid(&channel.peer_id, channel.dbid);
    let reply = match message {
        Message::GetPerCommitmentPoint2(m) => {
            node.with_channel(&id, |chan| Ok(point_ahead(chan, secp, m.commitment_number)))
        }
        Message::ValidateCommitmentTx2(m) => node.with_channel(&id, |chan| first_validated_before(chan, m)),
        _ => return None,
    };
    reply.ok().flatten()
}

/// LDK wants one more point in stock before it revokes: at commitment n + 1, validated but not yet in force, the point
/// of n + 3. A point tells nothing that later points do not, and no secret.
fn point_ahead(channel: &mut Channel, secp: &Secp256k1<All>, commitment_number: u64) -> Option<Vec<u8>> {
    if commitment_number != channel.enforcement_state.next_holder_commit_num + 2 {
        return None;
    }
    let index = FIRST_COMMITMENT.checked_sub(commitment_number)?;
    let point = channel.keys.get_per_commitment_point(index, secp).ok()?;
    Some(msgs::GetPerCommitmentPoint2Reply { point: PubKey(point.serialize()) }.as_vec())
}

/// The first commitment is in force as soon as it is valid, and vls refuses to put it in force twice. Asked again, it is
/// validated again, against what is in force, and answered as before (P5).
fn first_validated_before(
    channel: &mut Channel,
    message: &msgs::ValidateCommitmentTx2,
) -> Result<Option<Vec<u8>>, Status> {
    let in_force = channel.enforcement_state.next_holder_commit_num == 1;
    if message.commitment_number != 0 || !in_force || !message.htlcs.is_empty() {
        return Ok(None);
    }
    let Ok(signature) = ecdsa::Signature::from_compact(&message.signature.signature.0) else { return Ok(None) };
    channel.validate_holder_commitment_tx_phase2(
        0,
        message.feerate,
        message.to_local_value_sat,
        message.to_remote_value_sat,
        Vec::new(),
        Vec::new(),
        &signature,
        &[],
    )?;
    let next = channel.get_per_commitment_point(1)?;
    let reply = msgs::ValidateCommitmentTxReply {
        old_commitment_secret: None,
        next_per_commitment_point: PubKey(next.serialize()),
    };
    Ok(Some(reply.as_vec()))
}
