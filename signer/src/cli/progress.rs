//! A bar on the terminal while long work goes on.

use std::io::{Write, stderr};

/// How wide it is, in characters.
const WIDTH: u64 = 32;

/// Redrawn when there is something new to see, taken away when it is dropped.
#[derive(Debug)]
pub struct Bar {
    shown: bool,
    what: &'static str,
    total: Option<u64>,
    /// What is seen: percent, or without a total how much is done.
    seen: Option<u64>,
}

impl Bar {
    /// `total`: where it ends, if anybody knows.
    pub(super) fn new(shown: bool, what: &'static str, total: Option<u64>) -> Self {
        Self { shown, what, total, seen: None }
    }

    /// `done` is done.
    pub(super) fn at(&mut self, done: u64) {
        let seen = self.total.map_or(done, |total| percent(done, total));
        if !self.shown || self.seen.replace(seen) == Some(seen) {
            return;
        }
        let _ = match self.total {
            Some(_) => write!(stderr(), "\r{} {} {seen:>3} %", self.what, drawn(seen)),
            None => write!(stderr(), "\r{} {seen}", self.what),
        };
        let _ = stderr().flush();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.seen.is_some() {
            // Carriage return, and clear to the end of the line.
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

fn percent(done: u64, total: u64) -> u64 {
    u64::try_from(u128::from(done.min(total)) * 100 / u128::from(total.max(1))).unwrap_or(100)
}

fn drawn(percent: u64) -> String {
    (0..WIDTH).map(|at| if at * 100 < percent * WIDTH { '#' } else { '.' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_up_to_the_end_and_no_further() {
        assert_eq!(percent(0, 0), 0);
        assert_eq!([0, 1, 199, 200, 201, u64::MAX].map(|done| percent(done, 200)), [0, 0, 99, 100, 100, 100]);
        assert_eq!(drawn(0), ".".repeat(32));
        assert_eq!(drawn(50), ["#".repeat(16), ".".repeat(16)].concat());
        assert_eq!(drawn(100), "#".repeat(32));
    }
}
