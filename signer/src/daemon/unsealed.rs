//! What exists only while the signer is unsealed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, SystemTime};

use bitcoin::secp256k1::SecretKey;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::checkpoints::Signer;
use super::lightspark::{forget_letters, load_account, load_operations_key, send_letters};
use super::operators::Lines;
use super::policy::{Failed, now_ms};
use super::rollback::{Anchored, Keeper};
use super::rotation::Rotation;
use super::{Daemon, lock};
use crate::admin::api::{AdminFailure, FailureKind};
use crate::admin::ca::{Ca, CaError};
use crate::admin::fingerprint::Fingerprint;
use crate::admin::record::NodeRecord;
use crate::admin::registry::Registry;
use crate::chain::{Attestor, Auth, BitcoindSource, ChainSource, ChainView, Follower, FollowerOptions};
use crate::config::{ChainConfig, Config, NO_PRESET};
use crate::gateway::lightspark::{Accounts, Api, Courier, Endpoint, LightsparkServer};
use crate::gateway::link::{LinkOptions, LinkServer, ServerIdentity};
use crate::gateway::lnd::{LndServer, Mint};
use crate::journal::store::{LoggedStore, Store};
use crate::journal::{Commit, CommitError, Decision, HOUSE, Journal, JournalError, Options, Put};
use crate::keys::cipher::RecordCipher;
use crate::keys::data_key::DataKey;
use crate::keys::import::Derivation;
use crate::keys::memory::Secret;
use crate::keys::purpose::{Purpose, subkey};
use crate::keys::rsa::RsaKey;
use crate::lightning::actor::House;
use crate::lightning::engine::{NodeSpec, Settings};
use crate::lightning::nodes::Nodes;
use crate::names::NodeName;
use crate::policy::Desk;
use crate::reasons::{Reason, Refusal};

/// The open signer. `stop` it before dropping it.
pub struct Unsealed {
    pub(super) journal: Arc<Journal>,
    /// Seals node seeds and the CA's key inside their records.
    pub(super) vault: Arc<RecordCipher>,
    /// Seals backups. Held while one is made: it is of one data key.
    pub(super) backup: RwLock<RecordCipher>,
    pub(super) ca: Arc<Ca>,
    pub(super) identity: Arc<ServerIdentity>,
    pub(super) registry: Arc<Registry>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) view: Arc<ChainView>,
    /// The spending policy.
    pub(super) desk: Arc<Desk>,
    /// Names what operators change of it.
    pub(super) lines: Lines,
    pub(super) network: bitcoin::Network,
    pub(super) advertised: String,
    /// What lnd nodes dial, if there is a door for them.
    pub(super) lnd_advertised: Option<String>,
    /// Mints their macaroons.
    pub(super) mint: Arc<Mint>,
    /// The secrets of Lightspark's webhooks.
    pub(super) accounts: Arc<Accounts>,
    /// Held while a node is added, changed or removed; true once the signer closes.
    closing: Arc<Mutex<bool>>,
    /// Seals everything with the current data key, while it is rotated.
    pub(super) rotation: Mutex<Option<Rotation>>,
    follower: Mutex<Option<Follower>>,
    link: Mutex<Option<LinkServer>>,
    lnd: Mutex<Option<LndServer>>,
    lightspark: Mutex<Option<LightsparkServer>>,
    courier: Mutex<Option<Arc<Courier>>>,
    keeper: Mutex<Option<Keeper>>,
}

const CA_KEY: &str = "ca/key";
const CA_CERTIFICATE: &str = "ca/certificate";

