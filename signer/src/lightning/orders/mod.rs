//! What the operator ordered about a node: freezes, and exemptions that end by themselves.
//!
//! A freeze stops new states and new spending (`gate.rs`); closing, punishing and taking the peer's revocations go on,
//! so that a frozen channel is never less safe than a live one. An exemption lifts one reason for one channel for a
//! while, out of [`EXEMPTIBLE`]. Orders are entries of the node's tenant, one each, recorded with a decision that
//! names who gave them.

mod entries;
mod gate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::facts::{Fact, Unit};
use crate::journal::Put;
use crate::pipeline::ChannelName;
use crate::reasons::Reason;

pub use self::entries::{OrdersUnreadable, QUARANTINE};

/// The reasons that a channel can be exempted from: those that guard against confusion, where all that guards against
/// theft still holds. Nothing else will ever be in this list (P3):
///
/// - `frozen` is in it. It is the operator's own stop; a channel that goes on in spite of it meets every other rule.
/// - A state refused because another one was signed under its number is not. Both would be with the peer at once, and
///   which of them its HTLCs are in is then the peer's choice: it could take a forward's outgoing half after the
///   incoming one was given up. A fork is closed, not exempted.
/// - What conserves value, keeps revoking and closing apart, or reads what is signed is theft as soon as it is off.
/// - `chain-view-stale`, `chain-pending` and `funding-spent` are not: a peer that spent the funding output unseen would be paid again.
/// - `limit` is not: payments belong to no channel. Limits are raised in claviger.toml.
/// - What concerns decoding, the link, or a signer that cannot answer would gain nothing.
pub const EXEMPTIBLE: &[Reason] = &[Reason::Frozen];

/// The longest exemption, in seconds.
pub const LONGEST_EXEMPTION_S: u64 = 24 * 3_600;

/// Who ordered something, when, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// Milliseconds since the Unix epoch, by the node's clock.
    pub at_ms: u64,
    /// The caller of the administration socket, e.g. `uid 0`.
    pub by: String,
    /// In the operator's words; may be empty.
    pub why: String,
}

/// An exemption and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exemption {
    /// The channel.
    pub channel: ChannelName,
    /// What does not stop it.
    pub reason: Reason,
    /// Its end, by the node's clock, which never runs backwards (P7).
    pub until_ms: u64,
    /// Who gave it.
    pub given: Given,
}

/// What an operator orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Freeze the node, or one channel.
    Freeze(Option<ChannelName>),
    /// Take that back.
    Thaw(Option<ChannelName>),
    /// Put the node in quarantine, because its state may not be the latest (P7). A thaw does not end it, nor does an exemption.
    Quarantine,
    /// End that: somebody looked, and the state is the latest.
    Restore,
    /// Exempt a channel from a reason.
    Exempt {
        /// The channel.
        channel: ChannelName,
        /// The reason.
        reason: Reason,
        /// For how long, in seconds.
        for_s: u64,
    },
}

/// Why an order is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Not in [`EXEMPTIBLE`].
    #[error("no channel is ever exempted from '{}'", .0.id())]
    NotExemptible(Reason),
    /// Nothing, or longer than a day.
    #[error("an exemption lasts 1 s to 24 h, not {0} s")]
    Duration(u64),
    /// There is nothing to take back.
    #[error("{} is not frozen by itself", .0.map_or("the node".to_owned(), |channel| format!("channel {channel}")))]
    NotFrozen(Option<ChannelName>),
    /// The node is not in quarantine.
    #[error("the node is not in quarantine")]
    NotQuarantined,
    /// The node has no such channel.
    #[error("the node has no channel {0}")]
    NoChannel(ChannelName),
    /// The node is not there, or its journal cannot be written.
    #[error("the node cannot take orders now: {0}")]
    Unavailable(String),
}

impl OrderError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotExemptible(_) => {
                "It guards against theft. A fork is closed, not exempted: see docs/doctor.md, \"Exemptions\"."
            }
            Self::Duration(_) => "Name a shorter time with --for; it can be given again.",
            Self::NotFrozen(_) => "`claviger node show` and `claviger channel list` say what is frozen.",
            Self::NotQuarantined => "Nothing to do: `claviger node show` says what stops it.",
            Self::NoChannel(_) => "`claviger channel list` shows the node's channels.",
            Self::Unavailable(_) => "It signs nothing meanwhile. Look at `claviger status`, then give the order again.",
        }
    }
}

/// What is ordered about one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    node: Option<Given>,
    quarantine: Option<Given>,
    channels: BTreeMap<ChannelName, Given>,
    exemptions: BTreeMap<(ChannelName, &'static str), Exemption>,
}

