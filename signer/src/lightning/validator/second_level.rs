//! Second-level transactions: HTLC-timeout and HTLC-success (BOLT 3), ours and, in Core Lightning's dialect, the peer's.
//!
//! Judged before vls signs: the commitment must be one that is in force, the spent output one of its HTLCs with the amount,
//! hash, expiry and script that are claimed, and the output beside it the one that BOLT 3 prescribes. The commitment is
//! built anew from what was validated, nothing is taken from the message. So the fee is exact: none with zero-fee anchors,
//! where the wallet adds it (`limits`), and else the one of the commitment's feerate.

use bitcoin::Transaction;
use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::transaction::Version;
use lightning_signer::channel::{Channel, ChannelBase, ChannelId};
use lightning_signer::lightning::ln::chan_utils::{
    CommitmentTransaction, HTLCOutputInCommitment, build_htlc_transaction, get_htlc_redeemscript,
};
use lightning_signer::lightning::types::features::ChannelTypeFeatures;
use lightning_signer::node::Node;
use lightning_signer::tx::tx::CommitmentInfo2;
use vls_protocol::model::PubKey;
use vls_protocol::msgs::Message;
use vls_protocol::psbt::PsbtWrapper;

use super::super::actor::ChainFacts;
use super::super::refusals;
use super::locktime;
use crate::facts::{Fact, Unit};
use crate::names::NodeName;
use crate::pipeline::ChannelRef;
use crate::reasons::{Reason, Refusal};

/// BOLT 3 counts commitments backwards from here.
const FIRST_COMMITMENT: u64 = (1 << 48) - 1;

/// Whose commitment is spent.
enum Of {
    /// Ours, with this number.
    Us(u64),
    /// The peer's, with this point.
    Peer(PubKey),
}

/// What a message says of the HTLC.
enum Told<'a> {
    Htlc { offered: bool, cltv_expiry: u32, amount_msat: u64, payment_hash: [u8; 32] },
    Script { script: &'a [u8], amount_sat: u64 },
}

struct Asked<'a> {
    channel: ChannelRef,
    of: Of,
    tx: &'a Transaction,
    /// The input to be signed.
    input: usize,
    told: Told<'a>,
}

/// Whether a second-level transaction may be signed; `Ok` for every other message. `channel` is the request's.
///
/// Refuses with `htlc-not-in-commitment` or `htlc-transaction`.
pub(in super::super) fn check(
    node: &Node,
    secp: &Secp256k1<All>,
    chain: (&dyn ChainFacts, &NodeName),
    channel: Option<ChannelRef>,
    message: &Message,
) -> Result<(), Refusal> {
    let Some(asked) = Asked::of(channel, message)? else { return Ok(()) };
    let height = node.get_tracker().height();
    let id = ChannelId::new_from_peer_id_and_oid(&asked.channel.peer_id, asked.channel.dbid);
    let verdict = node.with_channel(&id, |channel| {
        let require_fresh = || chain.0.require_fresh(chain.1);
        Ok(commitment(channel, secp, &asked.of).and_then(|found| found.judge(&asked, height, require_fresh)))
    });
    verdict.map_err(|status| refusals::from_handler(status.into(), None))?
}

