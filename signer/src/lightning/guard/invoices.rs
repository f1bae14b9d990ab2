//! Invoices: rebuilt from their parts before they are signed, in this node's name and on its chain (P2).
//!
//! BOLT 11 signs a single SHA-256 of more than 32 bytes (the payment hash alone has as many), so the digest is no double
//! SHA-256 of anything. BOLT 12 signs with Schnorr under a tag of its own.

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning_invoice::Currency;
use lightning_signer::lightning::offers::invoice::UnsignedBolt12Invoice;
use lightning_signer::node::Node;
use lightning_signer::wallet::Wallet;
use vls_protocol::msgs::{Message, SignBolt12Invoice, SignInvoice};

use crate::facts::{Fact, Unit};
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
    judge_bolt11(&message.hrp, &message.u5bytes, node.get_id(), node.network())
}

/// Judges the BOLT 11 invoice of these parts, which the node `node_id` is to sign.
pub(in crate::lightning) fn judge_bolt11(
    hrp_bytes: &[u8],
    u5bytes: &[u8],
    node_id: PublicKey,
    network: Network,
) -> Result<(), Refusal> {
    let told = || Fact::text("hrp", String::from_utf8_lossy(hrp_bytes).into_owned());
    let invoice = payments::bolt11(hrp_bytes, u5bytes).ok_or_else(|| unreadable("not a BOLT 11 invoice", told()))?;
    let (hrp, data) = invoice.to_raw();
    let rebuilt = hrp.as_bytes() == hrp_bytes && data.iter().map(|fe| fe.to_u8()).eq(u5bytes.iter().copied());
    require(rebuilt, "the invoice is not written as BOLT 11 writes it", || told().exactly(hrp))?;
    require(invoice.payment_hash().is_some(), "there is no payment hash", || {
        Fact::count("payment_hashes", 0).at_least(1)
    })?;
    if invoice.hrp.raw_amount.is_some() {
        // What has no room in 64 bits is more than there is, by a little.
        let is_whole = invoice.amount_pico_btc().is_some_and(|pico| pico % PICO_PER_MSAT == 0);
        require(is_whole, "the amount is no amount of bitcoin", told)?;
    }
    let (asked, ours) = (invoice.currency(), currency(network));
    if asked != ours {
        return Err(foreign("chain", format!("{asked:?}"), format!("{ours:?}")));
    }
    match invoice.payee_pub_key() {
        Some(payee) if payee.0 != node_id => Err(foreign("payee", payee.0.to_string(), node_id.to_string())),
        _ => Ok(()),
    }
}

/// Who signs a BOLT 12 invoice is vls's rule `policy-bolt12-signing-pubkey`.
fn bolt12(node: &Node, message: &SignBolt12Invoice) -> Result<(), Refusal> {
    let invoice = UnsignedBolt12Invoice::try_from(message.invoice_bytes.0.clone());
    let bytes = Fact::number("invoice", message.invoice_bytes.len() as u64, Unit::Bytes);
    let invoice = invoice.map_err(|_| unreadable("not a BOLT 12 invoice", bytes))?;
    let amount_msat = invoice.amount_msats();
    let amount = || Fact::number("amount", amount_msat, Unit::Msat).at_most(MAX_MONEY_MSAT);
    require(amount_msat <= MAX_MONEY_MSAT, "the amount is no amount of bitcoin", amount)?;
    let (asked, ours) = (invoice.chain(), ChainHash::using_genesis_block(node.network()));
    if asked != ours {
        return Err(foreign("chain", asked.to_string(), ours.to_string()));
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

fn require(holds: bool, complaint: &str, fact: impl FnOnce() -> Fact) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(unreadable(complaint, fact())) }
}

fn unreadable(detail: &str, fact: Fact) -> Refusal {
    Refusal::new(Reason::InvoiceUnreadable, detail).with_fact(fact)
}

fn foreign(what: &'static str, named: String, ours: String) -> Refusal {
    let refusal = Refusal::new(Reason::InvoiceForeign, format!("the invoice's {what} is {named}, not {ours}"));
    refusal.with_fact(Fact::text(what, named).exactly(ours))
}
