//! The rules a new commitment must keep.

use std::cell::RefCell;

use super::Book;
use super::channel::{Channel, Held, Place, Settlement};
use super::dust::Dust;
use super::facts::{ChannelKey, Commitment, Direction, Hash, Htlc, Moment, Side, Terms};
use super::payment::Totals;
use super::removal::{self, Removal};
use crate::facts::{Fact, Unit};
use crate::reasons::{Reason, Refusal};

/// A commitment that may be adopted, and what changes with it.
pub(super) struct Verdict {
    pub(super) side: Side,
    pub(super) place: Place,
    pub(super) held: Held,
    pub(super) terms: Terms,
    /// The balance of dust, if it changes.
    pub(super) dust: Option<Dust>,
    /// Small payments that left as HTLCs which are no dust.
    pub(super) withdrawn: Vec<Hash>,
    /// What leaves for payments that come in as dust, or become dust.
    pub(super) lent: Vec<(Hash, u64)>,
}

/// What leaves by a commitment, as far as it touches the balance of dust.
#[derive(Default)]
struct Leaving {
    withdrawn: Vec<Hash>,
    lent: Vec<(Hash, u64)>,
}

/// Judges `commitment` of `side` on `channel`, which is not in the book's map meanwhile and is left as it was. `None`: it
/// is valid already.
pub(super) fn judge(
    book: &Book,
    key: &ChannelKey,
    channel: &mut Channel,
    side: Side,
    commitment: Commitment,
    issued: &[Hash],
    at: Moment,
) -> Result<Option<Verdict>, Refusal> {
    let terms = channel.terms.clone();
    let chain = channel.chain(side);
    let place = match chain.place(side, &commitment) {
        Some(Place::Held) => return Ok(None),
        Some(place) => place,
        None => return Err(out_of_order(channel, side, &commitment)),
    };
    require_sound(book, &terms, &commitment)?;

    let opening;
    let base = match (&chain.current, place) {
        (Some(current), Place::Next) => current,
        _ => {
            opening = Held::opening(&terms);
            &opening
        }
    };
    let brings_preimages = book.rules.brings_preimages;
    let is_known =
        |hash: &Hash| !brings_preimages || book.payments.get(hash).is_some_and(|payment| payment.preimage.is_some());
    // HTLCs come in the order of their hashes: those of one hash over all channels are summed up once.
    let summed: RefCell<Option<(Hash, Totals)>> = RefCell::default();
    let is_needed = |htlc: &Htlc| {
        let Some(payment) = book.payments.get(&htlc.payment_hash) else { return false };
        let mut summed = summed.borrow_mut();
        let sum_up = || (htlc.payment_hash, book.totals(&htlc.payment_hash, Some((key, channel)), at.height));
        let (_, totals) = match summed.take_if(|(hash, _)| *hash != htlc.payment_hash) {
            Some(_) => summed.insert(sum_up()),
            None => summed.get_or_insert_with(sum_up),
        };
        let settled = payment.settled.iter().find(|settled| settled.channel == *key);
        let less_msat = Totals::less_without(htlc, channel, (side, base), settled);
        let totals = totals.excusing([htlc].into_iter(), book.depth(at.height), book.rules.cltv_delta);
        totals.is_short_of(less_msat, payment.approval.as_ref())
    };
    let removal = removal::compare(base, &commitment, &terms, is_known, is_needed);
    require_conserved(&terms, base, &commitment, &removal, is_known, is_needed)?;

    let before = |(hash, change)| (hash, change, book.totals(&hash, Some((key, channel)), at.height));
    let before: Vec<(Hash, Change, Totals)> = touched(&removal).into_iter().map(before).collect();
    let lost_before = channel.dust_lost_msat();
    let dust_lost_msat = i128::from(base.dust_lost_msat) + removal.lost_msat;
    let held = Held {
        settled: removal.settled,
        dust_lost_msat: i64::try_from(dust_lost_msat).unwrap_or(i64::MAX),
        settlements: settlements(book, key, channel, side, &removal, at),
        commitment,
    };
    let slot = |channel: &mut Channel, held: Option<Held>| {
        let chain = channel.chain_mut(side);
        let slot = if place == Place::First { &mut chain.current } else { &mut chain.next };
        std::mem::replace(slot, held)
    };
    let replaced = slot(channel, Some(held));
    let outcome = require_payments(book, key, channel, &before, &removal.removed, issued, at)
        .and_then(|leaving| Ok((charge_dust(book, channel, lost_before, &leaving, at)?, leaving)));
    let held = slot(channel, replaced);
    let (dust, Leaving { withdrawn, lent }) = outcome?;
    Ok(held.map(|held| Verdict { side, place, held, terms, dust, withdrawn, lent }))
}

