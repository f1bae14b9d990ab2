//! A bar on the terminal while long work goes on.

use std::io::{Write, stderr};

/// How wide it is, in characters.
const WIDTH: u64 = 32;

/// Redrawn when there is something new to see, taken away when it is dropped.
#[derive(Debug)]
pub struct Bar {
    shown: bool,
    what: &'static str,
    total: u64,
    percent: Option<u64>,
}

impl Bar {
    pub(super) fn new(shown: bool, what: &'static str, total: u64) -> Self {
        Self { shown, what, total, percent: None }
    }

    /// `done` of the total is done.
    pub(super) fn at(&mut self, done: u64) {
        let percent = percent(done, self.total);
        if self.shown && self.percent.replace(percent) != Some(percent) {
            let _ = write!(stderr(), "\r{} {} {percent:>3} %", self.what, drawn(percent));
            let _ = stderr().flush();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.percent.is_some() {
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