impl Unsealed {
    /// Opens everything in the data directory of `daemon` that `data_key` protects, and begins to serve.
    pub(super) fn open(daemon: &Daemon, data_key: &DataKey) -> Result<Self, AdminFailure> {
        let Daemon { dir, config, runtime, lnd_socket, devices, .. } = daemon;
        let store: Arc<dyn Store> = Arc::new(
            LoggedStore::open(&dir.journal(), LoggedStore::DEFAULT_CACHE)
                .map_err(|error| journal_failure(error.into()))?,
        );
        let cipher = data_key.cipher(Purpose::Records);
        let journal = Arc::new(Journal::open(store, cipher, Options::default()).map_err(journal_failure)?);
        let vault = Arc::new(data_key.cipher(Purpose::Seeds));
        let records = load_records(&journal)?;
        let lines = Lines::new();
        let signer = Signer::open(&config.checkpoints, devices.as_ref(), &journal, &vault)?;
        let anchored = Anchored::open(dir, config, devices.as_ref(), &journal, signer, &records, &lines)?; // before any node runs
        let ca = Arc::new(load_ca(&journal, &vault, records.is_empty())?);

        let source: Arc<dyn ChainSource> = Arc::new(chain_source(&config.chain, config.network)?);
        let stale_after = Duration::from_secs(config.chain.stale_after_s);
        let view = Arc::new(ChainView::new(config.chain.url.clone(), stale_after));
        let attestor = load_key(&journal, &vault, data_key, Purpose::ChainOracle)?;
        let attestor = attestor.expose(|key| SecretKey::from_slice(key)).map_err(|_| {
            AdminFailure::new(
                FailureKind::Fault,
                "the chain oracle's key is no scalar",
                "Report this: it cannot happen.",
            )
        })?;
        let attestor = Arc::new(Attestor::new(&attestor));
        let desk = open_desk(&journal, &ca, config)?;
        let settings = Settings {
            limits: config.limits.clone(),
            funding_depth: config.chain.funding_depth,
            oracle: attestor.public_key(),
            desk: desk.clone(),
        };
        let house = House { journal: journal.clone(), chain: view.clone(), attestor, settings };
        let nodes = Nodes::start(house, &config.signer).map_err(|error| fault("start the signing threads", &error))?;
        let (nodes, accounts) = (Arc::new(nodes), Arc::new(Accounts::default()));
        let courier = start_courier(config, &journal, &accounts, runtime)?;
        for record in &records {
            if let Some(account) = load_account(&journal, &vault, record)? {
                accounts.put(record.name.clone(), account);
                send_letters(&journal, &courier, &record.name)?;
            }
            let spec = load_spec(&journal, &vault, record)?;
            nodes.add(spec).map_err(|error| fault("start a node", &error))?;
        }
        let options = FollowerOptions { poll_interval: config.poll_interval(), start_depth: config.chain.start_depth };
        let follower = Follower::start(source, nodes.clone(), view.clone(), options);
        let follower = follower.map_err(|error| fault("start to follow the chain", &error))?;

        let keeper = anchored.keep(Duration::from_secs(config.rollback.every_s), nodes.clone());
        let keeper = keeper.map_err(|error| fault("start to anchor the journal", &error))?;

        let registry = Arc::new(Registry::new(records));
        let mut names = config.link.names.clone();
        names.extend(host_of(&config.advertised()));
        names.extend(config.lnd_advertised().as_deref().and_then(host_of));
        let identity =
            ServerIdentity::new(ca.clone(), names).map_err(|e| AdminFailure::new(FailureKind::Fault, &e, e.hint()))?;
        let identity = Arc::new(identity);
        let link = start_link(config, identity.clone(), registry.clone(), nodes.clone(), runtime)?;
        let mint = Arc::new(Mint::new(load_key(&journal, &vault, data_key, Purpose::Macaroons)?));
        let lnd = config.lnd.listen.map(|address| {
            runtime
                .block_on(async {
                    let listener = match lnd_socket.as_ref() {
                        Some(socket) => shared(socket),
                        None => TcpListener::bind(address).await,
                    };
                    let listener = listener.map_err(|error| error.to_string())?;
                    LndServer::start(listener, identity.clone(), mint.clone(), registry.clone(), nodes.clone())
                        .map_err(|error| error.to_string())
                })
                .map_err(|error| cannot_listen(address, "lnd.listen", &error))
        });
        let lnd = lnd.transpose()?;
        let lightspark = config.lightspark.listen.map(|address| {
            runtime
                .block_on(async {
                    let listener = TcpListener::bind(address).await.map_err(|error| error.to_string())?;
                    LightsparkServer::start(
                        listener,
                        identity.clone(),
                        accounts.clone(),
                        nodes.clone(),
                        courier.clone(),
                    )
                    .map_err(|error| error.to_string())
                })
                .map_err(|error| cannot_listen(address, "lightspark.listen", &error))
        });
        let lightspark = lightspark.transpose()?;
        let unsealed = Self {
            journal,
            vault,
            backup: RwLock::new(data_key.cipher(Purpose::Backup)),
            ca,
            identity,
            registry,
            nodes,
            view,
            desk,
            lines,
            network: config.network,
            advertised: config.advertised(),
            lnd_advertised: config.lnd_advertised(),
            mint,
            accounts,
            closing: Arc::default(),
            rotation: Mutex::default(),
            follower: Mutex::new(Some(follower)),
            link: Mutex::new(Some(link)),
            lnd: Mutex::new(lnd),
            lightspark: Mutex::new(lightspark),
            courier: Mutex::new(Some(courier)),
            keeper: Mutex::new(Some(keeper)),
        };
        if data_key.previous().is_some() {
            unsealed.begin_rotation(dir)?;
        }
        Ok(unsealed)
    }

