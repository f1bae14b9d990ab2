//! An honest node under random operations is never refused; what robs it is.

use fastrand::Rng;

use super::super::view::CommitmentView;
use super::super::{Commitment, Direction, Hash, Rules, Side};
use super::channel::Who;
use super::model::{DELTA, Node, WITH_PREIMAGES, WITHOUT_PREIMAGES, htlc, secret, terms};
use Direction::{In, Out};

const SEEDS: u64 = 40;
const STEPS: usize = 300;

/// One part of a payment, as the honest node keeps track of it.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// Ours to pay: channel, HTLC.
    Paying(usize, usize),
    /// Ours to claim.
    Paid(usize, usize),
    /// Came in on a channel; goes out on another, once it is irrevocable.
    Forward { comes: (usize, usize), to: usize, leaves: Option<usize> },
}

struct Honest {
    node: Node,
    dice: Rng,
    parts: Vec<Part>,
    next: u64,
    refused_attacks: usize,
}

#[test]
fn honest_operations_are_never_refused_and_value_is_conserved() {
    for rules in [WITH_PREIMAGES, WITHOUT_PREIMAGES] {
        let mut refused_attacks = 0;
        for seed in 0..SEEDS {
            refused_attacks += run(rules, seed);
        }
        assert!(refused_attacks > 500, "{refused_attacks}");
    }
}

fn run(rules: Rules, seed: u64) -> usize {
    let mut node = Node::new(rules);
    node.balanced();
    node.open(terms(1, 3_000_000, true, 1_000_000_000));
    let mut old = terms(2, 8_000_000, true, 4_000_000_000);
    (old.anchors, old.zero_fee_htlcs) = (!seed.is_multiple_of(3), !seed.is_multiple_of(3));
    node.open(old);
    node.channels[1].dust_limit_sat = [354, 546];
    let mut honest = Honest { node, dice: Rng::with_seed(seed), parts: Vec::new(), next: 0, refused_attacks: 0 };
    for step in 0..STEPS {
        honest.step().unwrap_or_else(|refusal| panic!("seed {seed}, step {step}, {rules:?}: {refusal:?}"));
    }
    honest.settle().unwrap_or_else(|refusal| panic!("seed {seed}, {rules:?}: {refusal:?}"));
    for (channel, view) in honest.node.channels.iter().zip(honest.node.view().channels) {
        let ours_msat = channel.balance_msat(Side::Ours) as i64;
        let off_msat = ours_msat - (view.settled_msat as i64);
        // Which of two HTLCs was paid that differ by less than a satoshi, our balance does not show.
        let is_met = off_msat.abs() < 1_000;
        assert!(is_met, "seed {seed}: {ours_msat} msat, in the book {}", view.settled_msat);
    }
    honest.refused_attacks
}

impl Honest {
    fn step(&mut self) -> Result<(), crate::reasons::Refusal> {
        let n = self.dice.usize(..3);
        match self.dice.u64(..20) {
            0 | 1 => self.pay(n),
            2 | 3 => self.be_paid(n),
            4 | 5 => self.begin_forward(n),
            6 => self.pay_oneself(n),
            7 => {
                let feerate = 500 + self.dice.u64(..4_000) as u32;
                if self.node.channels[n].terms.zero_fee_htlcs {
                    self.node.set_feerate(n, feerate);
                }
            }
            8 => self.node.restart(),
            9 => self.node.at.now_ms += self.dice.u64(..10_000),
            10 => self.node.book.prune(|_| false, self.node.at),
            11 | 12 => self.go_on(),
            _ => {
                let side = if self.dice.u64(..2) == 0 { Side::Ours } else { Side::Theirs };
                if self.node.may_sign(n, side) {
                    self.attack(n, side);
                    self.node.sign(n, side)?;
                } else {
                    self.node.revoke(n, side);
                }
            }
        }
        Ok(())
    }

    /// Ends everything that is in flight.
    fn settle(&mut self) -> Result<(), crate::reasons::Refusal> {
        for _ in 0..400 {
            for n in 0..3 {
                self.node.sync(n)?;
            }
            if self.parts.is_empty() {
                return Ok(());
            }
            self.go_on();
        }
        panic!("{:?}", self.parts);
    }

