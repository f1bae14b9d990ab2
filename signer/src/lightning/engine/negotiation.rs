//! HsmdInit and HsmdInit2. vls is taken through its own negotiation once, by us; what a node sends is answered without it.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::blockdata::constants::genesis_block;
use lightning_signer::node::Node;
use lightning_signer::wallet::Wallet;
use vls_protocol::model::{Bip32KeyVersion, ExtKey, PubKey, Secret as SecretBytes};
use vls_protocol::msgs::{self, Message, PROTOCOL_VERSION_NO_SECRET, SerBolt};
use vls_protocol_signer::handler::{InitHandler, RootHandler};

use super::super::limits::Limits;
use super::super::refusals;
use super::{Engine, RestoreError};
use crate::facts::Fact;
use crate::reasons::{Reason, Refusal};

/// The HsmdInit with which vls is started: protocol version 6 and nothing else.
pub(crate) fn own_init(network: Network) -> Message {
    Message::HsmdInit(msgs::HsmdInit {
        key_version: Bip32KeyVersion { pubkey_version: 0, privkey_version: 0 },
        chain_params: genesis_block(network).block_hash(),
        encryption_key: None,
        dev_privkey: None,
        dev_bip32_seed: None,
        dev_channel_secrets: None,
        dev_channel_secrets_shaseed: None,
        hsm_wire_min_version: PROTOCOL_VERSION_NO_SECRET,
        hsm_wire_max_version: PROTOCOL_VERSION_NO_SECRET,
    })
}

/// Takes vls through its negotiation with an HsmdInit of our own.
pub(super) fn negotiate(node: &Arc<Node>, limits: Arc<Limits>) -> Result<(RootHandler, Vec<u8>), RestoreError> {
    let mut handler = InitHandler::new(0, node.clone(), limits, PROTOCOL_VERSION_NO_SECRET);
    match handler.handle(own_init(node.network())) {
        Ok((true, Some(reply))) => Ok((handler.into(), reply.as_vec())),
        Ok(_) => Err(RestoreError::Refused("the negotiation did not end".to_owned())),
        Err(error) => Err(RestoreError::Refused(refusals::from_handler(error, None).detail)),
    }
}

impl Engine {
    pub(super) fn hsmd_init(&self, init: &msgs::HsmdInit) -> Result<Vec<u8>, Refusal> {
        let developer = init.dev_privkey.is_some()
            || init.dev_bip32_seed.is_some()
            || init.dev_channel_secrets.is_some()
            || init.dev_channel_secrets_shaseed.is_some();
        if developer {
            return Err(Refusal::new(Reason::NotAllowed, "HsmdInit with developer fields"));
        }
        let genesis = genesis_block(self.node.network()).block_hash();
        if init.chain_params != genesis {
            let detail = format!("the node's chain is {}, the signer's {genesis}", init.chain_params);
            let fact = Fact::text("chain", init.chain_params.to_string()).exactly(genesis.to_string());
            return Err(Refusal::new(Reason::Validation, detail).with_fact(fact));
        }
        let (min, max) = (init.hsm_wire_min_version, init.hsm_wire_max_version);
        if !(min..=max).contains(&PROTOCOL_VERSION_NO_SECRET) {
            let detail =
                format!("the node speaks hsmd versions {min} to {max}, the signer {PROTOCOL_VERSION_NO_SECRET}");
            return Err(Refusal::new(Reason::Validation, detail));
        }
        Ok(self.init_reply.clone())
    }

    pub(super) fn hsmd_init2(&self, init: &msgs::HsmdInit2) -> Result<Vec<u8>, Refusal> {
        if init.dev_seed.is_some() || !init.dev_allowlist.is_empty() {
            return Err(Refusal::new(Reason::NotAllowed, "HsmdInit2 with developer fields"));
        }
        let named = std::str::from_utf8(&init.network_name.0).ok().and_then(|name| Network::from_str(name).ok());
        if named != Some(self.node.network()) {
            let detail = format!("the node is not on the signer's network, {}", self.node.network());
            return Err(Refusal::new(Reason::Validation, detail));
        }
        let reply = msgs::HsmdInit2Reply {
            node_id: PubKey(self.node.get_id().serialize()),
            bip32: ExtKey(self.node.get_account_extended_pubkey().encode()),
            bolt12: PubKey(self.node.get_bolt12_pubkey().serialize()),
            peer_storage_key: SecretBytes(self.node.get_peer_storage_key_bytes()),
            inbound_payment_key: SecretBytes(self.node.get_inbound_payment_key_bytes()),
        };
        Ok(reply.as_vec())
    }
}
