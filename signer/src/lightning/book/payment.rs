//! One payment hash over all channels of a node: what may leave, what left, what came.

use super::channel::{Channel, Held};
use super::close::Depth;
use super::facts::{Approval, ChannelKey, Hash, Htlc, Side};
use super::part::{Part, Past};
use super::view::Standing;
use crate::facts::Fact;
use crate::reasons::{Reason, Refusal};

/// What is known of one hash.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Payment {
    pub(super) approval: Option<Approval>,
    /// As much of the approval counts as dust that may leave.
    pub(super) small_msat: u64,
    /// Left as no dust, against what comes in as dust: charged as dust, until it comes back.
    pub(super) lent_msat: u64,
    pub(super) preimage: Option<[u8; 32]>,
    /// Settled by the commitments in force, by channel.
    pub(super) settled: Vec<Settled>,
    /// Channels with a valid commitment that carries it. Follows from the channels.
    pub(super) channels: Vec<ChannelKey>,
    /// Whether the journal has an entry.
    pub(super) stored: bool,
}

/// Settled on one channel, as the two commitments in force have it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settled {
    pub(super) channel: ChannelKey,
    pub(super) ours: Sums,
    pub(super) theirs: Sums,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) out_msat: u64,
    pub(super) in_msat: u64,
}

impl Settled {
    pub(super) fn side(&self, side: Side) -> Sums {
        match side {
            Side::Ours => self.ours,
            Side::Theirs => self.theirs,
        }
    }

    pub(super) fn side_mut(&mut self, side: Side) -> &mut Sums {
        match side {
            Side::Ours => &mut self.ours,
            Side::Theirs => &mut self.theirs,
        }
    }
}

impl Payment {
    pub(super) fn settled_on(&mut self, channel: &ChannelKey) -> &mut Settled {
        let known = self.settled.iter().position(|settled| settled.channel == *channel);
        let index = known.unwrap_or_else(|| {
            let (ours, theirs) = (Sums::default(), Sums::default());
            self.settled.push(Settled { channel: channel.clone(), ours, theirs });
            self.settled.len() - 1
        });
        &mut self.settled[index]
    }

    /// Whether it is over: nothing is in flight and nothing may leave.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        self.channels.is_empty() && self.approval.is_none_or(|approval| approval.expires_ms <= now_ms)
    }

    /// Whether it holds anything that does not follow from the channels.
    pub(super) fn is_durable(&self) -> bool {
        self.approval.is_some() || self.preimage.is_some() || !self.settled.is_empty() || self.lent_msat > 0
    }
}

/// What of one hash left, at most, and came, at least, if the worst of the valid commitments count.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// Amounts with their expiry; 0 for what is settled.
    outs: Vec<(u32, u64)>,
    /// Amounts with their expiry; `u32::MAX` for what is settled.
    ins: Vec<(u32, u64)>,
    /// Of what left, what must be covered by what came even if nothing more leaves: what was paid, or may still be.
    binding: Vec<(u32, u64)>,
    /// The same on channels that are closing or closed, where the chain has not shown yet what becomes of it.
    open: Vec<(u32, u64)>,
    /// Of what left, what failed if whoever asks relies on it.
    pub(super) returnable_msat: u64,
}

impl Totals {
    /// Adds what `channel` says of `hash`, and what ended there before. Whose preimage `is_known` the peer can take as long
    /// as the chain does not show that it did not.
    pub(super) fn add(&mut self, channel: &Channel, past: Past<'_>, is_known: bool, depth: Depth) {
        let part = |side, held| Part::new(channel, side, held, past).without_returned(channel, past.hash, depth);
        let parts = || channel.valid().map(|(side, held)| part(side, held));
        if let Some(worst) = parts().max_by_key(Part::out_msat) {
            let is_certain = channel.standing == Standing::Ready || is_known;
            let binding = if is_certain { &mut self.binding } else { &mut self.open };
            binding.extend(&worst.outs);
            let least_msat = parts().map(|part| part.out_msat() - part.returnable_msat).max().unwrap_or(0);
            self.returnable_msat = add(self.returnable_msat, worst.out_msat() - least_msat);
            self.add_paid(worst.settled.out_msat);
            self.outs.extend(worst.outs);
        }
        // What is not in both sides' commitments in force may never come.
        if channel.ours.current.is_none() || channel.theirs.current.is_none() {
            return;
        }
        if let Some(worst) = parts().min_by_key(Part::in_msat) {
            self.ins.extend(worst.ins);
            self.ins.extend((worst.settled.in_msat > 0).then_some((u32::MAX, worst.settled.in_msat)));
        }
    }

    /// What less comes in on `channel` if a commitment of this side follows this one without `htlc`, and the other side
    /// may have gone ahead with that.
    pub(super) fn less_without(htlc: &Htlc, channel: &Channel, (side, base): (Side, &Held), past: Past<'_>) -> u64 {
        let in_msat = |side, held| Part::new(channel, side, held, past).in_msat();
        let counted_msat = channel.valid().map(|(side, held)| in_msat(side, held)).min().unwrap_or(0);
        counted_msat.saturating_sub(in_msat(side, base).saturating_sub(htlc.amount_msat))
    }