    /// Ends links, telling nodes why, then all nodes and their keys, then the chain follower, which may be waiting for a
    /// backend that does not answer.
    pub(super) fn stop(&self, why: Reason, runtime: &Handle) {
        *lock(&self.closing) = true;
        drop(lock(&self.rotation).take());
        drop(lock(&self.lnd).take());
        drop(lock(&self.lightspark).take());
        drop(lock(&self.courier).take());
        if let Some(link) = lock(&self.link).take() {
            runtime.block_on(link.shutdown(Refusal::new(why, "")));
        }
        self.nodes.shutdown();
        drop(lock(&self.keeper).take());
        drop(lock(&self.follower).take());
    }

    /// Leave to change the set of nodes or a node's record, for as long as the guard lives: one call at a time reads,
    /// changes and writes back, and none begins once the signer closes.
    pub(super) fn change(&self) -> Result<MutexGuard<'_, bool>, AdminFailure> {
        let closing = lock(&self.closing);
        if *closing { Err(AdminFailure::sealed()) } else { Ok(closing) }
    }

    /// What [`Unsealed::change`] locks, for a thread that outlives the call.
    pub(super) fn changing(&self) -> Arc<Mutex<bool>> {
        Arc::clone(&self.closing)
    }

    /// Where nodes connect and who is connected.
    pub(super) fn with_link<R>(&self, f: impl FnOnce(&LinkServer) -> R) -> Option<R> {
        lock(&self.link).as_ref().map(f)
    }

    /// Where webhooks arrive, if there is a door for them.
    pub(super) fn lightspark_address(&self) -> Option<SocketAddr> {
        lock(&self.lightspark).as_ref().map(LightsparkServer::address)
    }

    /// Who tells Lightspark, until the signer closes.
    pub(super) fn courier(&self) -> Option<Arc<Courier>> {
        lock(&self.courier).clone()
    }

    /// Looks at the chain at once.
    pub(super) fn wake_follower(&self) {
        if let Some(follower) = lock(&self.follower).as_ref() {
            follower.wake();
        }
    }

    /// Records `puts` of the house and waits until they are durable (P1).
    pub(super) fn record(&self, puts: Vec<Put>) -> Result<(), AdminFailure> {
        record(&self.journal, puts, None)
    }

    /// The same, with a line of the log.
    pub(super) fn record_as(&self, decision: Decision, puts: Vec<Put>) -> Result<(), AdminFailure> {
        record(&self.journal, puts, Some(decision))
    }
}

/// The engine's view of a registered node.
pub(super) fn node_spec(
    record: &NodeRecord,
    seed: Secret<32>,
    chain_code: Option<Secret<32>>,
    operations_key: Option<RsaKey>,
) -> NodeSpec {
    let derivation = if record.derivation == "ldk" { Derivation::Ldk } else { Derivation::Native };
    let NodeRecord { name, kind, network, .. } = record;
    let (name, operations_key) = (name.clone(), operations_key.map(Arc::new));
    NodeSpec { name, kind: *kind, network: *network, seed, derivation, chain_code, operations_key }
}

/// The journal key of a node's record.
pub(super) fn record_key(name: &NodeName) -> String {
    format!("node/{name}")
}

/// The journal key of a node's sealed seed, which is also what the seal is bound to.
pub(super) fn seed_key(name: &NodeName) -> String {
    format!("seed/{name}")
}

/// The journal key of the sealed chain code of a node whose seed is a BIP 32 master key.
pub(super) fn chain_code_key(name: &NodeName) -> String {
    format!("chain-code/{name}")
}

fn start_link(
    config: &Config,
    identity: Arc<ServerIdentity>,
    registry: Arc<Registry>,
    nodes: Arc<Nodes>,
    runtime: &Handle,
) -> Result<LinkServer, AdminFailure> {
    let address = config.link.listen;
    let started = runtime.block_on(async {
        let listener = TcpListener::bind(address).await.map_err(|error| error.to_string())?;
        let options = LinkOptions { bytes_per_s: config.link.bytes_per_s, ..LinkOptions::new(config.network) };
        LinkServer::start(listener, identity, registry, nodes, options).map_err(|error| error.to_string())
    });
    started.map_err(|error| cannot_listen(address, "link.listen", &error))
}

