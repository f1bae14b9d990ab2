//! A node with three channels that lives through many executions.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bitcoin::hashes::Hash as _;
use bitcoin::{ScriptBuf, Transaction, WScriptHash};
use claviger::chain::ChainBlock;
use claviger::lightning::driver::{Dialect, Driver, Funder, MiniChain, Opening};
use claviger::lightning::guard::TABLE;
use claviger::pipeline::{ChannelRef, Outcome};
use vls_protocol::model::{PubKey, Sha256};
use vls_protocol::msgs::{self, SerBolt};

use super::choices::Choices;
use super::desk::{Asked, Desk};
use super::hostile::{greedy, near, spoil};
use super::ledger::Ledger;
use super::line::{CHANNEL_SAT, Flying, Line, hash, preimage};
use super::signer::{Signer, allowed};

const OURS_SAT: u64 = 5_000_000;
/// Expiries; a forward's incoming HTLC outlasts its outgoing one.
const IN_EXPIRY: u32 = 600;
const OUT_EXPIRY: u32 = 500;

/// One node's life.
pub struct World {
    dialect: Dialect,
    desk: Desk,
    lines: Vec<Line>,
    chain: MiniChain,
    /// The last block and the chain below it, if it was not taken back.
    last: Option<(Arc<ChainBlock>, MiniChain)>,
    payments: u64,
    /// What became of payments that were passed on.
    forwards: BTreeMap<u64, Forward>,
}

/// What became of the outgoing half of a forward.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Forward {
    Leaving,
    Paid,
    Failed,
}

/// What is asked just before an honest message, while the channel has two valid commitments: the same spoilt, an earlier
/// one again, or a secret near the commitment with this number.
fn between(choices: &mut Choices<'_>, desk: &Desk, honest: Asked, number: u64) -> Asked {
    let earlier = |n: usize| desk.asked.get(n % desk.asked.len().max(1));
    match choices.below(4) {
        0 => earlier(choices.below(256)).cloned().unwrap_or(honest),
        1 => {
            let commitment_number = near(number, choices);
            (honest.0, msgs::RevokeCommitmentTx { commitment_number }.as_vec())
        }
        _ => {
            let mut twin = honest;
            spoil(choices, &mut twin, earlier);
            twin
        }
    }
}

/// Where a world starts: three channels are open and confirmed.
struct Opened {
    entries: BTreeMap<String, Vec<u8>>,
    ledger: Ledger,
    lines: Vec<Line>,
    chain: MiniChain,
    asked: Vec<Asked>,
}

static OPENED: LazyLock<[Opened; 2]> = LazyLock::new(|| [open(Dialect::Ldk), open(Dialect::Cln)]);

fn open(dialect: Dialect) -> Opened {
    let mut desk = Desk::new(Signer::new(dialect.into()), Ledger::new(dialect.into()));
    let mut chain = MiniChain::default();
    let lines = (1..=3u64).map(|dbid| {
        let we_fund = dbid == 3;
        let funder = if we_fund { Funder::Us } else { Funder::Peer { to_us_sat: OURS_SAT } };
        let opening = Opening { dialect, dbid, funder };
        let driver = Driver::open_as(&mut |channel, message| desk.honest(channel, message), opening).expect("opens");
        desk.signer.move_tip(&chain.mine(vec![driver.funding().clone()]), true);
        Line::new(driver, we_fund, if we_fund { CHANNEL_SAT } else { OURS_SAT })
    });
    let lines = lines.collect();
    let Desk { signer, ledger, asked, .. } = desk;
    Opened { entries: signer.entries().clone(), ledger, lines, chain, asked: asked.into() }
}

impl crate::World for World {
    /// One to three steps.
    fn run(&mut self, input: &[u8]) {
        let mut choices = Choices::new(input);
        for _ in 0..=choices.below(3) {
            match choices.below(128) {
                0..2 => self.honest(&mut choices),
                2 => self.collude(&mut choices),
                3 => self.turn(&mut choices),
                4..8 => self.replay(&mut choices),
                8..24 => self.renumber(&mut choices),
                24..40 => self.invent(&mut choices),
                _ => self.spoilt(&mut choices),
            }
        }
    }

