//! `claviger.toml`: one table of keys, from which the structs, the initial file and `docs/configuration.md` come.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Network};
use claviger_hsm::KeyKind;
use claviger_hsm::tpm::DEFAULT_TCTI;
use claviger_policy::preset::{self, Preset};
use serde::{Deserialize, Serialize};
use ureq::http::Uri;

use crate::gateway::lightspark::Endpoint;

/// Instead of a preset: no policy is in force before one is applied.
pub const NO_PRESET: &str = "none";

/// One key of the file, for docs and the initial file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The table it stands in; empty for the top level.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it does, with the unit.
    pub doc: &'static str,
}

/// Declares one `[section]`: its struct, its defaults and its rows in the table of keys.
macro_rules! section {
    ($(#[doc = $doc:literal])+ $name:ident $section:literal { $( #[doc = $key_doc:literal] $key:ident: $ty:ty = $default:expr; )+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $( #[doc = $key_doc] pub $key: $ty, )+ }

        impl Default for $name {
            fn default() -> Self { Self { $( $key: $default, )+ } }
        }

        impl $name {
            const KEYS: &'static [Key] = &[ $( Key { section: $section, name: stringify!($key), doc: $key_doc.trim_ascii_start() }, )+ ];
        }
    };
}

section! {
    /// The authenticated link to the nodes.
    LinkConfig "link" {
        /// Where nodes connect: address and port.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7700));
        /// What nodes dial, written into enrolment bundles: host:port. Empty: the listen address.
        advertise: String = String::new();
        /// More host names and addresses the server certificate is valid for.
        names: Vec<String> = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        /// Bytes a second that are read from one node, once it has sent four times as many at once. The node waits for the rest.
        bytes_per_s: u64 = 4 << 20;
    }
}

section! {
    /// The door for lnd nodes.
    LndConfig "lnd" {
        /// Where lnd nodes connect: address and port. Without it there is no such door.
        listen: Option<SocketAddr> = None;
        /// What lnd dials, written into its configuration: host:port. Empty: the listen address.
        advertise: String = String::new();
    }
}

section! {
    /// The door for Lightspark's webhooks.
    LightsparkConfig "lightspark" {
        /// Where webhooks arrive: address and port, with TLS under the signer's own CA. Without it there is no such door.
        listen: Option<SocketAddr> = None;
        /// Where Lightspark sends webhooks, without an account's name, e.g. https://hooks.example.com/ln/webhooks: `claviger doctor` sends one there. Empty: it sends one to listen.
        public_url: String = String::new();
        /// Lightspark's API, where accounts with a token call back: an https URL, or an http URL of this host.
        api: String = "https://api.lightspark.com/graphql/server/2023-09-13".to_owned();
        /// The CAs that the API's certificate may be from, in PEM: by default those that Debian keeps.
        api_ca_file: PathBuf = PathBuf::from("/etc/ssl/certs/ca-certificates.crt");
    }
}

section! {
    /// The signer's own view of the chain.
    ChainConfig "chain" {
        /// The chain backend's JSON-RPC (bitcoind's dialect), without TLS: keep it on this host or a trusted network.
        url: String = "http://127.0.0.1:18443".to_owned();
        /// bitcoind's cookie file; read again whenever it changes.
        cookie_file: Option<PathBuf> = None;
        /// RPC user, with password_file, instead of a cookie file.
        user: Option<String> = None;
        /// A file that holds the RPC password; never the password itself.
        password_file: Option<PathBuf> = None;
        /// Milliseconds between two looks at the backend.
        poll_ms: u64 = 1_000;
        /// Seconds without an answer after which the view is stale and signing is refused; at most 3600.
        stale_after_s: u64 = 120;
        /// How many blocks below the tip a new node starts.
        start_depth: u32 = 6;
        /// Confirmations of a funding transaction before its channel is used; 1 to 100. There is no zero-conf: until then the node waits.
        funding_depth: u32 = 2;
    }
}

section! {
    /// The spending policy that an appliance begins with.
    PolicyConfig "policy" {
        /// The preset in force until the first `claviger policy apply`, with its default numbers; none: the limits below hold alone.
        preset: String = preset::DEFAULT.to_owned();
    }
}

section! {
    /// What may be spent, whatever the policy in force permits. A request above a limit is refused with reason `limit`.
    LimitsConfig "limits" {
        /// The largest single payment, in msat.
        max_payment_msat: u64 = 100_000_000;
        /// All payments of a node within any 60 minutes, in msat.
        max_payment_msat_per_hour: u64 = 1_000_000_000;
        /// The largest on-chain send to a destination that is not the node's own wallet, in sat. 0: none.
        max_onchain_sat: u64 = 0;
        /// All such sends of a node within any 24 hours, in sat.
        max_onchain_sat_per_day: u64 = 0;
        /// The highest fee of an on-chain transaction this signer pays for, in sat; ten times as much in any 24 hours.
        max_onchain_fee_sat: u64 = 100_000;
        /// What an lnd node's wallet may have put into outputs that no channel's first commitment has shown to be a channel's funding yet, within any 24 hours, in sat. Above it such an output counts as a send.
        max_unproven_funding_sat: u64 = 16_777_215;
        /// The public key, 33 bytes in hex, of a service that screens payments: operations of Lightspark accounts then need a clearance with its signature. Empty: they need none.
        screening_key: String = String::new();
        /// Addresses beside the node's own wallet that sends, sweeps and closes may pay any amount to.
        allow: Vec<String> = Vec::new();
    }
}

section! {
    /// What tells a restored copy of the data directory from the latest state.
    RollbackConfig "rollback" {
        /// A file that counts up, best kept where no backup of the data directory takes it along. Empty: `counter` in the data directory, the weak default.
        counter_file: PathBuf = PathBuf::new();
        /// Instead of the file, a counter of this TPM: a TCTI, e.g. device:/dev/tpmrm0. Empty: the file.
        counter_tpm: String = String::new();
        /// Seconds between two counts while anything is signed. What was signed since the last one is not noticed when it is lost.
        every_s: u64 = 10;
    }
}

section! {
    /// Which device key signs the journal's checkpoints, so that what was decided can be proved without trusting the data key.
    CheckpointsConfig "checkpoints" {
        /// software (kept in the journal itself), tpm or pkcs11 (both in the packaged build). Another choice makes another key at the next unseal.
        key: KeyKind = KeyKind::Software;
        /// The TPM for key = "tpm": a TCTI.
        tpm: String = DEFAULT_TCTI.to_owned();
        /// The vendor's module for key = "pkcs11", by its absolute path.
        module: PathBuf = PathBuf::new();
        /// The token's label.
        token: String = String::new();
        /// The systemd credential that holds the token's PIN.
        pin_credential: String = String::new();
    }
}

section! {
    /// Threads and queues.
    SignerConfig "signer" {
        /// Signing threads. 0: one per core.
        threads: usize = 0;
        /// Requests of one node that may wait.
        queue_requests: usize = 1_024;
        /// Bytes of one node's requests that may wait.
        queue_bytes: usize = 8 << 20;
        /// Whether all memory comes from pages that not even root can read: auto (as far as kernel and lock limit allow; `claviger status` says how far), required (refuse to start without) or off.
        secret_heap: Wanted = Wanted::Auto;
        /// Whether the running signer confines itself to its own files, ports and system calls: auto (as far as the kernel can; `claviger hardening` says how far), required (refuse to start without) or off.
        confinement: Wanted = Wanted::Auto;
        /// Whether it may run as root. Started by root in a directory of another user's, it becomes that user, whatever this says.
        allow_root: bool = false;
    }
}

section! {
    /// Logging, on stderr. Messages of the link are never logged.
    LogConfig "log" {
        /// error, warn, info, debug or trace.
        level: String = "info".to_owned();
        /// text or json.
        format: LogFormat = LogFormat::Text;
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

/// How much a protection is wanted that not every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// As far as the machine allows.
    Auto,
    /// All of it, or the signer does not start.
    Required,
    /// Not at all.
    Off,
}

/// The whole configuration. Unknown keys are refused: a typo must not switch a limit off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The Bitcoin network all nodes of this signer are on.
    pub network: Network,
    /// `[link]`
    #[serde(default)]
    pub link: LinkConfig,
    /// `[lnd]`
    #[serde(default)]
    pub lnd: LndConfig,
    /// `[lightspark]`
    #[serde(default)]
    pub lightspark: LightsparkConfig,
    /// `[chain]`
    #[serde(default)]
    pub chain: ChainConfig,
    /// `[policy]`
    #[serde(default)]
    pub policy: PolicyConfig,
    /// `[limits]`
    #[serde(default)]
    pub limits: LimitsConfig,
    /// `[rollback]`
    #[serde(default)]
    pub rollback: RollbackConfig,
    /// `[checkpoints]`
    #[serde(default)]
    pub checkpoints: CheckpointsConfig,
    /// `[signer]`
    #[serde(default)]
    pub signer: SignerConfig,
    /// `[log]`
    #[serde(default)]
    pub log: LogConfig,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// A key is unknown, has the wrong type, or the text is not TOML.
    #[error("{path} is not a valid configuration: {cause}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column.
        cause: String,
    },
    /// A value is outside its range.
    #[error("{key} = {value}: {rule}")]
    OutOfRange {
        /// `section.key`
        key: &'static str,
        /// As given.
        value: String,
        /// What would be accepted.
        rule: &'static str,
    },
}

