//! The numbers of vls's rules, all set here: nothing comes from the environment or from a library default.

use bitcoin::Network;
use claviger_policy::limits::{Limit, Limits};
use lightning_signer::policy::filter::PolicyFilter;
use lightning_signer::policy::simple_validator::SimplePolicy;
use lightning_signer::util::velocity::VelocityControlSpec;

use crate::config::LimitsConfig;

/// Channels of one node, stubs and closing ones included.
const MAX_CHANNELS: usize = 20_000;
/// Open invoices of one node, issued and approved each. They are pruned a day after they expire.
const MAX_INVOICES: usize = 2_000_000;

/// No output that either side of a channel may trim is larger: the dust limit of P2PKH, the highest of the standard
/// scripts, and the highest `dust_limit_satoshis` that implementations agree to.
pub(super) const MAX_DUST_SAT: u64 = 546;

/// 1333 sat/vB: more than blocks ever asked for over hours, but not more than a sweep in a hurry could want.
pub(super) const MAX_ENDING_FEERATE_PER_KW: u32 = 333_333;

/// The numbers for `network`.
pub fn policy(network: Network, limits: &LimitsConfig) -> SimplePolicy {
    let mainnet = network == Network::Bitcoin;
    SimplePolicy {
        // Blocks, of both sides' delays. On mainnet a day to punish a cheat, the least that implementations ask for; above,
        // our money lies still for longer than two weeks, which they do not accept either.
        min_delay: if mainnet { 144 } else { 4 },
        max_delay: 2_016,
        // With option_support_large_channel there is no limit in BOLT 2; above all payments stand the limits of `[limits]`.
        max_channel_size_sat: 100_000_000_000,
        // How far vls lets a mutual close be from the commitments; the exact rule is `close.rs`. Each side may leave out its
        // own dust.
        epsilon_sat: MAX_DUST_SAT,
        // BOLT 2: 483 in each direction.
        max_htlcs: 966,
        // All HTLCs of a commitment; a channel cannot hold more than its capacity.
        max_htlc_value_sat: 100_000_000_000,
        // HTLC expiry against our own tip: with a peer a few blocks ahead this refuses honest states.
        use_chain_state: false,
        // One sat/vB, below which nothing was relayed for years and implementations do not go.
        min_feerate_per_kw: 253,
        // 1000 sat/vB on mainnet: next-block feerates have been there, and a commitment must be able to follow.
        max_feerate_per_kw: if mainnet { 250_000 } else { 333_333 },
        // vls's balance rule does not know preimages on this wire; conservation of value is the channel book's (P9).
        enforce_balance: false,
        max_routing_fee_msat: limits.max_payment_msat / 10,
        max_feerate_percentage: 10,
        cltv_delta: if mainnet { 34 } else { 6 },
        dev_flags: None,
        filter: PolicyFilter { rules: Vec::new() },
        // Payments and fees are counted in `limits/`, durably.
        global_velocity_control: VelocityControlSpec::UNLIMITED,
        max_channels: MAX_CHANNELS,
        max_invoices: MAX_INVOICES,
        fee_velocity_control: VelocityControlSpec::UNLIMITED,
    }
}

/// The same, as much stricter as a bundle in force says. What ends a channel it does not touch: nothing that an operator
/// writes may keep a node from its money.
pub(super) fn stricter(policy: SimplePolicy, limits: &Limits) -> SimplePolicy {
    // None is made larger than it can be written: the signer's own numbers are below, or the range of the table is.
    let short = |limit: Limit, held: u16| limit.stricter(held.into(), limits).try_into().unwrap_or(held);
    let long = |limit: Limit, held: u32| limit.stricter(held.into(), limits).try_into().unwrap_or(held);
    let max_htlcs = Limit::MaxHtlcs.stricter(policy.max_htlcs as u64, limits);
    SimplePolicy {
        min_delay: short(Limit::MinDelayBlocks, policy.min_delay),
        max_delay: short(Limit::MaxDelayBlocks, policy.max_delay),
        max_channel_size_sat: Limit::MaxChannelSat.stricter(policy.max_channel_size_sat, limits),
        max_htlcs: max_htlcs.try_into().unwrap_or(policy.max_htlcs),
        max_htlc_value_sat: Limit::MaxHtlcValueSat.stricter(policy.max_htlc_value_sat, limits),
        min_feerate_per_kw: long(Limit::MinFeerateSatPerKw, policy.min_feerate_per_kw),
        max_feerate_per_kw: long(Limit::MaxFeerateSatPerKw, policy.max_feerate_per_kw),
        ..policy
    }
}

/// The numbers for what ends a channel: closes, second-level transactions, sweeps.
///
/// No feerate is too low there. A low fee costs only time, the node can raise it, and a peer that pays for a close decides
/// how much.
pub(super) fn ending(network: Network, limits: &LimitsConfig) -> SimplePolicy {
    SimplePolicy { min_feerate_per_kw: 0, max_feerate_per_kw: MAX_ENDING_FEERATE_PER_KW, ..policy(network, limits) }
}

#[cfg(test)]
mod tests {
    use lightning_signer::policy::filter::FilterResult;

    use super::*;

    #[test]
    fn no_rule_is_demoted_to_a_warning() {
        for network in [Network::Bitcoin, Network::Regtest] {
            for policy in [policy(network, &LimitsConfig::default()), ending(network, &LimitsConfig::default())] {
                assert_eq!(policy.filter.filter("policy-revoke-new-commitment-signed"), FilterResult::Error);
                assert!(policy.dev_flags.is_none());
            }
        }
    }

    #[test]
    fn a_node_has_room_for_ten_thousand_channels_and_a_million_invoices() {
        let policy = policy(Network::Bitcoin, &LimitsConfig::default());
        assert!(policy.max_channels >= 10_000 && policy.max_invoices >= 1_000_000);
    }
}