    /// No channel is left that could be refused something wrongly.
    fn is_over(&self) -> bool {
        !self.lines.iter().any(|line| self.is_open(line))
    }

    /// It is what it recorded.
    fn end(&mut self) {
        self.desk.signer.restart();
    }
}

impl World {
    /// A world of its own; even and odd ones speak different dialects.
    pub fn new(number: u64) -> Self {
        let dialect = if number.is_multiple_of(2) { Dialect::Ldk } else { Dialect::Cln };
        let opened = &OPENED[usize::from(dialect == Dialect::Cln)];
        let mut desk = Desk::new(Signer::restore(dialect.into(), opened.entries.clone()), opened.ledger.clone());
        desk.asked.extend(opened.asked.iter().cloned());
        let (lines, chain) = (opened.lines.clone(), opened.chain.clone());
        Self { dialect, desk, lines, chain, last: None, payments: 0, forwards: BTreeMap::new() }
    }

    fn is_open(&self, line: &Line) -> bool {
        !line.is_closed && self.desk.trusts(line)
    }

    /// The two sides of a channel agree on something, and nothing of it is refused.
    fn honest(&mut self, choices: &mut Choices<'_>) {
        let n = choices.below(self.lines.len());
        if !self.is_open(&self.lines[n]) {
            return;
        }
        let mut line = self.lines[n].clone();
        let became = match choices.below(8) {
            0 | 1 => self.receive(&mut line, choices),
            2 => self.pay(&mut line, choices),
            3 => self.forward(n, &mut line),
            4..7 => self.remove(&mut line, choices),
            _ => {
                line.driver.set_feerate([253, 1_000, 2_500, 5_000][choices.below(4)]);
                None
            }
        };
        let (desk, holdings, before) = (&mut self.desk, line.holdings(), line.clone());
        let number = line.driver.number();
        let mut ask = |channel: Option<ChannelRef>, message: Vec<u8>| {
            if choices.once_in(8) {
                let hostile = between(choices, desk, (channel, message.clone()), number);
                if hostile.1 != message {
                    desk.hostile(hostile);
                }
            }
            desk.honest(channel, message)
        };
        match line.driver.advance_to(&mut ask, &holdings) {
            Ok(()) => {
                self.forwards.extend(became);
                self.lines[n] = line;
            }
            Err(error) => {
                assert!(!desk.trusts(&line) || !desk.trusts(&before), "an honest channel is refused: {error}")
            }
        }
    }

    fn fresh(&mut self, is_ours: bool, choices: &mut Choices<'_>) -> Flying {
        self.payments += 1;
        let amount_sat = [1_000, 20_000, 150_000, 1_000_000][choices.below(4)] + u64::from(choices.byte());
        let cltv_expiry = if is_ours { OUT_EXPIRY } else { IN_EXPIRY };
        Flying { n: self.payments, is_ours, amount_sat, cltv_expiry }
    }

    fn receive(&mut self, line: &mut Line, choices: &mut Choices<'_>) -> Option<(u64, Forward)> {
        line.add(self.fresh(false, choices));
        None
    }

    fn pay(&mut self, line: &mut Line, choices: &mut Choices<'_>) -> Option<(u64, Forward)> {
        let paying = self.fresh(true, choices);
        if line.add(paying) {
            let payment_hash = Sha256(hash(paying.n));
            let destination = PubKey(line.driver.channel().peer_id);
            let amount_msat = paying.amount_sat * 1_000;
            self.expect(None, &msgs::PreapproveKeysend { destination, payment_hash, amount_msat });
        }
        None
    }

    /// Passes on what comes in on another channel. What a hostile message did there may have taken it back already.
    fn forward(&mut self, n: usize, line: &mut Line) -> Option<(u64, Forward)> {
        let is_sound = |(other, line): &(usize, &Line)| *other != n && self.desk.trusts(line);
        let others = self.lines.iter().enumerate().filter(is_sound);
        let mut incoming = others.flat_map(|(_, line)| &line.flying).filter(|flying| !flying.is_ours);
        let is_free = |n: u64| !self.forwards.contains_key(&n) && !self.desk.tainted.contains(&hash(n));
        let from = *incoming.find(|flying| is_free(flying.n))?;
        let amount_sat = from.amount_sat - from.amount_sat / 100;
        let added = line.add(Flying { is_ours: true, amount_sat, cltv_expiry: OUT_EXPIRY, ..from });
        added.then_some((from.n, Forward::Leaving))
    }