fn start_courier(
    config: &Config,
    journal: &Arc<Journal>,
    accounts: &Arc<Accounts>,
    runtime: &Handle,
) -> Result<Arc<Courier>, AdminFailure> {
    let endpoint = Endpoint::parse(&config.lightspark.api).ok_or_else(|| {
        AdminFailure::new(FailureKind::Invalid, "lightspark.api is no URL", "Set it in claviger.toml and restart.")
    })?;
    let api = Api::new(endpoint, config.lightspark.api_ca_file.clone());
    let _within = runtime.enter();
    Ok(Arc::new(Courier::start(api, accounts.clone(), forget_letters(Arc::downgrade(journal)))))
}

fn cannot_listen(address: SocketAddr, key: &str, error: &str) -> AdminFailure {
    let hint = format!("Free the address and unseal again, or change {key} in claviger.toml and restart.");
    AdminFailure::new(FailureKind::Fault, format!("cannot listen on {address}: {error}"), hint)
}

fn chain_source(config: &ChainConfig, network: bitcoin::Network) -> Result<BitcoindSource, AdminFailure> {
    let auth = match (&config.cookie_file, &config.user, &config.password_file) {
        (Some(path), None, None) => Auth::Cookie(path.clone()),
        (None, Some(user), Some(path)) => Auth::UserPassword { user: user.clone(), password_file: path.clone() },
        _ => {
            let hint = "Set chain.cookie_file, or chain.user with chain.password_file, in claviger.toml and restart.";
            return Err(AdminFailure::new(FailureKind::Invalid, "the chain backend has no credentials", hint));
        }
    };
    BitcoindSource::new(&config.url, auth, network).map_err(|e| AdminFailure::new(FailureKind::Invalid, &e, e.hint()))
}

/// The key for `purpose` that outlives the data key: at first derived from it, then kept as it was.
fn load_key(
    journal: &Journal,
    vault: &RecordCipher,
    data_key: &DataKey,
    purpose: Purpose,
) -> Result<Secret<32>, AdminFailure> {
    let name = format!("key/{}", purpose.name());
    if let Some(sealed) = journal.get(HOUSE, &name).map_err(journal_failure)? {
        return vault.open_secret(name.as_bytes(), &sealed).map_err(|error| damaged(&name, &error));
    }
    let key = subkey(data_key.previous().unwrap_or(data_key.current()), purpose);
    record(journal, vec![put(&*name, key.expose(|key| vault.seal(name.as_bytes(), key)))], None)?;
    Ok(key)
}

/// The CA, made at the first unseal, when there is no node yet.
fn load_ca(journal: &Journal, vault: &RecordCipher, is_new: bool) -> Result<Ca, AdminFailure> {
    let failure = |error: CaError| AdminFailure::new(FailureKind::Damaged, &error, error.hint());
    let get = |key| journal.get(HOUSE, key).map_err(journal_failure);
    let (sealed, certificate) = match (get(CA_KEY)?, get(CA_CERTIFICATE)?) {
        (Some(sealed), Some(certificate)) => (sealed, certificate),
        (None, None) if is_new => {
            let ca = Ca::create(SystemTime::now()).map_err(failure)?;
            let sealed = vault.seal(CA_KEY.as_bytes(), &ca.key_der());
            record(
                journal,
                vec![put(CA_KEY, sealed), put(CA_CERTIFICATE, ca.certificate_pem().as_bytes().to_vec())],
                None,
            )?;
            return Ok(ca);
        }
        // Another one would shut out every node without a word.
        _ => return Err(damaged("the CA", &"its key or its certificate is missing")),
    };
    let key = vault.open(CA_KEY.as_bytes(), &sealed).map_err(|error| damaged("the CA's key", &error))?;
    let key = Zeroizing::new(key);
    let certificate = String::from_utf8(certificate).map_err(|error| damaged("the CA's certificate", &error))?;
    Ca::load(&key, &certificate).map_err(failure)
}

