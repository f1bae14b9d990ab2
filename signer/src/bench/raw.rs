//! The physical limit: the curve operations that everything else is made of.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use serde::Serialize;

use super::percentile_us;

const SAMPLES: usize = 501;

/// Medians of bare operations, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Raw {
    /// ECDSA, ground until R is low: what Lightning signatures are.
    pub sign_low_r_us: f64,
    /// ECDSA verification.
    pub verify_us: f64,
    /// One shared secret.
    pub ecdh_us: f64,
}

pub(super) fn measure() -> Raw {
    let secp = Secp256k1::new();
    let key = SecretKey::from_slice(&[0x17; 32]).expect("a scalar");
    let public = key.public_key(&secp);
    let message = |n: usize| Message::from_digest([(n % 251) as u8; 32]);
    let signature = secp.sign_ecdsa(&message(1), &key);
    Raw {
        sign_low_r_us: median(|n| secp.sign_ecdsa_low_r(&message(n), &key)),
        verify_us: median(|_| secp.verify_ecdsa(&message(1), &signature, &public)),
        ecdh_us: median(|_| SharedSecret::new(&public, &key)),
    }
}

fn median<R>(operation: impl Fn(usize) -> R) -> f64 {
    let time = |n| {
        let started = Instant::now();
        black_box(operation(n));
        started.elapsed()
    };
    let mut times: Vec<Duration> = (0..SAMPLES).map(time).collect();
    percentile_us(&mut times, 0.5)
}
