//! What a node may spend at most, whatever the policy in force permits: fixed limits from `[limits]` in `claviger.toml`.
//!
//! Payments are charged when the node announces them (PreapproveInvoice, PreapproveKeysend); forwards are matched by
//! their incoming HTLC and need no approval. On-chain sends are charged when they are signed. A charge becomes durable
//! in the same commit as the approval (P1), so the sliding windows survive a restart.

mod fees;
mod window;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::{Transaction, TxOut};
use lightning_signer::SendSync;
use lightning_signer::invoice::{Invoice, InvoiceAttributes};
use lightning_signer::lightning::types::payment::PaymentHash;
use serde::{Deserialize, Serialize};
use vls_protocol_signer::approver::Approve;

use self::fees::{Fee, Fees};
use self::window::Window;
use super::clock::NodeClock;
use crate::config::LimitsConfig;
use crate::facts::{Fact, Unit};
use crate::journal::Put;
use crate::reasons::{Reason, Refusal};

/// The entry of a node's tenant that holds the windows.
pub const KEY: &str = "limits";

/// All bitcoin there can be. Amounts above are refused before anything adds them up.
pub const MAX_MONEY_SAT: u64 = 21_000_000 * 100_000_000;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// All fees of a day may come to this many of the highest single fee.
const FEES_PER_DAY: u64 = 10;

/// The limits of one node and what was spent under them.
pub struct Limits {
    config: LimitsConfig,
    clock: Arc<NodeClock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    spent: Spent,
    /// Approved in the message being handled, not yet charged.
    pending: Pending,
    /// The on-chain transaction being handled, once its fee is accepted.
    onchain: Option<Onchain>,
    /// Why the message being handled was not approved.
    denial: Option<Refusal>,
    /// Why the wallet may pay nothing but fees in it.
    only_fees: Option<Refusal>,
}

/// The durable part: version 1 of the entry [`KEY`], as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Spent {
    version: u8,
    clock_ms: u64,
    payments_msat: Window,
    onchain_sat: Window,
    fees: Fees,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pending {
    payment_msat: u64,
    onchain_sat: u64,
    fee: Option<Fee>,
}

/// The on-chain transaction being handled.
#[derive(Clone, Copy, Debug)]
pub struct Onchain {
    /// What inputs that are not the wallet's bring in.
    pub foreign_sat: u64,
    /// What the inputs hold beyond the outputs.
    pub fee_sat: u64,
}

/// The entry [`KEY`] was not written by this version, or is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of spent limits cannot be read")]
pub struct SpentUnreadable;

impl Limits {
    /// The limits of a node; `entry` is the value of [`KEY`], absent for a node that has not spent yet.
    pub fn restore(config: LimitsConfig, clock: Arc<NodeClock>, entry: Option<&[u8]>) -> Result<Self, SpentUnreadable> {
        let spent = match entry {
            None => Spent { version: 1, ..Spent::default() },
            Some(bytes) => serde_json::from_slice(bytes).map_err(|_| SpentUnreadable)?,
        };
        if spent.version != 1 {
            return Err(SpentUnreadable);
        }
        clock.raise(spent.clock_ms);
        Ok(Self { config, clock, state: Mutex::new(State { spent, ..State::default() }) })
    }

    /// Forgets what an earlier message left behind.
    pub fn begin(&self) {
        let mut state = self.lock();
        state.pending = Pending::default();
        state.onchain = None;
        state.denial = None;
        state.only_fees = None;
    }

    /// The message being handled may pay fees, and nothing else: if it would, it is refused for `why`.
    pub fn only_fees(&self, why: Refusal) {
        self.lock().only_fees = Some(why);
    }

    /// The on-chain transaction being handled, if its fee was accepted.
    pub fn onchain(&self) -> Option<Onchain> {
        self.lock().onchain
    }

    /// Whether the message being handled may pay fees, and nothing else.
    pub fn pays_only_fees(&self) -> bool {
        self.lock().only_fees.is_some()
    }

    /// Why the last message was not approved, if it was these limits that refused.
    pub fn take_denial(&self) -> Option<Refusal> {
        self.lock().denial.take()
    }

    /// The message succeeded: charges what was approved in it. Returns the changed entry.
    pub fn charge(&self) -> Option<Put> {
        let now_ms = self.clock.now_ms();
        let State { spent, pending, .. } = &mut *self.lock();
        let charges = [
            (&mut spent.payments_msat, HOUR_MS, pending.payment_msat),
            (&mut spent.onchain_sat, DAY_MS, pending.onchain_sat),
        ];
        for (window, span_ms, amount) in charges {
            window.add(now_ms, span_ms, amount);
        }
        if let Some(fee) = pending.fee {
            spent.fees.charge(now_ms, fee);
        }
        if std::mem::take(pending) == Pending::default() {
            return None;
        }
        spent.clock_ms = now_ms;
        let value = serde_json::to_vec(spent).expect("numbers always encode");
        Some(Put { key: KEY.to_owned(), value: Some(value) })
    }

