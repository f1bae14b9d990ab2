//! A plain LDK node whose keys are in a signer. What differs from a node with its own `KeysManager` is marked `claviger:`.
//!
//! Your chain source feeds blocks to the channel manager, the chain monitor and the wallet (all three are `Listen`), and
//! your network (`lightning-net-tokio`) feeds the peers; neither is any different from a plain node's, so both are left out.
#![allow(clippy::print_stdout)]

#[path = "support/host.rs"]
mod host;
#[cfg(test)]
#[path = "support/trial.rs"]
mod trial;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, Network, Psbt, TxOut};
use claviger_ldk::link::{Bundle, Link, LinkOptions};
use claviger_ldk::{ClavigerKeys, Options, Resumer};
use lightning::chain::chaininterface::BroadcasterInterface;
use lightning::chain::transaction::OutPoint;
use lightning::events::bump_transaction::sync::WalletSync;
use lightning::events::{Event, EventsProvider, ReplayEvent};
use lightning::ln::channelmanager::{PaymentId, Retry};
use lightning::routing::router::RouteParametersConfig;
use lightning_invoice::Bolt11Invoice;

use host::{BumpHandler, ChainMonitor, ChannelManager, Error, Host, Keys};

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Error> {
    let path = std::env::args().nth(1).ok_or("usage: remote_signed_node BUNDLE [INVOICE]")?;
    let node = Node::start(Path::new(&path))?;
    println!("node {} signs through {path}", node.channels.get_our_node_id());
    if let Some(invoice) = std::env::args().nth(2) {
        node.pay(&invoice.parse().map_err(|error| format!("not an invoice: {error:?}"))?)?;
    }
    loop {
        node.work();
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
    fn start(bundle: &Path) -> Result<Self, Error> {
        // claviger: the bundle is what `claviger node add NAME --kind ldk` wrote.
        let bundle = Bundle::load(bundle).map_err(|error| format!("{error}. {}", error.hint()))?;
        let link = Link::connect(&bundle, LinkOptions::default(), Duration::from_secs(30))
            .map_err(|error| format!("{error}. {}", error.hint()))?;
        let keys = Arc::new(ClavigerKeys::connect(Arc::new(link), Options::new(Network::Regtest))?);

        let (channels, chain_monitor) = host::assemble(&keys)?;

        // claviger: what LDK left pending while the signer was away goes on when it is back.
        let resumer = keys.resume_with({
            let (channels, chain_monitor) = (channels.clone(), chain_monitor.clone());
            move || {
                channels.signer_unblocked(None);
                chain_monitor.signer_unblocked(None);
            }
        });

        // claviger: the signer's wallet funds channels and bumps fees.
        let coins = Arc::new(WalletSync::new(keys.wallet().clone(), Arc::new(Host)));
        let bump = BumpHandler::new(Arc::new(Host), coins, keys.clone(), Arc::new(Host));
        Ok(Self { keys, channels, chain_monitor, bump, _resumer: resumer })
    }

    /// Everything that LDK has ready.
    fn work(&self) {
        self.channels.process_pending_htlc_forwards();
        self.channels.process_pending_events(&|event| self.handle(event));
        self.chain_monitor.process_pending_events(&|event| self.handle(event));
    }

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
                let funding = match self.keys.wallet().fund(output, 1000, |_| false) {
                    Ok(funding) => funding,
                    Err(error) => {
                        let (id, peer) = (&temporary_channel_id, &counterparty_node_id);
                        let _ = self.channels.force_close_broadcasting_latest_txn(id, peer, error.to_string());
                        return Ok(());
                    }
                };
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
