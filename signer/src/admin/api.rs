//! What an administrator may ask of the daemon. `socket` carries it, `daemon` answers it.

use claviger_hsm::{SlotId, Tries};
use claviger_proto::v1::{
    AccountSecretsRequest, AdminError, BackupPiece, BackupRequest, ChannelInfo, DecisionRecord, DoctorReply,
    DoctorRequest, EnrolmentReply, ExportLine, GrantInfo, GrantListRequest, HardeningReply, LndAdoptReply,
    LndAdoptRequest, MetricsReply, NodeAddRequest, NodeInfo, NodeRemoveRequest, NodeRevokeRequest, OrderReply,
    OrderRequest, PolicyApplyRequest, PolicyFiles, PolicyInfo, PolicyRollbackRequest, PolicyShadowReply,
    PolicyShadowRequest, RecoverChannelRequest, RecoveredChannel, RotationProgress, StatusReply, UnsealReply,
    VerifyProgress,
};

use crate::keys::memory::Secret;
use crate::keys::passphrase::Passphrase;

/// Takes the elements of a long answer to a reader who may be slow, pause, or leave.
pub trait Sink<T> {
    /// Hands one over, for as long as that takes. False when nobody reads any more.
    fn put(&mut self, element: T) -> bool;
    /// Hands one over unless the reader is behind; never waits. False when nobody reads any more.
    fn offer(&mut self, element: T) -> bool;
    /// Hands one over, for as long as that takes and `goes_on` says so. False when it was not taken. As it stands here it is for
    /// readers who never wait.
    fn put_while(&mut self, element: T, goes_on: &dyn Fn() -> bool) -> bool {
        goes_on() && self.put(element)
    }
    /// Whether anybody still reads.
    fn is_read(&self) -> bool;
}

/// What somebody, or something, brings to a sealed signer.
#[derive(Debug)]
pub struct Brought {
    /// A passphrase, a share or a PIN; nothing for a slot that needs nothing.
    pub secret: Option<Passphrase>,
    /// The slot to open with; the passphrase slots if none is named.
    pub slot: Option<SlotId>,
    /// Whether somebody enters it now.
    pub tries: Tries,
}

