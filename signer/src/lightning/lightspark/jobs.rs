//! A batch of signing jobs, judged as one: all of it is signed, or nothing.
//!
//! | key | class | tweak | what is required |
//! |---|---|---|---|
//! | `m/84'/…` | L1 spend | none | all inputs shown; outputs to us or `limits.allow`, else within the limits for sends; the fee |
//! | `m/3/n/0` | counterparty's commitment | none | the channel's coin; the next number; what we lose is a payment within the limits, and one that was asked for where a rule wants that |
//! | `m/3/n/0` | our commitment | none | the channel's coin; not revoked; closes the channel |
//! | `m/3/n/0` | mutual close | none | the channel's coin; pays us what the last commitment does, less a fee |
//! | `m/3/n/1` | punishment | both, recomputed from a revealed secret | pays us |
//! | `m/3/n/2` | claim of `to_remote` | none | pays us |
//! | `m/3/n/3` | claim of `to_local` | added, recomputed for a commitment of ours that closes | pays us |
//! | `m/3/n/4` | HTLC | added; recomputed on our commitment, of the right key on the counterparty's | pays us, or a second level of a commitment that was signed |

use std::collections::BTreeSet;

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey, SecretKey};
use bitcoin::{ScriptBuf, Transaction, TxOut, Txid};
use lightning_signer::lightning::types::payment::PaymentHash;
use serde_json::json;
use vls_protocol_signer::approver::Approve;

use super::channel::{Channel, Newest, Spend};
use super::event::Job;
use super::keys::{Keys, tweaked};
use super::paths::{ChannelKey, KeyPath};
use super::payments::Change;
use super::{Answer, LightsparkNode, REMEMBERED, WALLET, asked, put, transactions};
use crate::facts::{Fact, Unit};
use crate::journal::Put;
use crate::lightning::limits::Limits;
use crate::lightning::lnd::scripts::{ChannelScript, payment_outputs};
use crate::lightning::standing::Step;
use crate::reasons::{Reason, Refusal};

/// A job whose transaction, script, amount and digest agree.
pub(super) struct Checked<'a> {
    pub(super) job: &'a Job,
    pub(super) tx: Transaction,
    txid: Txid,
    /// Which input it signs.
    input: usize,
    secret: Erased,
    /// The key that verifies.
    pub(super) key: PublicKey,
}

/// A key that is wiped when it is dropped.
struct Erased(SecretKey);

impl Drop for Erased {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

/// What a whole batch is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Wallet,
    Channel(u32),
}

