//! The rules a new commitment must keep.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::Book;
use super::batch::{Batch, Claims};
use super::channel::{Channel, Held, Place};
use super::close::Depth;
use super::dust::Dust;
use super::facts::{ChannelKey, Commitment, Direction, Hash, Htlc, Moment, Side, Terms};
use super::part::Left;
use super::payment::Totals;
use super::removal::{self, Need, Removal};
use super::settlement::{settlements, untold};
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
    /// Batches of which it relies on more than was relied on before, all of a channel.
    pub(super) batches: BTreeMap<ChannelKey, Vec<Batch>>,
}

/// What leaves by a commitment, as far as it touches the balance of dust.
#[derive(Default)]
struct Leaving {
    withdrawn: Vec<Hash>,
    lent: Vec<(Hash, u64)>,
    /// Taken to have failed, though only dust can account for that.
    blurred_msat: u64,
}

/// A channel with the new commitment or without it, beside the rest of the book.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) book: &'a Book,
    pub(super) key: &'a ChannelKey,
    /// Not in the book's map.
    pub(super) channel: &'a Channel,
    pub(super) at: Moment,
}

impl<'a> Case<'a> {
    /// What left and came for `hash`.
    pub(super) fn totals(&self, hash: &Hash, claims: &Claims<'_>) -> Totals {
        self.book.totals(hash, Some((self.key, self.channel)), claims, self.at.height)
    }

    fn depth(&self) -> Depth {
        self.book.depth(self.at.height)
    }
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
    let mut claims = Claims::new(&book.batches);
    let case = Case { book, key, channel, at };
    // HTLCs come in the order of their hashes: those of one hash over all channels are summed up once.
    let summed: RefCell<Option<(Hash, Totals)>> = RefCell::default();
    let need = |htlc: &Htlc| {
        let Some(payment) = book.payments.get(&htlc.payment_hash) else { return Need::None };
        let mut summed = summed.borrow_mut();
        let sum_up = || (htlc.payment_hash, case.totals(&htlc.payment_hash, &claims));
        let (_, totals) = match summed.take_if(|(hash, _)| *hash != htlc.payment_hash) {
            Some(_) => summed.insert(sum_up()),
            None => summed.get_or_insert_with(sum_up),
        };
        let past = book.past(&htlc.payment_hash, payment, key, &claims);
        let less_msat = Totals::less_without(htlc, channel, (side, base), past);
        let totals = totals.excusing([htlc].into_iter(), case.depth(), book.rules.cltv_delta);
        match totals.short_of_msat(less_msat, payment.approval.as_ref()) {
            0 => Need::None,
            short_msat if short_msat <= totals.returnable_msat => Need::UnlessFailed(short_msat),
            _ => Need::Certain,
        }
    };
    let mut removal = removal::compare(base, &commitment, &terms, is_known, need);
    let is_needed = |htlc: &Htlc| need(htlc) == Need::Certain;
    require_conserved(&terms, base, &commitment, &removal, is_known, is_needed)?;

    let settled = |settled: &[Htlc]| settlements(case, side, settled);
    let (settlements, batch) = if brings_preimages {
        let all = removal.removed.iter().filter(|(_, settled)| *settled).map(|(htlc, _)| *htlc);
        (settled(&all.collect::<Vec<_>>()), None)
    } else {
        untold(side, commitment.number, &mut removal, need, settled)
    };
    let before = |(hash, change)| (hash, change, case.totals(&hash, &claims));
    let before: Vec<(Hash, Change, Totals)> = touched(&removal).into_iter().map(before).collect();
    let lost_before = channel.dust_lost_msat();
    let dust_lost_msat = i128::from(base.dust_lost_msat) + removal.lost_msat;
    let held = Held {
        settled: removal.settled,
        dust_lost_msat: i64::try_from(dust_lost_msat).unwrap_or(i64::MAX),
        settlements,
        batch,
        commitment,
    };
    let slot = |channel: &mut Channel, held: Option<Held>| {
        let chain = channel.chain_mut(side);
        let slot = if place == Place::First { &mut chain.current } else { &mut chain.next };
        std::mem::replace(slot, held)
    };
    let replaced = slot(channel, Some(held));
    let case = Case { book, key, channel, at };
    let outcome = require_payments(case, &before, &removal.removed, issued, &mut claims)
        .and_then(|leaving| Ok((charge_dust(case, lost_before, &leaving)?, leaving)));
    let held = slot(channel, replaced);
    let (dust, Leaving { withdrawn, lent, .. }) = outcome?;
    let batches = claims.into_changed();
    Ok(held.map(|held| Verdict { side, place, held, terms, dust, withdrawn, lent, batches }))
}

