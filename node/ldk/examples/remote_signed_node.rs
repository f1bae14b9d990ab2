//! A plain LDK node whose keys are in a signer. What differs from a node with its own `KeysManager` is marked `claviger:`.
//!
//! Your chain source feeds blocks to the channel manager, the chain monitor and the wallet (all three are `Listen`), and
//! your network (`lightning-net-tokio`) feeds the peers; neither is any different from a plain node's, so both are left out.
#![allow(clippy::print_stdout)]

#[path = "support/host.rs"]
mod host;

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::constants::genesis_block;
use bitcoin::{Amount, Network, Psbt, TxOut};
use claviger_ldk::link::{Bundle, Link, LinkOptions};
use claviger_ldk::{ClavigerKeys, Options, Resumer};
use lightning::chain::BestBlock;
use lightning::chain::chaininterface::BroadcasterInterface;
use lightning::chain::transaction::OutPoint;
use lightning::events::bump_transaction::sync::WalletSync;
use lightning::events::{Event, EventsProvider, ReplayEvent};
use lightning::ln::channelmanager::{ChainParameters, PaymentId, Retry};
use lightning::routing::router::RouteParametersConfig;
use lightning::sign::NodeSigner;
use lightning::util::config::UserConfig;
use lightning_invoice::Bolt11Invoice;

use host::{BumpHandler, ChainMonitor, ChannelManager, Graph, Host, Keys, MessageRouter, Router, Scorer};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let path = std::env::args().nth(1).ok_or("usage: remote_signed_node BUNDLE [INVOICE]")?;

    // claviger: the bundle is what `claviger node add NAME --kind ldk` wrote.
    let bundle = Bundle::load(Path::new(&path))?;
    let link = Link::connect(&bundle, LinkOptions::default(), Duration::from_secs(30))?;
    let keys = Arc::new(ClavigerKeys::connect(Arc::new(link), Options::new(Network::Regtest))?);
    println!("node {:?} signs through {path}", keys);

    let host = Arc::new(Host);
    let graph = Arc::new(Graph::new(Network::Regtest, host.clone()));
    let scorer = Arc::new(RwLock::new(Scorer::new(Default::default(), graph.clone(), host.clone())));
    let router = Arc::new(Router::new(graph.clone(), host.clone(), keys.clone(), scorer, Default::default()));
    let message_router = Arc::new(MessageRouter::new(graph, keys.clone()));
    let chain_monitor = Arc::new(ChainMonitor::new(
        None,
        host.clone(),
        host.clone(),
        host.clone(),
        host.clone(),
        keys.clone(),
        keys.get_peer_storage_key(),
    ));
    let best_block = BestBlock::new(genesis_block(Network::Regtest).block_hash(), 0);
    let channels = Arc::new(ChannelManager::new(
        host.clone(),
        chain_monitor.clone(),
        host.clone(),
        router,
        message_router,
        host.clone(),
        keys.clone(),
        keys.clone(),
        keys.clone(),
        UserConfig { manually_accept_inbound_channels: true, ..Default::default() },
        ChainParameters { network: Network::Regtest, best_block },
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as u32,
    ));

    // claviger: what LDK left pending while the signer was away goes on when it is back.
    let resumer = keys.resume_with({
        let (channels, chain_monitor) = (channels.clone(), chain_monitor.clone());
        move || {
            channels.signer_unblocked(None);
            chain_monitor.signer_unblocked(None);
        }
    });

    // claviger: the signer's wallet funds channels and bumps fees.
    let coins = Arc::new(WalletSync::new(keys.wallet().clone(), host.clone()));
    let bump = BumpHandler::new(host.clone(), coins, keys.clone(), host.clone());
    let node = Node { keys, channels, chain_monitor, bump, _resumer: resumer };
    if let Some(invoice) = std::env::args().nth(2) {
        node.pay(&invoice.parse().map_err(|e| format!("{e:?}"))?)?;
    }
    loop {
        node.channels.process_pending_events(&|event| node.handle(event));
        node.chain_monitor.process_pending_events(&|event| node.handle(event));
        node.channels.get_event_or_persistence_needed_future().wait_timeout(Duration::from_millis(100));
    }
}

struct Node {
    keys: Keys,
    channels: Arc<ChannelManager>,
    chain_monitor: Arc<ChainMonitor>,
    bump: BumpHandler,
    _resumer: Resumer,
}

impl Node {
    fn pay(&self, invoice: &Bolt11Invoice) -> Result<(), Error> {
        // claviger: ask first. A payment the signer did not approve would make its channel wait.
        if !self.keys.preapprove_invoice(invoice)? {
            return Err("the signer does not approve this payment".into());
        }
        let id = PaymentId(*invoice.payment_hash().as_ref());
        let limits = RouteParametersConfig::default();
        let sent = self.channels.pay_for_bolt11_invoice(invoice, id, None, limits, Retry::Attempts(3));
        sent.map_err(|e| format!("{e:?}").into())
    }

    fn handle(&self, event: Event) -> Result<(), ReplayEvent> {
        match event {
            // Anchor channels are accepted by hand: make sure that the wallet has coins to bump fees with.
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                let _ = self.channels.accept_inbound_channel(&temporary_channel_id, &counterparty_node_id, 0, None);
            }
            // claviger: give LDK the outpoint now, and sign when the signer has seen the first commitment.
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                ..
            } => {
                let output = TxOut { value: Amount::from_sat(channel_value_satoshis), script_pubkey: output_script };
                let Ok(funding) = self.keys.wallet().fund(output, 1000) else { return Ok(()) };
                std::fs::write(format!("{}.psbt", funding.outpoint.txid), funding.psbt.serialize())
                    .map_err(|_| ReplayEvent())?;
                let outpoint = OutPoint { txid: funding.outpoint.txid, index: 0 };
                let _ = self.channels.unsafe_manual_funding_transaction_generated(
                    temporary_channel_id,
                    counterparty_node_id,
                    outpoint,
                );
            }
            Event::FundingTxBroadcastSafe { funding_txo, .. } => {
                let psbt = std::fs::read(format!("{}.psbt", funding_txo.txid)).map_err(|_| ReplayEvent())?;
                let psbt = Psbt::deserialize(&psbt).map_err(|_| ReplayEvent())?;
                let signed = self.keys.wallet().sign(psbt).map_err(|_| ReplayEvent())?;
                Host.broadcast_transactions(&[&signed]);
            }
            Event::PaymentClaimable { purpose, .. } => {
                if let Some(preimage) = purpose.preimage() {
                    self.channels.claim_funds(preimage);
                }
            }
            Event::BumpTransaction(event) => self.bump.handle_event(&event),
            // `Event::SpendableOutputs`: hand them to LDK's `OutputSweeper` with `keys` as spender and change source.
            other => println!("{other:?}"),
        }
        Ok(())
    }
}
