//! Whose a node's entries are: the first of them names its key and its network.

use std::collections::BTreeMap;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use serde::{Deserialize, Serialize};

use super::engine::RestoreError;
use crate::journal::Put;

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    version: u8,
    node_id: PublicKey,
    network: Network,
}

/// The entry `key` of a node that has not run yet.
pub(super) fn put(key: &str, node_id: PublicKey, network: Network) -> Put {
    let identity = Identity { version: VERSION, node_id, network };
    let value = serde_json::to_vec(&identity).expect("text always encodes");
    Put { key: key.to_owned(), value: Some(value) }
}

/// Takes the entry `key` out of a node's entries, and refuses those of another node or network.
pub(super) fn take(
    entries: &mut BTreeMap<String, Vec<u8>>,
    key: &str,
    node_id: PublicKey,
    network: Network,
) -> Result<(), RestoreError> {
    let identity = entries.remove(key).and_then(|value| serde_json::from_slice::<Identity>(&value).ok());
    let identity = identity.filter(|identity| identity.version == VERSION);
    let identity = identity.ok_or_else(|| RestoreError::Entries(key.to_owned()))?;
    if identity.node_id != node_id {
        return Err(RestoreError::OtherNode("the seed does not match"));
    }
    if identity.network != network {
        return Err(RestoreError::OtherNode("the network does not match"));
    }
    Ok(())
}
