//! Where money may go: the node's wallet, as a rule of vls is shown it.

use bitcoin::bip32::DerivationPath;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Network, ScriptBuf};
use lightning_signer::channel::ChannelSetup;
use lightning_signer::util::status::Status;
use lightning_signer::wallet::Wallet;

use crate::lightning::counter::Counter;

/// The wallet, with more or fewer destinations than it has.
pub(super) struct Destinations<'a> {
    wallet: &'a dyn Wallet,
    /// Belongs to it as well.
    upfront: Option<&'a ScriptBuf>,
    /// Whether `limits.allow` counts.
    allowed: bool,
    /// Whose lists of destinations count as well. Only where the policy is asked afterwards: a list by itself permits nothing.
    listed: Option<&'a Counter>,
}

impl<'a> Destinations<'a> {
    /// Those of a close. Where the upfront shutdown script leads was judged when the channel was set up.
    pub(super) fn of_close(wallet: &'a dyn Wallet, setup: &'a ChannelSetup, counter: &'a Counter) -> Self {
        Self { wallet, upfront: setup.holder_shutdown_script.as_ref(), allowed: true, listed: Some(counter) }
    }

    /// Those of a sweep.
    pub(super) fn of_sweep(wallet: &'a dyn Wallet, counter: &'a Counter) -> Self {
        Self { wallet, upfront: None, allowed: true, listed: Some(counter) }
    }

    /// The wallet itself and nowhere else.
    pub(super) fn own(wallet: &'a dyn Wallet) -> Self {
        Self { wallet, upfront: None, allowed: false, listed: None }
    }
}

impl Wallet for Destinations<'_> {
    fn can_spend(&self, path: &DerivationPath, script: &ScriptBuf) -> Result<bool, Status> {
        Ok(self.upfront == Some(script) || self.wallet.can_spend(path, script)?)
    }

    fn allowlist_contains_payee(&self, payee: PublicKey) -> bool {
        self.allowed && self.wallet.allowlist_contains_payee(payee)
    }

    fn allowlist_contains(&self, script: &ScriptBuf, path: &DerivationPath) -> bool {
        let is_listed = || self.listed.is_some_and(|counter| counter.is_listed(script));
        self.allowed && self.wallet.allowlist_contains(script, path) || is_listed()
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
