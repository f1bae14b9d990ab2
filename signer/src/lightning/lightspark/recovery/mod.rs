//! Recovery without Lightspark: the transactions of a recovery kit are signed here, under the rules of every other job, one
//! channel at a time. Nothing that is signed lies around before it is needed.
//!
//! What closes the channel is a commitment of ours that was not revoked, and nothing new happens in the channel after it. What
//! collects its outputs pays an address in `limits.allow`. The policy is asked for `ForceClose` and `Sweep`.

mod kit;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::{Hash, ripemd160};
use bitcoin::secp256k1::{Message, PublicKey, ecdsa};
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{ScriptBuf, Transaction, TxOut, Witness};
use serde::{Deserialize, Serialize};

use self::kit::{Kit, Part, What};
use super::jobs::Checked;
use super::{Answer, LightsparkNode, asked};
use crate::facts::Fact;
use crate::lightning::lnd::scripts::ChannelScript;
use crate::reasons::{Reason, Refusal};

/// The number of such a request in the pipeline. It comes from the administrator alone.
pub const RECOVER: u16 = 5200;

/// What was signed of one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Lightspark's id of the channel.
    pub channel: String,
    /// In the order in which they can be sent.
    pub transactions: Vec<Signed>,
}

/// A transaction with all its signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// What it is for.
    pub what: String,
    /// Its id.
    pub txid: String,
    /// For `sendrawtransaction`.
    pub hex: String,
    /// What it pays, apart from fees.
    pub amount_sat: u64,
    /// It can be sent so many blocks after what it spends was confirmed.
    pub after_blocks: u32,
    /// And not before this height; 0 if any will do.
    pub not_before_height: u32,
}

impl LightsparkNode {
    /// Signs one channel of a recovery kit. The reply is a [`Recovered`], in JSON.
    pub(super) fn recover(&mut self, text: &[u8]) -> Result<Answer, Refusal> {
        let Kit { channel: number, parts } = Kit::parse(text, self.network, |path| self.keys.public(path))?;
        let known = self.channels.get(&number).cloned();
        let detail = || format!("m/3/{number}: the signer does not know which of its commitments is the newest");
        let mut channel = known.ok_or_else(|| Refusal::new(Reason::ChannelUnknown, detail()))?;
        let batch: Vec<Checked<'_>> = parts.iter().map(|part| self.checked(&part.job)).collect::<Result<_, _>>()?;
        let mut facts = vec![Fact::text("channel", channel.entity.as_str())];
        // Its HTLCs and sweeps are those of the commitment before them.
        self.judge_funding(&mut channel, number, &batch, &batch[0], &mut facts)?;
        if !facts.contains(&Fact::text("class", "holder-commitment")) {
            return Err(Refusal::new(Reason::TransactionUnknown, "commitment_tx is no commitment of ours"));
        }
        self.require_countersigned(&parts[0], &batch[0].key)?;
        for (part, checked) in parts.iter().zip(&batch).skip(1) {
            let (class, _) = self.judge_claim(&channel, number, &batch, checked)?;
            facts.push(Fact::text("class", class));
            self.require_followed(part, &parts)?;
        }
        asked::recovery(&self.counter, parts[0].tx.input[0].previous_output, &collected(&parts))?;
        let transactions = parts.iter().zip(&batch).map(|(part, checked)| self.signed(part, checked));
        let transactions = transactions.collect::<Result<_, _>>()?;
        let recovered = Recovered { channel: channel.entity.clone(), transactions };
        let reply = serde_json::to_vec(&recovered).expect("text and numbers always encode");
        Ok(Answer { reply, puts: self.keep(number, channel), facts })
    }

