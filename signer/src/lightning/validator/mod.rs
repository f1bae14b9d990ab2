//! The rules of vls and, around them, our own.
//!
//! [`HouseValidator`] stands where vls looks for its validator. It asks vls's own rules first, with the numbers of
//! `policy.rs`, and notes what refused, which vls drops on its way to the caller. What vls takes on the node's word it then
//! proves: funding (`funding.rs`), the coins of a sweep and their fee (`sweep.rs`, with what the chain showed, `outputs.rs`),
//! the values of a mutual close (`close.rs`). Second-level transactions are judged before vls sees them
//! (`second_level.rs`).

pub(super) mod capacity;
mod close;
mod destinations;
mod funding;
mod locktime;
mod objection;
pub mod outputs;
mod policy;
pub(super) mod second_level;
mod sweep;

use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::bip32::{ChildNumber, DerivationPath};
use bitcoin::block::Header;
use bitcoin::hash_types::FilterHeader;
use bitcoin::secp256k1::{PublicKey, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SegwitV0Sighash};
use bitcoin::{BlockHash, Network, OutPoint, ScriptBuf, Transaction};
use lightning_signer::channel::{ChannelId, ChannelSetup, ChannelSlot};
use lightning_signer::invoice::Invoice;
use lightning_signer::lightning::ln::chan_utils::{ClosingTransaction, HTLCOutputInCommitment, TxCreationKeys};
use lightning_signer::lightning::offers::invoice::UnsignedBolt12Invoice;
use lightning_signer::policy::Policy;
use lightning_signer::policy::error::{ValidationError, ValidationErrorKind};
use lightning_signer::policy::onchain_validator::OnchainValidatorFactory;
use lightning_signer::policy::simple_validator::{SimplePolicy, SimpleValidatorFactory};
use lightning_signer::policy::validator::{ChainState, EnforcementState, Validator, ValidatorFactory};
use lightning_signer::signer::vls_channel_signer::VlsChannelSigner;
use lightning_signer::tx::tx::{CommitmentInfo, CommitmentInfo2};
use lightning_signer::txoo::proof::TxoProof;
use lightning_signer::wallet::Wallet;

use self::destinations::Destinations;
use self::outputs::Outputs;
use super::actor::ChainFacts;
use super::bookkeeper::Bookkeeper;
use super::counter::Counter;
use super::limits::Limits;
use crate::config::LimitsConfig;
use crate::names::NodeName;
use crate::reasons::Refusal;

pub use self::objection::{Objection, RefusedBy};
pub use self::policy::policy;

/// What the rules look at besides what vls hands them.
#[derive(Clone)]
pub struct View {
    /// The chain.
    pub chain: Arc<dyn ChainFacts>,
    /// Whose rules they are.
    pub node: NodeName,
    /// Confirmations that a funding transaction needs.
    pub funding_depth: u32,
    /// The highest fee of a close that we pay for.
    pub max_fee_sat: u64,
    /// What may be spent.
    pub limits: Arc<Limits>,
    /// What the chain showed of channels.
    pub outputs: Arc<Outputs>,
    /// The wallet index of the upfront shutdown script in the SetupChannel being handled: vls does not pass it on.
    pub shutdown_index: Arc<Mutex<Option<u32>>>,
    /// To whom commitments are shown that everybody else accepts.
    pub bookkeeper: Arc<Bookkeeper>,
    /// Where the spending policy is asked, once everything else holds.
    pub counter: Arc<Counter>,
}

/// Makes the validators of one node.
pub struct HouseValidatorFactory {
    /// Before the bundle in force makes it stricter.
    running: SimplePolicy,
    ending: OnchainValidatorFactory,
    view: View,
    refused_by: RefusedBy,
}

impl HouseValidatorFactory {
    /// A factory for the node of `view` on `network`; what refuses is left in `refused_by`.
    pub fn new(network: Network, limits: &LimitsConfig, view: View, refused_by: RefusedBy) -> Self {
        Self { running: policy(network, limits), ending: factory(policy::ending(network, limits)), view, refused_by }
    }
}