impl ConfigError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "Name the data directory with --data-dir, or make one with `claviger init`.",
            Self::Invalid { .. } => "Compare the line with docs/configuration.md.",
            Self::OutOfRange { .. } => "Change the value and start again.",
        }
    }
}

impl LimitsConfig {
    /// The key of the screening service, if there is one. The configuration was checked.
    pub fn screening(&self) -> Option<PublicKey> {
        self.screening_key.parse().ok()
    }
}

impl Config {
    /// The defaults for `network`.
    pub fn new(network: Network) -> Self {
        Self {
            network,
            link: LinkConfig::default(),
            lnd: LndConfig::default(),
            lightspark: LightsparkConfig::default(),
            chain: ChainConfig {
                url: default_chain_url(network),
                funding_depth: default_funding_depth(network),
                ..ChainConfig::default()
            },
            policy: PolicyConfig::default(),
            limits: LimitsConfig::default(),
            rollback: RollbackConfig::default(),
            checkpoints: CheckpointsConfig::default(),
            signer: SignerConfig::default(),
            log: LogConfig::default(),
        }
    }

    /// Reads and checks `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), cause: error.to_string() })?;
        Self::parse(&text, path)
    }

    /// Parses and checks `text`, which stands in `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Invalid { path: path.to_owned(), cause: error.to_string() })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let out_of_range =
            |key, value: &dyn ToString, rule| Err(ConfigError::OutOfRange { key, value: value.to_string(), rule });
        if !(10..=60_000).contains(&self.chain.poll_ms) {
            return out_of_range("chain.poll_ms", &self.chain.poll_ms, "use 10 to 60000");
        }
        // A longer silence than this is no view of the chain; a rule of safety is not switched off by a file (P3).
        if !(1..=3_600).contains(&self.chain.stale_after_s) {
            return out_of_range("chain.stale_after_s", &self.chain.stale_after_s, "use 1 to 3600");
        }
        if self.chain.url.contains('@') {
            return out_of_range("chain.url", &"…", "use cookie_file, or user and password_file, for credentials");
        }
        if self.link.listen.ip().is_unspecified() && self.link.advertise.is_empty() {
            let rule = "say which host:port nodes dial: link.listen is every address of this host";
            return out_of_range("link.advertise", &"\"\"", rule);
        }
        let is_address = |text: &str| {
            text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !self.link.advertise.is_empty() && !is_address(&self.link.advertise) {
            return out_of_range("link.advertise", &self.link.advertise, "use host:port");
        }
        if self.lnd.listen.is_some_and(|listen| listen.ip().is_unspecified()) && self.lnd.advertise.is_empty() {
            let rule = "say which host:port lnd dials: lnd.listen is every address of this host";
            return out_of_range("lnd.advertise", &"\"\"", rule);
        }
        if !self.lnd.advertise.is_empty() && !is_address(&self.lnd.advertise) {
            return out_of_range("lnd.advertise", &self.lnd.advertise, "use host:port");
        }
        if Endpoint::parse(&self.lightspark.api).is_none() {
            return out_of_range("lightspark.api", &"…", "use an https URL, or http to this host, without credentials");
        }
        if !self.lightspark.public_url.is_empty() && Endpoint::parse(&self.lightspark.public_url).is_none() {
            return out_of_range("lightspark.public_url", &"…", "use an https URL, without credentials");
        }
        if !(64 << 10..=1 << 30).contains(&self.link.bytes_per_s) {
            return out_of_range("link.bytes_per_s", &self.link.bytes_per_s, "use 65536 to 1073741824");
        }
        if self.chain.user.is_some() != self.chain.password_file.is_some() {
            return out_of_range("chain.user", &"…", "user and password_file go together");
        }
        if self.chain.start_depth > 90 {
            return out_of_range("chain.start_depth", &self.chain.start_depth, "use 0 to 90");
        }
        if !(1..=100).contains(&self.chain.funding_depth) {
            return out_of_range("chain.funding_depth", &self.chain.funding_depth, "use 1 to 100");
        }
        if self.policy.preset != NO_PRESET && Preset::by_name(&self.policy.preset).is_none() {
            let rule = "use a preset that `claviger policy presets` lists, or \"none\"";
            return out_of_range("policy.preset", &self.policy.preset, rule);
        }
        let is_ours = |address: &String| {
            Address::from_str(address).is_ok_and(|address| address.is_valid_for_network(self.network))
        };
        if let Some(address) = self.limits.allow.iter().find(|address| !is_ours(address)) {
            return out_of_range("limits.allow", address, "use addresses of the signer's network");
        }
        let checkpoints = &self.checkpoints;
        if checkpoints.key != KeyKind::Software && cfg!(not(all(feature = "tpm", feature = "pkcs11"))) {
            return out_of_range("checkpoints.key", &checkpoints.key, "use software, or the packaged build");
        }
        if checkpoints.key == KeyKind::Pkcs11 && (!checkpoints.module.is_absolute() || checkpoints.token.is_empty()) {
            let rule = "set checkpoints.module, by its absolute path, checkpoints.token and checkpoints.pin_credential";
            return out_of_range("checkpoints.key", &checkpoints.key, rule);
        }
        // A typo must not switch it off.
        if !self.limits.screening_key.is_empty() && self.limits.screening().is_none() {
            return out_of_range(
                "limits.screening_key",
                &self.limits.screening_key,
                "use a public key: 33 bytes in hex",
            );
        }
        if !(1..=3_600).contains(&self.rollback.every_s) {
            return out_of_range("rollback.every_s", &self.rollback.every_s, "use 1 to 3600");
        }
        if !(1..=65_536).contains(&self.signer.queue_requests) {
            return out_of_range("signer.queue_requests", &self.signer.queue_requests, "use 1 to 65536");
        }
        if self.signer.queue_bytes < 256 << 10 {
            return out_of_range("signer.queue_bytes", &self.signer.queue_bytes, "use at least 262144");
        }
        if self.signer.threads > 256 {
            return out_of_range("signer.threads", &self.signer.threads, "use 0 to 256");
        }
        if !["error", "warn", "info", "debug", "trace"].contains(&self.log.level.as_str()) {
            return out_of_range("log.level", &self.log.level, "use error, warn, info, debug or trace");
        }
        Ok(())
    }

    /// What nodes dial: written into enrolment bundles.
    pub fn advertised(&self) -> String {
        if self.link.advertise.is_empty() { self.link.listen.to_string() } else { self.link.advertise.clone() }
    }

    /// What lnd nodes dial, if there is a door for them.
    pub fn lnd_advertised(&self) -> Option<String> {
        let listen = self.lnd.listen?;
        Some(if self.lnd.advertise.is_empty() { listen.to_string() } else { self.lnd.advertise.clone() })
    }

    /// The TCP ports that the signer connects to: the chain backend's and, with a door for Lightspark, its API's, and that door's
    /// own, which `doctor` tries.
    pub fn dials(&self) -> Vec<u16> {
        let chain = self.chain.url.parse::<Uri>().ok().filter(|url| url.host().is_some());
        let chain = chain.map(|url| url.port_u16().unwrap_or(80));
        let lightspark = &self.lightspark;
        let urls = [&lightspark.api, &lightspark.public_url].into_iter().filter_map(|url| Endpoint::parse(url));
        let door = lightspark.listen.map(|door| urls.map(|url| url.port()).chain([door.port()]));
        chain.into_iter().chain(door.into_iter().flatten()).collect()
    }

    /// `chain.poll_ms` as a duration.
    pub fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.chain.poll_ms)
    }

    /// The file that `claviger init` writes: every key with its meaning, optional ones commented out.
    pub fn to_commented_toml(&self) -> String {
        let values = toml::Table::try_from(self).expect("a configuration is plain TOML data");
        let mut text = String::from("# Claviger's configuration. docs/configuration.md says more.\n\n");
        text += "# The Bitcoin network: bitcoin (mainnet), testnet, testnet4, signet or regtest.\n";
        text += &format!("network = \"{}\"\n", self.network);
        let mut section = "";
        for key in all_keys() {
            if key.section != section {
                section = key.section;
                text += &format!("\n[{section}]\n");
            }
            text += &format!("# {}\n", key.doc);
            match values.get(section).and_then(|table| table.get(key.name)) {
                Some(value) => text += &format!("{} = {value}\n", key.name),
                None => text += &format!("# {} = \"\"\n", key.name),
            }
        }
        text
    }
}

