//! Building a node's state machine from its journal entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::secp256k1::{PublicKey, Secp256k1};
use lightning_signer::lightning::sign::{NodeSigner, Recipient};
use lightning_signer::node::{Node, NodeServices};
use lightning_signer::persist::Persist;
use lightning_signer::signer::derive::KeyDerivationStyle;
use lightning_signer::signer::my_keys_manager::MyKeysManager;

use super::super::actor::ChainFacts;
use super::super::answers::Answers;
use super::super::bookkeeper::Bookkeeper;
use super::super::clock::{NodeClock, RandomStart};
use super::super::counter::Counter;
use super::super::guard::{Guard, GuardEntries};
use super::super::issued::{Archive, Issued};
use super::super::limits::{self, Limits};
use super::super::orders::Orders;
use super::super::persist::{ChainStart, NodePersister, genesis};
use super::super::standing::Claims;
use super::super::validator::outputs::Outputs;
use super::super::validator::{HouseValidatorFactory, RefusedBy, View, policy};
use super::super::{lightspark, lnd};
use super::negotiation::negotiate;
use super::{Engine, NodeSpec, Settings};
use crate::journal::Put;
use crate::keys::memory::scrubbed;
use crate::names::NodeKind;

/// Why a node cannot be built from its entries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// An entry is newer, damaged or missing.
    #[error("{0}")]
    Entries(String),
    /// The entries belong to another seed, network or way of derivation.
    #[error("the node's journal entries are of another node: {0}")]
    OtherNode(&'static str),
    /// vls refused them.
    #[error("the node's state cannot be restored: {0}")]
    Refused(String),
}

/// The entries of a node that has not run yet, following the chain from `start`.
pub fn first_entries(spec: &NodeSpec, start: ChainStart) -> Result<Vec<Put>, RestoreError> {
    genesis(spec.network, spec.derivation.into(), node_id(spec), start)
        .map_err(|error| RestoreError::Entries(error.to_string()))
}

/// The node's public key, derived from its seed.
pub fn node_id(spec: &NodeSpec) -> PublicKey {
    match spec.kind {
        NodeKind::Lnd => return lnd::node_id(spec),
        NodeKind::Lightspark => return lightspark::node_id(spec),
        NodeKind::Ldk | NodeKind::Cln => {}
    }
    scrubbed(|| {
        let keys =
            spec.seed.expose(|seed| MyKeysManager::new(spec.derivation.into(), seed, spec.network, &RandomStart));
        keys.get_node_id(Recipient::Node).expect("a node has the key of its own id")
    })
}