#[expect(clippy::arc_with_non_send_sync, reason = "vls asks for an Arc of a validator that is used on one thread")]
impl ValidatorFactory for HouseValidatorFactory {
    fn make_validator(&self, network: Network, node: PublicKey, channel: Option<ChannelId>) -> Arc<dyn Validator> {
        Arc::new(HouseValidator {
            inner: self.running().make_validator(network, node, channel.clone()),
            ending: self.ending.make_validator(network, node, channel),
            view: self.view.clone(),
            refused_by: self.refused_by.clone(),
        })
    }

    fn policy(&self, network: Network) -> Box<dyn Policy> {
        self.running().policy(network)
    }
}

impl HouseValidatorFactory {
    /// The rules for what goes on, as the bundle has them that the message being handled began under.
    fn running(&self) -> OnchainValidatorFactory {
        match self.view.counter.bundle() {
            Some(bundle) => factory(policy::stricter(self.running.clone(), &bundle.policy().limits)),
            None => factory(self.running.clone()),
        }
    }
}

fn factory(policy: SimplePolicy) -> OnchainValidatorFactory {
    OnchainValidatorFactory::new_with_simple_factory(SimpleValidatorFactory::new_with_policy(policy))
}

/// vls's on-chain validator with our rules around it.
struct HouseValidator {
    inner: Arc<dyn Validator>,
    /// The same with the numbers for what ends a channel.
    ending: Arc<dyn Validator>,
    view: View,
    refused_by: RefusedBy,
}

impl HouseValidator {
    /// Notes vls's objection.
    fn noted<T>(&self, verdict: Result<T, ValidationError>) -> Result<T, ValidationError> {
        verdict.inspect_err(|error| self.refused_by.note_rule(error))
    }

    /// Asks the spending policy about a sweep whose outputs of the wallet are at `path`.
    fn sweeps(&self, wallet: &dyn Wallet, tx: &Transaction, path: &DerivationPath) -> Result<(), ValidationError> {
        let is_foreign = |index: usize| !is_own(wallet, Some(path), &tx.output[index].script_pubkey);
        self.house(self.view.counter.sweep(tx, is_foreign))
    }

    /// Turns our own verdict into one that vls understands.
    fn house<T>(&self, verdict: Result<T, Refusal>) -> Result<T, ValidationError> {
        verdict.map_err(|refusal| {
            let error = house_error(&refusal);
            self.refused_by.note(Objection::House(refusal));
            error
        })
    }
}

/// Whether the wallet's key at `path` is what `script` pays to.
fn is_own(wallet: &dyn Wallet, path: Option<&DerivationPath>, script: &ScriptBuf) -> bool {
    path.is_some_and(|path| wallet.can_spend(path, script).unwrap_or(false))
}

/// The error that stands for one of our own refusals inside vls.
fn house_error(refusal: &Refusal) -> ValidationError {
    ValidationError { tag: refusal.reason.id().to_owned(), kind: ValidationErrorKind::Policy(refusal.detail.clone()) }
}

type Slots = Vec<Option<Arc<Mutex<ChannelSlot>>>>;
type HtlcTx = (u32, HTLCOutputInCommitment, SegwitV0Sighash, EcdsaSighashType);

/// Writes methods that ask vls's rules and note who refused.
macro_rules! forward {
    ($( $to:ident: fn $name:ident($( $arg:ident: $ty:ty ),*) -> $ok:ty; )*) => { $(
        fn $name(&self, $( $arg: $ty ),*) -> Result<$ok, ValidationError> {
            self.noted(self.$to.$name($( $arg ),*))
        }
    )* };
}

