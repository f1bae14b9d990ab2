//! What a policy verdict costs, the building of its facts included, beside one signature, in turns.

use std::hint::black_box;
use std::time::Instant;

use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use claviger_policy::budget::Budgets;
use claviger_policy::decide::{State, decide};
use claviger_policy::grant::Grants;
use claviger_policy::sample;
use serde::Serialize;

use super::percentile_us;
use super::rig::BenchError;

/// Verdicts and signatures, of each the median counts.
const SAMPLES: u64 = 5_001;

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Verdict {
    /// Rules beside the default preset's, spread over the actions.
    pub further_rules: usize,
    /// Median of one verdict over a payment.
    pub p50_us: f64,
    /// Median of one low-R ECDSA signature.
    pub sign_low_r_us: f64,
    /// The first by the second.
    pub ratio: f64,
}

pub(super) fn measure(progress: &dyn Fn(&str)) -> Result<Vec<Verdict>, BenchError> {
    let one = |further_rules| {
        progress(&format!("a verdict with {further_rules} rules beside the preset's"));
        verdict(further_rules)
    };
    [0, 200].into_iter().map(one).collect()
}

fn verdict(further_rules: usize) -> Result<Verdict, BenchError> {
    let policy = sample::policy(further_rules).map_err(|errors| BenchError::system(format!("{errors:?}")))?;
    let (budgets, grants) = (Budgets::default(), Grants::new("bench", "alice"));
    let state = State { budgets: &budgets, grants: &grants };
    let secp = Secp256k1::new();
    let key = SecretKey::from_slice(&[0x17; 32]).expect("a scalar");
    let (mut verdicts, mut signatures) = (Vec::new(), Vec::new());
    for at in 0..SAMPLES {
        let begun = Instant::now();
        let request = sample::request(at);
        black_box(decide(&policy, state, &request, None, request.time_ms));
        verdicts.push(begun.elapsed());

        let message = Message::from_digest([(at % 251) as u8; 32]);
        let begun = Instant::now();
        black_box(secp.sign_ecdsa_low_r(&message, &key));
        signatures.push(begun.elapsed());
    }
    let (p50_us, sign_low_r_us) = (percentile_us(&mut verdicts, 0.5), percentile_us(&mut signatures, 0.5));
    Ok(Verdict { further_rules, p50_us, sign_low_r_us, ratio: p50_us / sign_low_r_us })
}