impl Engine {
    /// Builds the node from all live entries of its tenant but the cold ones, which `archive` looks up. `chain` tells how
    /// far its view of the chain can be trusted, and `clock` no earlier time than the entries know of (P7).
    pub fn restore(
        spec: &NodeSpec,
        settings: &Settings,
        chain: Arc<dyn ChainFacts>,
        clock: Arc<NodeClock>,
        archive: Arc<dyn Archive>,
        mut entries: BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, RestoreError> {
        let unreadable = |error: &dyn std::fmt::Display| RestoreError::Entries(error.to_string());
        settings.desk.load(&spec.name, &mut entries, clock.now_ms()).map_err(|e| unreadable(&e))?;
        let counter = Counter::new(settings.desk.clone(), spec.name.clone(), spec.network, clock.clone());
        let counter = Arc::new(counter);
        let answers = Answers::restore(&mut entries).map_err(|e| unreadable(&e))?;
        let outputs = Arc::new(Outputs::restore(&mut entries).map_err(|e| unreadable(&e))?);
        let orders = Orders::restore(&mut entries).map_err(|e| unreadable(&e))?;
        let guard_entries = GuardEntries::take(&mut entries).map_err(|e| unreadable(&e))?;
        let spent = entries.remove(limits::KEY);
        let limits = Limits::restore(settings.limits.clone(), clock.clone(), spent.as_deref());
        let limits = Arc::new(limits.map_err(|e| unreadable(&e))?);
        let policy = policy(spec.network, &settings.limits);
        let bookkeeper = Bookkeeper::restore(spec.kind, spec.network, &policy, clock.clone(), &mut entries);
        let bookkeeper = Arc::new(bookkeeper.map_err(|e| unreadable(&e))?);
        let persister = Arc::new(NodePersister::load(entries).map_err(|e| unreadable(&e))?);
        clock.raise(persister.latest_time_s().saturating_mul(1_000));

        let refused_by = RefusedBy::default();
        let view = View {
            chain: chain.clone(),
            node: spec.name.clone(),
            funding_depth: settings.funding_depth,
            max_fee_sat: settings.limits.max_onchain_fee_sat,
            limits: limits.clone(),
            outputs: outputs.clone(),
            shutdown_index: Arc::default(),
            bookkeeper: bookkeeper.clone(),
            counter: counter.clone(),
        };
        let shutdown_index = view.shutdown_index.clone();
        let validators = HouseValidatorFactory::new(spec.network, &settings.limits, view, refused_by.clone());
        let services = NodeServices {
            validator_factory: Arc::new(validators),
            starting_time_factory: Arc::new(RandomStart),
            persister: persister.clone(),
            clock: clock.clone(),
            trusted_oracle_pubkeys: vec![settings.oracle],
        };
        let node = restore_node(spec, &persister, services)?;
        persister.after_restore(&node);
        let allowed = node.set_allowlist(&settings.limits.allow);
        allowed.map_err(|status| RestoreError::Refused(format!("limits.allow: {}", status.message())))?;
        let (root, init_reply) = negotiate(&node, limits.clone())?;
        let guard = Guard::new(spec.kind, node.clone(), guard_entries);
        let (claims, secp) = (Claims::default(), Secp256k1::new());
        Ok(Self {
            node,
            root,
            guard,
            init_reply,
            persister,
            limits,
            bookkeeper,
            counter,
            untold: Vec::new(),
            refused_by,
            answers,
            issued: Issued::new(archive),
            outputs,
            chain,
            name: spec.name.clone(),
            funding_depth: settings.funding_depth,
            shutdown_index,
            clock,
            orders,
            claims,
            secp,
        })
    }
}

fn restore_node(spec: &NodeSpec, persister: &NodePersister, services: NodeServices) -> Result<Arc<Node>, RestoreError> {
    let nodes = persister.get_nodes().map_err(|error| RestoreError::Entries(format!("{error:?}")))?;
    let Some((id, entry)) = nodes.into_iter().next() else {
        return Err(RestoreError::Entries("there is no node entry".to_owned()));
    };
    // vls compares these too, with a panic.
    if id != node_id(spec) {
        return Err(RestoreError::OtherNode("the seed does not match"));
    }
    if entry.network != spec.network.to_string() {
        return Err(RestoreError::OtherNode("the network does not match"));
    }
    if entry.key_derivation_style != KeyDerivationStyle::from(spec.derivation) as u8 {
        return Err(RestoreError::OtherNode("the way of derivation does not match"));
    }
    let restored = scrubbed(|| spec.seed.expose(|seed| Node::restore_node(&id, entry, seed, services)));
    restored.map_err(|status| RestoreError::Refused(status.message().to_owned()))
}

#[cfg(test)]
mod tests {
    use bitcoin::Network;
    use zeroize::Zeroizing;

    use super::super::super::driver::{MiniChain, invoice_to_sign, keysend};
    use super::super::super::guard;
    use super::*;
    use crate::config::LimitsConfig;
    use crate::journal::COLD;
    use crate::keys::import::Derivation;
    use crate::keys::memory::Secret;
    use crate::names::NodeName;
    use crate::pipeline::Request;
    use crate::reasons::{Reason, Refusal};

    fn spec(byte: u8) -> NodeSpec {
        NodeSpec {
            name: NodeName::new("alice").expect("a name"),
            kind: NodeKind::Ldk,
            network: Network::Regtest,
            seed: Secret::new(Zeroizing::new([byte; 32])),
            derivation: Derivation::Native,
            chain_code: None,
            operations_key: None,
        }
    }

    /// An archive that holds these entries.
    impl Archive for Entries {
        fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
            Ok(BTreeMap::get(self, key).cloned())
        }
    }

    type Entries = BTreeMap<String, Vec<u8>>;

    fn entries() -> Entries {
        let start = MiniChain::default().start().expect("known");
        let puts = first_entries(&spec(1), start).expect("encodes");
        puts.into_iter().filter_map(|put| Some((put.key, put.value?))).collect()
    }

