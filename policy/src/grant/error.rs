//! Why nothing was granted, approved or used.

use super::covers::Mismatch;
use super::intent::{GrantId, IntentError};
use super::signature::SignatureError;
use super::standing::Standing;

/// The most grants of one node, those used up included, until their time is over.
pub const MAX_GRANTS: usize = 1_024;
/// The most of them that wait for approval.
pub const MAX_WAITING: usize = 256;

/// Why a grant is not made, approved, taken back or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// The intent makes no sense.
    #[error(transparent)]
    Intent(#[from] IntentError),
    /// The intent is for another appliance.
    #[error("the intent is for the appliance '{0}'")]
    OtherAppliance(String),
    /// The intent is for another node.
    #[error("the intent is for the node '{0}'")]
    OtherNode(String),
    /// There is a grant with this id already.
    #[error("there is another grant {0}")]
    IdTaken(GrantId),
    /// There is no such grant.
    #[error("there is no grant {0}")]
    Unknown(GrantId),
    /// The intent's group is not in the policy, or means something else there.
    #[error("the policy's group '{0}' is not what the intent says")]
    GroupChanged(String),
    /// Too few people hold the role, without the requester.
    #[error("{of} people of '{role}' have to approve, and without the requester {people} hold it")]
    CannotBeMet {
        /// What the group asks.
        of: u32,
        /// The role.
        role: String,
        /// Without the requester.
        people: usize,
    },
    /// A person's intent has to be signed by that person, and a node's is made by the signer itself.
    #[error("the intent says that {asks} asks, and {signed} signed")]
    NotTheRequester {
        /// In the intent.
        asks: String,
        /// Whose key signed.
        signed: String,
    },
    /// The requester approves.
    #[error("{0} asked for this and cannot approve it")]
    OwnRequest(String),
    /// The approver does not hold the role.
    #[error("{person} is not one of '{role}'")]
    NotInRole {
        /// The approver.
        person: String,
        /// What the intent asks.
        role: String,
    },
    /// The same person, with whichever key.
    #[error("{0} approved this already; people are counted, not keys")]
    AlreadyApproved(String),
    /// It is over, taken back, or not approved.
    #[error("the grant is {}", .0.id())]
    Standing(Standing),
    /// The request is not within it.
    #[error("the request is not within the grant: {0}")]
    NotCovered(#[from] Mismatch),
    /// Its total or its uses do not suffice.
    #[error("the grant's total does not suffice")]
    TotalExceeded,
    /// No room for another grant of the node.
    #[error("the node has {MAX_GRANTS} grants, or {MAX_WAITING} that wait")]
    Full,
    /// The signature does not count.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

impl GrantError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Intent(error) => error.hint(),
            Self::Signature(error) => error.hint(),
            Self::OtherAppliance(_) | Self::OtherNode(_) => {
                "Give the intent to the appliance and node that it names.".into()
            }
            Self::IdTaken(_) => "Write a new intent: `claviger grant create` draws a new id.".into(),
            Self::Unknown(_) => "See `claviger grant list`; what is over is forgotten.".into(),
            Self::GroupChanged(_) | Self::Standing(Standing::GroupChanged) => {
                "Write a new intent: approvals count for the meaning that was signed.".into()
            }
            Self::CannotBeMet { .. } => "Have somebody else ask, or give the role to more people.".into(),
            Self::NotTheRequester { .. } => {
                "The person in the requester line signs with `ssh-keygen -Y sign -n claviger-request`.".into()
            }
            Self::OwnRequest(_) | Self::AlreadyApproved(_) => "Another person of the role has to approve.".into(),
            Self::NotInRole { .. } => "See [roles] in policy.toml.".into(),
            Self::Standing(_) | Self::NotCovered(_) | Self::TotalExceeded => {
                "See `claviger grant list`; write a new intent for what is wanted.".into()
            }
            Self::Full => "Approve or revoke what waits: `claviger grant list`.".into(),
        }
    }
}

impl Standing {
    /// In a word, as `grant list` shows it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::NotYet => "not-yet",
            Self::InForce => "in-force",
            Self::UsedUp => "used-up",
            Self::Ended => "ended",
            Self::Revoked => "revoked",
            Self::GroupChanged => "group-changed",
        }
    }
}
