//! What the wallet spends: amounts that can be trusted, then the limits.
//!
//! Each amount is proven when its input is signed, and what is said of the others must stay the same (`coins.rs`): whoever
//! lies about an input is found out when that input is signed, and without all inputs nothing is spent.
//!
//! Outputs that may fund a channel are signed before the channel's first commitment is seen. They wait in a bounded
//! bucket until that commitment gives the money back to us.

use std::collections::{BTreeMap, VecDeque};

use bitcoin::transaction::{InputWeightPrediction, predict_weight};
use bitcoin::{Address, Network, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use serde::{Deserialize, Serialize};
use vls_protocol_signer::approver::Approve;

use super::coins::Coins;
use super::keys::{KeyPath, Keys};
use super::psbt::Packet;
use super::transactions::spent;
use super::windows::{Windows, addresses};
use crate::config::LimitsConfig;
use crate::facts::{Fact, Unit};
use crate::journal::Put;
use crate::lightning::limits::{Limits, Onchain};
use crate::reasons::{Reason, Refusal};

/// The entry that holds the bucket.
pub(super) const ENTRY: &str = "lnd/unproven";

/// Transactions that were charged; lnd signs all inputs of one within seconds. One that was forgotten is charged again.
const REMEMBERED: usize = 128;
/// Outputs in the bucket.
const MAX_UNPROVEN: usize = 256;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// The wallet of one node.
pub(super) struct Wallet {
    /// Oldest first.
    transactions: VecDeque<Charged>,
    unproven: BTreeMap<OutPoint, Unproven>,
    allow: Vec<ScriptBuf>,
    limit_sat: u64,
    /// What a channel's first commitment may give away without staying in the bucket.
    max_push_sat: u64,
}

/// A transaction that an input was signed of: what it costs was charged, if its inputs are what they were said to be.
#[derive(PartialEq)]
struct Charged {
    txid: Txid,
    /// What inputs that are not the wallet's were said to hold.
    foreign_sat: u64,
    /// All inputs were said to be the wallet's.
    all_ours: bool,
}

/// A coin that is to be spent: the input's index, the key's path, what it holds.
pub(super) type Spend<'a> = (usize, KeyPath, &'a TxOut);

/// What a transaction takes from the wallet: outputs by their place.
pub(super) struct Spending {
    /// That do not pay the wallet, and fund no channel.
    pub leaving: Vec<usize>,
    /// That may fund a channel.
    pub funding: Vec<usize>,
    /// What others bring in, and the fee.
    pub onchain: Onchain,
    /// The fee by the weight of 1,000 units, if all coins are of kinds that a wallet has.
    pub feerate_sat_per_kw: Option<u64>,
}

/// An output that may fund a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unproven {
    sat: u64,
    at_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u8,
    outputs: BTreeMap<OutPoint, Unproven>,
}

/// The entry [`ENTRY`] is damaged, or newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry {ENTRY} cannot be read")]
pub(super) struct WalletUnreadable;

impl Wallet {
    /// The wallet of a node; `entry` is the value of [`ENTRY`].
    pub(super) fn restore(
        config: &LimitsConfig,
        network: Network,
        entry: Option<&[u8]>,
    ) -> Result<Self, WalletUnreadable> {
        let unproven = match entry {
            None => BTreeMap::new(),
            Some(entry) => match serde_json::from_slice(entry) {
                Ok(Stored { version: 1, outputs }) => outputs,
                _ => return Err(WalletUnreadable),
            },
        };
        let script =
            |text: &String| Some(text.parse::<Address<_>>().ok()?.require_network(network).ok()?.script_pubkey());
        let allow = config.allow.iter().filter_map(script).collect();
        let max_push_sat = (config.max_payment_msat / 1_000).saturating_add(config.max_onchain_fee_sat);
        let limit_sat = config.max_unproven_funding_sat;
        Ok(Self { transactions: VecDeque::new(), unproven, allow, limit_sat, max_push_sat })
    }

    /// Whether an output pays the node's own wallet, or an address that any amount may go to.
    pub(super) fn is_ours(&self, keys: &Keys, windows: &mut Windows, output: &ScriptBuf) -> bool {
        windows.wallet(keys, output).is_some() || self.allow.contains(output)
    }