    /// Settles an HTLC, or fails it. What was passed on waits for its other half.
    fn remove(&mut self, line: &mut Line, choices: &mut Choices<'_>) -> Option<(u64, Forward)> {
        let which = choices.below(line.flying.len());
        let flying = *line.flying.get(which)?;
        let forward = self.forwards.get(&flying.n).copied();
        let is_settled = match forward {
            Some(Forward::Leaving) if !flying.is_ours => return None,
            Some(forward) if !flying.is_ours => forward == Forward::Paid,
            _ => choices.below(3) > 0,
        };
        if is_settled && flying.is_ours && self.dialect == Dialect::Ldk {
            let learn = [&[0x0b, 0xb8, 0, 1][..], &preimage(flying.n)].concat();
            let channel = Some(line.driver.channel());
            assert!(matches!(self.desk.honest(channel, learn), Outcome::Reply(_)), "a preimage is refused");
        }
        line.remove(which, is_settled);
        let became = if is_settled { Forward::Paid } else { Forward::Failed };
        (flying.is_ours && forward.is_some()).then_some((flying.n, became))
    }

    /// The node and the peer together try another commitment than the honest one.
    fn collude(&mut self, choices: &mut Choices<'_>) {
        let line = &self.lines[choices.below(self.lines.len())];
        let (mut driver, desk) = (line.driver.clone(), &mut self.desk);
        let holdings = greedy(choices, &line.holdings());
        if choices.below(4) == 3 {
            driver.set_feerate(choices.number() as u32 % 1_000_000);
        }
        let mut ask = |channel: Option<ChannelRef>, message: Vec<u8>| {
            desk.hostile((channel, message));
            Outcome::Reply(Vec::new())
        };
        // What comes of it, the desk says.
        let _ = if choices.below(2) == 0 {
            driver.sign_next(&mut ask, &holdings)
        } else {
            driver.validate_next(&mut ask, &holdings)
        };
    }

    /// What happens seldom: restarts, blocks, and the end of a channel.
    fn turn(&mut self, choices: &mut Choices<'_>) {
        match choices.below(16) {
            0 => self.desk.signer.restart(),
            1..12 => self.mine(Vec::new()),
            12 | 13 => {
                if let Some((block, below)) = self.last.take() {
                    self.desk.signer.move_tip(&block, false);
                    self.chain = below;
                }
            }
            14 => self.close(choices),
            _ => self.force_close(choices),
        }
    }

    fn mine(&mut self, transactions: Vec<Transaction>) {
        let below = self.chain.clone();
        let block = self.chain.mine(transactions);
        self.desk.signer.move_tip(&block, true);
        self.last = Some((block, below));
    }

    fn close(&mut self, choices: &mut Choices<'_>) {
        let n = choices.below(self.lines.len());
        let line = &self.lines[n];
        let (to_us_sat, to_peer_sat) = (line.holdings().to_us_sat, line.driver.to_peer_sat());
        if !self.is_open(line) || !line.flying.is_empty() || to_peer_sat < 1_000 {
            return;
        }
        let (ours, theirs) = (allowed(), ScriptBuf::new_p2wsh(&WScriptHash::all_zeros()));
        let channel = Some(line.driver.channel());
        match self.dialect {
            Dialect::Ldk => {
                let message = msgs::SignMutualCloseTx2 {
                    to_local_value_sat: to_us_sat,
                    to_remote_value_sat: to_peer_sat,
                    local_script: ours.into_bytes().into(),
                    remote_script: theirs.into_bytes().into(),
                    local_wallet_path_hint: Vec::new().into(),
                };
                self.expect(channel, &message);
            }
            Dialect::Cln => {
                let message = line.driver.mutual_close(to_us_sat, to_peer_sat, ours, theirs);
                self.expect(channel, &message);
            }
        }
        self.lines[n].is_closed = true;
    }

