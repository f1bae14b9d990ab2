//! The rules vls checks, with every number set here: nothing comes from the environment or from a library default.
//!
//! [`HouseValidator`] stands around vls's on-chain validator. It notes what refused, which vls drops on its way to the
//! caller, and it is the place where rules of our own go.

use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::absolute::LockTime;
use bitcoin::bip32::DerivationPath;
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
use lightning_signer::policy::filter::PolicyFilter;
use lightning_signer::policy::onchain_validator::OnchainValidatorFactory;
use lightning_signer::policy::simple_validator::{SimplePolicy, SimpleValidatorFactory};
use lightning_signer::policy::validator::{ChainState, EnforcementState, Validator, ValidatorFactory};
use lightning_signer::signer::vls_channel_signer::VlsChannelSigner;
use lightning_signer::tx::tx::{CommitmentInfo, CommitmentInfo2};
use lightning_signer::txoo::proof::TxoProof;
use lightning_signer::util::velocity::VelocityControlSpec;
use lightning_signer::wallet::Wallet;

use super::actor::ChainFacts;
use super::bookkeeper::Bookkeeper;
use super::locktime;
use crate::config::LimitsConfig;
use crate::names::NodeName;
use crate::reasons::Refusal;

/// Channels of one node.
const MAX_CHANNELS: usize = 20_000;
/// Open invoices of one node, issued and approved each.
const MAX_INVOICES: usize = 2_000_000;

/// The numbers of vls's rules on `network`.
pub fn policy(network: Network, limits: &LimitsConfig) -> SimplePolicy {
    let mainnet = network == Network::Bitcoin;
    SimplePolicy {
        // Blocks. Below, a peer could be punished before it sees its mistake; above, our money is locked too long.
        min_delay: if mainnet { 144 } else { 4 },
        max_delay: 2_016,
        max_channel_size_sat: 1_000_000_000,
        // How far a mutual close may be from the commitments, for the rounding of fees and trimmed outputs.
        epsilon_sat: 10_000,
        // BOLT 2: 483 in each direction.
        max_htlcs: 966,
        max_htlc_value_sat: 1_000_000_000,
        // HTLC expiry against our own tip: with a peer a few blocks ahead this refuses honest states.
        use_chain_state: false,
        min_feerate_per_kw: 253,
        max_feerate_per_kw: if mainnet { 100_000 } else { 333_333 },
        // vls's balance rule does not know preimages on this wire; conservation of value is the channel book's (P9).
        enforce_balance: false,
        max_routing_fee_msat: limits.max_payment_msat / 10,
        max_feerate_percentage: 10,
        cltv_delta: if mainnet { 34 } else { 6 },
        dev_flags: None,
        filter: PolicyFilter { rules: Vec::new() },
        // Payments and fees are counted by `limits.rs`, durably.
        global_velocity_control: VelocityControlSpec::UNLIMITED,
        max_channels: MAX_CHANNELS,
        max_invoices: MAX_INVOICES,
        fee_velocity_control: VelocityControlSpec::UNLIMITED,
    }
}

/// Makes the validators of one node.
pub struct HouseValidatorFactory {
    inner: OnchainValidatorFactory,
    view: View,
    refused_by: RefusedBy,
    bookkeeper: Arc<Bookkeeper>,
}

/// What `node` knows of the chain.
#[derive(Clone)]
struct View {
    chain: Arc<dyn ChainFacts>,
    node: NodeName,
}

/// What refused last.
#[derive(Clone, Default)]
pub struct RefusedBy(Arc<Mutex<Option<Objection>>>);

/// What a validator has against a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// A rule of vls, by its tag.
    Rule(String),
    /// A rule of our own.
    House(Refusal),
}

impl RefusedBy {
    /// Takes the objection out.
    pub fn take(&self) -> Option<Objection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, objection: Objection) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(objection);
    }

    fn note_rule(&self, error: &ValidationError) {
        self.note(Objection::Rule(error.tag.clone()));
    }
}

impl HouseValidatorFactory {
    /// A factory for `node`, which sees the chain as `chain` does; what refuses is left in `refused_by`. Commitments are
    /// shown to `bookkeeper`.
    pub fn new(
        policy: SimplePolicy,
        chain: Arc<dyn ChainFacts>,
        node: NodeName,
        refused_by: RefusedBy,
        bookkeeper: Arc<Bookkeeper>,
    ) -> Self {
        let inner = OnchainValidatorFactory::new_with_simple_factory(SimpleValidatorFactory::new_with_policy(policy));
        Self { inner, view: View { chain, node }, refused_by, bookkeeper }
    }
}

