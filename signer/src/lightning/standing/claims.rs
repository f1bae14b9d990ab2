//! What a node claims of a channel: the number and the state in its last request of each kind.
//!
//! Kept in memory, for channels the signer has, one claim of a fixed size per kind and channel: whatever a node sends,
//! this stays small (P6).

use std::collections::HashMap;

use vls_protocol::model::Htlc;
use vls_protocol::msgs::Message;

use super::view::Balance;
use crate::pipeline::ChannelName;
use crate::reasons::Reason;

/// The kinds of request that tell where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// SignRemoteCommitmentTx: the peer's next commitment.
    SignTheirs,
    /// ValidateCommitmentTx: our next commitment, signed by the peer.
    ValidateOurs,
    /// RevokeCommitmentTx: our old commitment's secret goes out.
    RevokeOurs,
    /// ValidateRevocation: the peer's old commitment's secret came in.
    RevokeTheirs,
    /// SignLocalCommitmentTx: our commitment, to be broadcast.
    Close,
}

impl Step {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::SignTheirs => "sign the peer's commitment",
            Self::ValidateOurs => "validate our commitment",
            Self::RevokeOurs => "revoke our commitment",
            Self::RevokeTheirs => "take the peer's revocation",
            Self::Close => "sign our commitment to close",
        }
    }
}

/// The last request of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The kind.
    pub step: Step,
    /// The commitment it names.
    pub number: u64,
    /// The state it names, without the single HTLCs, where the message tells.
    pub balance: Option<Balance>,
    /// When, in milliseconds since the Unix epoch, by the node's clock.
    pub at_ms: u64,
    /// Why it was refused, if it was.
    pub refused: Option<Reason>,
}

/// What `message` claims of its channel; `None` if it is no commitment message.
pub(in crate::lightning) fn claim(message: &Message) -> Option<Claim> {
    let (step, number, balance) = match message {
        Message::SignRemoteCommitmentTx2(m) => {
            let balance = balance(m.to_local_value_sat, m.to_remote_value_sat, m.feerate, &m.htlcs);
            (Step::SignTheirs, m.commitment_number, Some(balance))
        }
        Message::SignRemoteCommitmentTx(m) => (Step::SignTheirs, m.commitment_number, None),
        Message::ValidateCommitmentTx2(m) => {
            let balance = balance(m.to_local_value_sat, m.to_remote_value_sat, m.feerate, &m.htlcs);
            (Step::ValidateOurs, m.commitment_number, Some(balance))
        }
        Message::ValidateCommitmentTx(m) => (Step::ValidateOurs, m.commitment_number, None),
        Message::RevokeCommitmentTx(m) => (Step::RevokeOurs, m.commitment_number, None),
        Message::ValidateRevocation(m) => (Step::RevokeTheirs, m.commitment_number, None),
        Message::SignLocalCommitmentTx2(m) => (Step::Close, m.commitment_number, None),
        _ => return None,
    };
    Some(Claim { step, number, balance, at_ms: 0, refused: None })
}

fn balance(ours_sat: u64, theirs_sat: u64, feerate_per_kw: u32, htlcs: &[Htlc]) -> Balance {
    let mut balance = Balance { ours_sat, theirs_sat, feerate_per_kw, ..Balance::default() };
    for htlc in htlcs {
        balance.count(htlc.side == Htlc::REMOTE, htlc.amount / 1_000);
    }
    balance
}

/// Channels whose claims are kept; a node has no more.
const MAX_CHANNELS: usize = 20_000;

/// The claims of one node.
#[derive(Default)]
pub struct Claims(HashMap<ChannelName, [Option<Claim>; 5]>);

impl Claims {
    /// Keeps `claim` as the last of its kind. The caller makes sure that the channel exists. Claims of channels that are
    /// gone are not looked for: if there are too many, all are forgotten, and come back as the node asks.
    pub fn keep(&mut self, channel: impl Into<ChannelName>, claim: Claim) {
        let channel = channel.into();
        if self.0.len() >= MAX_CHANNELS && !self.0.contains_key(&channel) {
            self.0.clear();
        }
        let step = claim.step as usize;
        self.0.entry(channel).or_default()[step] = Some(claim);
    }

    /// Of how many channels something was claimed.
    pub fn channels(&self) -> usize {
        self.0.len()
    }

    /// What was claimed of `channel`, newest first.
    pub fn of(&self, channel: &ChannelName) -> Vec<Claim> {
        let mut claims: Vec<_> = self.0.get(channel).into_iter().flatten().flatten().cloned().collect();
        claims.sort_by_key(|claim| std::cmp::Reverse(claim.at_ms));
        claims
    }
}