    fn restore_at(spec: &NodeSpec, clock: Arc<NodeClock>, entries: Entries) -> Result<Engine, RestoreError> {
        let settings =
            Settings { limits: LimitsConfig::default(), funding_depth: 1, oracle: node_id(spec), desk: Arc::default() };
        let archive = Arc::new(entries.clone());
        let hot = entries.into_iter().filter(|(key, _)| !key.starts_with(COLD)).collect();
        Engine::restore(spec, &settings, Arc::new(MiniChain::default()), clock, archive, hot)
    }

    fn restore(spec: &NodeSpec) -> Result<Engine, RestoreError> {
        restore_at(spec, Arc::default(), entries())
    }

    /// Approves a payment of nothing; returns what changed.
    fn approve(engine: &mut Engine, n: u64) -> Vec<Put> {
        let message = keysend(n, 0);
        let row = guard::row(NodeKind::Ldk, &message).expect("known");
        let handled = engine.handle(row, &Request { request_id: n, channel: None, message });
        handled.reply.expect("approved");
        handled.puts
    }

    #[test]
    fn the_clock_goes_on_from_the_latest_time_that_was_used() {
        let (mut entries, ahead) = (entries(), Arc::new(NodeClock::default()));
        ahead.raise(ahead.now_ms() + 36_000_000);
        let mut engine = restore_at(&spec(1), ahead.clone(), entries.clone()).expect("restores");
        for put in approve(&mut engine, 1) {
            entries.insert(put.key, put.value.expect("nothing is deleted"));
        }
        let set_back = Arc::new(NodeClock::default());
        let mut engine = restore_at(&spec(1), set_back.clone(), entries).expect("restores");
        let slice_ms = 300_000; // vls counts in slices
        assert!(set_back.now_ms() > ahead.now_ms() - slice_ms);
        approve(&mut engine, 2);
    }

    fn record(entries: &mut Entries, puts: Vec<Put>) {
        for Put { key, value } in puts {
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
    }

    /// What is open takes memory; what expired a day ago takes an entry on the disk, and keeps its hash for ever.
    #[test]
    fn expired_invoices_are_pruned_and_their_hashes_are_refused_to_hostile_others_for_ever() {
        let (mut entries, clock) = (entries(), Arc::new(NodeClock::default()));
        let mut engine = restore_at(&spec(1), clock.clone(), entries.clone()).expect("restores");
        let ask = |engine: &mut Engine, message: Vec<u8>| {
            let row = guard::row(NodeKind::Ldk, &message).expect("known");
            engine.handle(row, &Request { request_id: 1, channel: None, message })
        };
        let first = invoice_to_sign(1, 1_000); // for a day
        let signed = ask(&mut engine, first.clone());
        let reply = signed.reply.expect("signed");
        record(&mut entries, signed.puts);
        let open = |entries: &Entries| entries.keys().filter(|key| key.starts_with("issued/")).count();
        assert_eq!(open(&entries), 1);
        clock.raise(clock.now_ms() + 1_000 * 86_400 * 2 + 60_000);
        record(&mut entries, engine.prune().expect("prunes"));
        assert_eq!(open(&entries), 0);
        let mut restarted = restore_at(&spec(1), clock, entries).expect("restores");
        for engine in [&mut engine, &mut restarted] {
            let other = ask(engine, invoice_to_sign(1, 2_000)).reply;
            assert_eq!(other.map_err(|refusal| refusal.reason), Err(Reason::InvoiceReused));
            assert_eq!(ask(engine, first.clone()).reply, Ok(reply.clone()));
            assert!(ask(engine, invoice_to_sign(2, 2_000)).reply.is_ok());
        }
    }

    #[test]
    fn entries_of_another_seed_or_network_are_refused_by_name() {
        assert!(restore(&spec(1)).is_ok());
        assert_eq!(restore(&spec(2)).err(), Some(RestoreError::OtherNode("the seed does not match")));
        let other = NodeSpec { network: Network::Signet, ..spec(1) };
        assert_eq!(restore(&other).err(), Some(RestoreError::OtherNode("the network does not match")));
    }

    #[test]
    fn dropping_the_engine_drops_the_node_and_its_keys() {
        let engine = restore(&spec(1)).expect("restores");
        let node = Arc::downgrade(engine.node());
        drop(engine);
        assert_eq!(node.strong_count(), 0);
    }
}