/// What `status` shows of the orders about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrdersSummary {
    /// Who froze the whole node.
    pub frozen: Option<Given>,
    /// What was noticed, if the node is in quarantine.
    pub quarantine: Option<Given>,
    /// How many channels are frozen by themselves.
    pub frozen_channels: usize,
    /// Exemptions; some may have ended since.
    pub exemptions: Vec<Exemption>,
}

impl Orders {
    /// For `status`, at `now_ms`.
    pub fn summary(&self, now_ms: u64) -> OrdersSummary {
        OrdersSummary {
            frozen: self.node.clone(),
            quarantine: self.quarantine.clone(),
            frozen_channels: self.channels.len(),
            exemptions: self.exemptions(now_ms).cloned().collect(),
        }
    }

    /// Who froze the whole node.
    pub fn frozen_node(&self) -> Option<&Given> {
        self.node.as_ref()
    }

    /// Who froze `channel` by itself.
    pub fn frozen_channel(&self, channel: &ChannelName) -> Option<&Given> {
        self.channels.get(channel)
    }

    /// The exemptions in force at `now_ms`.
    pub fn exemptions(&self, now_ms: u64) -> impl Iterator<Item = &Exemption> {
        self.exemptions.values().filter(move |exemption| exemption.until_ms > now_ms)
    }

    /// Carries out `order`, given now. Returns the entries that change; exemptions that have ended go with them.
    pub fn carry_out(&mut self, order: &Order, given: Given) -> Result<Vec<Put>, OrderError> {
        let mut puts = self.drop_ended(given.at_ms);
        match order {
            Order::Freeze(None) => {
                puts.push(entries::freeze(None, Some(&given)));
                self.node = Some(given);
            }
            Order::Freeze(Some(channel)) => {
                puts.push(entries::freeze(Some(*channel), Some(&given)));
                self.channels.insert(*channel, given);
            }
            Order::Thaw(channel) => {
                let was = match channel {
                    None => self.node.take(),
                    Some(channel) => self.channels.remove(channel),
                };
                was.ok_or(OrderError::NotFrozen(*channel))?;
                puts.push(entries::freeze(*channel, None));
            }
            Order::Quarantine => {
                puts.push(entries::quarantine(Some(&given)));
                self.quarantine = Some(given);
            }
            Order::Restore => {
                self.quarantine.take().ok_or(OrderError::NotQuarantined)?;
                puts.push(entries::quarantine(None));
            }
            Order::Exempt { channel, reason, for_s } => {
                if !EXEMPTIBLE.contains(reason) {
                    return Err(OrderError::NotExemptible(*reason));
                }
                if !(1..=LONGEST_EXEMPTION_S).contains(for_s) {
                    return Err(OrderError::Duration(*for_s));
                }
                let until_ms = given.at_ms.saturating_add(for_s * 1_000);
                let exemption = Exemption { channel: *channel, reason: *reason, until_ms, given };
                puts.push(entries::exemption(&exemption, true));
                self.exemptions.insert((*channel, reason.id()), exemption);
            }
        }
        Ok(puts)
    }

    fn drop_ended(&mut self, now_ms: u64) -> Vec<Put> {
        let ended = self.exemptions.extract_if(.., |_, exemption| exemption.until_ms <= now_ms);
        ended.map(|(_, exemption)| entries::exemption(&exemption, false)).collect()
    }

    fn is_exempt(&self, channel: &ChannelName, reason: Reason, now_ms: u64) -> bool {
        let exemption = self.exemptions.get(&(*channel, reason.id()));
        exemption.is_some_and(|exemption| exemption.until_ms > now_ms)
    }
}

