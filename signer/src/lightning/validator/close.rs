//! Mutual closes: what is owed.

use lightning_signer::channel::ChannelSetup;
use lightning_signer::policy::validator::EnforcementState;

use super::policy::MAX_DUST_SAT;
use crate::facts::{Fact, Unit};
use crate::reasons::{Reason, Refusal};

/// Whether a close pays us what the last commitments owe us: to the satoshi, but for the fee if we funded the channel, which
/// is at most `max_fee_sat`, and for dust, which BOLT 2 lets either side leave out.
///
/// vls refused before where HTLCs are pending, so that both commitments say the same; where one of them left an output out
/// as dust, the other counts.
pub(super) fn check(
    setup: &ChannelSetup,
    state: &EnforcementState,
    (to_holder_sat, to_counterparty_sat): (u64, u64),
    max_fee_sat: u64,
) -> Result<(), Refusal> {
    let (Some(ours), Some(theirs)) = (&state.current_holder_commit_info, &state.current_counterparty_commit_info)
    else {
        return Err(Refusal::new(Reason::CloseValue, "the channel has no commitments yet"));
    };
    let wrong = |detail: String, fact: Fact| Err(Refusal::new(Reason::CloseValue, detail).with_fact(fact));
    if setup.is_outbound {
        let owed_sat = ours.to_countersigner_value_sat.max(theirs.to_broadcaster_value_sat);
        if to_counterparty_sat > owed_sat.max(MAX_DUST_SAT) {
            let fact = Fact::number("to_peer", to_counterparty_sat, Unit::Sat).at_most(owed_sat);
            return wrong(format!("to the peer: {to_counterparty_sat} sat > {owed_sat} sat owed"), fact);
        }
        let paid_sat = to_holder_sat.saturating_add(to_counterparty_sat);
        let fee_sat = setup.channel_value_sat.saturating_sub(paid_sat);
        if fee_sat > max_fee_sat {
            let limit = format!("limits.max_onchain_fee_sat = {max_fee_sat} sat");
            let fact = Fact::number("max_onchain_fee_sat", fee_sat, Unit::Sat).at_most(max_fee_sat);
            return Err(
                Refusal::new(Reason::Limit, format!("fee of the close: {fee_sat} sat > {limit}")).with_fact(fact)
            );
        }
    } else {
        let owed_sat = ours.to_broadcaster_value_sat.max(theirs.to_countersigner_value_sat);
        let left_out = to_holder_sat == 0 && owed_sat <= MAX_DUST_SAT;
        if to_holder_sat < owed_sat && !left_out {
            let fact = Fact::number("to_node", to_holder_sat, Unit::Sat).at_least(owed_sat);
            return wrong(format!("to this node: {to_holder_sat} sat < {owed_sat} sat owed"), fact);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use bitcoin::OutPoint;
    use bitcoin::secp256k1::PublicKey;
    use lightning_signer::channel::CommitmentType;
    use lightning_signer::lightning::ln::chan_utils::ChannelPublicKeys;
    use lightning_signer::tx::tx::CommitmentInfo2;

    use super::*;

    const OURS_SAT: u64 = 600_000;
    const THEIRS_SAT: u64 = 399_000;

    pub(in super::super) fn setup(is_outbound: bool) -> ChannelSetup {
        let key: PublicKey =
            "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619".parse().expect("a point");
        ChannelSetup {
            is_outbound,
            channel_value_sat: 1_000_000,
            push_value_msat: 0,
            funding_outpoint: OutPoint::null(),
            holder_selected_contest_delay: 144,
            holder_shutdown_script: None,
            counterparty_points: ChannelPublicKeys {
                funding_pubkey: key,
                revocation_basepoint: key.into(),
                payment_point: key,
                delayed_payment_basepoint: key.into(),
                htlc_basepoint: key.into(),
            },
            counterparty_selected_contest_delay: 144,
            counterparty_shutdown_script: None,
            commitment_type: CommitmentType::AnchorsZeroFeeHtlc,
        }
    }

    /// What comes of a close that pays this much, where both commitments owe `ours_sat` and `theirs_sat`.
    fn close(is_outbound: bool, owed: (u64, u64), paid: (u64, u64)) -> Option<Reason> {
        let mut state = EnforcementState::new(0);
        let ((ours_sat, theirs_sat), none) = (owed, Vec::new);
        state.current_holder_commit_info = Some(CommitmentInfo2::new(false, theirs_sat, ours_sat, none(), none(), 253));
        state.current_counterparty_commit_info =
            Some(CommitmentInfo2::new(true, ours_sat, theirs_sat, none(), none(), 253));
        check(&setup(is_outbound), &state, paid, 5_000).err().map(|refusal| refusal.reason)
    }

    #[test]
    fn an_honest_funder_pays_the_fee_and_a_hostile_close_neither_raises_it_nor_the_peers_share() {
        assert_eq!(close(true, (OURS_SAT, THEIRS_SAT), (600_500, THEIRS_SAT)), None);
        assert_eq!(close(true, (OURS_SAT, THEIRS_SAT), (596_000, THEIRS_SAT)), None);
        assert_eq!(close(true, (OURS_SAT, THEIRS_SAT), (595_999, THEIRS_SAT)), Some(Reason::Limit));
        assert_eq!(close(true, (OURS_SAT, THEIRS_SAT), (OURS_SAT, THEIRS_SAT + 1)), Some(Reason::CloseValue));
        assert_eq!(close(true, (999_000, 0), (996_000, 400)), None, "what was dust on the commitments");
    }

    #[test]
    fn an_honest_close_leaves_out_dust_and_a_hostile_one_no_more() {
        let funded = |owed_sat, paid_sat| close(false, (owed_sat, 0), (paid_sat, 990_000));
        assert_eq!(funded(MAX_DUST_SAT, 0), None);
        assert_eq!(funded(MAX_DUST_SAT + 1, 0), Some(Reason::CloseValue));
        assert_eq!(funded(5_000, 4_999), Some(Reason::CloseValue));
        assert_eq!(funded(5_000, 5_000), None);
        assert_eq!(funded(0, 300), None, "what was dust on the commitments");
    }
}
