//! What a signer refused, as its journal tells it: every refusal leaves a decision there.

use std::collections::BTreeMap;

use claviger::reasons::Reason;
use claviger_demo::signer::{CommandFailed, SignerProcess};

/// Reasons that an honest node meets while it, its signer or the chain catches up; it asks again by itself, or learns of the
/// block that closed the channel.
///
/// A block that the node saw first (`chain-pending`) or the signer (`funding-spent`), a signer that starts, stops or is behind the chain
/// (`chain-view-stale`, `node-restarting`, `sealed`, `shutting-down`), and the stream of a process that is gone
/// (`link-in-use`). A full queue or a journal that cannot be written pass as well, but no honest node should cause them.
pub const PASSING: [Reason; 7] = [
    Reason::ChainPending,
    Reason::FundingSpent,
    Reason::ChainStale,
    Reason::NodeRestarting,
    Reason::Sealed,
    Reason::ShuttingDown,
    Reason::LinkInUse,
];

/// The refusals of a signer, over all its starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// How often it refused for a [`PASSING`] reason, by its id.
    pub passing: BTreeMap<&'static str, usize>,
    /// All other refusals: lines of the journal with reason and facts.
    pub denied: Vec<String>,
    /// Decisions in all.
    pub decisions: usize,
}

impl Refused {
    /// Reads the journal of a running signer.
    pub fn of(signer: &SignerProcess) -> Result<Self, CommandFailed> {
        let mut refused = Self::default();
        for line in signer.cli_lines(&["journal", "export"])? {
            refused.decisions += 1;
            if line["verdict"] == "permit" {
                continue;
            }
            match PASSING.iter().find(|reason| line["verdict"]["deny"]["reason"] == reason.id()) {
                Some(reason) => *refused.passing.entry(reason.id()).or_default() += 1,
                None => refused.denied.push(line.to_string()),
            }
        }
        Ok(refused)
    }
}