impl LightsparkNode {
    /// Signs all jobs.
    pub(super) fn sign(&mut self, entity: &str, jobs: &[Job]) -> Result<Answer, Refusal> {
        let ids: BTreeSet<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
        if ids.len() != jobs.len() {
            return Err(Refusal::new(Reason::Malformed, "two jobs have the same id"));
        }
        let subjects: Vec<Subject> = jobs.iter().map(subject).collect::<Result<_, _>>()?;
        if subjects.iter().any(|other| *other != subjects[0]) {
            return Err(Refusal::new(Reason::TransactionUnknown, "the jobs are about different channels or wallets"));
        }
        let batch: Vec<Checked<'_>> = jobs.iter().map(|job| self.checked(job)).collect::<Result<_, _>>()?;
        let (puts, mut facts) = match subjects[0] {
            Subject::Wallet => self.judge_wallet(&batch)?,
            Subject::Channel(number) => self.judge_channel(entity, number, &batch)?,
        };
        facts.push(Fact::count("signatures", batch.len() as u64));
        let signature = |checked: &Checked<'_>| {
            let signature = self.signature(checked).serialize_compact();
            json!({ "id": checked.job.id, "signature": hex::encode(signature) })
        };
        let signatures: Vec<_> = batch.iter().map(signature).collect();
        Ok(Answer { puts, facts, ..Answer::new(&json!({ "signatures": signatures })) })
    }

    /// The signature of a job that was judged (RFC 6979).
    pub(super) fn signature(&self, checked: &Checked<'_>) -> Signature {
        self.keys.secp().sign_ecdsa(&Message::from_digest(checked.job.message), &checked.secret.0)
    }

    /// Recomputes what the job says about itself. Whether its tweaks are justified is judged later.
    pub(super) fn checked<'a>(&self, job: &'a Job) -> Result<Checked<'a>, Refusal> {
        if job.script.is_empty() || job.transaction.is_empty() {
            let detail = format!("job {}: its transaction or its script is not shown", job.id);
            return Err(Refusal::new(Reason::BlindDigest, detail));
        }
        let tx = transactions::read(&job.transaction)?;
        let input = transactions::input(job, &tx)?;
        let mut base = self.keys.secret(job.path);
        let secret = tweaked(base, job.mul_tweak.as_ref(), job.add_tweak.as_ref()).map(Erased);
        base.non_secure_erase();
        let secret = secret.ok_or_else(|| unproven(job, "its tweaks make no key"))?;
        let key = secret.0.public_key(self.keys.secp());
        if !transactions::names(&job.script, &key) {
            let detail = format!("job {}: its script does not name the key at {}", job.id, job.path);
            return Err(Refusal::new(Reason::KeyPurpose, detail));
        }
        Ok(Checked { job, txid: tx.compute_txid(), tx, input, secret, key })
    }

    fn judge_wallet(&mut self, batch: &[Checked<'_>]) -> Result<(Vec<Put>, Vec<Fact>), Refusal> {
        let (tx, txid) = (&batch[0].tx, batch[0].txid);
        if batch.iter().any(|checked| checked.txid != txid) {
            return Err(Refusal::new(Reason::TransactionUnknown, "the jobs sign different transactions"));
        }
        if batch
            .iter()
            .any(|checked| transactions::output_script(&checked.job.script) != transactions::p2wpkh(&checked.key))
        {
            return Err(Refusal::new(Reason::KeyPurpose, "the wallet's keys spend P2WPKH outputs only"));
        }
        let inputs: Vec<(TxOut, bool)> = spent(batch, tx, txid)?.into_iter().map(|output| (output, true)).collect();
        if let Some(frozen) = self.frozen() {
            self.limits.only_fees(frozen);
        }
        self.limits.begin_onchain(tx, &inputs)?;
        let unknown: Vec<usize> = (0..tx.output.len()).filter(|at| !self.is_ours(batch, &tx.output[*at])).collect();
        let sent_sat: u64 = unknown.iter().map(|at| tx.output[*at].value.to_sat()).sum();
        let facts = vec![
            Fact::text("class", "wallet-spend"),
            Fact::text("transaction", txid.to_string()),
            Fact::number("onchain_send", sent_sat, Unit::Sat),
        ];
        if self.charged.contains(&txid) {
            return Ok((Vec::new(), facts));
        }
        if !unknown.is_empty() && !self.limits.approve_onchain(tx, &[], &unknown) {
            return Err(denied(&self.limits));
        }
        let mut requested = self.withdrawals.clone();
        let leaving = tx.output.iter().filter(|output| !is_named(&self.keys, batch, output));
        let not_requested: Vec<&TxOut> = leaving.filter(|output| !take_withdrawal(&mut requested, output)).collect();
        if !not_requested.is_empty() {
            let fee_sat = self.limits.onchain().map_or(0, |onchain| onchain.fee_sat);
            asked::spend(&self.counter, &txid, &not_requested, fee_sat)?;
        }
        if self.charged.len() == REMEMBERED {
            self.charged.remove(0);
        }
        self.charged.push(txid);
        let value = serde_json::to_vec(&self.charged).expect("text always encodes");
        let mut puts = vec![put(WALLET.to_owned(), value)];
        if requested.len() != self.withdrawals.len() {
            puts.push(self.keep_withdrawals(requested));
        }
        Ok((puts, facts))
    }

    fn judge_channel(
        &mut self,
        entity: &str,
        number: u32,
        batch: &[Checked<'_>],
    ) -> Result<(Vec<Put>, Vec<Fact>), Refusal> {
        let mut channel = self.channel(entity, number)?.clone();
        let before = channel.newest();
        let mut facts = vec![Fact::text("channel", channel.entity.as_str())];
        let is_funding = |checked: &&Checked<'_>| is(checked, ChannelKey::Funding);
        // Its HTLCs are those of the commitment beside them.
        let mut funding = batch.iter().filter(is_funding);
        if let Some(checked) = funding.next() {
            self.judge_funding(&mut channel, number, batch, checked, &mut facts)?;
        }
        if funding.next().is_some() {
            return Err(Refusal::new(Reason::TransactionUnknown, "two transactions spend the funding output"));
        }
        for checked in batch.iter().filter(|checked| !is(checked, ChannelKey::Funding)) {
            let (class, shown) = self.judge_claim(&channel, number, batch, checked)?;
            facts.push(Fact::text("class", class));
            if let Some((vout, htlc)) = shown {
                channel.show(vout, htlc);
            }
        }
        let mut puts = self.judge_leaving(before.as_ref(), &channel, &mut facts)?;
        puts.extend(self.keep(number, channel));
        Ok((puts, facts))
    }

    /// What leaves with a commitment of the counterparty that is new, or with HTLCs of it that are shown only now: matched
    /// with the payments that signed calls asked for.
    fn judge_leaving(
        &mut self,
        before: Option<&Newest>,
        channel: &Channel,
        facts: &mut Vec<Fact>,
    ) -> Result<Vec<Put>, Refusal> {
        let (Some(newest), Some(funding)) = (channel.newest(), channel.outpoint()) else { return Ok(Vec::new()) };
        if before == Some(&newest) {
            return Ok(Vec::new());
        }
        if let Some(stopped) = self.stopped(channel) {
            return Err(stopped);
        }
        let change = Change::between(before, &newest);
        let matched = self.payments.matched(&change, self.clock.now_ms());
        facts.extend(matched.requested.iter().map(|hash| Fact::text("payment_hash", hash.to_string())));
        if matched.unrequested_sat > 0 {
            facts.push(Fact::number("unrequested", matched.unrequested_sat, Unit::Sat));
        }
        // What a channel begins with is nobody's payment.
        if let Some(before) = before {
            asked::update(&self.counter, funding, before, &newest, matched.unrequested_sat)?;
        }
        Ok(self.payments.take(matched))
    }

    /// A transaction that spends the funding output.
    pub(super) fn judge_funding(
        &mut self,
        channel: &mut Channel,
        number: u32,
        batch: &[Checked<'_>],
        checked: &Checked<'_>,
        facts: &mut Vec<Fact>,
    ) -> Result<(), Refusal> {
        // What an old state has not revoked may be revoked, and what its channel pays us may be less (P7).
        self.orders.require_latest()?;
        let Checked { job, tx, .. } = checked;
        let unknown = |detail: &str| Refusal::new(Reason::TransactionUnknown, format!("job {}: {detail}", job.id));
        let [input] = &tx.input[..] else { return Err(unknown("it spends more than the funding output")) };
        let script = ScriptBuf::from_bytes(job.script.clone());
        if !matches!(ChannelScript::parse(&script), Some(ChannelScript::Funding(keys)) if keys.contains(&checked.key)) {
            return Err(unknown("its script is no 2-of-2 of a channel"));
        }
        let fee_sat = self.bounded_fee(batch, checked, Reason::CommitmentFee)?;
        let payment = payment_outputs(&self.keys.public(KeyPath::ChannelKey(number, ChannelKey::Payment)));
        let pays = |ours: &dyn Fn(&TxOut) -> bool| {
            tx.output.iter().filter(|out| ours(out)).map(|out| out.value.to_sat()).sum()
        };
        let mut spend = Spend {
            outpoint: input.previous_output,
            amount_sat: job.amount_sat,
            script,
            txid: checked.txid,
            ours_sat: pays(&|out| payment.contains(&out.script_pubkey)),
            outputs: tx.output.iter().map(|out| (out.value.to_sat(), out.script_pubkey.clone())).collect(),
        };
        facts.push(Fact::number("fee", fee_sat, Unit::Sat));
        let Some(obscured) = transactions::obscured_number(tx) else {
            let is_close = tx.lock_time == bitcoin::absolute::LockTime::ZERO && input.sequence.0 >= 0xffff_fffd;
            spend.ours_sat = pays(&|out| self.is_ours(batch, out));
            let foreign = tx.output.iter().filter(|out| !self.is_ours(batch, out)).count();
            if !is_close || tx.output.len() > 2 || foreign > 1 {
                return Err(unknown("it is neither a commitment nor a mutual close"));
            }
            channel.mutual_close(&spend, self.config.max_onchain_fee_sat)?;
            facts.push(Fact::text("class", "mutual-close"));
            facts.push(Fact::number("ours", spend.ours_sat, Unit::Sat));
            return Ok(());
        };
        // Ours pay the counterparty at once and us after a delay; the counterparty's the other way round.
        let pays_them = tx.output.iter().any(|out| out.script_pubkey.is_p2wpkh());
        let is_holders = spend.ours_sat == 0 && (pays_them || channel.pays_us());
        let step = if is_holders { Step::Close } else { Step::SignTheirs };
        self.claimed = Some((number, step, channel.number(obscured).unwrap_or_default()));
        if is_holders {
            facts.push(Fact::count("commitment_number", channel.holder_commitment(&spend, obscured)?));
            facts.push(Fact::text("class", "holder-commitment"));
            return Ok(());
        }
        facts.push(Fact::number("ours", spend.ours_sat, Unit::Sat));
        let (commitment, less_sat) = channel.counterparty_commitment(spend, obscured)?;
        facts.push(Fact::count("commitment_number", commitment));
        facts.push(Fact::text("class", "counterparty-commitment"));
        if less_sat > 0 && !self.limits.approve_keysend(PaymentHash([0; 32]), less_sat.saturating_mul(1_000)) {
            return Err(denied(&self.limits));
        }
        Ok(())
    }

    pub(super) fn pays_us(&self, batch: &[Checked<'_>], tx: &Transaction) -> bool {
        tx.output.iter().all(|out| self.is_ours(batch, out))
    }

    /// Whether an output pays an address that the batch names by its path, or one that any amount may go to.
    pub(super) fn is_ours(&self, batch: &[Checked<'_>], output: &TxOut) -> bool {
        self.allow.contains(&output.script_pubkey) || is_named(&self.keys, batch, output)
    }

    /// The fee, which the jobs' amounts prove: each is part of what is signed (BIP 143).
    pub(super) fn bounded_fee(
        &self,
        batch: &[Checked<'_>],
        checked: &Checked<'_>,
        above: Reason,
    ) -> Result<u64, Refusal> {
        let (tx, limit_sat) = (&checked.tx, self.config.max_onchain_fee_sat);
        let sum = |outputs: &mut dyn Iterator<Item = u64>| outputs.fold(0u64, u64::saturating_add);
        let in_sat = sum(&mut spent(batch, tx, checked.txid)?.iter().map(|out| out.value.to_sat()));
        let Some(fee_sat) = in_sat.checked_sub(sum(&mut tx.output.iter().map(|out| out.value.to_sat()))) else {
            return Err(Refusal::new(Reason::TransactionUnknown, "outputs exceed inputs"));
        };
        if fee_sat <= limit_sat {
            return Ok(fee_sat);
        }
        let detail =
            format!("job {}: fee {fee_sat} sat > limits.max_onchain_fee_sat = {limit_sat} sat", checked.job.id);
        Err(Refusal::new(above, detail).with_fact(Fact::number("fee", fee_sat, Unit::Sat).at_most(limit_sat)))
    }
}

/// What a job is about, if its key may sign with such tweaks at all.
fn subject(job: &Job) -> Result<Subject, Refusal> {
    let subject = match job.path {
        KeyPath::Wallet(..) => Subject::Wallet,
        KeyPath::ChannelKey(number, _) => Subject::Channel(number),
        KeyPath::Closing(_) | KeyPath::Channel(_) => {
            return Err(Refusal::new(Reason::KeyPurpose, format!("{} signs no transaction", job.path)));
        }
    };
    let (mul, add) = match job.path {
        KeyPath::ChannelKey(_, ChannelKey::RevocationBase) => (true, true),
        KeyPath::ChannelKey(_, ChannelKey::DelayedBase | ChannelKey::HtlcBase) => (false, true),
        _ => (false, false),
    };
    if (job.mul_tweak.is_some(), job.add_tweak.is_some()) == (mul, add) {
        return Ok(subject);
    }
    Err(unproven(job, "they are not those that the key's purpose has"))
}

/// Whether an output pays an address of ours that the batch names by its path.
fn is_named(keys: &Keys, batch: &[Checked<'_>], output: &TxOut) -> bool {
    let named = batch.iter().filter_map(|checked| checked.job.destination);
    let mut named = named.filter(|path| matches!(path, KeyPath::Closing(_) | KeyPath::Wallet(..)));
    output.script_pubkey.is_p2wpkh()
        && named.any(|path| transactions::p2wpkh(&keys.public(path)) == output.script_pubkey)
}

/// Takes the withdrawal that `output` pays out from those that were requested; `false` if none was.
fn take_withdrawal(requested: &mut Vec<(ScriptBuf, u64)>, output: &TxOut) -> bool {
    let pays =
        |(to, at_most_sat): &(ScriptBuf, u64)| *to == output.script_pubkey && output.value.to_sat() <= *at_most_sat;
    requested.iter().position(pays).map(|at| requested.remove(at)).is_some()
}

fn is(checked: &Checked<'_>, key: ChannelKey) -> bool {
    matches!(checked.job.path, KeyPath::ChannelKey(_, purpose) if purpose == key)
}

/// What all inputs of `tx` spend; every one needs a job in the batch.
fn spent(batch: &[Checked<'_>], tx: &Transaction, txid: Txid) -> Result<Vec<TxOut>, Refusal> {
    let mut outputs = vec![None; tx.input.len()];
    for checked in batch.iter().filter(|checked| checked.txid == txid) {
        let script_pubkey = transactions::output_script(&checked.job.script);
        let output = TxOut { value: bitcoin::Amount::from_sat(checked.job.amount_sat), script_pubkey };
        if outputs[checked.input].replace(output).is_some() {
            return Err(Refusal::new(Reason::Malformed, format!("two jobs sign input {} of {txid}", checked.input)));
        }
    }
    let all: Option<Vec<TxOut>> = outputs.into_iter().collect();
    all.ok_or_else(|| Refusal::new(Reason::CoinUnproven, format!("no job shows what every input of {txid} spends")))
}

pub(super) fn unproven(job: &Job, detail: &str) -> Refusal {
    Refusal::new(Reason::TweakUnproven, format!("job {}: the tweaks of {}: {detail}", job.id, job.path))
}

pub(super) fn denied(limits: &Limits) -> Refusal {
    limits.take_denial().unwrap_or_else(|| Refusal::new(Reason::Limit, "the account may not pay this"))
}