impl<'a> Asked<'a> {
    fn of(channel: Option<ChannelRef>, message: &'a Message) -> Result<Option<Self>, Refusal> {
        let missing = || Refusal::new(Reason::Malformed, "the message does not name its channel");
        Ok(Some(match message {
            Message::SignLocalHtlcTx2(m) => Self {
                channel: channel.ok_or_else(missing)?,
                of: Of::Us(m.per_commitment_number),
                tx: &m.tx.0,
                input: m.input as usize,
                told: Told::Htlc {
                    offered: m.offered,
                    cltv_expiry: m.cltv_expiry,
                    amount_msat: m.htlc_amount_msat,
                    payment_hash: m.payment_hash.0,
                },
            },
            Message::SignLocalHtlcTx(m) => Self {
                channel: channel.ok_or_else(missing)?,
                of: Of::Us(m.commitment_number),
                tx: &m.tx.0,
                input: 0,
                told: told(&m.psbt, 0, &m.wscript)?,
            },
            Message::SignAnyLocalHtlcTx(m) => Self {
                channel: ChannelRef { peer_id: m.peer_id.0, dbid: m.dbid },
                of: Of::Us(m.commitment_number),
                tx: &m.tx.0,
                // vls signs the first, whatever is asked.
                input: if m.input == 0 { 0 } else { return Err(malformed("the HTLC is not the first input")) },
                told: told(&m.psbt, 0, &m.wscript)?,
            },
            Message::SignRemoteHtlcTx(m) => {
                let single = m.tx.input.len() == 1 && m.tx.output.len() == 1;
                if !single || m.psbt.inner.outputs.len() != 1 || m.psbt.inner.inputs.len() != 1 {
                    return Err(malformed("there is not one input and one output"));
                }
                Self {
                    channel: channel.ok_or_else(missing)?,
                    of: Of::Peer(m.remote_per_commitment_point.clone()),
                    tx: &m.tx.0,
                    input: 0,
                    told: told(&m.psbt, 0, &m.wscript)?,
                }
            }
            _ => return Ok(None),
        }))
    }
}

/// What Core Lightning's messages say of the HTLC that input `input` spends.
fn told<'a>(psbt: &PsbtWrapper, input: usize, wscript: &'a [u8]) -> Result<Told<'a>, Refusal> {
    let spent = psbt.inner.inputs.get(input).and_then(|input| input.witness_utxo.as_ref());
    let spent = spent.ok_or_else(|| malformed("the input, or the output it spends, is missing"))?;
    if psbt.inner.outputs.first().is_none_or(|output| output.witness_script.is_none()) {
        return Err(malformed("the output's script is missing"));
    }
    Ok(Told::Script { script: wscript, amount_sat: spent.value.to_sat() })
}

/// A commitment that is in force.
struct Commitment {
    tx: CommitmentTransaction,
    name: String,
    /// The delay of what its owner gets.
    contest_delay: u16,
    features: ChannelTypeFeatures,
}

/// Builds the commitment that is asked for, if it is one in force: ours that we may still publish, or the peer's that it did
/// not revoke.
fn commitment(channel: &Channel, secp: &Secp256k1<All>, of: &Of) -> Result<Commitment, Refusal> {
    let (state, setup) = (&channel.enforcement_state, &channel.setup);
    let (tx, name, contest_delay) = match of {
        Of::Us(number) => {
            let next = state.next_holder_commit_num;
            let info = match number {
                number if number.checked_add(1) == Some(next) => state.current_holder_commit_info.as_ref(),
                number if *number == next => state.next_holder_commit_info.as_ref().map(|(info, _)| info),
                _ => None,
            };
            let info = info.ok_or_else(|| unknown(format!("commitment {number} of this node is not in force")))?;
            let point = channel.get_per_commitment_point(*number);
            let point = point.map_err(|status| refusals::from_handler(status.into(), None))?;
            let tx = CommitmentTransaction::new(
                FIRST_COMMITMENT - number,
                &point,
                info.to_broadcaster_value_sat,
                info.to_countersigner_value_sat,
                info.feerate_per_kw,
                htlcs(info),
                &channel.make_channel_parameters().as_holder_broadcastable(),
                secp,
            );
            (tx, format!("commitment {number} of this node"), setup.counterparty_selected_contest_delay)
        }
        Of::Peer(point) => {
            let unknown = || unknown("the point belongs to no commitment of the peer that is in force".to_owned());
            let point = PublicKey::from_slice(&point.0).map_err(|_| malformed("the point is not a point"))?;
            let current = (state.current_counterparty_point, state.current_counterparty_commit_info.as_ref(), 1);
            let previous = (state.previous_counterparty_point, state.previous_counterparty_commit_info.as_ref(), 2);
            let of_point = [current, previous].into_iter().find(|(known, ..)| *known == Some(point));
            let (_, info, back) = of_point.ok_or_else(unknown)?;
            let (info, number) = info.zip(state.next_counterparty_commit_num.checked_sub(back)).ok_or_else(unknown)?;
            let tx = channel.make_counterparty_commitment_tx(
                &point,
                number,
                info.feerate_per_kw,
                info.to_countersigner_value_sat,
                info.to_broadcaster_value_sat,
                htlcs(info),
            );
            (tx, format!("commitment {number} of the peer"), setup.holder_selected_contest_delay)
        }
    };
    Ok(Commitment { tx, name, contest_delay, features: setup.features() })
}

