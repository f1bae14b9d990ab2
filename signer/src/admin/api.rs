//! What an administrator can ask of the daemon, apart from how the question arrives.

use std::fmt;
use std::pin::Pin;

use claviger_proto::bundle::Bundle;
use claviger_proto::v1;
use claviger_proto::v1::{DecisionRecord, ExportLine, NodeInfo, StatusReply, VerifyProgress};
use prost::Message;
use tokio_stream::Stream;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use crate::admin::record::Which;
use crate::names::{NodeKind, NodeName};

/// Answers that arrive one by one.
pub type AdminStream<T> = Pin<Box<dyn Stream<Item = Result<T, AdminError>> + Send>>;

/// A seed to import with `node add`.
pub struct SeedImport {
    /// `ldk-seed`, `cln-hsm-secret` or `bip39`.
    pub format: String,
    /// As read from the operator's file or prompt.
    pub secret: Zeroizing<Vec<u8>>,
    /// BIP39's optional passphrase.
    pub passphrase: Zeroizing<Vec<u8>>,
}

/// The daemon, as its administrator sees it. Every method may fail with [`AdminErrorKind::Sealed`] unless it says otherwise.
#[tonic::async_trait]
pub trait AdminApi: Send + Sync + 'static {
    /// How the daemon is. Works while sealed.
    async fn status(&self) -> Result<StatusReply, AdminError>;
    /// Opens the data directory. Returns the number of nodes. Wrong passphrases are rate-limited.
    async fn unseal(&self, passphrase: Zeroizing<Vec<u8>>) -> Result<u32, AdminError>;
    /// Closes all links and wipes the keys.
    async fn seal(&self) -> Result<(), AdminError>;
    /// Begins to stop the daemon. Works while sealed.
    async fn shutdown(&self) -> Result<(), AdminError>;

    /// Makes a node, with a fresh seed or an imported one, and its first bundle.
    async fn node_add(
        &self,
        name: NodeName,
        kind: NodeKind,
        import: Option<SeedImport>,
    ) -> Result<(NodeInfo, Bundle), AdminError>;
    /// All nodes, by name.
    async fn node_list(&self) -> Result<Vec<NodeInfo>, AdminError>;
    /// One node.
    async fn node_show(&self, name: NodeName) -> Result<NodeInfo, AdminError>;
    /// Issues another certificate.
    async fn node_renew(&self, name: NodeName) -> Result<(NodeInfo, Bundle), AdminError>;
    /// Revokes certificates.
    async fn node_revoke(&self, name: NodeName, which: Which) -> Result<NodeInfo, AdminError>;
    /// Forgets a node and its keys.
    async fn node_remove(&self, name: NodeName) -> Result<(), AdminError>;

    /// The latest decisions: `lines` old ones, then, with `follow`, each new one. `node` absent: all nodes.
    async fn journal_tail(
        &self,
        lines: u32,
        follow: bool,
        node: Option<NodeName>,
    ) -> Result<AdminStream<DecisionRecord>, AdminError>;
    /// Checks the whole journal; the last item has `done`.
    async fn journal_verify(&self) -> Result<AdminStream<VerifyProgress>, AdminError>;
    /// Decisions from number `from` as JSON lines.
    async fn journal_export(&self, from: u64) -> Result<AdminStream<ExportLine>, AdminError>;
    /// The decision on one request.
    async fn explain(&self, request: String) -> Result<DecisionRecord, AdminError>;
}

/// Why an administrator's request failed, and the next step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct AdminError {
    /// For scripts and tests.
    pub kind: AdminErrorKind,
    /// What went wrong, in words. Holds no secret.
    pub what: String,
    /// What to do next.
    pub hint: String,
}

/// The closed set of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdminErrorKind {
    /// The request makes no sense.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// There is such a thing already.
    Exists,
    /// The signer is sealed.
    Sealed,
    /// The signer is not sealed.
    NotSealed,
    /// The passphrase is wrong.
    Passphrase,
    /// Too many wrong passphrases; wait.
    RateLimited,
    /// What is stored cannot be read.
    Damaged,
    /// The daemon does not run.
    NotRunning,
    /// The caller may not administrate.
    Forbidden,
    /// Anything else.
    Fault,
}

impl AdminErrorKind {
    const ALL: [Self; 11] = [
        Self::Invalid,
        Self::NotFound,
        Self::Exists,
        Self::Sealed,
        Self::NotSealed,
        Self::Passphrase,
        Self::RateLimited,
        Self::Damaged,
        Self::NotRunning,
        Self::Forbidden,
        Self::Fault,
    ];

    /// The stable id.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not-found",
            Self::Exists => "exists",
            Self::Sealed => "sealed",
            Self::NotSealed => "not-sealed",
            Self::Passphrase => "passphrase",
            Self::RateLimited => "rate-limited",
            Self::Damaged => "damaged",
            Self::NotRunning => "not-running",
            Self::Forbidden => "forbidden",
            Self::Fault => "fault",
        }
    }

    const fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Exists => Code::AlreadyExists,
            Self::Passphrase | Self::Forbidden => Code::PermissionDenied,
            Self::RateLimited => Code::ResourceExhausted,
            Self::Damaged => Code::DataLoss,
            Self::Sealed | Self::NotSealed | Self::NotRunning => Code::FailedPrecondition,
            Self::Fault => Code::Internal,
        }
    }
}

impl AdminError {
    /// A failure of `kind`, with what went wrong and the next step.
    pub fn new(kind: AdminErrorKind, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, what: what.into(), hint: hint.into() }
    }

    /// The signer is sealed.
    pub fn sealed() -> Self {
        Self::new(AdminErrorKind::Sealed, "the signer is sealed", "Run `claviger unseal`.")
    }

    /// No node has this name.
    pub fn no_such_node(name: &NodeName) -> Self {
        Self::new(
            AdminErrorKind::NotFound,
            format!("there is no node '{name}'"),
            "List them with `claviger node list`.",
        )
    }
}

impl From<AdminError> for Status {
    fn from(error: AdminError) -> Self {
        let AdminError { kind, what, hint } = error;
        let details = v1::AdminError { id: kind.id().to_owned(), what: what.clone(), hint };
        Status::with_details(kind.code(), what, details.encode_to_vec().into())
    }
}

impl From<Status> for AdminError {
    fn from(status: Status) -> Self {
        if let Ok(v1::AdminError { id, what, hint }) = v1::AdminError::decode(status.details())
            && let Some(kind) = AdminErrorKind::ALL.into_iter().find(|kind| kind.id() == id)
        {
            return Self { kind, what, hint };
        }
        let what = format!("the daemon's answer broke off: {}", status.message());
        Self::new(AdminErrorKind::Fault, what, "Look at the daemon's log, and try again.")
    }
}

impl fmt::Debug for SeedImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeedImport").field("format", &self.format).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_to_the_command_line() {
        for kind in AdminErrorKind::ALL {
            let error = AdminError::new(kind, "what happened", "what to do");
            assert_eq!(AdminError::from(Status::from(error.clone())), error);
        }
    }
}
