//! What a configuration may say, beyond its types.

use std::path::PathBuf;
use std::str::FromStr;

use bitcoin::Address;
use claviger_hsm::{Curve, KeyKind};
use claviger_policy::preset::Preset;

use super::{Config, NO_PRESET};
use crate::gateway::lightspark::Endpoint;

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

impl Config {
    /// Refuses values that are out of their ranges or do not go together.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
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
        if checkpoints.curve == Curve::Secp256k1 && checkpoints.key != KeyKind::Pkcs11 {
            return out_of_range("checkpoints.curve", &checkpoints.curve, "use p256, or checkpoints.key = \"pkcs11\"");
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
}