    /// What settled on a channel that is no longer in the book.
    pub(super) fn add_settled(&mut self, settled: &Settled) {
        let (ours, theirs) = (settled.ours, settled.theirs);
        self.add_paid(ours.out_msat.max(theirs.out_msat));
        self.ins.push((u32::MAX, ours.in_msat.min(theirs.in_msat)));
    }

    /// What was paid before is `amount_msat` less: so much of it failed.
    pub(super) fn give_back(&mut self, amount_msat: u64) {
        for amounts in [&mut self.outs, &mut self.binding] {
            let mut left_msat = amount_msat;
            for (_, amount_msat) in amounts.iter_mut().filter(|(expiry, _)| *expiry == 0) {
                let taken_msat = left_msat.min(*amount_msat);
                (*amount_msat, left_msat) = (*amount_msat - taken_msat, left_msat - taken_msat);
            }
        }
        self.returnable_msat = self.returnable_msat.saturating_sub(amount_msat);
    }

    /// The same without what `given_up` covered, incoming HTLCs that an honest node gives up by now: what the chain has
    /// not shown by then is lost to it.
    pub(super) fn excusing<'a>(&self, given_up: impl Iterator<Item = &'a Htlc>, depth: Depth, cltv_delta: u32) -> Self {
        let mut excused = self.clone();
        for htlc in given_up.filter(|htlc| depth.is_given_up(htlc.cltv_expiry)) {
            let mut left_msat = htlc.amount_msat;
            let covers = |expiry: u32| expiry.saturating_add(cltv_delta) <= htlc.cltv_expiry;
            for (_, amount_msat) in excused.open.iter_mut().filter(|(expiry, _)| covers(*expiry)) {
                let taken_msat = left_msat.min(*amount_msat);
                (*amount_msat, left_msat) = (*amount_msat - taken_msat, left_msat - taken_msat);
            }
        }
        excused.open.retain(|(_, amount_msat)| *amount_msat > 0);
        excused
    }

    fn add_paid(&mut self, out_msat: u64) {
        self.outs.extend((out_msat > 0).then_some((0, out_msat)));
        self.binding.extend((out_msat > 0).then_some((0, out_msat)));
    }

    pub(super) fn out_msat(&self) -> u64 {
        sum(self.outs.iter().map(|(_, amount)| amount))
    }

    pub(super) fn in_msat(&self) -> u64 {
        sum(self.ins.iter().map(|(_, amount)| amount))
    }

    /// Whether all that leaves is approved or covered by what comes, and outlasted by `cltv_delta` blocks. A hash that we
    /// issued an invoice for is a payment to ourselves: what comes is not to be passed on.
    ///
    /// Refuses with `payment-not-approved`, `payment-exceeded`, `forward-not-covered` or `forward-cltv`.
    pub(super) fn require_cover(
        &self,
        hash: &Hash,
        approval: Option<&Approval>,
        is_issued: bool,
        cltv_delta: u32,
    ) -> Result<(), Refusal> {
        let ins = if is_issued { &[][..] } else { &self.ins };
        let (out_msat, in_msat) = (self.out_msat(), sum(ins.iter().map(|(_, amount)| amount)));
        let most_msat = approval.map_or(0, Approval::most_msat);
        if out_msat > add(most_msat, in_msat) {
            return Err(uncovered(hash, out_msat, in_msat, approval, is_issued));
        }
        require_outlasted(hash, &self.outs, ins, most_msat, cltv_delta)
    }

    /// How much of what was paid, or may still be, what came would not cover without `amount_msat` of it.
    pub(super) fn short_of_msat(&self, amount_msat: u64, approval: Option<&Approval>) -> u64 {
        let rest_msat = self.in_msat().saturating_sub(amount_msat);
        let covered_msat = add(approval.map_or(0, Approval::most_msat), rest_msat);
        if amount_msat == 0 { 0 } else { self.binding_msat().saturating_sub(covered_msat) }
    }

    /// What neither an approval nor what comes covers of all that left.
    pub(super) fn uncovered_msat(&self, approval: Option<&Approval>, is_issued: bool) -> u64 {
        let in_msat = if is_issued { 0 } else { self.in_msat() };
        self.out_msat().saturating_sub(add(approval.map_or(0, Approval::most_msat), in_msat))
    }

    /// What neither an approval nor what comes covers of what was paid or may still be.
    pub(super) fn short_msat(&self, approval: Option<&Approval>) -> u64 {
        let covered_msat = add(approval.map_or(0, Approval::most_msat), self.in_msat());
        self.binding_msat().saturating_sub(covered_msat)
    }

    /// Whether what came still covers what left, and for as long as it did `before`. Refuses with `forward-unclaimed` or
    /// `forward-cltv`.
    pub(super) fn require_kept(
        &self,
        hash: &Hash,
        approval: Option<&Approval>,
        before: &Self,
        cltv_delta: u32,
    ) -> Result<(), Refusal> {
        let (binding_msat, in_msat) = (self.binding_msat(), self.in_msat());
        let most_msat = approval.map_or(0, Approval::most_msat);
        if in_msat < before.in_msat() && binding_msat > add(most_msat, in_msat) {
            let detail = format!(
                "payment {hash}: {binding_msat} msat left or may leave, {most_msat} msat approved, and only {in_msat} \
                 msat would still come in"
            );
            let fact = Fact::msat("depends_on_it", binding_msat.into()).at_most_msat(add(most_msat, in_msat).into());
            return Err(Refusal::new(Reason::ForwardUnclaimed, detail).with_fact(fact));
        }
        let outlasted = |totals: &Self| {
            let binding = [&totals.binding[..], &totals.open].concat();
            require_outlasted(hash, &binding, &totals.ins, most_msat, cltv_delta)
        };
        outlasted(self).or_else(|refusal| if outlasted(before).is_ok() { Err(refusal) } else { Ok(()) })
    }

    fn binding_msat(&self) -> u64 {
        sum(self.binding.iter().chain(&self.open).map(|(_, amount)| amount))
    }
}

