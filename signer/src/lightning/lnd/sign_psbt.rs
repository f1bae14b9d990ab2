//! `SignPsbt`: each question is one class of transaction, judged by what is known of the node, then by its policy.
//!
//! Everything is judged before anything is remembered: what is refused leaves nothing behind.

use bitcoin::{OutPoint, TxOut};

use super::channel::{Asked, Side};
use super::channels::Judged;
use super::draft::{Draft, Drafted};
use super::psbt::Packet;
use super::scripts::ChannelScript;
use super::transactions::{self, Candidate, Class};
use super::{Answer, LndNode, asked};
use crate::facts::{Fact, Unit};
use crate::journal::Put;
use crate::lightning::standing::{Claim, Step};
use crate::reasons::{Reason, Refusal};

/// HTLCs of a channel that are too small for an output, together: lnd allows no more.
pub(super) const MAX_DUST_SAT: u64 = 500_000;

impl LndNode {
    /// Answers one question: signs all inputs that it asks for, or none. Nothing of its draft, which may have been made before,
    /// leaves before it is judged.
    pub(super) fn sign_psbt(&mut self, draft: Draft) -> Result<Answer, Refusal> {
        let all_wallet = draft.is_wallets();
        let Draft { packet, inputs, reply } = draft;
        let now_ms = self.clock.now_ms();
        let said = said(&packet, &inputs)?;
        self.coins.require_same(&said, now_ms)?;
        let (mut puts, mut facts) = (Vec::new(), Vec::new());
        let class = if all_wallet {
            if let Some(frozen) = self.frozen() {
                self.limits.only_fees(frozen);
            }
            let Self { keys, windows, wallet, coins, limits, counter, channels, .. } = self;
            let spends: Vec<_> = inputs.iter().map(|(index, path, coin, _)| (*index, *path, coin)).collect();
            let given_sat = |funding: &OutPoint| channels.get(funding).map_or(0, |channel| channel.given_sat);
            let permit = |spending: &_| asked::spend(counter, &packet.tx, spending, given_sat);
            let is_listed = |script: &_| counter.is_listed(script);
            let beside = (&**keys, windows);
            let (seen, put) = wallet.judge(&packet, &spends, beside, coins, (&*limits, now_ms), is_listed, permit)?;
            facts.extend(seen);
            puts.extend(put);
            Class::WalletSpend
        } else {
            let judged = inputs.into_iter().map(|(index, _, _, candidate)| (index, candidate)).next();
            let (index, candidate) = judged.expect("one input was asked for");
            self.judge_channel(&packet, index, candidate, &mut puts, &mut facts)?
        };
        facts.push(Fact::text("class", class.name()));
        puts.extend(self.coins.remember(said, now_ms));
        Ok(Answer { reply, puts, facts })
    }