impl Validator for HouseValidator {
    forward! {
        inner: fn validate_channel_value(setup: &ChannelSetup) -> ();
        inner: fn decode_commitment_tx(
            keys: &VlsChannelSigner, setup: &ChannelSetup, is_counterparty: bool, tx: &Transaction,
            witscripts: &[Vec<u8>]
        ) -> CommitmentInfo;
        inner: fn validate_counterparty_revocation(
            state: &EnforcementState, revoked_number: u64, secret: &SecretKey
        ) -> ();
        ending: fn decode_and_validate_htlc_tx(
            is_counterparty: bool, setup: &ChannelSetup, keys: &TxCreationKeys, tx: &Transaction,
            redeemscript: &ScriptBuf, htlc_amount_sat: u64, output_witscript: &ScriptBuf
        ) -> HtlcTx;
        ending: fn validate_htlc_tx(
            setup: &ChannelSetup, chain: &ChainState, is_counterparty: bool, htlc: &HTLCOutputInCommitment,
            feerate_per_kw: u32
        ) -> ();
        inner: fn validate_invoice(invoice: &Invoice, now: std::time::Duration) -> ();
        inner: fn validate_bolt12_invoice_unsigned(
            invoice: &UnsignedBolt12Invoice, now: std::time::Duration, bolt12_pubkey: PublicKey
        ) -> ();
        inner: fn validate_block(
            proof: &TxoProof, height: u32, header: &Header, external_block_hash: Option<&BlockHash>,
            prev_filter_header: &FilterHeader, outpoint_watches: &[OutPoint], trusted_oracles: &Vec<PublicKey>
        ) -> ();
    }

    /// Of a frozen node, the wallet adds fees to claims and does nothing else: no address counts as allowed then, and no
    /// channel is funded.
    fn validate_onchain_tx(
        &self,
        wallet: &dyn Wallet,
        mut channels: Slots,
        tx: &Transaction,
        segwit_flags: &[bool],
        values_sat: &[u64],
        opaths: &[DerivationPath],
        weight_lower_bound: usize,
    ) -> Result<u64, ValidationError> {
        let own = Destinations::own(wallet);
        let is_frozen = self.view.limits.pays_only_fees();
        if is_frozen {
            channels.fill(None);
        }
        let wallet = if is_frozen { &own } else { wallet };
        let is_foreign = |index: usize| {
            let is_channel = channels.get(index).is_some_and(Option::is_some);
            !is_channel && !is_own(wallet, opaths.get(index), &tx.output[index].script_pubkey)
        };
        if let Some(onchain) = self.view.limits.onchain() {
            self.house(self.view.counter.onchain(tx, onchain, is_foreign))?;
        }
        let (inner, flags, weight) = (&self.inner, segwit_flags, weight_lower_bound);
        self.noted(inner.validate_onchain_tx(wallet, channels, tx, flags, values_sat, opaths, weight))
    }

    fn validate_setup_channel(
        &self,
        wallet: &dyn Wallet,
        setup: &ChannelSetup,
        shutdown_path: &DerivationPath,
    ) -> Result<(), ValidationError> {
        let index = *self.view.shutdown_index.lock().unwrap_or_else(PoisonError::into_inner);
        let child = index.and_then(|index| ChildNumber::from_normal_idx(index).ok());
        let path = child.map_or_else(|| shutdown_path.clone(), |child| vec![child].into());
        self.noted(self.inner.validate_setup_channel(wallet, setup, &path))
    }

    fn validate_counterparty_commitment_tx(
        &self,
        state: &EnforcementState,
        number: u64,
        point: &PublicKey,
        setup: &ChannelSetup,
        chain: &ChainState,
        info: &CommitmentInfo2,
    ) -> Result<(), ValidationError> {
        let inner = &self.inner;
        self.house(funding::unspent(number, chain))?;
        self.noted(inner.validate_counterparty_commitment_tx(state, number, point, setup, chain, info))?;
        self.house(funding::check(&self.view, number, setup, chain))?;
        self.house(self.view.bookkeeper.commitment(setup, chain.current_height, number, info))?;
        self.house(self.view.counter.commitment(number, info))?;
        let forwards = || self.view.bookkeeper.forwards(chain.current_height);
        self.house(self.view.counter.forwards(number, forwards))
    }