    /// The other signature of the commitment is good: what cannot be sent is not worth a channel.
    fn require_countersigned(&self, commitment: &Part, ours: &PublicKey) -> Result<(), Refusal> {
        let Part { tx, job, .. } = commitment;
        let bad = || Refusal::new(Reason::Malformed, "commitment_tx does not have the counterparty's signature");
        let script = ScriptBuf::from_bytes(job.script.clone());
        let Some(ChannelScript::Funding(keys)) = ChannelScript::parse(&script) else { return Err(bad()) };
        let [first, second] = keys;
        let (theirs, at) = if first == *ours { (second, 2) } else { (first, 1) };
        let signature = tx.input[0].witness.nth(at).and_then(<[u8]>::split_last);
        let signature = signature.filter(|(kind, _)| **kind == EcdsaSighashType::All as u8);
        let signature = signature.and_then(|(_, der)| ecdsa::Signature::from_der(der).ok()).ok_or_else(bad)?;
        let message = Message::from_digest(job.message);
        self.keys.secp().verify_ecdsa(&message, &signature, &theirs).map_err(|_| bad())
    }

    /// An HTLC's transaction pays what the kit collects for us, and its preimage is that of its script.
    fn require_followed(&self, part: &Part, parts: &[Part]) -> Result<(), Refusal> {
        if part.what == What::Htlc {
            let txid = part.tx.compute_txid();
            let next = |other: &&Part| other.what == What::HtlcSweep && other.tx.input[0].previous_output.txid == txid;
            if parts.iter().find(next).is_none() {
                return Err(Refusal::new(Reason::HtlcTransaction, format!("{}: nothing collects it", part.job.id)));
            }
        }
        let Some(nonce) = part.nonce else { return Ok(()) };
        let script = ScriptBuf::from_bytes(part.job.script.clone());
        let hash = ripemd160::Hash::hash(&self.keys.payment_hash(&nonce)).to_byte_array();
        match ChannelScript::parse(&script) {
            // What was paid to us: received on a commitment of ours, offered on the counterparty's.
            Some(ChannelScript::Htlc(htlc))
                if htlc.payment_hash160 == hash && htlc.received_until.is_some() == (part.what == What::Htlc) =>
            {
                Ok(())
            }
            _ => Err(Refusal::new(Reason::PreimageNonce, format!("{}: the nonce is not of its HTLC", part.job.id))),
        }
    }

    fn signed(&self, part: &Part, checked: &Checked<'_>) -> Result<Signed, Refusal> {
        let Part { what, tx, job, nonce } = part;
        let mut signature = self.signature(checked).serialize_der().to_vec();
        signature.push(EcdsaSighashType::All as u8);
        let mut witness = tx.input[0].witness.to_vec();
        let at = match what {
            // Signatures stand in the order of the keys (BOLT 3); the counterparty's is there.
            What::Commitment if witness.get(1).is_some_and(Vec::is_empty) => 1,
            What::Commitment => 2,
            other => other.signature_at(),
        };
        let short = || Refusal::new(Reason::Malformed, format!("{}: its witness is too short", job.id));
        *witness.get_mut(at).ok_or_else(short)? = signature;
        if let Some(nonce) = nonce {
            *witness.get_mut(what.preimage_at()).ok_or_else(short)? = self.keys.preimage(nonce).to_vec();
        }
        let mut tx = tx.clone();
        tx.input[0].witness = Witness::from_slice(&witness);
        let is_commitment = *what == What::Commitment;
        let sequence = tx.input[0].sequence.to_consensus_u32();
        let is_delay = !is_commitment && tx.input[0].sequence.is_height_locked();
        let height = tx.lock_time.to_consensus_u32();
        Ok(Signed {
            what: what.text().to_owned(),
            txid: tx.compute_txid().to_string(),
            hex: serialize_hex(&tx),
            amount_sat: tx.output.iter().map(|output| output.value.to_sat()).sum(),
            after_blocks: if is_delay { sequence & 0xffff } else { 0 },
            not_before_height: if !is_commitment && tx.lock_time.is_block_height() { height } else { 0 },
        })
    }
}

/// What ends up with us: the outputs of all that collects.
fn collected(parts: &[Part]) -> Vec<(&Transaction, &TxOut)> {
    let collecting = parts.iter().filter(|part| !matches!(part.what, What::Commitment | What::Htlc));
    collecting.flat_map(|part| part.tx.output.iter().map(move |output| (&part.tx, output))).collect()
}
