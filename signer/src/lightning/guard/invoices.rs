//! Invoices: rebuilt from their parts before they are signed, in this node's name and on its chain (P2).
//!
//! BOLT 11 signs a single SHA-256 of more than 32 bytes (the payment hash alone has as many), so the digest is no double
//! SHA-256 of anything. BOLT 12 signs with Schnorr under a tag of its own.

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning_invoice::Currency;
use lightning_signer::lightning::offers::invoice::UnsignedBolt12Invoice;
use lightning_signer::lightning_invoice::RawBolt11Invoice;
use lightning_signer::node::Node;
use lightning_signer::wallet::Wallet;
use vls_protocol::msgs::{Message, SignBolt12Invoice, SignInvoice};

use crate::lightning::limits::MAX_MONEY_SAT;
use crate::lightning::payments;
use crate::reasons::{Reason, Refusal};

const MAX_MONEY_MSAT: u64 = MAX_MONEY_SAT * 1_000;
/// BOLT 11 counts in pico-bitcoin; a millisatoshi is ten of them.
const PICO_PER_MSAT: u64 = 10;

/// Refuses with `invoice-unreadable` or `invoice-foreign`.
pub(super) fn judge(node: &Node, message: &Message) -> Result<(), Refusal> {
    match message {
        Message::SignInvoice(m) => bolt11(node, m),
        Message::SignBolt12Invoice(m) => bolt12(node, m),
        _ => Ok(()),
    }
}

fn bolt11(node: &Node, message: &SignInvoice) -> Result<(), Refusal> {
    let invoice =
        payments::bolt11(&message.hrp, &message.u5bytes).ok_or_else(|| unreadable("not a BOLT 11 invoice"))?;
    judge_bolt11(&invoice, &message.hrp, &message.u5bytes, node.get_id(), node.network())
}

/// Judges `invoice`, which was read from these parts and which the node `node_id` is to sign.
pub(in crate::lightning) fn judge_bolt11(
    invoice: &RawBolt11Invoice,
    hrp_bytes: &[u8],
    u5bytes: &[u8],
    node_id: PublicKey,
    network: Network,
) -> Result<(), Refusal> {
    let (hrp, data) = invoice.to_raw();
    let rebuilt = hrp.as_bytes() == hrp_bytes && data.iter().map(|fe| fe.to_u8()).eq(u5bytes.iter().copied());
    require(rebuilt, "the invoice is not written as BOLT 11 writes it")?;
    require(invoice.payment_hash().is_some(), "there is no payment hash")?;
    if invoice.hrp.raw_amount.is_some() {
        // What has no room in 64 bits is more than there is, by a little.
        let is_whole = invoice.amount_pico_btc().is_some_and(|pico| pico % PICO_PER_MSAT == 0);
        require(is_whole, "the amount is no amount of bitcoin")?;
    }
    if invoice.currency() != currency(network) {
        return Err(foreign(format!("the invoice is for {:?}, not {network}", invoice.currency())));
    }
    match invoice.payee_pub_key() {
        Some(payee) if payee.0 != node_id => Err(foreign(format!("the payee is {}, not {node_id}", payee.0))),
        _ => Ok(()),
    }
}

/// Who signs a BOLT 12 invoice is vls's rule `policy-bolt12-signing-pubkey`.
fn bolt12(node: &Node, message: &SignBolt12Invoice) -> Result<(), Refusal> {
    let invoice = UnsignedBolt12Invoice::try_from(message.invoice_bytes.0.clone());
    let invoice = invoice.map_err(|_| unreadable("not a BOLT 12 invoice"))?;
    require(invoice.amount_msats() <= MAX_MONEY_MSAT, "the amount is no amount of bitcoin")?;
    let network = node.network();
    if invoice.chain() != ChainHash::using_genesis_block(network) {
        return Err(foreign(format!("the invoice is for chain {}, not {network}", invoice.chain())));
    }
    Ok(())
}

fn currency(network: Network) -> Currency {
    match network {
        Network::Bitcoin => Currency::Bitcoin,
        Network::Testnet | Network::Testnet4 => Currency::BitcoinTestnet,
        Network::Signet => Currency::Signet,
        Network::Regtest => Currency::Regtest,
    }
}

fn require(holds: bool, complaint: &str) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(unreadable(complaint)) }
}

fn unreadable(detail: &str) -> Refusal {
    Refusal::new(Reason::InvoiceUnreadable, detail)
}

fn foreign(detail: String) -> Refusal {
    Refusal::new(Reason::InvoiceForeign, detail)
}
