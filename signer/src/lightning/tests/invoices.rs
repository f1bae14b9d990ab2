//! One payment hash, one invoice, for ever.

use std::sync::Arc;

use vls_protocol::model::PubKey;
use vls_protocol::msgs::{self, SerBolt};

use super::*;
use crate::journal::COLD;
use crate::lightning::driver::{invoice_to_sign, invoice_to_sign_within};
use crate::reasons::Reason;

#[test]
fn a_hostile_second_invoice_for_a_hash_is_refused_after_expiry_and_restart_too() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let bob = signer.add("bob", NodeKind::Ldk);
    let moment = Duration::from_secs(0); // expired when it is signed
    for amount_msat in [5_000, 1] {
        let invoice = invoice_to_sign_within(amount_msat, amount_msat, moment);
        let first = replied(signer.ask(&alice, None, invoice.clone()));
        for _ in 0..2 {
            assert_eq!(replied(signer.ask(&alice, None, invoice.clone())), first, "the same question, the same answer");
            let (_, refusal) = refused(signer.ask(&alice, None, invoice_to_sign(amount_msat, 6_000)));
            assert_eq!(refusal.reason, Reason::InvoiceReused, "{}", refusal.detail);
            signer.restart();
            signer.add("alice", NodeKind::Ldk);
            signer.add("bob", NodeKind::Ldk);
        }
    }
    replied(signer.ask(&alice, None, invoice_to_sign(7, 6_000)));
    replied(signer.ask(&bob, None, invoice_to_sign(5_000, 6_000)));
}

/// Libraries cap both at 1,000.
#[test]
fn an_honest_node_has_more_than_a_thousand_channels_and_open_invoices() {
    let signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let peer_id = PubKey([2; 33]);
    for n in 1..=1_100 {
        replied(signer.ask(&alice, None, invoice_to_sign(n, 1_000)));
        replied(signer.ask(&alice, None, msgs::NewChannel { peer_id: peer_id.clone(), dbid: n }.as_vec()));
    }
    // The status is told at the end of a turn, after the answers.
    while signer.nodes().status()[0].channels < 1_100 {
        std::thread::yield_now();
    }
}

#[test]
fn what_a_node_signed_for_ever_is_not_loaded_into_memory() {
    let mut signer = Signer::start_over(Arc::new(MemoryStore::new()), LimitsConfig::default());
    let alice = signer.add("alice", NodeKind::Ldk);
    for n in 0..50 {
        replied(signer.ask(&alice, None, invoice_to_sign(n, 1_000)));
    }
    signer.restart();
    let entries = signer.journal().load("alice").expect("readable");
    assert!(entries.keys().any(|key| key.starts_with("issued/")), "what is open is");
    assert!(!entries.keys().any(|key| key.starts_with(COLD)));
    signer.add("alice", NodeKind::Ldk);
    for n in 0..50 {
        assert_eq!(refused(signer.ask(&alice, None, invoice_to_sign(n, 2_000))).1.reason, Reason::InvoiceReused);
    }
}