/// Whatever may last to a height needs so much that is approved, or lasts `cltv_delta` blocks longer. Refuses with
/// `forward-cltv`.
fn require_outlasted(
    hash: &Hash,
    outs: &[(u32, u64)],
    ins: &[(u32, u64)],
    most_msat: u64,
    cltv_delta: u32,
) -> Result<(), Refusal> {
    let longest_first = |amounts: &[(u32, u64)]| {
        let mut amounts = amounts.to_vec();
        amounts.sort_unstable_by_key(|(expiry, _)| std::cmp::Reverse(*expiry));
        amounts
    };
    let (mut out_msat, mut in_msat, mut lasting) = (0, 0, longest_first(ins).into_iter().peekable());
    for (expiry, amount_msat) in longest_first(outs).into_iter().take_while(|(expiry, _)| *expiry > 0) {
        out_msat = add(out_msat, amount_msat);
        let needed = expiry.saturating_add(cltv_delta);
        while let Some((_, amount_msat)) = lasting.next_if(|(expiry, _)| *expiry >= needed) {
            in_msat = add(in_msat, amount_msat);
        }
        if out_msat > add(most_msat, in_msat) {
            let detail = format!(
                "payment {hash}: {out_msat} msat out that may last to height {expiry} or longer; {most_msat} msat \
                 approved, {in_msat} msat in that lasts to height {needed} ({cltv_delta} blocks more)"
            );
            let fact = Fact::msat("out", out_msat.into()).at_most_msat(add(most_msat, in_msat).into());
            return Err(Refusal::new(Reason::ForwardCltv, detail)
                .with_fact(fact)
                .with_fact(Fact::count("incoming_expiry_needed", needed.into())));
        }
    }
    Ok(())
}

fn uncovered(hash: &Hash, out_msat: u64, in_msat: u64, approval: Option<&Approval>, is_issued: bool) -> Refusal {
    let most_msat = add(approval.map_or(0, Approval::most_msat), if is_issued { 0 } else { in_msat });
    let refusal = uncovered_in_words(hash, out_msat, in_msat, approval, is_issued);
    refusal.with_fact(Fact::msat("out", out_msat.into()).at_most_msat(most_msat.into()))
}

fn uncovered_in_words(
    hash: &Hash,
    out_msat: u64,
    in_msat: u64,
    approval: Option<&Approval>,
    is_issued: bool,
) -> Refusal {
    match approval {
        Some(approval) if approval.amount_msat == 0 => {
            let why = "its invoice names no amount: approve the amount with PreapproveKeysend for the same hash";
            Refusal::new(Reason::PaymentNotApproved, format!("payment {hash}: {out_msat} msat out; {why}"))
        }
        Some(approval) => {
            let detail = format!(
                "payment {hash}: {out_msat} msat out, over all channels and attempts > {} msat approved + {} msat of \
                 routing fee + {in_msat} msat in",
                approval.amount_msat, approval.max_fee_msat
            );
            Refusal::new(Reason::PaymentExceeded, detail)
        }
        None if is_issued => {
            let why = "this node issued the invoice, so what comes in for it is not to be passed on";
            Refusal::new(Reason::PaymentNotApproved, format!("payment {hash}: {out_msat} msat out; {why}"))
        }
        None if in_msat == 0 => {
            let why = "nothing is approved, and nothing irrevocable comes in for it";
            Refusal::new(Reason::PaymentNotApproved, format!("payment {hash}: {out_msat} msat out; {why}"))
        }
        None => Refusal::new(
            Reason::ForwardNotCovered,
            format!("payment {hash}: {out_msat} msat out > {in_msat} msat in that is irrevocable"),
        ),
    }
}

pub(super) fn add(a: u64, b: u64) -> u64 {
    a.saturating_add(b)
}

pub(super) fn sum<'a>(amounts: impl Iterator<Item = &'a u64>) -> u64 {
    amounts.fold(0, |sum, amount| add(sum, *amount))
}
