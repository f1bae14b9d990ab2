//! What coins hold, as one question after another says it.
//!
//! A signature of SegWit version 0 commits to the amount of its own input only (BIP 143). lnd asks for one input at a time, so
//! that each question could tell another story about the others. What was said of a coin is kept here, across restarts:
//! later questions must say the same. A signature on a false amount is worth nothing, so that the valid ones of a
//! transaction were all judged by the true amounts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut};
use serde::{Deserialize, Serialize};

use crate::facts::{Fact, Unit};
use crate::journal::Put;
use crate::reasons::{Reason, Refusal};

const COIN: &str = "lnd/coin/";
const VERSION: u8 = 1;

/// Coins that are remembered, and for how long at least.
const MAX_COINS: usize = 16_384;
const KEPT_MS: u64 = 24 * 3_600 * 1_000;

/// The coins of transactions with several inputs.
#[derive(Default)]
pub(super) struct Coins {
    known: HashMap<OutPoint, TxOut>,
    /// Oldest first.
    order: BTreeSet<(u64, OutPoint)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u8,
    sat: u64,
    script: ScriptBuf,
    at_ms: u64,
}

/// A coin's entry is damaged, or newer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry {0} cannot be read")]
pub(super) struct CoinUnreadable(String);

impl Coins {
    /// Takes the coins out of a node's entries.
    pub(super) fn restore(entries: &mut BTreeMap<String, Vec<u8>>) -> Result<Self, CoinUnreadable> {
        let mut coins = Self::default();
        for (key, value) in entries.extract_if(.., |key, _| key.starts_with(COIN)) {
            let read = || {
                let outpoint = key.strip_prefix(COIN)?.parse().ok()?;
                let stored: Stored = serde_json::from_slice(&value).ok()?;
                (stored.version == VERSION).then_some((outpoint, stored))
            };
            let Some((outpoint, Stored { sat, script, at_ms, .. })) = read() else { return Err(CoinUnreadable(key)) };
            coins.known.insert(outpoint, TxOut { value: Amount::from_sat(sat), script_pubkey: script });
            coins.order.insert((at_ms, outpoint));
        }
        Ok(coins)
    }

    /// Whether something was said of this coin.
    pub(super) fn knows(&self, outpoint: &OutPoint) -> bool {
        self.known.contains_key(outpoint)
    }

    /// Refuses with `coin-amount` what contradicts what was said before, with `node-busy` more than can be remembered.
    pub(super) fn require_same(&self, said: &[(OutPoint, TxOut)], now_ms: u64) -> Result<(), Refusal> {
        for (outpoint, said) in said {
            if let Some(known) = self.known.get(outpoint).filter(|known| *known != said) {
                let fact = Fact::number("coin", said.value.to_sat(), Unit::Sat).exactly(known.value.to_sat());
                let detail = format!("{outpoint} was another amount or script when it was asked for before");
                return Err(Refusal::new(Reason::CoinAmount, detail).with_fact(fact));
            }
        }
        let more = said.iter().filter(|(outpoint, _)| !self.knows(outpoint)).count();
        let must_go = (self.known.len() + more).saturating_sub(MAX_COINS);
        let may_go = self.order.iter().take(must_go).take_while(|(at_ms, _)| at_ms + KEPT_MS <= now_ms).count();
        if may_go < must_go {
            let detail = format!("{MAX_COINS} coins were asked for within 24 hours; spend coins one by one until then");
            return Err(Refusal::new(Reason::NodeBusy, detail));
        }
        Ok(())
    }

    /// Remembers what [`Self::require_same`] let pass. Returns the changed entries.
    pub(super) fn remember(&mut self, said: Vec<(OutPoint, TxOut)>, now_ms: u64) -> Vec<Put> {
        let mut puts = Vec::new();
        for (outpoint, TxOut { value, script_pubkey }) in said {
            if self.knows(&outpoint) {
                continue;
            }
            let stored = Stored { version: VERSION, sat: value.to_sat(), script: script_pubkey.clone(), at_ms: now_ms };
            let entry = serde_json::to_vec(&stored).expect("numbers and text always encode");
            puts.push(Put { key: format!("{COIN}{outpoint}"), value: Some(entry) });
            self.known.insert(outpoint, TxOut { value, script_pubkey });
            self.order.insert((now_ms, outpoint));
        }
        while self.known.len() > MAX_COINS
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.known.remove(&oldest);
            puts.push(Put { key: format!("{COIN}{oldest}"), value: None });
        }
        puts
    }
}
