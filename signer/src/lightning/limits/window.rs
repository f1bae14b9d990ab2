//! A sliding window over amounts.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Amounts spent within a sliding window, in slices of a twelfth of its span.
///
/// A slice counts until all of it has left the window: up to a twelfth too long, never too short.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Window {
    /// Start of the slice in ms, and its sum; oldest first.
    slices: VecDeque<(u64, u64)>,
}

impl Window {
    pub(super) fn sum(&self, now_ms: u64, span_ms: u64) -> u64 {
        let slice_ms = span_ms / 12;
        let live = self.slices.iter().filter(|(start, _)| start + slice_ms + span_ms > now_ms);
        live.fold(0, |sum, (_, amount)| sum.saturating_add(*amount))
    }

    pub(super) fn add(&mut self, now_ms: u64, span_ms: u64, amount: u64) {
        if amount == 0 {
            return;
        }
        let slice_ms = span_ms / 12;
        self.slices.retain(|(start, _)| start + slice_ms + span_ms > now_ms);
        let start = now_ms - now_ms % slice_ms;
        match self.slices.back_mut() {
            Some((newest, sum)) if *newest == start => *sum = sum.saturating_add(amount),
            _ => self.slices.push_back((start, amount)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::HOUR_MS;
    use super::*;

    #[test]
    fn windows_slide() {
        let mut window = Window::default();
        let start = 1_000 * HOUR_MS;
        window.add(start, HOUR_MS, 7);
        assert_eq!(window.sum(start + HOUR_MS, HOUR_MS), 7, "not a moment too short");
        assert_eq!(window.sum(start + HOUR_MS + HOUR_MS / 12, HOUR_MS), 0);
        for n in 0..1_000 {
            window.add(start + n * 1_000_000, HOUR_MS, 1);
        }
        assert!(window.slices.len() <= 14, "bounded: {}", window.slices.len());
    }
}
