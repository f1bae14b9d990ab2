//! The enrolment bundle: the one file a node needs to reach its signer (`docs/link.md`).

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The version this code writes and reads.
pub const BUNDLE_VERSION: u32 = 1;

/// A bundle is about 2 KiB; a file larger than this is something else.
const MAX_BUNDLE_BYTES: u64 = 64 * 1024;

/// What `claviger node add` hands to a node: where its signer is and how both prove who they are.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// [`BUNDLE_VERSION`].
    pub version: u32,
    /// The node's name at the signer.
    pub node: String,
    /// `ldk` or `cln`.
    pub kind: String,
    /// The Bitcoin network, as `bitcoin::Network` prints it.
    pub network: String,
    /// Where the signer listens, `host:port`. May be edited when the signer moves.
    pub signer: String,
    /// When the certificate ends, in seconds since the Unix epoch.
    pub not_after: u64,
    /// The signer's CA, PEM.
    pub ca_certificate: String,
    /// The node's certificate, PEM.
    pub certificate: String,
    /// The node's private key, PKCS#8 PEM.
    pub private_key: Zeroizing<String>,
}

/// Why a bundle cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The file cannot be read.
    #[error("cannot read the bundle {path}: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// Others than the owner can read or write the file.
    #[error("the bundle {path} has mode {mode:04o}: others can reach the private key in it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The text is not a bundle.
    #[error("this is not an enrolment bundle: {0}")]
    Malformed(String),
    /// A newer signer wrote it.
    #[error("the bundle has version {0}, this program reads version {BUNDLE_VERSION}")]
    Version(u32),
}

impl BundleError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "Give the path of the file that `claviger node add` wrote.",
            Self::Exposed { .. } => {
                "chmod 600 the file; if others may have read it, run `claviger node renew` and revoke."
            }
            Self::Malformed(_) => "Write it again with `claviger node renew`, and copy it unchanged.",
            Self::Version(_) => "Update this program to the signer's version.",
        }
    }
}

impl Bundle {
    /// Reads the bundle at `path`; refuses a file that anyone but its owner can read or write.
    pub fn load(path: &Path) -> Result<Self, BundleError> {
        let unreadable = |error: io::Error| BundleError::Unreadable { path: path.into(), cause: error.to_string() };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(BundleError::Exposed { path: path.into(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_BUNDLE_BYTES).read_to_string(&mut text).map_err(unreadable)?;
        Self::parse(&text)
    }

    /// Reads a bundle's text.
    pub fn parse(text: &str) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        // The parser's full error quotes the line, which may hold the key (P8): only its message goes on.
        let malformed = |error: toml::de::Error| BundleError::Malformed(error.message().to_owned());
        let Versioned { version } = toml::from_str(text).map_err(malformed)?;
        if version != BUNDLE_VERSION {
            return Err(BundleError::Version(version));
        }
        toml::from_str(text).map_err(malformed)
    }

    /// The text of the file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let Self { version, node, kind, network, signer, not_after, ca_certificate, certificate, private_key } = self;
        let string = |text: &str| toml::Value::from(text).to_string();
        let block = |pem: &str| format!("\"\"\"\n{}\n\"\"\"", pem.trim_end());
        Zeroizing::new(format!(
            "# Claviger enrolment bundle. It holds a private key: mode 0600, on the node's machine only.\n\
             version = {version}\n\
             node = {}\n\
             kind = {}\n\
             network = {}\n\
             signer = {}\n\
             not_after = {not_after}\n\
             ca_certificate = {}\n\
             certificate = {}\n\
             private_key = {}\n",
            string(node),
            string(kind),
            string(network),
            string(signer),
            block(ca_certificate),
            block(certificate),
            *Zeroizing::new(block(private_key)),
        ))
    }

    /// Writes a new file at `path` with mode 0600; never overwrites one.
    pub fn create(&self, path: &Path) -> io::Result<()> {
        create(&self.to_text(), path)
    }
}

/// Writes a bundle's `text` to a new file at `path` with mode 0600; never overwrites one.
pub fn create(text: &str, path: &Path) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("node", &self.node).field("signer", &self.signer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        Bundle {
            version: BUNDLE_VERSION,
            node: "alice".into(),
            kind: "ldk".into(),
            network: "regtest".into(),
            signer: "127.0.0.1:7700".into(),
            not_after: 1_800_000_000,
            ca_certificate: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            certificate: "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n".into(),
            private_key: Zeroizing::new("-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\n".into()),
        }
    }

    #[test]
    fn a_bundle_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alice.toml");
        bundle().create(&path).unwrap();
        assert_eq!(Bundle::load(&path), Ok(bundle()));
        assert_eq!(bundle().create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_file_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alice.toml");
        bundle().create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(Bundle::load(&path), Err(BundleError::Exposed { path, mode: 0o640 }));
    }

    #[test]
    fn a_bundle_of_another_version_is_named_and_not_guessed_at() {
        let text = bundle().to_text().replace("version = 1", "version = 2") + "new_field = 1\n";
        assert_eq!(Bundle::parse(&text), Err(BundleError::Version(2)));
    }

    #[test]
    fn neither_errors_nor_debug_show_the_key() {
        let damaged = bundle().to_text().replace("-----END PRIVATE KEY-----\n\"\"\"", "");
        let error = Bundle::parse(&damaged).unwrap_err();
        assert!(matches!(error, BundleError::Malformed(_)));
        assert!(!format!("{error} {error:?} {:?}", bundle()).contains("CANARY"));
    }
}