impl Held {
    /// What a channel's first commitment is compared with.
    fn opening(terms: &Terms) -> Self {
        let commitment = Commitment { number: 0, feerate_per_kw: 0, to_us_sat: 0, to_them_sat: 0, htlcs: Vec::new() };
        Self { commitment, settled: terms.opening(), dust_lost_msat: 0, settlements: Vec::new() }
    }
}

fn out_of_order(channel: &Channel, side: Side, commitment: &Commitment) -> Refusal {
    let whose = if side == Side::Ours { "our" } else { "the peer's" };
    let detail = match channel.chain(side).newest() {
        Some(held) => {
            let valid: Vec<u64> = channel.chain(side).valid().map(|held| held.commitment.number).collect();
            let same = held.commitment.number == commitment.number;
            let other = if same { ", and differs from it" } else { "" };
            format!("{whose} commitment {} beside valid {valid:?}{other}", commitment.number)
        }
        None => format!("{whose} first commitment has number {}", commitment.number),
    };
    let newest = channel.chain(side).newest().map(|held| held.commitment.number);
    let fact = Fact::count("newest_valid_commitment", newest.unwrap_or(0));
    Refusal::new(Reason::CommitmentOrder, detail).with_fact(fact)
}

/// What a commitment must keep by itself.
fn require_sound(book: &Book, terms: &Terms, commitment: &Commitment) -> Result<(), Refusal> {
    let most = book.rules.max_feerate_per_kw;
    if terms.we_fund && commitment.feerate_per_kw > most {
        let detail = format!("feerate {} sat per 1000 weight > {most}", commitment.feerate_per_kw);
        let fact = Fact::number("feerate", commitment.feerate_per_kw.into(), Unit::SatPerKw).at_most(most.into());
        return Err(Refusal::new(Reason::CommitmentFee, detail).with_fact(fact));
    }
    if !commitment.fits(terms) || commitment.dust_msat(terms).hi < 0 {
        let htlcs: u128 = commitment.htlcs.iter().map(|htlc| u128::from(htlc.amount_msat)).sum();
        let detail = format!(
            "commitment {}: {} sat to us, {} sat to the peer, {htlcs} msat in HTLCs and the fee at {} sat per 1000 \
             weight exceed the channel's {} sat",
            commitment.number,
            commitment.to_us_sat,
            commitment.to_them_sat,
            commitment.feerate_per_kw,
            terms.capacity_sat
        );
        let refusal = Refusal::new(Reason::ValueNotConserved, detail)
            .with_fact(Fact::number("to_us", commitment.to_us_sat, Unit::Sat))
            .with_fact(Fact::number("to_peer", commitment.to_them_sat, Unit::Sat))
            .with_fact(Fact::msat("in_htlcs", i128::try_from(htlcs).unwrap_or(i128::MAX)))
            .with_fact(Fact::number("capacity", terms.capacity_sat, Unit::Sat));
        return Err(refusal);
    }
    Ok(())
}

