//! The entries of a node that has not run yet.

use bitcoin::Network;
use bitcoin::block::Header;
use bitcoin::hash_types::FilterHeader;
use bitcoin::secp256k1::PublicKey;
use lightning_signer::chain::tracker::Headers;
use lightning_signer::persist::Error;
use lightning_signer::signer::derive::KeyDerivationStyle;

use super::record::{HeaderRecord, Identity, NodeRecord, encode};
use crate::journal::Put;

/// The block after which a new node follows the chain.
#[derive(Debug, Clone, Copy)]
pub struct ChainStart {
    /// Its height.
    pub height: u32,
    /// Its header, which the appliance's own chain view vouches for.
    pub header: Header,
    /// The filter header that the next block's attestation builds on. Not all zeros: vls would skip that check.
    pub filter_header: FilterHeader,
}

/// The entries with which a node is restored for the first time: no channels, no payments, the chain at `start`.
///
/// vls left alone would start at a checkpoint that is years old and would have to be fed every block since.
pub fn genesis(
    network: Network,
    derivation: KeyDerivationStyle,
    node_id: PublicKey,
    start: ChainStart,
) -> Result<Vec<Put>, Error> {
    let node = NodeRecord {
        identity: Identity { node_id, network: network.to_string(), key_derivation_style: derivation as u8 },
        excess_amount_sat: 0,
        dbid_high_water_mark: 0,
        velocity: None,
    };
    let tip = HeaderRecord::new(start.height, &Headers(start.header, start.filter_header));
    let put = |key: &str, value: Vec<u8>| Put { key: key.to_owned(), value: Some(value) };
    Ok(vec![
        put("node", encode(&node)?),
        put("allowlist", encode(&Vec::<String>::new())?),
        put("tracker", encode(&tip)?),
    ])
}
