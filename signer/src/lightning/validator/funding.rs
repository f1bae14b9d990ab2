//! Funding: a channel is used once the chain holds what it was set up with.

use lightning_signer::channel::ChannelSetup;
use lightning_signer::policy::validator::ChainState;

use super::View;
use crate::facts::{Fact, Unit};
use crate::reasons::{Reason, Refusal};

/// Whether the chain shows nothing yet that spends the funding output: a commitment after that would be worth nothing.
/// The signer may see the block before its node does.
pub(super) fn unspent(commitment_number: u64, chain: &ChainState) -> Result<(), Refusal> {
    let depth = chain.closing_depth;
    if commitment_number == 0 || depth == 0 {
        return Ok(());
    }
    let detail = format!("commitment {commitment_number}: the channel was closed on the chain {depth} blocks deep");
    let fact = Fact::number("closing_depth", depth.into(), Unit::Blocks).exactly(0);
    Err(Refusal::new(Reason::FundingSpent, detail).with_fact(fact))
}

/// Whether commitments after the first may exist: the funding output is on the chain, buried, and what it should be. The
/// first is signed before there is a funding transaction.
pub(super) fn check(
    view: &View,
    commitment_number: u64,
    setup: &ChannelSetup,
    chain: &ChainState,
) -> Result<(), Refusal> {
    let (depth, required) = (chain.funding_depth, view.funding_depth);
    if commitment_number == 0 {
        return Ok(());
    }
    if depth < required {
        let detail = format!("commitment {commitment_number}: the funding has {depth} of {required} confirmations");
        let fact = Fact::number("funding_depth", depth.into(), Unit::Blocks).at_least(required.into());
        return Err(Refusal::new(Reason::ChainPending, format!("{detail} (chain.funding_depth)")).with_fact(fact));
    }
    let (funding, told_sat) = (setup.funding_outpoint, setup.channel_value_sat);
    match view.outputs.amount_sat(&funding) {
        Some(amount_sat) if amount_sat == told_sat => Ok(()),
        Some(amount_sat) => {
            let detail = format!("{funding} holds {amount_sat} sat; the channel was set up with {told_sat} sat");
            let fact = Fact::number("funding", amount_sat, Unit::Sat).exactly(told_sat);
            Err(Refusal::new(Reason::FundingMismatch, detail).with_fact(fact))
        }
        None => {
            let detail = format!("{funding} does not pay to the keys of this channel");
            let fact = Fact::text("funding_outpoint", funding.to_string());
            Err(Refusal::new(Reason::FundingMismatch, detail).with_fact(fact))
        }
    }
}
