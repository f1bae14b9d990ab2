//! Every key of `claviger.toml`, section by section: type, default, meaning.

use std::net::SocketAddr;
use std::path::PathBuf;

use bitcoin::secp256k1::PublicKey;
use claviger_hsm::tpm::DEFAULT_TCTI;
use claviger_hsm::{Curve, KeyKind};
use claviger_policy::preset;
use serde::{Deserialize, Serialize};

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
            pub(super) const KEYS: &'static [Key] = &[ $( Key { section: $section, name: stringify!($key), doc: $key_doc.trim_ascii_start() }, )+ ];
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
        /// What the key is on: p256, or secp256k1 in a token that has it. Another choice makes another key at the next unseal.
        curve: Curve = Curve::P256;
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

impl LimitsConfig {
    /// The key of the screening service, if there is one. The configuration was checked.
    pub fn screening(&self) -> Option<PublicKey> {
        self.screening_key.parse().ok()
    }
}