    fn validate_holder_commitment_tx(
        &self,
        state: &EnforcementState,
        number: u64,
        point: &PublicKey,
        setup: &ChannelSetup,
        chain: &ChainState,
        info: &CommitmentInfo2,
    ) -> Result<(), ValidationError> {
        let inner = &self.inner;
        // One that is in force already is only looked at again.
        let is_new = number >= state.next_holder_commit_num;
        if is_new {
            self.house(funding::unspent(number, chain))?;
        }
        self.noted(inner.validate_holder_commitment_tx(state, number, point, setup, chain, info))?;
        if is_new {
            self.house(funding::check(&self.view, number, setup, chain))?;
        }
        self.house(self.view.bookkeeper.commitment(setup, chain.current_height, number, info))
    }

    /// The book's rule: vls compares the earliest end of all HTLCs that ever came in under a hash with the latest of all that
    /// ever went out, also those of attempts that failed, and of payments to oneself.
    fn validate_payment_cltv(&self, _incoming_cltv: u32, _outgoing_cltv: u32) -> Result<(), ValidationError> {
        Ok(())
    }

    /// The book's rule, too, which has judged every commitment before vls counts its payments: vls sees only what commitments
    /// show, and would refuse what came in as dust, what a closed channel gave back, and a small payment's base fee.
    fn validate_payment_balance(
        &self,
        _in_msat: u64,
        _out_msat: u64,
        _invoiced: Option<u64>,
    ) -> Result<(), ValidationError> {
        Ok(())
    }

    fn decode_and_validate_mutual_close_tx(
        &self,
        wallet: &dyn Wallet,
        setup: &ChannelSetup,
        state: &EnforcementState,
        tx: &Transaction,
        opaths: &[DerivationPath],
    ) -> Result<ClosingTransaction, ValidationError> {
        let wallet = Destinations::of_close(wallet, setup, &self.view.counter);
        let close = self.noted(self.ending.decode_and_validate_mutual_close_tx(&wallet, setup, state, tx, opaths))?;
        let paid = (close.to_holder_value_sat(), close.to_counterparty_value_sat());
        self.house(close::check(setup, state, paid, self.view.max_fee_sat))?;
        let script = close.to_holder_script().to_owned();
        let is_own = || opaths.iter().any(|path| is_own(&wallet, Some(path), &script));
        let foreign = || (!is_own()).then_some(&script);
        self.house(self.view.counter.close(close.to_holder_value_sat(), foreign))?;
        Ok(close)
    }

    fn validate_mutual_close_tx(
        &self,
        wallet: &dyn Wallet,
        setup: &ChannelSetup,
        state: &EnforcementState,
        to_holder_sat: u64,
        to_counterparty_sat: u64,
        holder_script: &Option<ScriptBuf>,
        counterparty_script: &Option<ScriptBuf>,
        path: &DerivationPath,
    ) -> Result<(), ValidationError> {
        let (ending, wallet) = (&self.ending, &Destinations::of_close(wallet, setup, &self.view.counter));
        let (ours_sat, theirs_sat, ours, theirs) =
            (to_holder_sat, to_counterparty_sat, holder_script, counterparty_script);
        self.noted(ending.validate_mutual_close_tx(wallet, setup, state, ours_sat, theirs_sat, ours, theirs, path))?;
        self.house(close::check(setup, state, (ours_sat, theirs_sat), self.view.max_fee_sat))?;
        let foreign = || ours.as_ref().filter(|script| !is_own(wallet, Some(path), script));
        self.house(self.view.counter.close(ours_sat, foreign))
    }

