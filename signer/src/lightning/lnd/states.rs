//! Which states of the past are proven to be revoked.
//!
//! lnd does not tell when a counterparty revokes a state. But for a watchtower it has a penalty signed for each one that was
//! revoked, and that question carries the revocation secret. If the script that it opens stands in a commitment that was
//! signed here, then this state is revoked, and whoever publishes it loses it to us. So from the first talk to a tower on,
//! each commitment of a counterparty is kept until that is shown; how many were replaced without is counted in its channel.
//!
//! Of a commitment those outputs are kept that may be the counterparty's balance: neither ours nor an HTLC's, for which
//! lnd asks one by one, before or after the commitment. Where none is left there is nothing to punish for a tower.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bitcoin::{OutPoint, ScriptBuf, Txid};
use serde::{Deserialize, Serialize};

use super::channel::{Output, VERSION};
use crate::journal::Put;

/// That lnd has a watchtower.
const WATCHED: &str = "lnd/watched";
const STATE: &str = "lnd/state/";

/// Outputs of states that are kept, and states. Of more no proof is taken: they are counted at once, and for good.
const MAX_OUTPUTS: usize = 131_072;
/// Commitments that were not asked for before their HTLCs, and HTLCs of one that are remembered: no commitment has more.
const MAX_EARLY: usize = 64;
const MAX_HTLCS: usize = 966;

/// The states of all channels of a node that wait for their proof, and the newest of each.
#[derive(Default)]
pub(super) struct States {
    watched: bool,
    states: HashMap<Txid, State>,
    /// Of all states.
    outputs: usize,
    early: VecDeque<(Txid, BTreeMap<u32, ScriptBuf>)>,
}

/// A commitment of a counterparty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u8,
    channel: OutPoint,
    number: u64,
    /// Another one took its place.
    replaced: bool,
    /// Outputs that may be the counterparty's balance, by their place.
    outputs: BTreeMap<u32, ScriptBuf>,
}

/// An entry is damaged, or newer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry {0} cannot be read")]
pub(super) struct StateUnreadable(pub(super) String);

impl States {
    /// Takes the states out of a node's entries.
    pub(super) fn restore(entries: &mut BTreeMap<String, Vec<u8>>) -> Result<Self, StateUnreadable> {
        let mut states = Self { watched: entries.remove(WATCHED).is_some(), ..Self::default() };
        for (key, value) in entries.extract_if(.., |key, _| key.starts_with(STATE)) {
            let read = || {
                let txid = key.strip_prefix(STATE)?.parse().ok()?;
                let state: State = serde_json::from_slice(&value).ok()?;
                (state.version == VERSION).then_some((txid, state))
            };
            let Some((txid, state)) = read() else { return Err(StateUnreadable(key)) };
            states.keep(txid, state);
        }
        Ok(states)
    }

    /// Whether lnd has a watchtower, so that there will be proofs.
    pub(super) fn watched(&self) -> bool {
        self.watched
    }

    /// lnd speaks with a watchtower. Returns the changed entry.
    pub(super) fn watch(&mut self) -> Option<Put> {
        let begins = !std::mem::replace(&mut self.watched, true);
        begins.then(|| Put { key: WATCHED.to_owned(), value: Some(vec![VERSION]) })
    }

    /// The commitment `txid` of this channel was signed, number `number`, in place of `before`. Returns how many more states
    /// are not proven to be revoked, and the changed entries.
    pub(super) fn sign(
        &mut self,
        channel: OutPoint,
        (number, txid): (u64, Txid),
        others: &[Output],
        before: Option<(u64, Txid)>,
    ) -> (u64, Vec<Put>) {
        if !self.watched {
            return (0, Vec::new());
        }
        let (mut unproven, mut puts) = (0, Vec::new());
        if let Some((before, replaced)) = before
            && let Some(mut state) = self.take(&replaced)
        {
            // What was signed in vain, before another try under the same number, is revoked with that one.
            if before == number || state.outputs.is_empty() {
                puts.push(put(&replaced, None));
            } else {
                state.replaced = true;
                unproven += 1;
                puts.push(put(&replaced, Some(&state)));
                self.keep(replaced, state);
            }
        }
        let known = self.early.iter().position(|(early, _)| *early == txid);
        let htlcs = known.and_then(|at| self.early.remove(at)).map(|(_, htlcs)| htlcs).unwrap_or_default();
        let outputs =
            others.iter().filter(|other| other.script.is_p2wsh() && htlcs.get(&other.vout) != Some(&other.script));
        let outputs = outputs.map(|other| (other.vout, other.script.clone())).collect();
        let state = State { version: VERSION, channel, number, replaced: false, outputs };
        if self.outputs + state.size() > MAX_OUTPUTS {
            return (unproven + 1, puts);
        }
        puts.push(put(&txid, Some(&state)));
        self.keep(txid, state);
        (unproven, puts)
    }

    /// Behind this output of a commitment is said to be an HTLC with `script`: if the commitment has it there, it is no balance.
    pub(super) fn htlc(&mut self, output: OutPoint, script: &ScriptBuf) {
        if !self.watched {
            return;
        }
        if let Some(mut state) = self.take(&output.txid) {
            // Recorded when the state is replaced.
            if !state.replaced && state.outputs.get(&output.vout) == Some(script) {
                state.outputs.remove(&output.vout);
            }
            return self.keep(output.txid, state);
        }
        let known = self.early.iter_mut().find(|(txid, _)| *txid == output.txid);
        match known {
            Some((_, htlcs)) if htlcs.len() < MAX_HTLCS => drop(htlcs.insert(output.vout, script.clone())),
            Some(_) => {}
            None => {
                if self.early.len() == MAX_EARLY {
                    self.early.pop_front();
                }
                self.early.push_back((output.txid, BTreeMap::from([(output.vout, script.clone())])));
            }
        }
    }

    fn keep(&mut self, txid: Txid, state: State) {
        self.outputs += state.size();
        self.states.insert(txid, state);
    }

    fn take(&mut self, txid: &Txid) -> Option<State> {
        let state = self.states.remove(txid)?;
        self.outputs -= state.size();
        Some(state)
    }

    /// A penalty for this output, behind `script`, has the secret that revokes it. Returns the channel and the number of the
    /// state that this proves to be revoked, and the changed entry.
    pub(super) fn prove(&mut self, output: &OutPoint, script: &ScriptBuf) -> Option<(OutPoint, u64, Put)> {
        let state = self.states.get(&output.txid).filter(|state| state.replaced)?;
        if state.outputs.get(&output.vout) != Some(script) {
            return None;
        }
        let State { channel, number, .. } = self.take(&output.txid)?;
        Some((channel, number, put(&output.txid, None)))
    }
}

impl State {
    /// What it takes of the room that there is.
    fn size(&self) -> usize {
        1 + self.outputs.len()
    }
}

fn put(txid: &Txid, state: Option<&State>) -> Put {
    let value = state.map(|state| serde_json::to_vec(state).expect("numbers and text always encode"));
    Put { key: format!("{STATE}{txid}"), value }
}