impl Order {
    /// The action in the journal.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Freeze(None) => "FreezeNode",
            Self::Freeze(Some(_)) => "FreezeChannel",
            Self::Thaw(None) => "ThawNode",
            Self::Thaw(Some(_)) => "ThawChannel",
            Self::Quarantine => "QuarantineNode",
            Self::Restore => "RestoreNode",
            Self::Exempt { .. } => "ExemptChannel",
        }
    }

    /// The channel it is about.
    pub fn channel(&self) -> Option<ChannelName> {
        match self {
            Self::Freeze(channel) | Self::Thaw(channel) => *channel,
            Self::Quarantine | Self::Restore => None,
            Self::Exempt { channel, .. } => Some(*channel),
        }
    }

    /// What the journal says of it.
    pub fn facts(&self, given: &Given) -> Vec<Fact> {
        let mut facts = vec![Fact::text("ordered_by", &given.by)];
        if !given.why.is_empty() {
            facts.push(Fact::text("why", &given.why));
        }
        if let Self::Exempt { reason, for_s, .. } = self {
            facts.push(Fact::text("exempt_from", reason.id()));
            facts.push(Fact::number("lasts", *for_s, Unit::Seconds).at_most(LONGEST_EXEMPTION_S));
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::{OutPoint, Txid};

    use super::*;
    use crate::pipeline::ChannelRef;

    const CHANNEL: ChannelName = ChannelName::Numbered(ChannelRef { peer_id: [2; 33], dbid: 7 });

    fn other() -> ChannelName {
        ChannelName::Funded(OutPoint { txid: Txid::from_byte_array([3; 32]), vout: 8 })
    }

    fn given(at_ms: u64) -> Given {
        Given { at_ms, by: "uid 0".to_owned(), why: "suspected".to_owned() }
    }

    fn exempt(reason: Reason, for_s: u64) -> Order {
        Order::Exempt { channel: CHANNEL, reason, for_s }
    }

    /// The orders that the entries give back.
    fn restored(puts: impl IntoIterator<Item = Put>) -> Orders {
        let mut entries = BTreeMap::new();
        for put in puts {
            match put.value {
                Some(value) => entries.insert(put.key, value),
                None => entries.remove(&put.key),
            };
        }
        Orders::restore(&mut entries).expect("readable")
    }

    #[test]
    fn hostile_exemptions_from_any_rule_against_theft_are_refused() {
        for reason in Reason::ALL.iter().filter(|reason| !EXEMPTIBLE.contains(reason)) {
            let refused = Orders::default().carry_out(&exempt(*reason, 60), given(0));
            assert_eq!(refused.err(), Some(OrderError::NotExemptible(*reason)));
        }
        assert_eq!(EXEMPTIBLE, [Reason::Frozen], "a longer list needs its justification, here and in docs/doctor.md");
        assert!(Orders::default().carry_out(&exempt(Reason::Frozen, 60), given(0)).is_ok());
    }

    #[test]
    fn an_exemption_is_for_one_channel_and_ends() {
        let mut orders = Orders::default();
        for for_s in [0, LONGEST_EXEMPTION_S + 1] {
            let refused = orders.carry_out(&exempt(Reason::Frozen, for_s), given(0));
            assert_eq!(refused.err(), Some(OrderError::Duration(for_s)));
        }
        orders.carry_out(&exempt(Reason::Frozen, 60), given(1_000)).expect("short enough");
        assert!(orders.is_exempt(&CHANNEL, Reason::Frozen, 60_999));
        assert!(!orders.is_exempt(&CHANNEL, Reason::Frozen, 61_000));
        assert!(!orders.is_exempt(&other(), Reason::Frozen, 1_000));
        assert_eq!((orders.exemptions(60_999).count(), orders.exemptions(61_000).count()), (1, 0));
        let puts = orders.carry_out(&Order::Freeze(None), given(61_000)).expect("always");
        assert_eq!(puts.iter().filter(|put| put.value.is_none()).count(), 1, "what has ended is forgotten");
    }

    #[test]
    fn only_a_restore_ends_a_quarantine() {
        let mut orders = Orders::default();
        for order in [Order::Freeze(None), Order::Quarantine, Order::Thaw(None), exempt(Reason::Frozen, 60)] {
            orders.carry_out(&order, given(0)).expect("fits");
        }
        assert_eq!(orders.node_stopped("node").map(|refusal| refusal.reason), Some(Reason::Quarantined));
        orders.carry_out(&Order::Restore, given(0)).expect("it is in quarantine");
        assert_eq!(orders.node_stopped("node"), None);
        assert_eq!(orders.carry_out(&Order::Restore, given(0)).err(), Some(OrderError::NotQuarantined));
    }

    #[test]
    fn orders_survive_a_restart_entry_by_entry() {
        let mut orders = Orders::default();
        let given_orders = [
            Order::Freeze(None),
            Order::Quarantine,
            Order::Freeze(Some(CHANNEL)),
            Order::Freeze(Some(other())),
            exempt(Reason::Frozen, 60),
        ];
        let mut puts = Vec::new();
        for order in given_orders {
            puts.extend(orders.carry_out(&order, given(5)).expect("fits"));
        }
        assert_eq!(restored(puts.clone()), orders);
        for order in [Order::Thaw(None), Order::Thaw(Some(other()))] {
            puts.extend(orders.carry_out(&order, given(6)).expect("frozen"));
            assert!(matches!(orders.carry_out(&order, given(6)), Err(OrderError::NotFrozen(_))));
        }
        assert_eq!(restored(puts), orders);
        assert!(orders.frozen_channel(&CHANNEL).is_some());
    }
}
