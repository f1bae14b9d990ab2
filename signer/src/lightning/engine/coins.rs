//! Transactions that spend the wallet's coins: what their inputs hold, before anything is approved.

use bitcoin::OutPoint;
use vls_protocol::msgs::Message;

use super::Engine;
use crate::facts::{Fact, Unit};
use crate::reasons::{Reason, Refusal};

impl Engine {
    /// Checks the inputs and the fee of a transaction with wallet inputs, whatever its destinations; `Ok` for every other
    /// message.
    ///
    /// A segwit signature proves the amount of its own input only: with several, and a different lie about the others in
    /// each of several requests, any fee could be hidden. So no more than one amount may rest on the node's word. The others
    /// are proven by the transaction that made the coin, by what the chain showed of a channel, or by a taproot input, whose
    /// signature is for all amounts.
    pub(super) fn begin_onchain(&self, message: &Message) -> Result<(), Refusal> {
        let (utxos, streamed) = match message {
            Message::SignWithdrawal(m) => (&m.utxos, &m.psbt.0),
            Message::SignHtlcTxMingle(m) => (&m.utxos, &m.psbt.0),
            Message::SignAnchorspend(m) => (&m.utxos, &m.psbt.0),
            _ => return Ok(()),
        };
        let psbt = streamed.psbt();
        let is_ours = |spent: &OutPoint| utxos.iter().any(|u| (u.txid, u.outnum) == (spent.txid, spent.vout));
        let is_of_channel = |spent: &OutPoint| {
            utxos.iter().any(|u| (u.txid, u.outnum) == (spent.txid, spent.vout) && u.close_info.is_some())
        };
        let (mut inputs, mut unproven, mut taproot, mut proven) = (Vec::new(), Vec::new(), false, true);
        for ((txin, input), flag) in psbt.unsigned_tx.input.iter().zip(&psbt.inputs).zip(&streamed.segwit_flags) {
            let (spent, Some(told)) = (txin.previous_output, &input.witness_utxo) else { continue };
            let shown_sat = self.outputs.amount_sat(&spent);
            if let Some(shown_sat) = shown_sat.filter(|shown_sat| *shown_sat != told.value.to_sat()) {
                let detail = format!("{spent}: the node says {}, the chain {shown_sat} sat", told.value);
                let fact = Fact::number("coin", told.value.to_sat(), Unit::Sat).exactly(shown_sat);
                return Err(Refusal::new(Reason::CoinAmount, detail).with_fact(fact));
            }
            let ours = is_ours(&spent);
            if ours && !flag && shown_sat.is_none() {
                unproven.push(spent);
            }
            taproot |= ours && told.script_pubkey.is_p2tr();
            proven &= *flag || !ours;
            inputs.push((told.clone(), ours));
        }
        if unproven.len() > 1 && !taproot {
            // A node may see the close of a channel before we do.
            let reason = if unproven.iter().all(is_of_channel) { Reason::ChainPending } else { Reason::CoinUnproven };
            let coins: Vec<_> = unproven.iter().take(3).map(OutPoint::to_string).collect();
            let detail = format!("amounts on the node's word alone: {}", coins.join(", "));
            let fact = Fact::count("unproven_coins", unproven.len() as u64).at_most(1);
            return Err(Refusal::new(reason, detail).with_fact(fact));
        }
        // A partner's input counts only beside coins that are all proven.
        inputs.iter_mut().for_each(|(_, ours)| *ours |= !proven);
        self.limits.begin_onchain(&psbt.unsigned_tx, &inputs)
    }
}
