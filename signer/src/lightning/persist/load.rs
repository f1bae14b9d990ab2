//! A node's entries as the journal returns them, decoded and checked before vls sees them: vls takes a missing or
//! unreadable part for a reason to panic.

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;

use bitcoin::{Network, OutPoint};
use lightning::types::payment::PaymentHash;
use lightning_signer::chain::tracker::{Headers, ListenSlot};
use lightning_signer::channel::ChannelId;
use lightning_signer::monitor::State;
use lightning_signer::node::{Allowable, PaymentState, RoutedPayment};
use lightning_signer::persist::model::ChannelEntry;
use lightning_signer::signer::derive::KeyDerivationStyle;
use serde::de::DeserializeOwned;

use super::record::{self, ChannelRecord, HeaderRecord, ListenerRecord, NodeRecord, PaymentRecord, Unreadable};
use super::table::{Changes, EntryName, Table};
use super::tables::Tables;

/// Why a node cannot be restored from its entries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Written by a newer Claviger.
    #[error(
        "entry {key} has version {version}, this build reads {}; run the newer claviger that wrote it",
        record::VERSION
    )]
    Newer {
        /// The entry.
        key: String,
        /// Its version.
        version: u8,
    },
    /// Authentic, but not what the key promises.
    #[error("entry {key} cannot be read ({detail}); check the journal with `claviger journal verify`")]
    Damaged {
        /// The entry.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Parts that belong together do not match.
    #[error("the node's entries are incomplete: {0}; check the journal with `claviger journal verify`")]
    Incomplete(String),
}

/// What vls asks for when it restores a node. Each part is handed out once.
pub(super) struct Loaded {
    pub(super) node: NodeRecord,
    pub(super) network: Network,
    pub(super) allowlist: Vec<String>,
    pub(super) invoices: Vec<(PaymentHash, PaymentState)>,
    pub(super) issued: Vec<(PaymentHash, PaymentState)>,
    pub(super) payments: Vec<(PaymentHash, RoutedPayment)>,
    pub(super) channels: Vec<(ChannelId, ChannelEntry)>,
    pub(super) tracker: LoadedTracker,
}

/// The tracker without what belongs to the services.
pub(super) struct LoadedTracker {
    pub(super) height: u32,
    pub(super) tip: Headers,
    /// Newest first.
    pub(super) headers: VecDeque<Headers>,
    pub(super) listeners: Vec<(OutPoint, State, ListenSlot)>,
}

impl Loaded {
    /// Decodes `entries`, notes each in `tables`, and checks that the parts belong together.
    ///
    /// Entries of other kinds than this room's are left alone: other rooms keep theirs with the same tenant.
    pub(super) fn decode(
        mut entries: BTreeMap<String, Vec<u8>>,
        tables: &mut Tables,
        changes: &Changes,
    ) -> Result<Self, LoadError> {
        let node: NodeRecord = only(&mut entries, &mut tables.node, changes)?;
        let tip: HeaderRecord = only(&mut entries, &mut tables.tracker, changes)?;
        let allowlist: Vec<String> = only(&mut entries, &mut tables.allowlist, changes)?;
        let invoices = all(&mut entries, &mut tables.invoices, changes)?;
        let issued = all(&mut entries, &mut tables.issued, changes)?;
        let payments: Vec<(PaymentHash, PaymentRecord)> = all(&mut entries, &mut tables.payments, changes)?;
        let channels: Vec<(ChannelId, ChannelRecord)> = all(&mut entries, &mut tables.channels, changes)?;
        let headers: Vec<(u32, HeaderRecord)> = all(&mut entries, &mut tables.headers, changes)?;
        let listeners: Vec<(OutPoint, ListenerRecord)> = all(&mut entries, &mut tables.listeners, changes)?;

        let network = network(&node)?;
        check_allowlist(&allowlist, network)?;
        let payments: Vec<_> = payments.into_iter().map(|(hash, payment)| (hash, payment.into())).collect();
        check_payments(&invoices, &payments)?;
        let listeners = restore_listeners(listeners, &channels, tip.height)?;
        Ok(Self {
            network,
            allowlist,
            invoices,
            issued,
            payments,
            tracker: LoadedTracker {
                height: tip.height,
                tip: tip.headers().map_err(|e| e.of("tracker"))?,
                headers: before(tip.height, headers)?,
                listeners,
            },
            channels: channels.into_iter().map(|(id, channel)| (id, channel.entry)).collect(),
            node,
        })
    }
}

