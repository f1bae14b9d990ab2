//! A town: a chain, a signer and nodes, with a street for each channel that should be open.

use std::cell::Cell;
use std::time::{Duration, Instant};

use bitcoin::{Amount, OutPoint};
use claviger_demo::node::{Keys, LdkNode, Settings};
use claviger_demo::signer::Program;
use claviger_demo::world::{World, connect, wait};
use claviger_tests::refused::Refused;
use lightning::ln::channel_state::{ChannelDetails, ChannelShutdownState};
use lightning::ln::types::ChannelId;

use crate::policy;

pub(crate) const CHANNEL: Amount = Amount::from_sat(1_000_000);
/// What a channel takes out of a wallet, with its fee and what an anchor may need.
const NEEDED: Amount = Amount::from_sat(1_200_000);
/// A minute of LDK's. Within two of them a peer must have answered, on a busy machine too.
const TICK: Duration = Duration::from_secs(2);

/// How a town looks.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    /// Nodes whose keys the signer holds.
    pub(crate) signed: &'static [&'static str],
    /// Nodes with keys of their own.
    pub(crate) plain: &'static [&'static str],
    /// Who has a channel with whom; the first opens it, the second when the first has no coins.
    pub(crate) channels: &'static [(&'static str, &'static str)],
    /// Channels with anchors, or plain ones whose HTLC transactions carry a fee of their own.
    pub(crate) anchors: bool,
}

pub(crate) struct Town {
    pub(crate) plan: &'static Plan,
    pub(crate) world: World,
    /// In the order of the plan, the signed ones first.
    nodes: Vec<LdkNode>,
    pub(crate) streets: Vec<Street>,
    /// The funding outputs of all channels ever.
    funding: Vec<OutPoint>,
    last_tick: Cell<Instant>,
}

/// Two neighbours, by their places among the nodes, and their channel while it is open.
pub(crate) struct Street {
    pub(crate) ends: [usize; 2],
    pub(crate) channel: Option<ChannelId>,
}

impl Town {
    /// A town with a channel on each street.
    pub(crate) fn new(plan: &'static Plan) -> Self {
        let mut world = World::sealed(Program::binary(env!("CARGO_BIN_EXE_claviger-under-test"))).unwrap();
        // What the operator lets the nodes spend is no question here.
        let limits = |config: &mut toml::Table| {
            config["limits"]["max_payment_msat"] = (CHANNEL.to_sat() as i64 * 1_000).into();
            config["limits"]["max_payment_msat_per_hour"] = 1_000_000_000_000_000_i64.into();
            config["limits"]["max_onchain_fee_sat"] = 1_000_000.into();
        };
        world.signer.configure(limits).unwrap();
        world.signer.start().unwrap();
        policy::apply(&world.signer);
        let signed = plan.signed.iter().map(|name| (name, Keys::Remote(world.remote_keys(name).unwrap())));
        let plain = plan.plain.iter().zip(1..).map(|(name, seed)| (name, Keys::Local([seed; 32])));
        let nodes = signed.chain(plain).map(|(name, keys)| world.node(&settings(plan, name), keys).unwrap()).collect();
        let place = |name: &str| names(plan).position(|other| other == name).expect("a node of the plan");
        let streets = plan.channels.iter().map(|(a, b)| Street { ends: [place(a), place(b)], channel: None }).collect();
        let mut town = Self { plan, world, nodes, streets, funding: Vec::new(), last_tick: Cell::new(Instant::now()) };
        for street in 0..town.streets.len() {
            assert!(town.open(street), "everybody has coins at the beginning");
        }
        town
    }

    pub(crate) fn all(&self) -> Vec<&LdkNode> {
        self.nodes.iter().collect()
    }

    pub(crate) fn node(&self, place: usize) -> &LdkNode {
        &self.nodes[place]
    }