/// The spending policy that the house's entries name, or the one to begin with. One that cannot be read stops everything:
/// nothing is signed (P4).
fn open_desk(journal: &Journal, ca: &Ca, config: &Config) -> Result<Arc<Desk>, AdminFailure> {
    let entries = journal.load(HOUSE).map_err(journal_failure)?;
    let desk = Desk::new(&Fingerprint::of(ca.certificate_der()).to_string());
    let now_ms = now_ms();
    desk.open(&entries, config.network, now_ms).map_err(|error| damaged("the policy in force", &error))?;
    let preset = Some(config.policy.preset.as_str()).filter(|preset| *preset != NO_PRESET);
    let record = |puts| record(journal, puts, None).map_err(Failed::Record);
    desk.begin(preset, config.network, now_ms, record).map_err(Failed::failure)?;
    Ok(Arc::new(desk))
}

fn load_records(journal: &Journal) -> Result<Vec<NodeRecord>, AdminFailure> {
    let entries = journal.load(HOUSE).map_err(journal_failure)?;
    let records = entries.iter().filter(|(key, _)| key.starts_with("node/"));
    let parse = |(_, bytes): (&String, &Vec<u8>)| {
        NodeRecord::from_bytes(bytes).map_err(|error| AdminFailure::new(FailureKind::Damaged, &error, error.hint()))
    };
    records.map(parse).collect()
}

pub(super) fn load_seed(journal: &Journal, vault: &RecordCipher, name: &NodeName) -> Result<Secret<32>, AdminFailure> {
    load_secret(journal, vault, name, seed_key(name), "seed")
}

fn load_secret(
    journal: &Journal,
    vault: &RecordCipher,
    name: &NodeName,
    key: String,
    what: &str,
) -> Result<Secret<32>, AdminFailure> {
    let sealed = journal.get(HOUSE, &key).map_err(journal_failure)?;
    let sealed = sealed.ok_or_else(|| damaged(&format!("node {name}"), &format!("its {what} is missing")))?;
    vault.open_secret(key.as_bytes(), &sealed).map_err(|error| damaged(&format!("the {what} of node {name}"), &error))
}

/// A registered node with its keys.
pub(super) fn load_spec(
    journal: &Journal,
    vault: &RecordCipher,
    record: &NodeRecord,
) -> Result<NodeSpec, AdminFailure> {
    let seed = load_seed(journal, vault, &record.name)?;
    let chain_code = match record.kind {
        kind if kind.has_chain_code() => {
            Some(load_secret(journal, vault, &record.name, chain_code_key(&record.name), "chain code")?)
        }
        _ => None,
    };
    let operations_key = load_operations_key(journal, vault, record)?;
    Ok(node_spec(record, seed, chain_code, operations_key))
}

pub(super) fn record(journal: &Journal, puts: Vec<Put>, decision: Option<Decision>) -> Result<(), AdminFailure> {
    let commit = Commit { tenant: HOUSE.to_owned(), puts, decision };
    let failed = |error: CommitError| AdminFailure::new(FailureKind::Fault, &error, error.hint());
    match journal.commit(commit.clone()) {
        // An earlier commit failed. The house keeps nothing in memory that is not recorded: it may go on at once.
        Err(CommitError::Poisoned) => {
            journal.load(HOUSE).map_err(journal_failure)?;
            journal.commit(commit).map_err(failed)
        }
        result => result.map_err(failed),
    }
}

pub(super) fn put(key: impl Into<String>, value: Vec<u8>) -> Put {
    Put { key: key.into(), value: Some(value) }
}

pub(super) fn gone(key: String) -> Put {
    Put { key, value: None }
}

pub(super) fn journal_failure(error: JournalError) -> AdminFailure {
    let kind = match error {
        JournalError::Store(_) | JournalError::Unavailable(_) => FailureKind::Fault,
        _ => FailureKind::Damaged,
    };
    AdminFailure::new(kind, &error, error.hint())
}

fn fault(step: &str, error: &dyn std::fmt::Display) -> AdminFailure {
    AdminFailure::new(FailureKind::Fault, format!("cannot {step}: {error}"), "Look at the daemon's log.")
}

pub(super) fn damaged(what: &str, error: &dyn std::fmt::Display) -> AdminFailure {
    let hint = "Restore the data directory from a backup.";
    AdminFailure::new(FailureKind::Damaged, format!("{what}: {error}"), hint)
}

/// The host part of `host:port`, which the server certificate must name too.
/// Another handle to a socket that stays open.
fn shared(socket: &std::net::TcpListener) -> std::io::Result<TcpListener> {
    let socket = socket.try_clone()?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

pub(super) fn host_of(address: &str) -> Option<String> {
    let host = address.rsplit_once(':')?.0.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| host.to_owned())
}