fn network(node: &NodeRecord) -> Result<Network, LoadError> {
    KeyDerivationStyle::try_from(node.identity.key_derivation_style)
        .map_err(|()| Unreadable::Damaged("unknown key derivation style".to_owned()).of("node"))?;
    Network::from_str(&node.identity.network).map_err(|e| Unreadable::Damaged(e.to_string()).of("node"))
}

fn check_allowlist(allowlist: &[String], network: Network) -> Result<(), LoadError> {
    for entry in allowlist {
        Allowable::from_str(entry, network).map_err(|e| Unreadable::Damaged(e).of("allowlist"))?;
    }
    Ok(())
}

/// vls keeps a payment for every invoice, and relies on it when it prunes.
fn check_payments(
    invoices: &[(PaymentHash, PaymentState)],
    payments: &[(PaymentHash, RoutedPayment)],
) -> Result<(), LoadError> {
    // Both come sorted by hash.
    match invoices.iter().find(|(hash, _)| payments.binary_search_by_key(hash, |(hash, _)| *hash).is_err()) {
        Some((hash, _)) => Err(LoadError::Incomplete(format!("invoice {} has no payment", hash.to_name()))),
        None => Ok(()),
    }
}

/// Pairs each ready channel with its listener: vls panics if either is missing.
fn restore_listeners(
    listeners: Vec<(OutPoint, ListenerRecord)>,
    channels: &[(ChannelId, ChannelRecord)],
    height: u32,
) -> Result<Vec<(OutPoint, State, ListenSlot)>, LoadError> {
    let mut listeners: BTreeMap<OutPoint, ListenerRecord> = listeners.into_iter().collect();
    let mut restored = Vec::with_capacity(listeners.len());
    for (id, channel) in channels {
        let Some(setup) = &channel.entry.channel_setup else { continue };
        let outpoint = setup.funding_outpoint;
        let listener = listeners
            .remove(&outpoint)
            .ok_or_else(|| LoadError::Incomplete(format!("channel {id} has no listener for {outpoint}")))?;
        let (state, slot) =
            listener.restore(height, channel.forgotten).map_err(|e| e.of(&format!("listener/{outpoint}")))?;
        restored.push((outpoint, state, slot));
    }
    match listeners.into_keys().next() {
        Some(outpoint) => Err(LoadError::Incomplete(format!("listener {outpoint} has no channel"))),
        None => Ok(restored),
    }
}

/// The remembered headers, newest first and without a gap below the tip.
fn before(tip_height: u32, headers: Vec<(u32, HeaderRecord)>) -> Result<VecDeque<Headers>, LoadError> {
    let mut restored = VecDeque::with_capacity(headers.len());
    let mut above = tip_height;
    for (height, record) in headers.into_iter().rev() {
        if above.checked_sub(1) != Some(height) || record.height != height {
            return Err(LoadError::Incomplete(format!("the header below height {above} is missing")));
        }
        restored.push_back(record.headers().map_err(|e| e.of(&format!("header/{}", height.to_name())))?);
        above = height;
    }
    Ok(restored)
}

fn only<T: DeserializeOwned>(
    entries: &mut BTreeMap<String, Vec<u8>>,
    table: &mut Table<()>,
    changes: &Changes,
) -> Result<T, LoadError> {
    let missing = LoadError::Incomplete(format!("entry {} is missing", table.kind()));
    all(entries, table, changes)?.pop().map(|((), record)| record).ok_or(missing)
}

/// Takes the entries of `table`'s kind out of `entries`, sorted by key.
fn all<K: EntryName, T: DeserializeOwned>(
    entries: &mut BTreeMap<String, Vec<u8>>,
    table: &mut Table<K>,
    changes: &Changes,
) -> Result<Vec<(K, T)>, LoadError> {
    let mut records = Vec::new();
    for (name, value) in table.extract(entries) {
        let key = table.key(&name).ok_or_else(|| Unreadable::Damaged("unknown key".to_owned()).of(&name))?;
        records.push((key.clone(), record::decode(&value).map_err(|e| e.of(&name))?));
        table.remember(key, &value, changes);
    }
    records.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(records)
}

impl Unreadable {
    fn of(self, key: &str) -> LoadError {
        let key = key.to_owned();
        match self {
            Unreadable::Version(version) => LoadError::Newer { key, version },
            Unreadable::Damaged(detail) => LoadError::Damaged { key, detail },
        }
    }
}