    /// Judges the spending of coins, all that one question asks for: nothing is remembered unless all of them pass, and
    /// `permit` lets what they take leave. What the limits take note of is charged by [`Limits::charge`]. `is_listed` knows
    /// outputs that pay somebody, and fund no channel. Returns what was compared, and the changed entry.
    pub(super) fn judge(
        &mut self,
        packet: &Packet,
        spends: &[Spend<'_>],
        (keys, windows): (&Keys, &mut Windows),
        coins: &Coins,
        (limits, now_ms): (&Limits, u64),
        is_listed: impl Fn(&ScriptBuf) -> bool,
        permit: impl FnOnce(&Spending) -> Result<(), Refusal>,
    ) -> Result<(Vec<Fact>, Option<Put>), Refusal> {
        for (index, path, coin) in spends {
            require_its_own(packet, (*index, *path, coin), keys)?;
            windows.saw(keys, *path);
        }
        let (tx, txid) = (&packet.tx, packet.tx.compute_txid());
        let inputs = inputs(packet, spends, coins, |output| windows.wallet(keys, output).is_some())?;
        limits.begin_onchain(tx, &inputs)?;
        let others = inputs.iter().filter(|(_, ours)| !ours);
        let foreign_sat = others.fold(0, |sum: u64, (out, _)| sum.saturating_add(out.value.to_sat()));
        let all_ours = inputs.iter().all(|(_, ours)| *ours);
        let charged = Charged { txid, foreign_sat, all_ours };
        if self.transactions.contains(&charged) {
            return Ok((Vec::new(), None));
        }
        let script = |at: &usize| &tx.output[*at].script_pubkey;
        let sat = |outputs: &[usize]| {
            outputs.iter().fold(0, |sum: u64, at| sum.saturating_add(tx.output[*at].value.to_sat()))
        };
        let not_the_wallets = (0..tx.output.len()).filter(|at| windows.wallet(keys, script(at)).is_none());
        let may_fund = |at: &usize| {
            all_ours && script(at).is_p2wsh() && !self.allow.contains(script(at)) && !is_listed(script(at))
        };
        let (mut funding, mut leaving): (Vec<usize>, Vec<usize>) = not_the_wallets.partition(may_fund);
        let fits = self.fits(&funding, &packet.tx, txid, now_ms);
        let bucket = (!funding.is_empty()).then(|| self.sum_sat(now_ms));
        if !fits {
            leaving.append(&mut funding);
        }
        let unknown: Vec<usize> = leaving.iter().copied().filter(|at| !self.allow.contains(script(at))).collect();
        if !unknown.is_empty() && !limits.approve_onchain(tx, &[], &unknown) {
            let denied = || Refusal::new(Reason::Limit, "the wallet may not pay this");
            let refusal = limits.take_denial().unwrap_or_else(denied);
            let bucket = bucket.map(|sat| Fact::number("unproven_funding", sat, Unit::Sat).at_most(self.limit_sat));
            return Err(bucket.into_iter().fold(refusal, Refusal::with_fact));
        }
        let onchain = limits.onchain().ok_or_else(|| Refusal::new(Reason::Fault, "the fee was not checked"))?;
        let feerate_sat_per_kw = weight(tx, &inputs).map(|weight| onchain.fee_sat.saturating_mul(1_000) / weight);
        let spending = Spending { leaving, funding, onchain, feerate_sat_per_kw };
        permit(&spending)?;
        let (mut facts, mut put) = (vec![Fact::number("onchain_send", sat(&unknown), Unit::Sat)], None);
        if !spending.funding.is_empty() {
            facts.push(Fact::number("unproven_funding", sat(&spending.funding), Unit::Sat));
            self.unproven.retain(|_, unproven| unproven.at_ms + DAY_MS > now_ms);
            for vout in spending.funding {
                let unproven = Unproven { sat: tx.output[vout].value.to_sat(), at_ms: now_ms };
                self.unproven.insert(OutPoint { txid, vout: vout as u32 }, unproven);
            }
            put = Some(self.put());
        }
        if self.transactions.len() == REMEMBERED {
            self.transactions.pop_front();
        }
        self.transactions.push_back(charged);
        Ok((facts, put))
    }

    /// Whether the wallet's money waits in this output for its channel.
    pub(super) fn funds(&self, funding: &OutPoint) -> bool {
        self.unproven.contains_key(funding)
    }

    /// A channel began with this funding output and pays us `ours_sat`. Returns the changed entry.
    pub(super) fn funded(&mut self, funding: &OutPoint, ours_sat: u64) -> Option<Put> {
        let unproven = self.unproven.get(funding)?;
        if unproven.sat.saturating_sub(ours_sat) > self.max_push_sat {
            return None;
        }
        self.unproven.remove(funding);
        Some(self.put())
    }

    /// Whether the bucket has room for these outputs of `tx`. What is in it already, from before a restart, needs none.
    fn fits(&self, funding: &[usize], tx: &Transaction, txid: Txid, now_ms: u64) -> bool {
        let is_new = |at: &&usize| !self.unproven.contains_key(&OutPoint { txid, vout: **at as u32 });
        let more = funding.iter().filter(is_new).map(|at| tx.output[*at].value.to_sat());
        let sum_sat = more.clone().fold(self.sum_sat(now_ms), u64::saturating_add);
        sum_sat <= self.limit_sat && self.unproven.len() + more.count() <= MAX_UNPROVEN
    }

    fn sum_sat(&self, now_ms: u64) -> u64 {
        let live = self.unproven.values().filter(|unproven| unproven.at_ms + DAY_MS > now_ms);
        live.fold(0, |sum, unproven| sum.saturating_add(unproven.sat))
    }

    fn put(&self) -> Put {
        let stored = Stored { version: 1, outputs: self.unproven.clone() };
        let value = serde_json::to_vec(&stored).expect("numbers and text always encode");
        Put { key: ENTRY.to_owned(), value: Some(value) }
    }
}

/// A key of the wallet signs for the coin that it has, whose amount is proven.
fn require_its_own(packet: &Packet, (index, path, coin): Spend<'_>, keys: &Keys) -> Result<(), Refusal> {
    let KeyPath::Wallet(purpose, ..) = path else {
        return Err(Refusal::new(Reason::KeyPurpose, format!("{path} is no key of the wallet")));
    };
    if !addresses(keys.secp(), purpose, keys.public(path)).contains(&coin.script_pubkey) {
        return Err(Refusal::new(Reason::KeyPurpose, format!("input {index} does not pay the key at {path}")));
    }
    // BIP 341 commits to the amounts of all inputs.
    let is_committed = packet.inputs.len() == 1 || coin.script_pubkey.is_p2tr();
    if packet.inputs[index].non_witness_utxo.is_none() && !is_committed {
        let detail = format!("input {index}: its transaction is missing, and it is not the only one");
        return Err(Refusal::new(Reason::CoinUnproven, detail));
    }
    Ok(())
}

/// What the transaction will weigh, signed. A coin of others that takes more to spend makes its feerate look higher than it is.
fn weight(tx: &Transaction, inputs: &[(TxOut, bool)]) -> Option<u64> {
    let signed = inputs.iter().map(|(coin, _)| match &coin.script_pubkey {
        script if script.is_p2wpkh() => Some(InputWeightPrediction::P2WPKH_MAX),
        script if script.is_p2sh() => Some(InputWeightPrediction::from_slice(23, &[72, 33])),
        script if script.is_p2tr() => Some(InputWeightPrediction::P2TR_KEY_DEFAULT_SIGHASH),
        _ => None,
    });
    let signed = signed.collect::<Option<Vec<_>>>()?;
    Some(predict_weight(signed, tx.output.iter().map(|out| out.script_pubkey.len())).to_wu())
}

/// What all inputs spend, each with whether it is the wallet's.
fn inputs(
    packet: &Packet,
    spends: &[Spend<'_>],
    coins: &Coins,
    mut is_ours: impl FnMut(&ScriptBuf) -> bool,
) -> Result<Vec<(TxOut, bool)>, Refusal> {
    let commits_to_all = spends.iter().any(|(_, _, coin)| coin.script_pubkey.is_p2tr());
    let mut inputs = Vec::with_capacity(packet.inputs.len());
    for (at, input) in packet.inputs.iter().enumerate() {
        let said = spent(packet, at)?;
        let ours = is_ours(&said.script_pubkey);
        let is_known =
            commits_to_all || said.script_pubkey.is_p2tr() || coins.knows(&packet.tx.input[at].previous_output);
        if ours && input.signed && !is_known {
            let detail = format!("input {at} is signed, and its amount is not known here");
            return Err(Refusal::new(Reason::CoinUnproven, detail));
        }
        inputs.push((said, ours));
    }
    Ok(inputs)
}
