//! What happens in a town: rounds of payments that run at once, and something that comes between.

use std::time::{Duration, Instant};

use claviger_demo::world::{PATIENCE, wait};
use fastrand::Rng;

use crate::ledger::Ledger;
use crate::payments::{self, Flight, Kind};
use crate::pick;
use crate::town::{Town, is_closing, kill_signer};

const FEERATES: [u32; 6] = [253, 500, 1_000, 2_000, 3_500, 5_000];
/// A reorganisation as deep as confirmations that nodes wait for.
const DEEPEST: u64 = 6;
const PAUSE: Duration = Duration::from_millis(5);
/// How long payments are waited for while a channel is missing that they may need.
const AFTER_A_CLOSE: Duration = Duration::from_secs(2);

pub(crate) struct Day {
    pub(crate) town: Town,
    random: Rng,
    pub(crate) ledger: Ledger,
    /// Payments that the chain has to settle: their channel was closed under them.
    pub(crate) later: Vec<Flight>,
}

/// What happens between payments, or while they are on their way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Blocks,
    Feerate,
    Disconnect,
    NodeRestart,
    SignerKill,
    BothRestart,
    Reorg,
    Close,
    ForceClose,
    Open,
    UnpaidInvoice,
}

impl Day {
    pub(crate) fn new(town: Town, random: Rng) -> Self {
        let ledger = Ledger::new(town.plan.name);
        let mut day = Self { town, random, ledger, later: Vec::new() };
        for street in 0..day.town.streets.len() {
            day.share(street);
        }
        day
    }

    /// Goes on until there were so many operations.
    pub(crate) fn run(&mut self, operations: u64) {
        while self.ledger.operations() < operations {
            match self.random.u64(..10) {
                0..5 => self.mixed_round(),
                5 => self.dust_storm(),
                _ => self.held_round(),
            }
            if self.random.u8(..100) < 40 {
                let event = self.event();
                self.happen(event);
            }
        }
    }

    /// Payments of all kinds, and sometimes something in the middle of them.
    fn mixed_round(&mut self) {
        const KINDS: [Kind; 10] = [
            Kind::Invoice,
            Kind::Invoice,
            Kind::Invoice,
            Kind::Invoice,
            Kind::Dust,
            Kind::Multipath,
            Kind::Amountless,
            Kind::Keysend,
            Kind::Circle,
            Kind::Circle,
        ];
        let count = self.random.u64(1..9);
        let flights = (0..count).filter_map(|_| {
            let kind = *pick(&mut self.random, &KINDS);
            self.begin(kind)
        });
        let flights: Vec<_> = flights.collect();
        if self.random.u8(..100) < 25 {
            let event = self.event();
            self.happen(event);
        }
        self.land(flights);
    }

    fn dust_storm(&mut self) {
        let count = self.random.u64(8..24);
        let flights = (0..count).filter_map(|_| self.begin(Kind::Dust)).collect();
        self.land(flights);
    }

    /// Payments that wait at their payees while something happens, and are then taken or returned. What was returned is
    /// paid once more.
    fn held_round(&mut self) {
        self.hold(true);
        let count = self.random.u64(1..6);
        let flights = (0..count).filter_map(|_| self.begin(Kind::Invoice));
        let flights: Vec<_> = flights.collect();
        self.wait(&flights, |town, flight| flight.is_held(town));
        let event = self.event();
        self.happen(event);
        self.hold(false);
        for flight in &flights {
            let (payee, returned) = (self.town.node(flight.payee), self.random.u8(..100) < 30);
            if returned { payee.reject(&flight.hash) } else { payee.claim(&flight.hash) }
        }
        let failed: Vec<_> =
            self.land(flights).into_iter().filter(|flight| flight.outcome(&self.town) == Some("failed")).collect();
        let again = failed.iter().filter_map(|flight| {
            let again = flight.again(&self.town)?;
            let what = format!("{} to {}", self.town.name(again.payer), self.town.name(again.payee));
            self.ledger.begin("retry", &what);
            Some(again)
        });
        let again: Vec<_> = again.collect();
        self.land(again);
    }

