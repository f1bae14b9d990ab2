//! Orders in the journal: one entry each, version 1, as JSON.
//!
//! | key | holds |
//! |---|---|
//! | `order/freeze` | who froze the node |
//! | `order/freeze/<channel>` | who froze the channel |
//! | `order/quarantine` | what was noticed about the state's age (P7) |
//! | `order/exempt/<channel>/<reason>` | who exempted it, and until when |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Exemption, Given, Orders};
use crate::journal::Put;
use crate::pipeline::ChannelName;
use crate::reasons::Reason;

const PREFIX: &str = "order/";
/// The entry of a quarantine.
pub const QUARANTINE: &str = "order/quarantine";
const VERSION: u8 = 1;

/// An entry was not written by this version, or is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry {0} cannot be read")]
pub struct OrdersUnreadable(String);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u8,
    given: Given,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
}

impl Orders {
    /// Takes the orders out of a node's entries.
    pub fn restore(entries: &mut BTreeMap<String, Vec<u8>>) -> Result<Self, OrdersUnreadable> {
        let mut orders = Self::default();
        for (key, value) in entries.extract_if(.., |key, _| key.starts_with(PREFIX)) {
            orders.take(&key, &value).ok_or(OrdersUnreadable(key))?;
        }
        Ok(orders)
    }

    fn take(&mut self, key: &str, value: &[u8]) -> Option<()> {
        let Stored { version: VERSION, given, until_ms } = serde_json::from_slice(value).ok()? else { return None };
        let mut parts = key.strip_prefix(PREFIX)?.splitn(3, '/');
        match (parts.next()?, parts.next(), parts.next(), until_ms) {
            ("freeze", None, None, None) => self.node = Some(given),
            ("freeze", Some(channel), None, None) => {
                self.channels.insert(channel.parse().ok()?, given);
            }
            ("quarantine", None, None, None) => self.quarantine = Some(given),
            ("exempt", Some(channel), Some(reason), Some(until_ms)) => {
                let (channel, reason) = (channel.parse().ok()?, Reason::by_id(reason)?);
                self.exemptions.insert((channel, reason.id()), Exemption { channel, reason, until_ms, given });
            }
            _ => return None,
        }
        Some(())
    }
}

/// The entry of a freeze; without `given` it goes.
pub(super) fn freeze(channel: Option<ChannelName>, given: Option<&Given>) -> Put {
    let key = channel.map_or_else(|| format!("{PREFIX}freeze"), |channel| format!("{PREFIX}freeze/{channel}"));
    Put { key, value: given.map(|given| encode(given, None)) }
}

/// The entry of a quarantine; without `given` it goes.
pub(super) fn quarantine(given: Option<&Given>) -> Put {
    Put { key: QUARANTINE.to_owned(), value: given.map(|given| encode(given, None)) }
}

/// The entry of an exemption, or its end.
pub(super) fn exemption(exemption: &Exemption, holds: bool) -> Put {
    let Exemption { channel, reason, until_ms, given } = exemption;
    let key = format!("{PREFIX}exempt/{channel}/{}", reason.id());
    Put { key, value: holds.then(|| encode(given, Some(*until_ms))) }
}

fn encode(given: &Given, until_ms: Option<u64>) -> Vec<u8> {
    let stored = Stored { version: VERSION, given: given.clone(), until_ms };
    serde_json::to_vec(&stored).expect("numbers and text always encode")
}