    fn amount(&mut self, n: usize, who: Who) -> Option<u64> {
        let most = match self.dice.u64(..3) {
            0 => 600_000,
            1 => 5_000_000,
            _ => 300_000_000,
        };
        let amount_msat = 1_000 + self.dice.u64(..most);
        (amount_msat < self.node.channels[n].spendable_msat(who)).then_some(amount_msat)
    }

    fn new_hash(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// In one part or in two, with a fee.
    fn pay(&mut self, n: usize) {
        let Some(amount_msat) = self.amount(n, Who::Us) else { return };
        let hash = self.new_hash();
        self.node.approve(hash, amount_msat);
        let fee_msat = self.dice.u64(..amount_msat / 20 + 1);
        let first = (amount_msat + fee_msat) / (1 + self.dice.u64(..2));
        for (channel, part) in [(n, first), ((n + 1) % 3, amount_msat + fee_msat - first)] {
            if part > 0 && part < self.node.channels[channel].spendable_msat(Who::Us) {
                let id = self.node.add(channel, htlc(hash, Out, part, 600));
                self.parts.push(Part::Paying(channel, id));
            }
        }
    }

    fn be_paid(&mut self, n: usize) {
        let Some(amount_msat) = self.amount(n, Who::Peer) else { return };
        let hash = self.new_hash();
        self.node.issued.push(secret(hash).1);
        let id = self.node.add(n, htlc(hash, In, amount_msat, 600));
        self.parts.push(Part::Paid(n, id));
    }

    fn begin_forward(&mut self, n: usize) {
        let Some(amount_msat) = self.amount(n, Who::Peer) else { return };
        let hash = self.new_hash();
        let comes = (n, self.node.add(n, htlc(hash, In, amount_msat, 700)));
        let to = (n + 1 + self.dice.usize(..2)) % 3;
        self.parts.push(Part::Forward { comes, to, leaves: None });
    }

    fn pay_oneself(&mut self, n: usize) {
        let Some(amount_msat) = self.amount(n, Who::Us) else { return };
        let back = (n + 1) % 3;
        if amount_msat >= self.node.channels[back].spendable_msat(Who::Peer) {
            return;
        }
        let hash = self.new_hash();
        self.node.issued.push(secret(hash).1);
        self.node.approve(hash, amount_msat);
        let leaves = self.node.add(n, htlc(hash, Out, amount_msat, 700));
        let returns = self.node.add(back, htlc(hash, In, amount_msat - amount_msat / 100, 600));
        // Settled by the same choice, because both depend on the hash alone.
        self.parts.push(Part::Paying(n, leaves));
        self.parts.push(Part::Paid(back, returns));
    }

    /// Whether whoever knows the preimage of an HTLC settles it.
    fn is_to_settle(hash: &Hash) -> bool {
        !hash.0[0].is_multiple_of(3)
    }

    /// Everything that is irrevocable goes on.
    fn go_on(&mut self) {
        let parts = std::mem::take(&mut self.parts);
        for part in parts {
            if let Some(part) = self.go_on_with(part) {
                self.parts.push(part);
            }
        }
    }

    fn go_on_with(&mut self, part: Part) -> Option<Part> {
        match part {
            Part::Paying(n, id) | Part::Paid(n, id) => {
                if !self.node.channels[n].is_irrevocable(id) {
                    return Some(part);
                }
                let settled = Self::is_to_settle(&self.node.channels[n].htlc(id).payment_hash);
                self.node.remove(n, id, settled);
                None
            }
            Part::Forward { comes: (n, id), to, leaves: None } => {
                if !self.node.channels[n].is_irrevocable(id) {
                    return Some(part);
                }
                let came = self.node.channels[n].htlc(id);
                let amount_msat = came.amount_msat - came.amount_msat / 1_000;
                if amount_msat >= self.node.channels[to].spendable_msat(Who::Us) {
                    self.node.remove(n, id, false);
                    return None;
                }
                let out =
                    super::super::Htlc { direction: Out, amount_msat, cltv_expiry: came.cltv_expiry - DELTA, ..came };
                Some(Part::Forward { comes: (n, id), to, leaves: Some(self.node.add(to, out)) })
            }
            Part::Forward { comes, to, leaves: Some(out) } => {
                let channel = &self.node.channels[to];
                if channel.is_irrevocable(out) {
                    let settled = Self::is_to_settle(&channel.htlc(out).payment_hash);
                    self.node.remove(to, out, settled);
                    if settled {
                        // Claimed at once: the preimage is all that is needed.
                        self.node.remove(comes.0, comes.1, true);
                        return None;
                    }
                    return Some(part);
                }
                match channel.ended(out) {
                    Some(_) => {
                        self.node.remove(comes.0, comes.1, false);
                        None
                    }
                    None => Some(part),
                }
            }
        }
    }

    /// Lowers what is ours in the commitment that is to follow, in every way that fits.
    fn attack(&mut self, n: usize, side: Side) {
        if self.node.rules.brings_preimages {
            self.node.tell_preimages(n);
        }
        let honest = self.node.following(n, side);
        let dust_sat = honest.dust_msat(&self.node.channels[n].terms).hi as u64 / 1_000;
        let room = honest.to_us_sat > dust_sat + 10_000 && honest.to_them_sat > 1_000;
        if !room {
            return;
        }
        // Whatever the commitment before had in HTLCs may go either way: that much is not told apart without preimages.
        let sat = dust_sat + self.uncertain_sat(n, side, &honest) + 2;
        if honest.to_us_sat > sat + 1_000 {
            let shifted = Commitment {
                to_us_sat: honest.to_us_sat - sat,
                to_them_sat: honest.to_them_sat + sat,
                ..honest.clone()
            };
            self.refused("a shift", n, side, shifted);
        }
        let mut unapproved = honest.clone();
        unapproved.htlcs.push(htlc(9_000, Out, 9_000_000, 600));
        unapproved.htlcs.sort();
        let fee_sat = u64::from(honest.feerate_per_kw) * 172 / 1_000 + 1;
        unapproved.to_us_sat -= 9_000 + fee_sat;
        self.refused("a payment without approval", n, side, unapproved);
        if self.node.rules.brings_preimages
            && let Some(at) = honest.htlcs.iter().position(|h| h.direction == Out && h.amount_msat > 50_000_000)
        {
            let mut taken = honest.clone();
            let gone = taken.htlcs.remove(at);
            // More than what came in before and may fail instead.
            let came_sat =
                self.before(n, side).map_or(0, |before| (before.in_msat + before.dust_msat) / 1_000) + dust_sat;
            if !Self::is_to_settle(&gone.payment_hash) && gone.amount_msat / 1_000 > came_sat {
                taken.to_them_sat += gone.amount_msat / 1_000;
                self.refused("an HTLC taken without its preimage", n, side, taken);
            }
        }
    }

    /// What came back to us since the commitment in force, and what it has in HTLCs.
    fn uncertain_sat(&self, n: usize, side: Side, honest: &Commitment) -> u64 {
        let Some(before) = self.before(n, side) else { return 0 };
        let uncertain_msat = before.out_msat + before.in_msat + before.dust_msat;
        honest.to_us_sat.saturating_sub(before.to_us_sat) + uncertain_msat / 1_000 + 3
    }

    /// The commitment in force.
    fn before(&self, n: usize, side: Side) -> Option<CommitmentView> {
        let channel = self.node.view().channels.swap_remove(n);
        if side == Side::Ours { channel.ours } else { channel.theirs }.into_iter().next()
    }

    fn refused(&mut self, what: &str, n: usize, side: Side, commitment: Commitment) {
        match self.node.ask(n, side, commitment.clone()) {
            Err(_) => self.refused_attacks += 1,
            Ok(()) => panic!("{what}: {commitment:?} instead of {:?}", self.node.following(n, side)),
        }
    }
}