    fn judge_channel(
        &mut self,
        packet: &Packet,
        index: usize,
        candidate: Candidate,
        puts: &mut Vec<Put>,
        facts: &mut Vec<Fact>,
    ) -> Result<Class, Refusal> {
        match candidate {
            Candidate::Wallet => Err(Refusal::new(Reason::KeyPurpose, "a coin of the wallet is not the channel's")),
            Candidate::Commitment(commitment) => {
                let funding = commitment.funding;
                self.require_bounded_burn(packet, commitment.capacity_sat)?;
                let judged = self.judge_commitment(&commitment)?;
                facts.push(Fact::text("channel", funding.to_string()));
                facts.push(Fact::count("commitment_number", judged.number));
                let Judged { side, is_new, ours_sat, .. } = judged;
                puts.extend(self.channels.record(judged));
                if side == Side::Holder {
                    return Ok(Class::HolderCommitment);
                }
                facts.push(Fact::number("ours", ours_sat, Unit::Sat));
                if is_new {
                    puts.extend(self.wallet.funded(&funding, ours_sat));
                }
                Ok(Class::CounterpartyCommitment)
            }
            Candidate::MutualClose(funding) => {
                let fee_sat = self.bounded_fee(packet)?;
                let Self { keys, windows, wallet, .. } = self;
                let outputs = packet.tx.output.iter();
                let (ours, foreign): (Vec<_>, Vec<_>) =
                    outputs.partition(|out| wallet.is_ours(keys, windows, &out.script_pubkey));
                if foreign.len() > 1 {
                    let detail = "a mutual close pays more than one output that is not ours";
                    return Err(Refusal::new(Reason::CloseValue, detail));
                }
                let ours_sat = ours.iter().map(|out| out.value.to_sat()).sum();
                let peer = self.channels.judge_close(&funding, ours_sat, fee_sat)?;
                let leaving: Vec<_> =
                    ours.into_iter().filter(|out| windows.wallet(keys, &out.script_pubkey).is_none()).collect();
                asked::close(&self.counter, (&funding, peer), leaving.into_iter())?;
                puts.extend(self.channels.close(&funding));
                facts.push(Fact::text("channel", funding.to_string()));
                facts.push(Fact::number("ours", ours_sat, Unit::Sat));
                Ok(Class::MutualClose)
            }
            Candidate::CounterpartyHtlc(htlc) => {
                let channel = self.channels.with_commitment(&htlc.output.txid);
                channel.map_or_else(|| self.frozen(), |funding| self.stopped(&funding)).map_or(Ok(()), Err)?;
                let peer = |funding: &OutPoint| self.channels.get(funding).and_then(|channel| channel.peer);
                let known = channel.as_ref().map(|funding| (funding, peer(funding)));
                asked::htlc(&self.counter, &htlc, known, self.chain.height())?;
                self.channels.htlc(&htlc);
                facts.extend(channel.map(|funding| Fact::text("channel", funding.to_string())));
                facts.push(Fact::number("htlc", htlc.sat, Unit::Sat));
                facts.push(Fact::text("direction", htlc.direction()));
                facts.push(Fact::count("expiry_height", htlc.expiry_height.into()));
                Ok(Class::CounterpartyHtlc)
            }
            Candidate::Claim(Class::Justice) => {
                let class = self.claim(packet, Class::Justice, |_| false, facts)?;
                let (output, script) = (packet.tx.input[index].previous_output, &packet.inputs[index].witness_script);
                // Its revocation key was made of the secret that came along, and is ours. An HTLC's tells nothing of the balance.
                let script =
                    script.as_ref().filter(|script| ChannelScript::parse(script).is_some_and(|s| s.is_balance()));
                if let Some((number, changed)) = script.and_then(|s| self.channels.prove(&output, &s.to_p2wsh())) {
                    facts.push(Fact::count("revoked_commitment", number));
                    puts.extend(changed);
                }
                Ok(class)
            }
            Candidate::Claim(class) => self.claim(packet, class, |_| false, facts),
            Candidate::OwnCommitment { class, basepoint, tweak } => {
                if !self.channels.signed_to_close(&self.keys, &basepoint, &tweak) {
                    let detail = "the key belongs to no commitment of ours that was signed to close a channel";
                    return Err(Refusal::new(Reason::TransactionUnknown, detail));
                }
                // The second level goes on at the same place, and lnd may claim several at once.
                let goes_on = |at: usize| {
                    class == Class::HolderHtlc && (at == index || packet.tx.output[at].script_pubkey.is_p2wsh())
                };
                self.claim(packet, class, goes_on, facts)
            }
        }
    }

    /// Judges a commitment by its channel, then by the policy; keeps what lnd claims with it for whoever looks.
    fn judge_commitment(&mut self, commitment: &Asked) -> Result<Judged, Refusal> {
        let funding = commitment.funding;
        let is_funded = self.wallet.funds(&funding);
        let thawed = || self.stopped(&funding).map_or(Ok(()), Err);
        let judged = self.channels.judge(commitment, thawed).and_then(|judged| {
            asked::commitment(&self.counter, commitment, &judged, is_funded)?;
            Ok(judged)
        });
        let (asked, refused) = match &judged {
            Ok(Judged { side: Side::Holder, number, closes, .. }) => (closes.then_some((Step::Close, *number)), None),
            Ok(judged) => (Some((Step::SignTheirs, judged.number)), None),
            Err(refusal) => {
                let number = self.channels.asked_number(commitment);
                (number.map(|number| (Step::SignTheirs, number)), Some(refusal.reason))
            }
        };
        if let Some((step, number)) = asked {
            self.claims.keep(funding, Claim { step, number, balance: None, at_ms: self.clock.now_ms(), refused });
        }
        judged
    }