    /// Before a transaction with wallet inputs: checks its fee, whatever its destinations. vls's own check of the fee
    /// rate does not see transactions whose destinations were approved by hand.
    ///
    /// `inputs` are what it spends, each with whether it is the wallet's.
    pub fn begin_onchain(&self, tx: &Transaction, inputs: &[(TxOut, bool)]) -> Result<(), Refusal> {
        let now_ms = self.clock.now_ms();
        let sums = onchain_sums_sat(tx, inputs);
        let (fee_sat, foreign_sat) =
            sums.ok_or_else(|| Refusal::new(Reason::Validation, "outputs exceed inputs, or amounts exceed all money"))?;
        let limit = self.config.max_onchain_fee_sat;
        within("fee of the transaction", fee_sat, Unit::Sat, "max_onchain_fee_sat", limit)?;
        let mut state = self.lock();
        let spends = tx.input.iter().map(|input| input.previous_output);
        let (fee, day_sat) = state.spent.fees.with(now_ms, spends, fee_sat);
        let day_limit = limit.saturating_mul(FEES_PER_DAY);
        if day_sat > day_limit {
            let what = format!("fees within 24 hours: {day_sat} sat > {FEES_PER_DAY} × limits.max_onchain_fee_sat");
            let fact = Fact::number("fees_in_24_hours", day_sat, Unit::Sat).at_most(day_limit);
            return Err(Refusal::new(Reason::Limit, format!("{what} = {day_limit} sat")).with_fact(fact));
        }
        state.pending.fee = Some(fee);
        state.onchain = Some(Onchain { foreign_sat, fee_sat });
        Ok(())
    }

    /// Whether `amount_sat` may be withdrawn by a transaction that somebody else makes and signs.
    pub fn approve_withdrawal(&self, amount_sat: u64) -> bool {
        self.lock().onchain = Some(Onchain { foreign_sat: 0, fee_sat: 0 });
        self.decide(|config, state, now_ms| decide_onchain(config, state, now_ms, amount_sat))
    }

    fn decide(&self, verdict: impl FnOnce(&LimitsConfig, &State, u64) -> Result<Pending, Refusal>) -> bool {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        match verdict(&self.config, &state, now_ms) {
            Ok(pending) => state.pending = pending,
            Err(refusal) => state.denial = Some(refusal),
        }
        state.denial.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Inputs less outputs, and the inputs that are not the wallet's, in sat; `None` if a sum is negative or no amount of
/// bitcoin.
fn onchain_sums_sat(tx: &Transaction, inputs: &[(TxOut, bool)]) -> Option<(u64, u64)> {
    fn sum<'a>(outs: impl Iterator<Item = &'a TxOut>) -> Option<u64> {
        let mut outs = outs;
        let sum = outs.try_fold(0u64, |sum, out| sum.checked_add(out.value.to_sat()))?;
        (sum <= MAX_MONEY_SAT).then_some(sum)
    }
    let foreign_sat = sum(inputs.iter().filter(|(_, ours)| !ours).map(|(out, _)| out))?;
    let fee_sat = sum(inputs.iter().map(|(out, _)| out))?.checked_sub(sum(tx.output.iter())?)?;
    Some((fee_sat, foreign_sat))
}

fn decide_payment(config: &LimitsConfig, state: &State, now_ms: u64, amount_msat: u64) -> Result<Pending, Refusal> {
    within("payment", amount_msat, Unit::Msat, "max_payment_msat", config.max_payment_msat)?;
    let hour_msat = state.spent.payments_msat.sum(now_ms, HOUR_MS).saturating_add(amount_msat);
    let limit = config.max_payment_msat_per_hour;
    within("payments within 60 minutes", hour_msat, Unit::Msat, "max_payment_msat_per_hour", limit)?;
    Ok(Pending { payment_msat: amount_msat, ..state.pending })
}

/// Unknown outputs worth `unknown_sat` together cost the wallet what its partners in the transaction do not bring in:
/// nothing where an HTLC is claimed and the wallet only adds the fee. A lie about a partner's input is worth no more
/// than the fee allows, for the outputs must not exceed what the inputs really hold.
fn decide_onchain(config: &LimitsConfig, state: &State, now_ms: u64, unknown_sat: u64) -> Result<Pending, Refusal> {
    let Some(onchain) = state.onchain else {
        return Err(Refusal::new(Reason::Limit, "the fee of the transaction was not checked"));
    };
    let amount_sat = unknown_sat.saturating_sub(onchain.foreign_sat);
    if let Some(why) = state.only_fees.as_ref().filter(|_| amount_sat > 0) {
        return Err(why.clone().with_fact(Fact::number("onchain_send", amount_sat, Unit::Sat).at_most(0)));
    }
    within("on-chain send", amount_sat, Unit::Sat, "max_onchain_sat", config.max_onchain_sat)?;
    let day_sat = state.spent.onchain_sat.sum(now_ms, DAY_MS).saturating_add(amount_sat);
    let limit = config.max_onchain_sat_per_day;
    within("on-chain sends within 24 hours", day_sat, Unit::Sat, "max_onchain_sat_per_day", limit)?;
    Ok(Pending { onchain_sat: amount_sat, ..state.pending })
}

fn within(what: &str, value: u64, unit: Unit, key: &'static str, limit: u64) -> Result<(), Refusal> {
    if value <= limit {
        return Ok(());
    }
    let text = unit.text();
    let detail = format!("{what}: {value} {text} > limits.{key} = {limit} {text}");
    Err(Refusal::new(Reason::Limit, detail).with_fact(Fact::number(key, value, unit).at_most(limit)))
}

impl SendSync for Limits {}

impl Approve for Limits {
    fn approve_invoice(&self, invoice: &Invoice) -> bool {
        let amount_msat = invoice.amount_milli_satoshis();
        self.decide(|config, state, now_ms| decide_payment(config, state, now_ms, amount_msat))
    }