/// What is ours falls only by HTLCs that were settled, and by what is in dust now. Refuses with `value-not-conserved`,
/// `preimage-missing` or `forward-unclaimed`.
fn require_conserved(
    terms: &Terms,
    base: &Held,
    commitment: &Commitment,
    removal: &Removal,
    is_known: impl Fn(&Hash) -> bool,
    is_needed: impl Fn(&Htlc) -> bool,
) -> Result<(), Refusal> {
    let dust_msat = commitment.dust_msat(terms).hi;
    if removal.least_lost_msat <= dust_msat {
        return Ok(());
    }
    let observed = commitment.ours(terms);
    let least_msat = observed.hi + removal.least_lost_msat - dust_msat.max(0);
    let ours = Fact::msat("ours", observed.hi).at_least(u64::try_from(least_msat).unwrap_or(0));
    let of = |direction| removal.removed.iter().map(|(htlc, _)| htlc).filter(move |htlc| htlc.direction == direction);
    let unproven = of(Direction::Out).filter(|htlc| !is_known(&htlc.payment_hash)).collect();
    let unclaimed = of(Direction::In).filter(|htlc| is_needed(htlc)).collect();
    let explanations: [(Vec<&Htlc>, _, _); 2] = [
        (unproven, Reason::PreimageMissing, "were not given back, and no message brought the preimage"),
        (unclaimed, Reason::ForwardUnclaimed, "were given up, and what left or may leave depends on them"),
    ];
    for (htlcs, reason, what) in explanations {
        let in_htlcs_msat: i128 = htlcs.iter().map(|htlc| i128::from(htlc.amount_msat)).sum();
        if !htlcs.is_empty() && removal.least_lost_msat <= dust_msat + in_htlcs_msat {
            let hashes: Vec<String> = htlcs.iter().map(|htlc| htlc.payment_hash.to_string()).collect();
            return Err(Refusal::new(reason, format!("{in_htlcs_msat} msat of {} {what}", hashes.join(", ")))
                .with_fact(ours)
                .with_fact(Fact::msat("in_these_htlcs", in_htlcs_msat)));
        }
    }
    let detail = format!(
        "commitment {}: ours was {} msat, HTLCs settled since leave at least {} msat, the commitment at most {} msat; \
         {} msat in dust do not account for the difference",
        commitment.number,
        base.settled.lo,
        observed.hi + removal.least_lost_msat,
        observed.hi,
        dust_msat.max(0)
    );
    Err(Refusal::new(Reason::ValueNotConserved, detail).with_fact(ours))
}

/// What a commitment changes for a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// More leaves.
    Leaves,
    /// Less comes in: it was not settled.
    GivenUp,
    /// Less comes in that can be told apart: the feerate made it dust.
    Faded,
}

/// The hashes that a commitment changes something for.
fn touched(removal: &Removal) -> Vec<(Hash, Change)> {
    let added = removal.added.iter().filter(|htlc| htlc.direction == Direction::Out);
    let failed = removal.removed.iter().filter(|(htlc, settled)| htlc.direction == Direction::In && !settled);
    let added = added.map(|htlc| (htlc.payment_hash, Change::Leaves));
    let failed = failed.map(|(htlc, _)| (htlc.payment_hash, Change::GivenUp));
    let faded = removal.faded.iter().map(|htlc| (htlc.payment_hash, Change::Faded));
    let mut touched: Vec<_> = added.chain(failed).chain(faded).collect();
    touched.dedup(); // HTLCs are ordered by hash
    touched
}