/// All keys below the top level, section by section.
pub fn all_keys() -> impl Iterator<Item = &'static Key> {
    [
        LinkConfig::KEYS,
        LndConfig::KEYS,
        LightsparkConfig::KEYS,
        ChainConfig::KEYS,
        PolicyConfig::KEYS,
        LimitsConfig::KEYS,
        RollbackConfig::KEYS,
        CheckpointsConfig::KEYS,
        SignerConfig::KEYS,
        LogConfig::KEYS,
    ]
    .into_iter()
    .flatten()
}

/// The text of `docs/configuration.md`'s table.
pub fn reference() -> String {
    let values = toml::Table::try_from(Config::new(Network::Regtest)).expect("a configuration is plain TOML data");
    let mut text = String::from("| key | default | meaning |\n|---|---|---|\n");
    for key in all_keys() {
        let default = values.get(key.section).and_then(|table| table.get(key.name));
        let default = default.map_or_else(|| "–".to_owned(), |value| format!("`{value}`"));
        text += &format!("| `{}.{}` | {default} | {} |\n", key.section, key.name, key.doc);
    }
    text
}

/// Less than a node asks for by itself (Core Lightning: 3, and 1 where blocks are free), so that it seldom waits for us.
fn default_funding_depth(network: Network) -> u32 {
    if network == Network::Bitcoin { 2 } else { 1 }
}