#[expect(clippy::arc_with_non_send_sync, reason = "vls asks for an Arc of a validator that is used on one thread")]
impl ValidatorFactory for HouseValidatorFactory {
    fn make_validator(&self, network: Network, node: PublicKey, channel: Option<ChannelId>) -> Arc<dyn Validator> {
        let inner = self.inner.make_validator(network, node, channel);
        let (view, refused_by, bookkeeper) = (self.view.clone(), self.refused_by.clone(), self.bookkeeper.clone());
        Arc::new(HouseValidator { inner, view, refused_by, bookkeeper })
    }

    fn policy(&self, network: Network) -> Box<dyn Policy> {
        self.inner.policy(network)
    }
}

/// vls's on-chain validator with our ears on it.
struct HouseValidator {
    inner: Arc<dyn Validator>,
    view: View,
    refused_by: RefusedBy,
    bookkeeper: Arc<Bookkeeper>,
}

impl HouseValidator {
    /// What `rules` say of a sweep, but for its locktime: ours replaces theirs, to which a node that saw a block before we
    /// did, or bumped a claim after an HTLC's expiry, looks like an attack.
    fn sweep(
        &self,
        tx: &Transaction,
        chain: &ChainState,
        rules: impl Fn(&Transaction) -> Result<(), ValidationError>,
    ) -> Result<(), ValidationError> {
        let Err(error) = rules(tx) else { return Ok(()) };
        self.refused_by.note_rule(&error);
        let LockTime::Blocks(locktime) = tx.lock_time else { return Err(error) };
        // What else is wrong with it stays wrong.
        rules(&Transaction { lock_time: LockTime::ZERO, ..tx.clone() })
            .inspect_err(|error| self.refused_by.note_rule(error))?;
        let require_fresh = || self.view.chain.require_fresh(&self.view.node);
        match locktime::judge(locktime.to_consensus_u32(), chain.current_height, require_fresh) {
            Ok(()) => {
                self.refused_by.take();
                Ok(())
            }
            Err(refusal) => {
                self.refused_by.note(Objection::House(refusal));
                Err(error)
            }
        }
    }
}

impl HouseValidator {
    /// What the channel book says of a commitment that vls accepts.
    fn book(
        &self,
        setup: &ChannelSetup,
        chain: &ChainState,
        number: u64,
        info: &CommitmentInfo2,
    ) -> Result<(), ValidationError> {
        self.bookkeeper.commitment(setup, chain.current_height, number, info).map_err(|refusal| {
            let kind = ValidationErrorKind::Policy(refusal.detail.clone());
            let tag = refusal.reason.id().to_owned();
            self.refused_by.note(Objection::House(refusal));
            ValidationError { tag, kind }
        })
    }
}

type Slots = Vec<Option<Arc<Mutex<ChannelSlot>>>>;
type HtlcTx = (u32, HTLCOutputInCommitment, SegwitV0Sighash, EcdsaSighashType);

/// Writes methods that ask the inner validator and note who refused.
macro_rules! forward {
    ($( fn $name:ident($( $arg:ident: $ty:ty ),*) -> $ok:ty; )*) => { $(
        fn $name(&self, $( $arg: $ty ),*) -> Result<$ok, ValidationError> {
            self.inner.$name($( $arg ),*).inspect_err(|error| self.refused_by.note_rule(error))
        }
    )* };
}