    /// The channel is closed with our commitment, which may be confirmed at once.
    fn force_close(&mut self, choices: &mut Choices<'_>) {
        let n = choices.below(self.lines.len());
        if !self.is_open(&self.lines[n]) {
            return;
        }
        let driver = self.lines[n].driver.clone();
        match self.dialect {
            Dialect::Ldk => {
                let message = msgs::SignLocalCommitmentTx2 { commitment_number: driver.number() };
                self.expect(Some(driver.channel()), &message);
            }
            Dialect::Cln => self.expect(None, &driver.force_close()),
        }
        self.lines[n].is_closed = true;
        if choices.below(2) == 1 {
            self.mine(vec![driver.our_commitment().trust().built_transaction().transaction.clone()]);
        }
    }

    /// An earlier honest message once more.
    fn replay(&mut self, choices: &mut Choices<'_>) {
        let asked = &self.desk.asked;
        if let Some(asked) = asked.get(choices.below(asked.len())).cloned() {
            self.desk.hostile(asked);
        }
    }

    /// The same with something else in it, mostly one of the last.
    fn spoilt(&mut self, choices: &mut Choices<'_>) {
        let asked = &self.desk.asked;
        let back = choices.below(asked.len()).min(choices.below(asked.len()));
        let Some(mut twin) = asked.get(asked.len().wrapping_sub(1 + back)).cloned() else { return };
        spoil(choices, &mut twin, |n| asked.get(n % asked.len()));
        self.desk.hostile(twin);
    }

    /// Secrets and signatures of numbers around the one in force.
    fn renumber(&mut self, choices: &mut Choices<'_>) {
        let driver = &self.lines[choices.below(self.lines.len())].driver;
        let channel = Some(driver.channel());
        let commitment_number = near(driver.number(), choices);
        let asked = match choices.below(4) {
            0 | 1 => (channel, msgs::RevokeCommitmentTx { commitment_number }.as_vec()),
            // To sign the one in force closes the channel: that is a turn of its own, and seldom done here.
            _ if commitment_number >= driver.number() && !choices.once_in(64) => return,
            2 => {
                let mut message = driver.force_close();
                message.commitment_number = commitment_number;
                (None, message.as_vec())
            }
            _ => (channel, msgs::SignLocalCommitmentTx2 { commitment_number }.as_vec()),
        };
        self.desk.hostile(asked);
    }

    /// Any bytes under any number of the table.
    fn invent(&mut self, choices: &mut Choices<'_>) {
        let row = &TABLE[choices.below(TABLE.len())];
        let body = (0..choices.below(80)).map(|_| choices.byte());
        let message = row.number.to_be_bytes().into_iter().chain(body).collect();
        let line = &self.lines[choices.below(self.lines.len())];
        let channel = (choices.below(2) == 0).then(|| line.driver.channel());
        self.desk.hostile((channel, message));
    }

    /// Asks what must be answered.
    fn expect(&mut self, channel: Option<ChannelRef>, message: &dyn SerBolt) {
        if let Outcome::Refused { refusal, .. } = self.desk.honest(channel, message.as_vec()) {
            panic!("an honest {} is refused: {}: {}", message.name(), refusal.reason.id(), refusal.detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::World as _;

    /// Inputs of one honest step each.
    #[test]
    fn honest_channels_of_both_dialects_get_on() {
        for number in 0..2 {
            let mut world = World::new(number);
            for n in 0..60u8 {
                world.run(&[0, 0, n, n / 3, n % 4, n % 5]);
            }
            let numbers: Vec<u64> = world.lines.iter().map(|line| line.driver.number()).collect();
            assert!(numbers.iter().all(|number| *number > 10), "{numbers:?}");
            assert!(!world.is_over() && world.desk.doubted.is_empty());
            world.end();
        }
    }

    #[test]
    fn hostile_inputs_leave_worlds_that_are_what_they_recorded() {
        for number in 0..2 {
            let mut random = fastrand::Rng::with_seed(number);
            let mut world = World::new(number);
            for _ in 0..300 {
                let input: Vec<u8> = (0..32).map(|_| random.u8(..)).collect();
                world.run(&input);
            }
            world.end();
        }
    }
}
