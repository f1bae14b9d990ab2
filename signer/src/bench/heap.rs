//! What the secret heap costs: the same session with the ordinary heap and with the secret one, in turns.

use serde::Serialize;

use super::advance::{play, record};
use super::rig::BenchError;
use crate::keys::memory::{enclose_heap, heap_status, open_heap};

/// State advances on both heaps, over the store of a signer, in groups.
#[derive(Clone, Debug, Serialize)]
pub struct Heap {
    /// Nodes at work.
    pub nodes: usize,
    /// HTLCs on both commitments.
    pub htlcs: usize,
    /// Of all nodes together, with the ordinary heap.
    pub ordinary_per_s: f64,
    /// With the secret one.
    pub secret_per_s: f64,
    /// Time of an advance with the secret heap by that with the ordinary one.
    pub ratio: f64,
    /// Blocks that found no secret page: the ratio holds for a heap that is secret as a whole if this is 0.
    pub outside_blocks: usize,
}

/// Each heap is measured this often; the medians count.
const ROUNDS: usize = 5;

/// No rows where there are no secret pages.
pub(super) fn measure(advances: usize, progress: &dyn Fn(&str)) -> Result<Vec<Heap>, BenchError> {
    let mut rows = Vec::new();
    for htlcs in [0, 10] {
        let script = record(advances, htlcs)?;
        for nodes in [1, 64] {
            let (mut ordinary, mut secret) = (Vec::new(), Vec::new());
            for round in 1..=ROUNDS {
                progress(&format!("{nodes} nodes, {htlcs} HTLCs, both heaps: round {round} of {ROUNDS}"));
                ordinary.push(play(&script, nodes, htlcs, "logged", 0, "group")?.advances_per_s);
                if !enclose_heap() {
                    progress("no secret pages here (lock limit, kernel): not measured");
                    return Ok(Vec::new());
                }
                let measured = play(&script, nodes, htlcs, "logged", 0, "group");
                open_heap();
                secret.push(measured?.advances_per_s);
            }
            let [ordinary_per_s, secret_per_s] = [ordinary, secret].map(median);
            let (ratio, outside_blocks) = (ordinary_per_s / secret_per_s, heap_status().outside_blocks);
            rows.push(Heap { nodes, htlcs, ordinary_per_s, secret_per_s, ratio, outside_blocks });
        }
    }
    Ok(rows)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}