/// What removed HTLCs mean for their payments. What comes in counts as far as it stands for something that left: the
/// rest is ours to keep, and covers nothing later.
fn settlements(
    book: &Book,
    key: &ChannelKey,
    channel: &Channel,
    side: Side,
    removal: &Removal,
    at: Moment,
) -> Vec<Settlement> {
    let mut all: Vec<Settlement> = Vec::new();
    for (htlc, _) in removal.removed.iter().filter(|(_, settled)| *settled) {
        let (out_msat, in_msat) = match htlc.direction {
            Direction::Out => (htlc.amount_msat, 0),
            Direction::In => (0, htlc.amount_msat),
        };
        match all.last_mut().filter(|last| last.payment_hash == htlc.payment_hash) {
            Some(last) => {
                last.out_msat = last.out_msat.saturating_add(out_msat);
                last.in_msat = last.in_msat.saturating_add(in_msat);
            }
            None => {
                let payment_hash = htlc.payment_hash;
                all.push(Settlement { payment_hash, out_msat, certain_msat: 0, in_msat });
            }
        }
    }
    if removal.is_exact || book.rules.brings_preimages {
        all.iter_mut().for_each(|settlement| settlement.certain_msat = settlement.out_msat);
    }
    for settlement in all.iter_mut().filter(|settlement| settlement.in_msat > 0) {
        let hash = &settlement.payment_hash;
        let left_msat = book.totals(hash, Some((key, channel)), at.height).out_msat();
        let settled = book.payments.get(hash).map_or(&[][..], |payment| &payment.settled);
        let counted_msat = settled.iter().map(|settled| settled.side(side).in_msat).sum();
        settlement.in_msat = settlement.in_msat.min(left_msat.saturating_sub(counted_msat));
    }
    all.retain(|settlement| settlement.out_msat > 0 || settlement.in_msat > 0);
    all
}

/// What leaves is approved or covered, and what comes in is not given up while something depends on it. A forward may
/// come in as dust and leave as none, where dust means more on one channel than on the other, or become dust while it is on
/// its way: then it is charged as dust. `channel` has the new commitment in place.
fn require_payments(
    book: &Book,
    key: &ChannelKey,
    channel: &Channel,
    before: &[(Hash, Change, Totals)],
    removed: &[(Htlc, bool)],
    issued: &[Hash],
    at: Moment,
) -> Result<Leaving, Refusal> {
    let mut leaving = Leaving::default();
    for (hash, change, before) in before {
        let given_up = removed.iter().filter(|(htlc, settled)| !settled && htlc.payment_hash == *hash);
        let given_up = given_up.map(|(htlc, _)| htlc).filter(|htlc| htlc.direction == Direction::In);
        let after = book.totals(hash, Some((key, channel)), at.height);
        let after = after.excusing(given_up, book.depth(at.height), book.rules.cltv_delta);
        let payment = book.payments.get(hash);
        let approval = payment.and_then(|payment| payment.approval.as_ref());
        if *change == Change::GivenUp {
            after.require_kept(hash, approval, before, book.rules.cltv_delta)?;
        }
        if *change != Change::Leaves {
            let short_msat = after.short_msat(approval).saturating_sub(before.short_msat(approval));
            leaving.lent.extend((short_msat > 0).then_some((*hash, short_msat)));
        } else if after.out_msat() > before.out_msat() {
            let is_issued = issued.contains(hash);
            if let Err(refusal) = after.require_cover(hash, approval, is_issued, book.rules.cltv_delta) {
                let uncovered_msat = after.out_msat().saturating_sub(after.in_msat());
                if approval.is_some() || is_issued || !(1..book.dust_below_msat).contains(&uncovered_msat) {
                    return Err(refusal);
                }
                leaving.lent.push((*hash, after.out_msat() - before.out_msat()));
            }
            leaving.withdrawn.extend(payment.filter(|payment| payment.small_msat > 0).map(|_| *hash));
        }
    }
    Ok(leaving)
}

/// The balance of dust with the new commitment in place, if it changes. Refuses with `dust-exceeded`.
fn charge_dust(
    book: &Book,
    channel: &Channel,
    lost_before: i64,
    leaving: &Leaving,
    at: Moment,
) -> Result<Option<Dust>, Refusal> {
    let lent_msat: i128 = leaving.lent.iter().map(|(_, lent_msat)| i128::from(*lent_msat)).sum();
    let left_msat = i128::from(channel.dust_lost_msat()) - i128::from(lost_before) + lent_msat;
    if left_msat == 0 && leaving.withdrawn.is_empty() {
        return Ok(None);
    }
    let mut dust = book.dust;
    for payment in leaving.withdrawn.iter().filter_map(|hash| book.payments.get(hash)) {
        dust.withdraw(payment.small_msat);
    }
    dust.charge(at.now_ms, left_msat, book.channels.len() + 1)?;
    Ok(Some(dust))
}