impl Validator for HouseValidator {
    forward! {
        fn validate_setup_channel(wallet: &dyn Wallet, setup: &ChannelSetup, shutdown_path: &DerivationPath) -> ();
        fn validate_channel_value(setup: &ChannelSetup) -> ();
        fn validate_onchain_tx(
            wallet: &dyn Wallet, channels: Slots, tx: &Transaction, segwit_flags: &[bool], values_sat: &[u64],
            opaths: &[DerivationPath], weight_lower_bound: usize
        ) -> u64;
        fn decode_commitment_tx(
            keys: &VlsChannelSigner, setup: &ChannelSetup, is_counterparty: bool, tx: &Transaction,
            witscripts: &[Vec<u8>]
        ) -> CommitmentInfo;
        fn validate_counterparty_revocation(
            state: &EnforcementState, revoked_number: u64, secret: &SecretKey
        ) -> ();
        fn decode_and_validate_htlc_tx(
            is_counterparty: bool, setup: &ChannelSetup, keys: &TxCreationKeys, tx: &Transaction,
            redeemscript: &ScriptBuf, htlc_amount_sat: u64, output_witscript: &ScriptBuf
        ) -> HtlcTx;
        fn validate_htlc_tx(
            setup: &ChannelSetup, chain: &ChainState, is_counterparty: bool, htlc: &HTLCOutputInCommitment,
            feerate_per_kw: u32
        ) -> ();
        fn decode_and_validate_mutual_close_tx(
            wallet: &dyn Wallet, setup: &ChannelSetup, state: &EnforcementState, tx: &Transaction,
            opaths: &[DerivationPath]
        ) -> ClosingTransaction;
        fn validate_mutual_close_tx(
            wallet: &dyn Wallet, setup: &ChannelSetup, state: &EnforcementState, to_holder_sat: u64,
            to_counterparty_sat: u64, holder_script: &Option<ScriptBuf>, counterparty_script: &Option<ScriptBuf>,
            holder_path_hint: &DerivationPath
        ) -> ();
        fn validate_payment_balance(incoming_msat: u64, outgoing_msat: u64, invoiced_msat: Option<u64>) -> ();
        fn validate_invoice(invoice: &Invoice, now: std::time::Duration) -> ();
        fn validate_bolt12_invoice_unsigned(
            invoice: &UnsignedBolt12Invoice, now: std::time::Duration, bolt12_pubkey: PublicKey
        ) -> ();
        fn validate_block(
            proof: &TxoProof, height: u32, header: &Header, external_block_hash: Option<&BlockHash>,
            prev_filter_header: &FilterHeader, outpoint_watches: &[OutPoint], trusted_oracles: &Vec<PublicKey>
        ) -> ();
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
        let rules = self.inner.validate_counterparty_commitment_tx(state, number, point, setup, chain, info);
        rules.inspect_err(|error| self.refused_by.note_rule(error))?;
        self.book(setup, chain, number, info)
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
        let rules = self.inner.validate_holder_commitment_tx(state, number, point, setup, chain, info);
        rules.inspect_err(|error| self.refused_by.note_rule(error))?;
        self.book(setup, chain, number, info)
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
        self.sweep(tx, chain, |tx| self.inner.validate_delayed_sweep(wallet, setup, chain, tx, input, amount_sat, path))
    }

    fn validate_counterparty_htlc_sweep(
        &self,
        wallet: &dyn Wallet,
        setup: &ChannelSetup,
        chain: &ChainState,
        tx: &Transaction,
        redeemscript: &ScriptBuf,
        input: usize,
        amount_sat: u64,
        path: &DerivationPath,
    ) -> Result<(), ValidationError> {
        self.sweep(tx, chain, |tx| {
            let inner = &self.inner;
            inner.validate_counterparty_htlc_sweep(wallet, setup, chain, tx, redeemscript, input, amount_sat, path)
        })
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
        self.sweep(tx, chain, |tx| self.inner.validate_justice_sweep(wallet, setup, chain, tx, input, amount_sat, path))
    }

    /// The book's rule: vls compares the earliest end of all HTLCs that ever came in under a hash with the latest of all that
    /// ever went out, also those of attempts that failed, and of payments to oneself.
    fn validate_payment_cltv(&self, _incoming_cltv: u32, _outgoing_cltv: u32) -> Result<(), ValidationError> {
        Ok(())
    }

    fn minimum_initial_balance(&self, holder_value_msat: u64) -> u64 {
        self.inner.minimum_initial_balance(holder_value_msat)
    }

    fn is_ready(&self, chain: &ChainState) -> bool {
        self.inner.is_ready(chain)
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
    use lightning_signer::policy::filter::FilterResult;

    #[test]
    fn no_rule_is_demoted_to_a_warning() {
        for network in [Network::Bitcoin, Network::Regtest] {
            let policy = policy(network, &LimitsConfig::default());
            assert_eq!(policy.filter.filter("policy-revoke-new-commitment-signed"), FilterResult::Error);
            assert!(policy.dev_flags.is_none());
        }
    }

    #[test]
    fn a_refusing_rule_is_named() {
        let refused_by = RefusedBy::default();
        let (limits, chain) = (LimitsConfig::default(), Arc::new(MiniChain::default()));
        let alice = NodeName::new("alice").expect("a name");
        let policy = policy(Network::Regtest, &limits);
        let bookkeeper = Bookkeeper::restore(NodeKind::Ldk, &policy, Arc::default(), &mut BTreeMap::new());
        let bookkeeper = Arc::new(bookkeeper.expect("fresh"));
        let factory = HouseValidatorFactory::new(policy, chain, alice, refused_by.clone(), bookkeeper);
        let node = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619".parse().expect("a point");
        let validator = factory.make_validator(Network::Regtest, node, None);
        assert!(validator.validate_payment_balance(5_000, 5_000, None).is_ok());
        assert_eq!(refused_by.take(), None);
        assert!(validator.validate_payment_balance(0, 5_000, None).is_err());
        assert_eq!(refused_by.take(), Some(Objection::Rule("policy-routing-balanced".to_owned())));
    }
}
