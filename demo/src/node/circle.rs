//! Paying oneself around a circle of channels, as nodes do to shift their balances.

use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{PaymentId, RecipientOnionFields};
use lightning::routing::router::{Path, Route, RouteHop};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use lightning::types::payment::PaymentHash;

use super::{FORWARDING_FEE_MSAT, LdkNode, NodeError, payment_hash};

/// LDK's defaults: between two hops, and more than it asks for at the last.
const CLTV_DELTA: u32 = 72;
const LAST_CLTV_DELTA: u32 = 48;

impl LdkNode {
    /// Pays `amount_msat` to this node itself through `channels`, each as the node at its near end lists it: the first is
    /// one of this node's, the last ends here. Asks the signer, as for any payment.
    pub fn pay_around(&self, channels: &[ChannelDetails], amount_msat: u64) -> Result<PaymentHash, NodeError> {
        let invoice = self.invoice(amount_msat, "around a circle")?;
        self.approve(&invoice)?;
        let hash = self.begin(payment_hash(&invoice));
        let hop = |(index, channel): (usize, &ChannelDetails)| {
            let is_last = index + 1 == channels.len();
            let short_channel_id = channel.get_outbound_payment_scid();
            Some(RouteHop {
                pubkey: channel.counterparty.node_id,
                node_features: NodeFeatures::empty(),
                short_channel_id: short_channel_id?,
                channel_features: ChannelFeatures::empty(),
                fee_msat: if is_last { amount_msat } else { FORWARDING_FEE_MSAT },
                cltv_expiry_delta: if is_last { LAST_CLTV_DELTA } else { CLTV_DELTA },
                maybe_announced_channel: true,
            })
        };
        let hops = channels.iter().enumerate().map(hop).collect::<Option<Vec<_>>>();
        let hops = hops.ok_or_else(|| NodeError::Ldk("a channel is not confirmed".to_owned()))?;
        let route = Route { paths: vec![Path { hops, blinded_tail: None }], route_params: None };
        let onion = RecipientOnionFields::secret_only(*invoice.payment_secret());
        self.inner
            .channels
            .send_payment_with_route(route, hash, onion, PaymentId(hash.0))
            .map_err(|e| NodeError::Ldk(format!("{e:?}")))?;
        Ok(hash)
    }
}