    pub(crate) fn name(&self, place: usize) -> &'static str {
        names(self.plan).nth(place).unwrap_or("nobody")
    }

    pub(crate) fn is_signed(&self, place: usize) -> bool {
        place < self.plan.signed.len()
    }

    /// The street's channel as its end `end` sees it.
    pub(crate) fn channel(&self, street: usize, end: usize) -> Option<ChannelDetails> {
        let Street { ends, channel } = &self.streets[street];
        let id = (*channel)?;
        self.node(ends[end]).channels().into_iter().find(|channel| channel.channel_id == id)
    }

    /// Opens a channel on a street that has none. False if neither end has the coins.
    pub(crate) fn open(&mut self, street: usize) -> bool {
        let [a, b] = self.streets[street].ends;
        let rich = |place: &usize| self.node(*place).balance() >= NEEDED;
        let Some(opener) = [a, b].into_iter().find(rich) else { return false };
        let other = if opener == a { b } else { a };
        self.connect(street);
        let channel = self.world.channel(self.node(opener), self.node(other), CHANNEL).unwrap();
        self.funding.push(channel.funding_txo.unwrap().into_bitcoin_outpoint());
        self.streets[street].channel = Some(channel.channel_id);
        self.in_step();
        true
    }

    /// Forgets channels that are closed, for whatever reason.
    pub(crate) fn notice_closed(&mut self) {
        for street in 0..self.streets.len() {
            if (0..2).any(|end| self.channel(street, end).is_none()) {
                self.streets[street].channel = None;
            }
        }
    }

    /// Has the first end of a street call the second, wherever that listens now.
    pub(crate) fn connect(&self, street: usize) {
        let [a, b] = self.streets[street].ends.map(|place| self.node(place));
        a.connect(b);
        let up = || a.is_connected(&b.id()) && b.is_connected(&a.id());
        wait("a connection", &[a, b], up).unwrap();
    }

    /// Waits until every channel can be used.
    pub(crate) fn ready(&self) {
        let usable = || {
            let open = (0..self.streets.len()).filter(|street| self.streets[*street].channel.is_some());
            let mut ends = open.flat_map(|street| [(street, 0), (street, 1)]);
            ends.all(|(street, end)| self.channel(street, end).is_none_or(|c| c.is_usable || is_closing(&c)))
        };
        wait("the channels to come back", &self.all(), usable).unwrap();
    }

    /// Lets a minute pass for all nodes, if it is time.
    pub(crate) fn tick(&self) {
        if self.last_tick.get().elapsed() > TICK {
            self.all().iter().for_each(|node| node.tick());
            self.last_tick.set(Instant::now());
        }
    }

    /// A new feerate, which the nodes tell each other as the next minute begins.
    pub(crate) fn set_feerate(&self, sat_per_1000_weight: u32) {
        std::thread::sleep(TICK.saturating_sub(self.last_tick.get().elapsed()));
        self.all().iter().for_each(|node| node.set_feerate(sat_per_1000_weight));
        self.last_tick.set(Instant::now());
    }

    /// Mines blocks that everybody sees.
    pub(crate) fn mine(&self, blocks: u32) {
        self.world.mine(blocks, &self.all()).unwrap();
    }

    /// Waits until everybody, the signer too, is at the tip.
    pub(crate) fn in_step(&self) {
        let at_tip = || self.nodes.iter().all(|node| node.height() == self.world.chain.height());
        wait("the nodes to see the tip", &self.all(), at_tip).unwrap();
        self.world.signer_in_step(&self.all()).unwrap();
    }

    /// Stops a node, lets `meanwhile` happen, and starts it again.
    pub(crate) fn restart(&mut self, place: usize, meanwhile: impl FnOnce(&mut World)) {
        let (name, store) = (self.name(place), self.nodes.remove(place).stop());
        meanwhile(&mut self.world);
        let keys = if self.is_signed(place) {
            let bundle = self.world.signer.dir().join(format!("{name}.bundle"));
            Keys::Remote(connect(&bundle).unwrap())
        } else {
            Keys::Local([(place - self.plan.signed.len() + 1) as u8; 32])
        };
        let node = self.world.restart_with(&settings(self.plan, name), keys, store).unwrap();
        self.nodes.insert(place, node);
        self.in_step();
        for street in 0..self.streets.len() {
            if self.streets[street].ends.contains(&place) {
                self.connect(street);
            }
        }
    }

    /// Where the coins of all nodes are.
    pub(crate) fn books(&self) -> claviger_demo::books::Books {
        self.world.books(&self.funding)
    }

    pub(crate) fn refused(&self) -> Refused {
        self.world
            .signer
            .cli(&["status"])
            .map_or_else(|_| Refused::default(), |_| Refused::of(&self.world.signer).unwrap())
    }
}

/// Whether both or one of the ends said that the channel is to end.
pub(crate) fn is_closing(channel: &ChannelDetails) -> bool {
    channel.channel_shutdown_state.is_some_and(|state| state != ChannelShutdownState::NotShuttingDown)
}

/// Kills the signer and starts it again after `pause`.
pub(crate) fn kill_signer(world: &mut World, pause: Duration) {
    world.signer.kill().unwrap();
    std::thread::sleep(pause);
    world.signer.start().unwrap();
}

fn names(plan: &Plan) -> impl Iterator<Item = &'static str> {
    plan.signed.iter().chain(plan.plain).copied()
}

fn settings(plan: &Plan, name: &str) -> Settings {
    Settings { anchors: plan.anchors, ..Settings::new(name) }
}