    /// What a channel left is claimed for ourselves, but for the outputs that go on.
    fn claim(
        &mut self,
        packet: &Packet,
        class: Class,
        goes_on: impl Fn(usize) -> bool,
        facts: &mut Vec<Fact>,
    ) -> Result<Class, Refusal> {
        self.require_ours(packet, class, &goes_on)?;
        let fee_sat = self.bounded_fee(packet)?;
        let Self { keys, windows, .. } = self;
        let outputs = packet.tx.output.iter().enumerate().filter(|(at, _)| !goes_on(*at)).map(|(_, out)| out);
        let leaving: Vec<_> = outputs.filter(|out| windows.wallet(keys, &out.script_pubkey).is_none()).collect();
        asked::claim(&self.counter, class, &packet.tx, leaving.into_iter(), fee_sat)?;
        facts.push(Fact::number("fee", fee_sat, Unit::Sat));
        Ok(class)
    }

    /// All outputs but those that go on pay ourselves.
    fn require_ours(&mut self, packet: &Packet, class: Class, goes_on: impl Fn(usize) -> bool) -> Result<(), Refusal> {
        for (at, out) in packet.tx.output.iter().enumerate() {
            if !goes_on(at) && !self.wallet.is_ours(&self.keys, &mut self.windows, &out.script_pubkey) {
                let to = bitcoin::Address::from_script(&out.script_pubkey, self.network)
                    .map_or_else(|_| format!("{:x}", out.script_pubkey), |address| address.to_string());
                let detail = format!("{}: output {at} pays {} sat to {to}", class.name(), out.value.to_sat());
                return Err(Refusal::new(Reason::OutputForeign, detail).with_fact(Fact::text("pays", to)));
            }
        }
        Ok(())
    }

    /// The fee, as far as inputs are what they are said to be.
    fn bounded_fee(&self, packet: &Packet) -> Result<u64, Refusal> {
        let (fee_sat, limit_sat) = (transactions::fee_sat(packet)?, self.config.max_onchain_fee_sat);
        if fee_sat <= limit_sat {
            return Ok(fee_sat);
        }
        let detail = format!("fee {fee_sat} sat > limits.max_onchain_fee_sat = {limit_sat} sat");
        Err(Refusal::new(Reason::SweepFee, detail)
            .with_fact(Fact::number("fee", fee_sat, Unit::Sat).at_most(limit_sat)))
    }

    /// What a commitment leaves to miners: its fee, and HTLCs that are too small for an output.
    fn require_bounded_burn(&self, packet: &Packet, capacity_sat: u64) -> Result<(), Refusal> {
        let out_sat = transactions::sum_sat(&packet.tx.output).unwrap_or_default();
        let burnt_sat = capacity_sat.saturating_sub(out_sat);
        let limit_sat = self.config.max_onchain_fee_sat.saturating_add(MAX_DUST_SAT);
        if burnt_sat <= limit_sat {
            return Ok(());
        }
        let detail =
            format!("{burnt_sat} sat go to nobody; limits.max_onchain_fee_sat + {MAX_DUST_SAT} = {limit_sat} sat");
        let fact = Fact::number("commitment_fee", burnt_sat, Unit::Sat).at_most(limit_sat);
        Err(Refusal::new(Reason::CommitmentFee, detail).with_fact(fact))
    }

    pub(super) fn frozen(&self) -> Option<Refusal> {
        self.orders.node_stopped("node")
    }

    /// Why this channel takes no new state.
    fn stopped(&self, funding: &OutPoint) -> Option<Refusal> {
        self.orders.channel_stopped(&(*funding).into(), self.clock.now_ms())
    }
}

/// What the question says of coins that its signature does not commit to, or that another transaction may spend beside it.
fn said(packet: &Packet, inputs: &[Drafted]) -> Result<Vec<(OutPoint, TxOut)>, Refusal> {
    let stands_alone = |(index, _, _, candidate): &Drafted| {
        let combines = packet.inputs[*index].sighash == transactions::SINGLE_ANYONECANPAY;
        matches!(candidate, Candidate::CounterpartyHtlc(_)) || packet.inputs.len() == 1 && !combines
    };
    if inputs.iter().all(stands_alone) {
        return Ok(Vec::new());
    }
    let coin = |at: usize| Ok((packet.tx.input[at].previous_output, transactions::spent(packet, at)?));
    (0..packet.inputs.len()).map(coin).collect()
}
