//! Mutual closes: what is owed, and to whom it may go.

use bitcoin::bip32::DerivationPath;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Network, ScriptBuf};
use lightning_signer::channel::ChannelSetup;
use lightning_signer::policy::validator::EnforcementState;
use lightning_signer::util::status::Status;
use lightning_signer::wallet::Wallet;

use super::policy::MAX_DUST_SAT;
use crate::reasons::{Reason, Refusal};

/// Whether a close pays us what the last commitments owe us: to the satoshi, but for the fee if we funded the channel (vls
/// bounds its rate), and for dust, which BOLT 2 lets either side leave out.
///
/// vls refused before where HTLCs are pending, so that both commitments say the same; where one of them left an output out
/// as dust, the other counts.
pub(super) fn check(
    setup: &ChannelSetup,
    state: &EnforcementState,
    to_holder_sat: u64,
    to_counterparty_sat: u64,
) -> Result<(), Refusal> {
    let (Some(ours), Some(theirs)) = (&state.current_holder_commit_info, &state.current_counterparty_commit_info)
    else {
        return Err(Refusal::new(Reason::CloseValue, "the channel has no commitments yet"));
    };
    let over = |what: &str, paid_sat: u64, relation: char, owed_sat: u64| {
        Err(Refusal::new(Reason::CloseValue, format!("{what}: {paid_sat} sat {relation} {owed_sat} sat owed")))
    };
    if setup.is_outbound {
        let owed_sat = ours.to_countersigner_value_sat.max(theirs.to_broadcaster_value_sat);
        if to_counterparty_sat > owed_sat.max(MAX_DUST_SAT) {
            return over("to the peer", to_counterparty_sat, '>', owed_sat);
        }
    } else {
        let owed_sat = ours.to_broadcaster_value_sat.max(theirs.to_countersigner_value_sat);
        let left_out = to_holder_sat == 0 && owed_sat <= MAX_DUST_SAT;
        if to_holder_sat < owed_sat && !left_out {
            return over("to this node", to_holder_sat, '<', owed_sat);
        }
    }
    Ok(())
}

/// A wallet to which the upfront shutdown script belongs: where it leads was judged when the channel was set up.
pub(super) struct WithUpfront<'a> {
    pub(super) wallet: &'a dyn Wallet,
    pub(super) setup: &'a ChannelSetup,
}

impl Wallet for WithUpfront<'_> {
    fn can_spend(&self, path: &DerivationPath, script: &ScriptBuf) -> Result<bool, Status> {
        Ok(self.setup.holder_shutdown_script.as_ref() == Some(script) || self.wallet.can_spend(path, script)?)
    }

    fn allowlist_contains_payee(&self, payee: PublicKey) -> bool {
        self.wallet.allowlist_contains_payee(payee)
    }

    fn allowlist_contains(&self, script: &ScriptBuf, path: &DerivationPath) -> bool {
        self.wallet.allowlist_contains(script, path)
    }

    fn network(&self) -> Network {
        self.wallet.network()
    }

    fn get_native_address(&self, path: &DerivationPath) -> Result<Address, Status> {
        self.wallet.get_native_address(path)
    }

    fn get_taproot_address(&self, path: &DerivationPath) -> Result<Address, Status> {
        self.wallet.get_taproot_address(path)
    }

    #[expect(deprecated, reason = "the trait asks for it")]
    fn get_wrapped_address(&self, path: &DerivationPath) -> Result<Address, Status> {
        self.wallet.get_wrapped_address(path)
    }
}