    fn approve_keysend(&self, _payment_hash: PaymentHash, amount_msat: u64) -> bool {
        self.decide(|config, state, now_ms| decide_payment(config, state, now_ms, amount_msat))
    }

    fn approve_onchain(&self, tx: &Transaction, _prev_outs: &[TxOut], unknown_indices: &[usize]) -> bool {
        let unknown = unknown_indices.iter().filter_map(|index| tx.output.get(*index));
        let unknown_sat = unknown.fold(0u64, |sum, out| sum.saturating_add(out.value.to_sat()));
        self.decide(|config, state, now_ms| decide_onchain(config, state, now_ms, unknown_sat))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, OutPoint, ScriptBuf, TxIn, Txid};

    fn limits(config: LimitsConfig) -> Limits {
        Limits::restore(config, Arc::default(), None).expect("fresh")
    }

    fn keysend(limits: &Limits, amount_msat: u64) -> Result<Option<Put>, Refusal> {
        limits.begin();
        match limits.approve_keysend(PaymentHash([1; 32]), amount_msat) {
            true => Ok(limits.charge()),
            false => Err(limits.take_denial().expect("a denial has its reason")),
        }
    }

    const SMALL: fn() -> LimitsConfig = || LimitsConfig {
        max_payment_msat: 1_000,
        max_payment_msat_per_hour: 2_500,
        max_onchain_sat: 50_000,
        max_onchain_sat_per_day: 80_000,
        max_onchain_fee_sat: 700,
        ..LimitsConfig::default()
    };

    #[test]
    fn payments_up_to_the_limits_pass_and_one_above_names_its_key() {
        let limits = limits(SMALL());
        assert!(keysend(&limits, 1_000).is_ok());
        let refusal = keysend(&limits, 1_001).expect_err("too large");
        assert_eq!(refusal.reason, Reason::Limit);
        assert_eq!(refusal.detail, "payment: 1001 msat > limits.max_payment_msat = 1000 msat");
        assert!(keysend(&limits, 1_000).is_ok());
        let refusal = keysend(&limits, 501).expect_err("the hour is full");
        assert!(refusal.detail.contains("2501 msat > limits.max_payment_msat_per_hour = 2500"), "{}", refusal.detail);
        assert!(keysend(&limits, 500).is_ok(), "the honest twin fits");
        assert!(keysend(&limits, u64::MAX).is_err(), "no overflow");
    }

    #[test]
    fn what_was_spent_survives_a_restart() {
        let first = limits(SMALL());
        assert!(keysend(&first, 1_000).is_ok());
        let put = keysend(&first, 1_000).expect("fits").expect("charged");
        let again = Limits::restore(SMALL(), Arc::default(), put.value.as_deref()).expect("readable");
        assert!(keysend(&again, 501).is_err());
        assert!(keysend(&again, 500).is_ok());
        assert_eq!(Limits::restore(SMALL(), Arc::default(), Some(b"{}")).err(), Some(SpentUnreadable));
    }

