//! Funding outputs: whose they are, and whether our own view of the chain has buried them.

use std::sync::PoisonError;

use bitcoin::OutPoint;
use lightning_signer::channel::ChannelId;
use vls_protocol::msgs::{self, SerBolt};

use super::super::refusals;
use super::Engine;
use crate::pipeline::ChannelRef;
use crate::reasons::{Reason, Refusal};

impl Engine {
    /// Whether our own chain view has buried the channel's funding output, and it is what it should be; vls would say yes
    /// unseen. A node asks again with the next block.
    pub(super) fn check_outpoint(&self, channel: ChannelRef, asked: &msgs::CheckOutpoint) -> Result<Vec<u8>, Refusal> {
        let id = ChannelId::new_from_peer_id_and_oid(&channel.peer_id, channel.dbid);
        let state = self.node.with_channel(&id, |channel| {
            let (setup, depth) = (&channel.setup, channel.monitor.as_chain_state().funding_depth);
            Ok((setup.funding_outpoint, setup.channel_value_sat, depth))
        });
        let (funding, value_sat, depth) = state.map_err(|status| refusals::from_handler(status.into(), None))?;
        let is_this = funding == OutPoint { txid: asked.funding_txid, vout: asked.funding_txout.into() };
        let is_buried = is_this && depth >= self.funding_depth && self.outputs.amount_sat(&funding) == Some(value_sat);
        Ok(msgs::CheckOutpointReply { is_buried }.as_vec())
    }

    /// Before a channel is set up. A funding output belongs to one channel. What the chain does to a channel is filed under
    /// it, so a second one would take the place of the first, and the node could not be restored.
    pub(super) fn begin_setup(&self, channel: ChannelRef, setup: &msgs::SetupChannel) -> Result<(), Refusal> {
        *self.shutdown_index.lock().unwrap_or_else(PoisonError::into_inner) = setup.local_shutdown_wallet_index;
        let funding = OutPoint { txid: setup.funding_txid, vout: setup.funding_txout.into() };
        if !self.node.get_tracker().listeners.contains_key(&funding) {
            return Ok(());
        }
        let id = ChannelId::new_from_peer_id_and_oid(&channel.peer_id, channel.dbid);
        match self.node.with_channel(&id, |channel| Ok(channel.setup.funding_outpoint == funding)) {
            Ok(true) => Ok(()), // set up again
            _ => Err(Refusal::new(Reason::Validation, format!("another channel is funded by {funding}"))),
        }
    }
}