/// The daemon, as its administrator sees it. Calls may block: each runs on a thread of its own.
pub trait AdminApi: Send + Sync + 'static {
    /// What holds and what is missing.
    fn status(&self) -> StatusReply;
    /// What is counted and measured.
    fn metrics(&self) -> MetricsReply;
    /// Opens the signer, or takes one more share.
    fn unseal(&self, brought: Brought) -> Result<UnsealReply, AdminFailure>;
    /// Closes it and wipes keys from memory.
    fn seal(&self) -> Result<(), AdminFailure>;
    /// Ends the process, cleanly.
    fn shutdown(&self);
    /// Makes or takes over a node's keys and enrols it.
    fn node_add(&self, request: NodeAddRequest) -> Result<EnrolmentReply, AdminFailure>;
    /// All nodes.
    fn node_list(&self) -> Result<Vec<NodeInfo>, AdminFailure>;
    /// One node.
    fn node_show(&self, name: &str) -> Result<NodeInfo, AdminFailure>;
    /// Issues another certificate.
    fn node_renew(&self, name: &str) -> Result<EnrolmentReply, AdminFailure>;
    /// Revokes certificates; open links that use one are closed.
    fn node_revoke(&self, request: &NodeRevokeRequest) -> Result<NodeInfo, AdminFailure>;
    /// Replaces what an account of Lightspark is known by there.
    fn account_secrets(&self, request: AccountSecretsRequest) -> Result<NodeInfo, AdminFailure>;
    /// Forgets a node and its keys.
    fn node_remove(&self, request: &NodeRemoveRequest) -> Result<(), AdminFailure>;
    /// The latest decisions, and with `follow` those to come.
    fn journal_tail(
        &self,
        lines: u32,
        follow: bool,
        node: &str,
        sink: &mut dyn Sink<DecisionRecord>,
    ) -> Result<(), AdminFailure>;
    /// Checks every record; the last element has `done`.
    fn journal_verify(&self, sink: &mut dyn Sink<VerifyProgress>) -> Result<(), AdminFailure>;
    /// Decisions as JSON.
    fn journal_export(&self, from: u64, sink: &mut dyn Sink<ExportLine>) -> Result<(), AdminFailure>;
    /// Seals everything anew with the data key that the key slot file holds now. `by` is the caller, for the journal.
    fn rotate_data_key(
        &self,
        key: Secret<32>,
        by: &str,
        sink: &mut dyn Sink<RotationProgress>,
    ) -> Result<(), AdminFailure>;
    /// A backup's bytes, or those of the next segment of a directory; the last element has `done`.
    fn backup(&self, request: &BackupRequest, sink: &mut dyn Sink<BackupPiece>) -> Result<(), AdminFailure>;
    /// What the signer knows of a node's channels, beside what the node last claimed.
    fn channel_list(&self, node: &str) -> Result<Vec<ChannelInfo>, AdminFailure>;
    /// One of them.
    fn channel_show(&self, node: &str, channel: &str) -> Result<ChannelInfo, AdminFailure>;
    /// Freezes, thaws or exempts; `by` is the caller, for the journal.
    fn order(&self, request: &OrderRequest, by: String) -> Result<OrderReply, AdminFailure>;
    /// Takes over the channels in an lnd's static channel backup; `by` is the caller, for the journal.
    fn lnd_adopt(&self, request: LndAdoptRequest, by: String) -> Result<LndAdoptReply, AdminFailure>;
    /// Looks the house and its channels over.
    fn doctor(&self, request: &DoctorRequest) -> Result<DoctorReply, AdminFailure>;
    /// What the process gave up.
    fn hardening(&self) -> HardeningReply;
    /// Signs one channel of a Lightspark account's recovery kit.
    fn recover_channel(&self, request: RecoverChannelRequest) -> Result<RecoveredChannel, AdminFailure>;
    /// One decision, or a refusal that decided nothing.
    fn explain(&self, request: &str) -> Result<DecisionRecord, AdminFailure>;
    /// Which policy is in force, and what is left of its budgets.
    fn policy_status(&self) -> Result<PolicyInfo, AdminFailure>;
    /// The files of the bundle with this hash; with none, of the one in force.
    fn policy_bundle(&self, sha256: &str) -> Result<PolicyFiles, AdminFailure>;
    /// Puts a bundle in force. `by` is the caller, for the journal, here and below.
    fn policy_apply(&self, request: PolicyApplyRequest, by: &str) -> Result<PolicyInfo, AdminFailure>;
    /// Goes back to the bundle before.
    fn policy_rollback(&self, request: PolicyRollbackRequest, by: &str) -> Result<PolicyInfo, AdminFailure>;
    /// Judges a bundle beside the one in force, ends that, or only tells what came of it so far.
    fn policy_shadow(&self, request: PolicyShadowRequest, by: &str) -> Result<PolicyShadowReply, AdminFailure>;
    /// The lines of a history from a time on.
    fn policy_history(&self, from_ms: u64, sink: &mut dyn Sink<ExportLine>) -> Result<(), AdminFailure>;
    /// Grants, as they stand now.
    fn grant_list(&self, request: &GrantListRequest) -> Result<Vec<GrantInfo>, AdminFailure>;
    /// A person asks for a grant.
    fn grant_ask(&self, text: &str, signature: &str, by: &str) -> Result<GrantInfo, AdminFailure>;
    /// A person approves a grant.
    fn grant_approve(&self, grant: &str, signature: &str, by: &str) -> Result<GrantInfo, AdminFailure>;
    /// Takes a grant back.
    fn grant_revoke(&self, grant: &str, by: &str) -> Result<GrantInfo, AdminFailure>;
}

/// The kinds of failure, as scripts may compare them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The request makes no sense.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// There is one already.
    Exists,
    /// The signer is sealed.
    Sealed,
    /// The signer is unsealed already.
    NotSealed,
    /// The passphrase, share or PIN does not open any slot.
    Passphrase,
    /// Too many wrong passphrases.
    RateLimited,
    /// What holds a key slot's key does not do its work, or cannot be reached from this build.
    Device,
    /// Something stored is damaged or of another version.
    Damaged,
    /// The signer failed.
    Fault,
}

impl FailureKind {
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
            Self::Device => "device",
            Self::Damaged => "damaged",
            Self::Fault => "fault",
        }
    }
}

/// Why an administrator's call failed, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct AdminFailure {
    /// The kind.
    pub kind: FailureKind,
    /// In words; never a secret.
    pub what: String,
    /// The next step.
    pub hint: String,
}

impl AdminFailure {
    /// A failure with its next step.
    pub fn new(kind: FailureKind, what: impl ToString, hint: impl Into<String>) -> Self {
        Self { kind, what: what.to_string(), hint: hint.into() }
    }

    /// The signer is sealed.
    pub fn sealed() -> Self {
        Self::new(FailureKind::Sealed, "the signer is sealed", "Run `claviger unseal`.")
    }
}

impl From<AdminFailure> for AdminError {
    fn from(failure: AdminFailure) -> Self {
        Self { id: failure.kind.id().to_owned(), what: failure.what, hint: failure.hint }
    }
}