    fn begin(&mut self, kind: Kind) -> Option<Flight> {
        let (what, flight) = payments::begin(&self.town, &mut self.random, kind);
        match &flight {
            Some(_) => self.ledger.begin(kind.name(), &what),
            None => {
                self.ledger.end("no way");
                self.ledger.note(format!("      no way for {} {what}", kind.name()));
            }
        }
        flight
    }

    /// Waits until payments have ended; returns those that did. The others lost a channel and have to wait for the chain.
    fn land(&mut self, flights: Vec<Flight>) -> Vec<Flight> {
        self.wait(&flights, |_, _| false);
        let (ended, others): (Vec<_>, Vec<_>) =
            flights.into_iter().partition(|flight| flight.outcome(&self.town).is_some());
        for flight in &ended {
            self.ledger.end(flight.outcome(&self.town).expect("it ended"));
        }
        self.later.extend(others);
        ended
    }

    /// Waits until each payment has ended or is where `arrived` wants it, or a channel was closed.
    fn wait(&mut self, flights: &[Flight], arrived: impl Fn(&Town, &Flight) -> bool) {
        let begun = Instant::now();
        loop {
            let waits = |flight: &&Flight| flight.outcome(&self.town).is_none() && !arrived(&self.town, flight);
            let waiting: Vec<_> = flights.iter().filter(waits).collect();
            let closed = self.town.streets.iter().any(|street| street.channel.is_none());
            if waiting.is_empty() || closed && begun.elapsed() > AFTER_A_CLOSE {
                break;
            }
            if begun.elapsed() > PATIENCE {
                let name = |flight: &&Flight| (self.town.name(flight.payer), self.town.name(flight.payee));
                let names: Vec<_> = waiting.iter().map(name).collect();
                let logs: Vec<_> = self.town.all().iter().map(|node| node.log(40).join("\n")).collect();
                panic!("payments do not end: {names:?}\n{}", logs.join("\n---\n"));
            }
            std::thread::sleep(PAUSE);
            self.town.notice_closed();
            self.town.tick();
        }
    }

    fn hold(&self, hold: bool) {
        self.town.all().iter().for_each(|node| node.hold_payments(hold));
    }