    fn validate_delayed_sweep(
        &self,
        wallet: &dyn Wallet,
        setup: &ChannelSetup,
        chain: &ChainState,
        tx: &Transaction,
        input: usize,
        amount_sat: u64,
        path: &DerivationPath,
    ) -> Result<(), ValidationError> {
        let wallet = &Destinations::of_sweep(wallet, &self.view.counter);
        self.sweep(tx, chain, input, amount_sat, |tx| {
            self.ending.validate_delayed_sweep(wallet, setup, chain, tx, input, amount_sat, path)
        })?;
        self.sweeps(wallet, tx, path)
    }

    fn validate_counterparty_htlc_sweep(
        &self,
        wallet: &dyn Wallet,
        setup: &ChannelSetup,
        chain: &ChainState,
        tx: &Transaction,
        script: &ScriptBuf,
        input: usize,
        amount_sat: u64,
        path: &DerivationPath,
    ) -> Result<(), ValidationError> {
        let wallet = &Destinations::of_sweep(wallet, &self.view.counter);
        self.sweep(tx, chain, input, amount_sat, |tx| {
            self.ending.validate_counterparty_htlc_sweep(wallet, setup, chain, tx, script, input, amount_sat, path)
        })?;
        self.sweeps(wallet, tx, path)
    }

    fn validate_justice_sweep(
        &self,
        wallet: &dyn Wallet,
        setup: &ChannelSetup,
        chain: &ChainState,
        tx: &Transaction,
        input: usize,
        amount_sat: u64,
        path: &DerivationPath,
    ) -> Result<(), ValidationError> {
        self.sweep(tx, chain, input, amount_sat, |tx| {
            self.ending.validate_justice_sweep(wallet, setup, chain, tx, input, amount_sat, path)
        })
    }

    fn minimum_initial_balance(&self, holder_value_msat: u64) -> u64 {
        self.inner.minimum_initial_balance(holder_value_msat)
    }

    fn is_ready(&self, chain: &ChainState) -> bool {
        self.inner.is_ready(chain) && chain.funding_depth >= self.view.funding_depth
    }

    fn policy(&self) -> Box<&dyn Policy> {
        self.inner.policy()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::driver::MiniChain;
    use super::*;
    use crate::names::NodeKind;

    fn validator(network: Network, refused_by: &RefusedBy) -> Arc<dyn Validator> {
        let policy = policy(network, &LimitsConfig::default());
        let bookkeeper = Bookkeeper::restore(NodeKind::Ldk, network, &policy, Arc::default(), &mut BTreeMap::new());
        let view = View {
            chain: Arc::new(MiniChain::default()),
            node: NodeName::new("alice").expect("a name"),
            funding_depth: 1,
            max_fee_sat: 0,
            limits: Arc::new(Limits::restore(LimitsConfig::default(), Arc::default(), None).expect("fresh")),
            outputs: Arc::default(),
            shutdown_index: Arc::default(),
            bookkeeper: Arc::new(bookkeeper.expect("fresh")),
            counter: Arc::new(Counter::new(
                Arc::default(),
                NodeName::new("alice").expect("a name"),
                network,
                Arc::default(),
            )),
        };
        let factory = HouseValidatorFactory::new(network, &LimitsConfig::default(), view, refused_by.clone());
        let node = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619".parse().expect("a point");
        factory.make_validator(network, node, None)
    }

    #[test]
    fn a_refusing_rule_is_named() {
        let refused_by = RefusedBy::default();
        let validator = validator(Network::Regtest, &refused_by);
        let worth = |channel_value_sat| ChannelSetup { channel_value_sat, ..close::tests::setup(true) };
        assert!(validator.validate_channel_value(&worth(1_000_000)).is_ok());
        assert_eq!(refused_by.take(), None);
        assert!(validator.validate_channel_value(&worth(u64::MAX)).is_err());
        assert_eq!(refused_by.take(), Some(Objection::Rule("policy-funding-max".to_owned())));
    }
}