    #[test]
    fn an_approval_that_came_to_nothing_is_not_charged() {
        let limits = limits(SMALL());
        for _ in 0..10 {
            limits.begin();
            assert!(limits.approve_keysend(PaymentHash([1; 32]), 1_000), "nothing was charged before");
        }
    }

    fn out(sat: u64) -> TxOut {
        TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::new() }
    }

    /// Signs, or not, a transaction with these inputs (amount, whether ours) and outputs, the first of them unknown.
    fn send(limits: &Limits, inputs: &[(u64, bool)], outputs: &[u64]) -> Result<Option<Put>, String> {
        static COINS: AtomicU32 = AtomicU32::new(1_000);
        let coins = (0..inputs.len()).map(|_| COINS.fetch_add(1, Ordering::Relaxed)).collect::<Vec<_>>();
        spend(limits, &coins, inputs, outputs)
    }

    /// The same with inputs of one's choice.
    fn spend(limits: &Limits, coins: &[u32], inputs: &[(u64, bool)], outputs: &[u64]) -> Result<Option<Put>, String> {
        let coin = |vout: &u32| OutPoint { txid: Txid::all_zeros(), vout: *vout };
        let tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: coins.iter().map(|n| TxIn { previous_output: coin(n), ..TxIn::default() }).collect(),
            output: outputs.iter().map(|sat| out(*sat)).collect(),
        };
        let inputs: Vec<_> = inputs.iter().map(|(sat, ours)| (out(*sat), *ours)).collect();
        limits.begin();
        limits.begin_onchain(&tx, &inputs).map_err(|refusal| refusal.detail)?;
        match limits.approve_onchain(&tx, &[], &[0]) {
            true => Ok(limits.charge()),
            false => Err(limits.take_denial().expect("a reason").detail),
        }
    }

    #[test]
    fn on_chain_sends_are_limited_in_amount_and_in_fee() {
        let limits = limits(SMALL());
        let send = |input, outputs: &[u64]| send(&limits, &[(input, true)], outputs);
        assert!(send(100_000, &[50_000, 49_300]).is_ok());
        assert!(send(100_000, &[50_001, 49_300]).expect_err("amount").contains("max_onchain_sat "));
        assert!(send(100_000, &[30_000, 69_299]).expect_err("fee").contains("max_onchain_fee_sat"));
        assert!(send(100_000, &[30_001, 69_900]).expect_err("day").contains("max_onchain_sat_per_day"));
        assert!(send(100_000, &[30_000, 69_900]).is_ok(), "the honest twin fits");
        assert!(send(10, &[100]).is_err(), "more out than in");
        assert!(send(u64::MAX, &[1]).is_err(), "no such amount");
    }

    #[test]
    fn nothing_leaves_the_chain_by_default_but_fees_for_claims() {
        let limits = limits(LimitsConfig::default());
        assert!(send(&limits, &[(1_000, true)], &[900]).is_err());
        assert!(send(&limits, &[(30_000, false), (5_000, true)], &[30_000, 4_000]).is_ok(), "an HTLC with a fee input");
        let refused = send(&limits, &[(30_000, false), (5_000, true)], &[30_001, 4_000]).expect_err("one more");
        assert!(refused.contains("on-chain send: 1 sat"), "{refused}");
    }

    #[test]
    fn fees_of_a_day_add_up() {
        let limits = limits(SMALL());
        for _ in 0..FEES_PER_DAY {
            send(&limits, &[(30_000, false), (5_000, true)], &[30_000, 4_300]).expect("fits");
        }
        let refused = send(&limits, &[(30_000, false), (5_000, true)], &[30_000, 4_999]).expect_err("the day is full");
        assert!(refused.contains("fees within 24 hours: 7001 sat"), "{refused}");
    }

    #[test]
    fn a_claim_whose_fee_is_raised_again_and_again_is_charged_once() {
        let limits = limits(SMALL());
        for fee_sat in (100..700).chain([700; 100]) {
            spend(&limits, &[7, 8], &[(30_000, false), (5_000, true)], &[30_000, 5_000 - fee_sat]).expect("fits");
        }
        for n in 1..FEES_PER_DAY {
            send(&limits, &[(30_000, false), (5_000, true)], &[30_000, 4_300]).unwrap_or_else(|e| panic!("{n}: {e}"));
        }
        send(&limits, &[(30_000, false), (5_000, true)], &[30_000, 4_999]).expect_err("the day is full");
    }

    #[test]
    fn an_on_chain_approval_needs_its_fee_checked() {
        let limits = limits(SMALL());
        let tx = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![], output: vec![out(1)] };
        limits.begin();
        assert!(!limits.approve_onchain(&tx, &[], &[0]));
    }
}