fn default_chain_url(network: Network) -> String {
    let port = match network {
        Network::Bitcoin => 8332,
        Network::Testnet => 18332,
        Network::Testnet4 => 48332,
        Network::Signet => 38332,
        Network::Regtest => 18443,
    };
    format!("http://127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("claviger.toml"))
    }

    #[test]
    fn the_initial_file_is_the_defaults() {
        for network in [Network::Bitcoin, Network::Regtest, Network::Signet] {
            let config = Config::new(network);
            assert_eq!(parse(&config.to_commented_toml()), Ok(config));
        }
    }

    #[test]
    fn an_unknown_key_is_refused_and_a_known_one_passes() {
        let error = parse("network = \"regtest\"\n[limits]\nmax_paymnt_msat = 1\n").unwrap_err();
        assert!(matches!(&error, ConfigError::Invalid { cause, .. } if cause.contains("max_paymnt_msat")), "{error}");
        let config = parse("network = \"regtest\"\n[limits]\nmax_payment_msat = 1\n").unwrap();
        assert_eq!(config.limits.max_payment_msat, 1);
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        for (key, bad, good) in [
            ("chain.poll_ms", "[chain]\npoll_ms = 0", "[chain]\npoll_ms = 10"),
            ("chain.stale_after_s", "[chain]\nstale_after_s = 0", "[chain]\nstale_after_s = 1"),
            ("chain.stale_after_s", "[chain]\nstale_after_s = 99999999999", "[chain]\nstale_after_s = 3600"),
            ("chain.funding_depth", "[chain]\nfunding_depth = 0", "[chain]\nfunding_depth = 1"),
            ("chain.funding_depth", "[chain]\nfunding_depth = 101", "[chain]\nfunding_depth = 100"),
            ("policy.preset", "[policy]\npreset = \"routing\"", "[policy]\npreset = \"none\""),
            (
                "limits.allow",
                "[limits]\nallow = [\"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4\"]",
                "[limits]\nallow = [\"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080\"]",
            ),
            ("link.bytes_per_s", "[link]\nbytes_per_s = 1", "[link]\nbytes_per_s = 65536"),
            ("chain.url", "[chain]\nurl = \"http://u:CANARY@h:1\"", "[chain]\nurl = \"http://h:1\""),
            ("link.advertise", "[link]\nadvertise = \"signer\"", "[link]\nadvertise = \"signer:7700\""),
            (
                "link.advertise",
                "[link]\nlisten = \"0.0.0.0:7700\"",
                "[link]\nlisten = \"0.0.0.0:7700\"\nadvertise = \"[::1]:7700\"",
            ),
        ] {
            let with = |text: &str| parse(&format!("network = \"regtest\"\n{text}\n"));
            let error = with(bad).unwrap_err();
            assert!(matches!(error, ConfigError::OutOfRange { key: named, .. } if named == key), "{bad}: {error}");
            assert!(!format!("{error} {error:?}").contains("CANARY"));
            assert!(with(good).is_ok(), "{good}");
        }
    }
}