impl Held {
    /// What a channel's first commitment is compared with.
    fn opening(terms: &Terms) -> Self {
        let commitment = Commitment { number: 0, feerate_per_kw: 0, to_us_sat: 0, to_them_sat: 0, htlcs: Vec::new() };
        Self { commitment, settled: terms.opening(), dust_lost_msat: 0, settlements: Vec::new(), batch: None }
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

/// What leaves is approved or covered, and what comes in is not given up while something depends on it. A forward may
/// come in as dust and leave as none, where dust means more on one channel than on the other, or become dust while it is on
/// its way: then it is charged as dust. `channel` has the new commitment in place.
fn require_payments(
    case: Case<'_>,
    before: &[(Hash, Change, Totals)],
    removed: &[(Htlc, bool)],
    issued: &[Hash],
    claims: &mut Claims<'_>,
) -> Result<Leaving, Refusal> {
    let book = case.book;
    let mut leaving = Leaving::default();
    for (hash, change, before) in before {
        let given_up = removed.iter().filter(|(htlc, settled)| !settled && htlc.payment_hash == *hash);
        let given_up = given_up.map(|(htlc, _)| htlc).filter(|htlc| htlc.direction == Direction::In);
        let mut after = case.totals(hash, claims).excusing(given_up, case.depth(), book.rules.cltv_delta);
        let payment = book.payments.get(hash);
        let approval = payment.and_then(|payment| payment.approval.as_ref());
        let is_issued = issued.contains(hash);
        let short_msat = match change {
            Change::Leaves if after.out_msat() > before.out_msat() => after.uncovered_msat(approval, is_issued),
            Change::Leaves => 0,
            Change::GivenUp | Change::Faded => after.short_msat(approval).saturating_sub(before.short_msat(approval)),
        };
        let failed_msat = short_msat.min(after.returnable_msat);
        if failed_msat > 0 {
            leaving.blurred_msat += give_back(case, hash, failed_msat, claims);
            after.give_back(failed_msat);
        }
        if *change == Change::GivenUp {
            after.require_kept(hash, approval, before, book.rules.cltv_delta)?;
        }
        if *change != Change::Leaves {
            let short_msat = after.short_msat(approval).saturating_sub(before.short_msat(approval));
            leaving.lent.extend((short_msat > 0).then_some((*hash, short_msat)));
        } else if after.out_msat() > before.out_msat() {
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

/// The judged commitment relies on it that `amount_msat` of what left for `hash` failed. Returns how much of that dust must
/// have made up for.
fn give_back(case: Case<'_>, hash: &Hash, amount_msat: u64, claims: &mut Claims<'_>) -> u64 {
    let Case { book, key, channel, .. } = case;
    let Some(payment) = book.payments.get(hash) else { return 0 };
    let (mut left_msat, mut blurred_msat) = (amount_msat, 0);
    for known in payment.settled.iter().map(|settled| &settled.channel) {
        let Some(channel) = (if known == key { Some(channel) } else { book.channels.get(known) }) else { continue };
        let left = Left::of(channel, book.past(hash, payment, known, claims), case.depth());
        let given_msat = left_msat.min(left.most_msat() - left.least_msat);
        let rest_msat = left.most_msat() - given_msat;
        let by_side = left
            .by_side
            .map(|(side, out_msat)| claims.give_back(known, side, hash, out_msat.saturating_sub(rest_msat)));
        (left_msat, blurred_msat) = (left_msat - given_msat, blurred_msat + by_side[0].max(by_side[1]));
    }
    blurred_msat
}

/// The balance of dust with the new commitment in place, if it changes. Refuses with `dust-exceeded`.
fn charge_dust(case: Case<'_>, lost_before: i64, leaving: &Leaving) -> Result<Option<Dust>, Refusal> {
    let Case { book, channel, at, .. } = case;
    let lent_msat: i128 = leaving.lent.iter().map(|(_, lent_msat)| i128::from(*lent_msat)).sum();
    let moved_msat = i128::from(channel.dust_lost_msat()) - i128::from(lost_before);
    let left_msat = moved_msat + lent_msat + i128::from(leaving.blurred_msat);
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
