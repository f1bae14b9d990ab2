//! A transaction that claims what a commitment left: by which rule, and for whom.

use bitcoin::hashes::{Hash, ripemd160};

use super::LightsparkNode;
use super::channel::{Channel, Htlc};
use super::event::{Job, MAX_INDEX};
use super::jobs::{Checked, unproven};
use super::paths::{ChannelKey, KeyPath};
use super::transactions;
use crate::facts::Fact;
use crate::lightning::lnd::scripts::{ChannelScript, to_remote};
use crate::reasons::{Reason, Refusal};

/// How many revealed secrets are tried, newest first, for the one that a punishment claims with.
const MAX_TRIED: u64 = 1 << 16;

/// What a claim is, and which output of the counterparty's newest commitment it shows to be an HTLC.
pub(super) type Claim = (&'static str, Option<(u32, Htlc)>);

impl LightsparkNode {
    /// A transaction that claims from a commitment.
    pub(super) fn judge_claim(
        &self,
        channel: &Channel,
        number: u32,
        batch: &[Checked<'_>],
        checked: &Checked<'_>,
    ) -> Result<Claim, Refusal> {
        let Checked { job, tx, key, .. } = checked;
        let KeyPath::ChannelKey(_, purpose) = job.path else {
            return Err(Refusal::new(Reason::KeyPurpose, format!("{} signs no transaction", job.path)));
        };
        let unknown = |detail: &str| Refusal::new(Reason::TransactionUnknown, format!("job {}: {detail}", job.id));
        let plain = bitcoin::ScriptBuf::from_bytes(job.script.clone());
        let script = ChannelScript::parse(&plain);
        let of_closed = || {
            let mut points = channel.closed().iter().map(|index| self.keys.per_commitment_point(number, *index));
            points.any(|point| job.add_tweak == Some(self.keys.add_tweak(number, purpose, &point)))
        };
        let class = match (purpose, script) {
            (ChannelKey::Payment, _)
                if plain == to_remote(key) || transactions::output_script(&job.script) == transactions::p2wpkh(key) =>
            {
                "to-remote-claim"
            }
            (ChannelKey::DelayedBase, Some(ChannelScript::Delayed { delayed, .. })) if delayed == *key => {
                if !of_closed() {
                    return Err(unproven(job, "it is of no commitment of ours that was signed to close the channel"));
                }
                "to-local-claim"
            }
            (ChannelKey::RevocationBase, Some(script)) => {
                let punishes = match &script {
                    ChannelScript::Delayed { revocation, .. } => revocation == key,
                    ChannelScript::Htlc(htlc) => htlc.is_revoked_by(key),
                    _ => false,
                };
                if !punishes {
                    return Err(unknown("its script is not of a revoked commitment"));
                }
                if !self.is_revealed(number, job) {
                    return Err(unproven(job, "they follow from no secret that the counterparty revealed"));
                }
                "punishment"
            }
            (ChannelKey::HtlcBase, Some(ChannelScript::Htlc(htlc))) => {
                let goes_on = !self.pays_us(batch, tx);
                let signs = key.serialize();
                match (htlc.owner == signs, htlc.other == signs, goes_on) {
                    (true, _, _) if !of_closed() => {
                        return Err(unproven(
                            job,
                            "it is of no commitment of ours that was signed to close the channel",
                        ));
                    }
                    (true, _, _) => return self.second_level(batch, checked).map(|()| ("holder-htlc", None)),
                    (false, true, true) => {
                        let [input] = &tx.input[..] else { return Err(unknown("it has more than one input")) };
                        let output = transactions::output_script(&job.script);
                        if !channel.has_output(&input.previous_output, job.amount_sat, &output) {
                            let detail = format!("job {}: {} is none of its outputs", job.id, input.previous_output);
                            return Err(Refusal::new(Reason::HtlcUnknown, detail));
                        }
                        self.second_level(batch, checked)?;
                        let shown = Htlc {
                            payment_hash160: ripemd160::Hash::from_byte_array(htlc.payment_hash160),
                            // What the commitment's owner received, we offered.
                            outgoing: htlc.received_until.is_some(),
                            amount_sat: job.amount_sat,
                            expiry_height: htlc.received_until.unwrap_or(tx.lock_time.to_consensus_u32()),
                        };
                        return Ok(("counterparty-htlc", Some((input.previous_output.vout, shown))));
                    }
                    (false, true, false) => "htlc-claim",
                    (false, false, _) => return Err(unknown("the HTLC is not ours")),
                }
            }
            _ => return Err(unknown("its script is not one that this key spends")),
        };
        if let Some(out) = tx.output.iter().find(|out| !self.is_ours(batch, out)) {
            let to = format!("{:x}", out.script_pubkey);
            let detail = format!("job {}: {class} pays {} sat to {to}", job.id, out.value.to_sat());
            return Err(Refusal::new(Reason::OutputForeign, detail).with_fact(Fact::text("pays", to)));
        }
        self.bounded_fee(batch, checked, Reason::SweepFee)?;
        Ok((class, None))
    }

    /// BOLT 3, "HTLC-Timeout and HTLC-Success Transactions": one output, behind a delay.
    fn second_level(&self, batch: &[Checked<'_>], checked: &Checked<'_>) -> Result<(), Refusal> {
        let [output] = &checked.tx.output[..] else {
            return Err(Refusal::new(Reason::HtlcTransaction, format!("job {}: more than one output", checked.job.id)));
        };
        if checked.tx.input.len() != 1 || !output.script_pubkey.is_p2wsh() {
            return Err(Refusal::new(Reason::HtlcTransaction, format!("job {}: not of its form", checked.job.id)));
        }
        self.bounded_fee(batch, checked, Reason::HtlcTransaction).map(drop)
    }

    /// Whether both tweaks are those of a secret that the counterparty revealed.
    fn is_revealed(&self, number: u32, job: &Job) -> bool {
        let (Some(mul), Some(add), Some(secrets)) = (job.mul_tweak, job.add_tweak, self.revealed.get(&number)) else {
            return false;
        };
        let newest = secrets.get_min_seen_secret();
        let mut indices = newest..newest.saturating_add(MAX_TRIED).min(MAX_INDEX + 1);
        indices.any(|index| {
            let secret = secrets.get_secret(index);
            secret.and_then(|secret| self.keys.revocation_tweaks(number, &secret)) == Some((mul, add))
        })
    }
}
