//! `claviger.toml`: one table of keys (`keys.rs`), from which the structs, the initial file and `docs/configuration.md` come.

mod check;
mod keys;

use std::path::Path;
use std::time::Duration;

use bitcoin::Network;
use serde::{Deserialize, Serialize};
use ureq::http::Uri;

pub use self::check::ConfigError;
pub use self::keys::*;
use crate::gateway::lightspark::Endpoint;

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
            ("checkpoints.curve", "[checkpoints]\ncurve = \"secp256k1\"", "[checkpoints]\ncurve = \"p256\""),
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