    /// What may happen now. A channel that is missing is opened soon.
    fn event(&mut self) -> Event {
        const EVENTS: [Event; 20] = [
            Event::Blocks,
            Event::Blocks,
            Event::Blocks,
            Event::Blocks,
            Event::Feerate,
            Event::Feerate,
            Event::Feerate,
            Event::Disconnect,
            Event::Disconnect,
            Event::Disconnect,
            Event::NodeRestart,
            Event::NodeRestart,
            Event::SignerKill,
            Event::BothRestart,
            Event::Reorg,
            Event::Close,
            Event::ForceClose,
            Event::UnpaidInvoice,
            Event::UnpaidInvoice,
            Event::UnpaidInvoice,
        ];
        self.town.notice_closed();
        let missing = self.town.streets.iter().any(|street| street.channel.is_none());
        if missing && self.random.u8(..100) < 50 { Event::Open } else { *pick(&mut self.random, &EVENTS) }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Blocks => {
                let blocks = self.random.u32(1..4);
                self.ledger.begin("blocks", &blocks.to_string());
                self.town.mine(blocks);
            }
            Event::Feerate => {
                let feerate = *pick(&mut self.random, &FEERATES);
                self.ledger.begin("feerate", &feerate.to_string());
                self.town.set_feerate(feerate);
            }
            Event::Disconnect => self.disconnect(),
            Event::NodeRestart => self.restart("node restart", |_| ()),
            Event::BothRestart => {
                self.restart("restart of node and signer", |world| kill_signer(world, Duration::ZERO))
            }
            Event::SignerKill => {
                let pause = Duration::from_millis(self.random.u64(..400));
                self.ledger.begin("signer restart", &format!("after {pause:?}"));
                kill_signer(&mut self.town.world, pause);
                self.town.in_step();
            }
            Event::Reorg => {
                let depth = self.random.u64(1..DEEPEST + 1) as u32;
                self.ledger.begin("reorg", &format!("of {depth} blocks"));
                self.town.world.chain.reorg(depth, &[]);
                self.town.in_step();
            }
            Event::Close | Event::ForceClose => self.close(event),
            Event::Open => self.open(),
            Event::UnpaidInvoice => {
                let what = payments::unpaid(&self.town, &mut self.random);
                self.ledger.begin("unpaid invoice", &what);
            }
        }
    }

    fn restart(&mut self, what: &'static str, meanwhile: impl FnOnce(&mut claviger_demo::world::World)) {
        let place = self.random.usize(..self.town.all().len());
        self.ledger.begin(what, self.town.name(place));
        self.town.restart(place, meanwhile);
        self.town.notice_closed();
        self.town.ready();
    }

    fn disconnect(&mut self) {
        let street = self.random.usize(..self.town.streets.len());
        let [a, b] = self.town.streets[street].ends;
        self.ledger.begin("reconnect", &format!("{} and {}", self.town.name(a), self.town.name(b)));
        let [a, b] = [a, b].map(|place| self.town.node(place));
        a.disconnect(&b.id());
        b.disconnect(&a.id());
        wait("the connection to end", &[a, b], || !a.is_connected(&b.id()) && !b.is_connected(&a.id())).unwrap();
        self.town.connect(street);
    }

    fn close(&mut self, event: Event) {
        let end = self.random.usize(..2);
        let open = (0..self.town.streets.len()).filter_map(|street| Some((street, self.town.channel(street, end)?)));
        let open: Vec<_> = open.filter(|(_, channel)| !is_closing(channel)).collect();
        // Somebody must be left to pay.
        if open.len() < 2 {
            return self.open();
        }
        let (street, channel) = pick(&mut self.random, &open).clone();
        let [closer, other] = [end, 1 - end].map(|end| self.town.streets[street].ends[end]);
        let what = format!("{} by {}", self.town.name(other), self.town.name(closer));
        let node = self.town.node(closer);
        if event == Event::Close {
            // A change of the channel may be being kept, or the peer be away for a moment.
            let gone = || self.town.channel(street, end).is_none();
            wait("a close to begin", &[node], || node.close(&channel).is_ok() || gone()).unwrap();
            self.ledger.begin("close", &what);
            // With payments on their way it ends when they have.
            if !channel.pending_inbound_htlcs.is_empty() || !channel.pending_outbound_htlcs.is_empty() {
                return;
            }
            wait("a close to end", &self.town.all(), || (0..2).all(|end| self.town.channel(street, end).is_none()))
                .unwrap();
        } else {
            node.force_close(&channel).unwrap();
            self.ledger.begin("force close", &what);
        }
        self.town.mine(1);
        self.town.notice_closed();
    }

    fn open(&mut self) {
        let missing = (0..self.town.streets.len()).filter(|street| self.town.streets[*street].channel.is_none());
        let missing: Vec<_> = missing.collect();
        if missing.is_empty() {
            return;
        }
        let street = *pick(&mut self.random, &missing);
        let [a, b] = self.town.streets[street].ends;
        let what = format!("{} and {}", self.town.name(a), self.town.name(b));
        if self.town.open(street) {
            self.ledger.begin("open", &what);
            self.share(street);
        } else {
            // The coins are still on their way home.
            self.ledger.begin("blocks", "10, for coins to come home");
            self.town.mine(10);
        }
    }

    /// Has the richer end of a new channel pay the other, so that both can pay, and both have something to claim.
    fn share(&mut self, street: usize) {
        let ends = self.town.streets[street].ends;
        let outbound = |end| self.town.channel(street, end).map_or(0, |channel| channel.outbound_capacity_msat);
        let end = usize::from(outbound(1) > outbound(0));
        let [from, to] = [end, 1 - end].map(|end| ends[end]);
        let (payer, payee) = (self.town.node(from), self.town.node(to));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let invoice = payee.invoice(outbound(end) / 2, "a share").expect("an invoice");
            if let Ok(hash) = payer.pay(&invoice) {
                let what = format!("half of a new channel from {} to {}", self.town.name(from), self.town.name(to));
                self.ledger.begin("invoice", &what);
                let flights = vec![Flight { payer: from, payee: to, hash, invoice: None }];
                // The others' payments may be being held at the moment.
                self.wait(&flights, |town, flight| flight.is_held(town));
                self.town.node(to).claim(&hash);
                self.land(flights);
                return;
            }
            assert!(Instant::now() < deadline, "a new channel does not carry anything");
            std::thread::sleep(PAUSE);
        }
    }
}