fn htlcs(info: &CommitmentInfo2) -> Vec<HTLCOutputInCommitment> {
    Channel::htlcs_info2_to_oic(&info.offered_htlcs, &info.received_htlcs)
}

impl Commitment {
    fn judge(
        &self,
        asked: &Asked<'_>,
        height: u32,
        require_fresh: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let (tx, trusted, name) = (asked.tx, self.tx.trust(), &self.name);
        let txin = tx.input.get(asked.input).ok_or_else(|| malformed("the input is not in the transaction"))?;
        let (spent, txid, keys) = (txin.previous_output, trusted.txid(), trusted.keys());
        let is_spent = |htlc: &&HTLCOutputInCommitment| htlc.transaction_output_index == Some(spent.vout);
        let htlc = self.tx.nondust_htlcs().iter().filter(|_| spent.txid == txid).find(is_spent);
        let foreign = || unknown(format!("{spent} is not an HTLC of {name}, {txid}"));
        let htlc = htlc.ok_or_else(|| {
            foreign()
                .with_fact(Fact::text("outpoint", spent.to_string()))
                .with_fact(Fact::text("commitment", txid.to_string()))
        })?;
        let amount_sat = htlc.amount_msat / 1_000;
        let as_told = match &asked.told {
            Told::Htlc { offered, cltv_expiry, amount_msat, payment_hash } => {
                (*offered, *cltv_expiry, amount_msat / 1_000, payment_hash)
                    == (htlc.offered, htlc.cltv_expiry, amount_sat, &htlc.payment_hash.0)
            }
            Told::Script { script, amount_sat: told_sat } => {
                *told_sat == amount_sat && get_htlc_redeemscript(htlc, &self.features, keys).as_bytes() == *script
            }
        };
        if !as_told {
            let expiry = htlc.cltv_expiry;
            let is = format!("{amount_sat} sat until block {expiry} for {}", hex::encode(htlc.payment_hash.0));
            return Err(unknown(format!("HTLC {} of {name} is {is}; the message says otherwise", spent.vout))
                .with_fact(Fact::number("htlc_amount", amount_sat, Unit::Sat))
                .with_fact(Fact::count("htlc_expiry", expiry.into())));
        }
        let expected = build_htlc_transaction(
            &txid,
            self.tx.negotiated_feerate_per_kw(),
            self.contest_delay,
            htlc,
            &self.features,
            &keys.broadcaster_delayed_payment_key,
            &keys.revocation_key,
        );
        let different = |what: &str| {
            let detail = format!("{what} is not that of HTLC {} of {name}", spent.vout);
            Err(Refusal::new(Reason::HtlcTransaction, detail).with_fact(Fact::text("htlc", spent.to_string())))
        };
        if !self.features.supports_anchors_zero_fee_htlc_tx() {
            // The peer's signature is for the whole of it (SIGHASH_ALL).
            return if unsigned(tx) == expected { Ok(()) } else { different("the transaction") };
        }
        // The peer's signature is for this input and the output beside it (SIGHASH_SINGLE|ANYONECANPAY). Others may join to
        // pay the fee; so may ours where we sign more than that.
        if tx.output.get(asked.input) != expected.output.first() {
            return different("the output");
        }
        if tx.version != Version::TWO || Some(txin.sequence) != expected.input.first().map(|txin| txin.sequence) {
            return different("version or sequence");
        }
        match tx.lock_time {
            LockTime::Blocks(locktime) => {
                locktime::judge(locktime.to_consensus_u32(), height.max(htlc.cltv_expiry), require_fresh)
            }
            LockTime::Seconds(_) => different("the locktime"),
        }
    }
}

fn unsigned(tx: &Transaction) -> Transaction {
    let mut tx = tx.clone();
    tx.input.iter_mut().for_each(|input| input.witness.clear());
    tx
}

fn unknown(detail: String) -> Refusal {
    Refusal::new(Reason::HtlcUnknown, detail)
}

fn malformed(complaint: &str) -> Refusal {
    Refusal::new(Reason::Malformed, complaint)
}
