//! Prints what messages cost as a node grows: `cargo test -p claviger --lib persist::tests::growth -- --ignored
//! --nocapture`. Compare the lines with each other; the profile of tests is not the shipped one.

use std::time::{Duration, Instant};

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning_signer::node::{PaymentState, PaymentType, RoutedPayment};

use super::world::{Link, Side, hash, open, pay, settle};

#[test]
#[ignore = "measures, decides nothing"]
fn with_invoices() {
    let (mut a, mut b) = (Side::new(1), Side::new(2));
    let mut link = open(&mut a, &mut b, 1);
    let mut next = 1_000_000;
    for n in [10, 1_000, 100_000] {
        fill(&mut a, n);
        fill(&mut b, n);
        println!("{n:>7} invoices: {}", costs(&mut a, &mut b, &mut link, &mut next));
    }
}

#[test]
#[ignore = "measures, decides nothing"]
fn with_channels() {
    let (mut a, mut b) = (Side::new(1), Side::new(2));
    let mut link = open(&mut a, &mut b, 1);
    let mut next = 1_000_000;
    for n in [1, 200, 2_000] {
        let open_now = a.node.get_channels().len() as u64;
        for dbid in open_now + 1..=n {
            open(&mut a, &mut b, dbid);
        }
        println!("{n:>7} channels: {}", costs(&mut a, &mut b, &mut link, &mut next));
    }
}

/// Gives the node `n` open invoices and as many issued ones.
fn fill(side: &mut Side, n: u64) {
    let payee = PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&[7; 32]).unwrap());
    {
        let mut state = side.node.get_state();
        for n in 0..n {
            let invoice = PaymentState {
                invoice_hash: hash(n).0,
                amount_msat: 1_000,
                payee,
                duration_since_epoch: Duration::from_secs(1_700_000_000),
                expiry_duration: Duration::from_secs(3_600),
                is_fulfilled: false,
                payment_type: PaymentType::Invoice,
            };
            state.invoices.insert(hash(n), invoice.clone());
            state.issued_invoices.insert(hash(n), invoice);
            state.payments.entry(hash(n)).or_insert_with(RoutedPayment::new);
        }
    }
    side.flush();
}

fn costs(a: &mut Side, b: &mut Side, link: &mut Link, next: &mut u64) -> String {
    let mut costs = Vec::new();
    let mut measure = |what: &str, samples: u64, act: &mut dyn FnMut(u64)| {
        let mut times: Vec<u128> = (0..samples)
            .map(|_| {
                *next += 1;
                let start = Instant::now();
                act(*next);
                start.elapsed().as_micros()
            })
            .collect();
        times.sort_unstable();
        costs.push(format!("{what} {} us", times[times.len() / 2]));
    };
    measure("pay", 51, &mut |n| a.keysend(hash(n), 1_000));
    measure("sign_invoice", 51, &mut |n| assert!(b.sign_invoice(n, 1_000)));
    measure("quiet block", 51, &mut |_| a.mine(vec![]));
    measure("HTLC added and settled (4 advances)", 7, &mut |n| {
        pay(a, b, link, n);
        settle(a, b, link);
    });
    measure("open (both sides)", 7, &mut |n| drop(open(a, b, n)));
    costs.join(", ")
}
