//! `claviger bench`.

use std::fmt::Write;

use clap::Args;

use super::{CliError, Output};
use crate::bench::{Effort, Report, run};

/// What to measure.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Small numbers, for a first look; seconds instead of minutes.
    #[arg(long)]
    quick: bool,
}

/// Measures and prints.
pub(super) fn bench(args: &BenchArgs, output: &Output) -> Result<(), CliError> {
    let effort = if args.quick { Effort::QUICK } else { Effort::FULL };
    let progress = |text: &str| output.progress(&format!("measuring {text} …"));
    let report =
        run(effort, &progress).map_err(|error| CliError::new(error, "Report this with the machine's details."))?;
    output.result(&report, || text(&report));
    Ok(())
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let raw = &report.raw;
    let _ = writeln!(
        text,
        "sign (low R) {:.1} us, verify {:.1} us, ecdh {:.1} us",
        raw.sign_low_r_us, raw.verify_us, raw.ecdh_us
    );
    let _ = writeln!(text, "\nverdict: further rules         us  sign us  ratio");
    for row in &report.verdict {
        let _ = writeln!(
            text,
            "{:>22} {:>10.1} {:>8.1} {:>6.3}",
            row.further_rules, row.p50_us, row.sign_low_r_us, row.ratio
        );
    }
    let _ = writeln!(text, "\nhtlcs  vls-core us  claviger us  ratio");
    for row in &report.overhead {
        let _ = writeln!(text, "{:>5} {:>12.1} {:>12.1} {:>6.3}", row.htlcs, row.direct_us, row.ours_us, row.ratio);
    }
    let _ = writeln!(text, "\nnodes htlcs store  delay mode   advances/s     p50 ms     p99 ms");
    for row in &report.advance {
        let _ = writeln!(
            text,
            "{:>5} {:>5} {:<6} {:>2} ms {:<5} {:>11.1} {:>10.2} {:>10.2}",
            row.nodes, row.htlcs, row.store, row.flush_delay_ms, row.mode, row.advances_per_s, row.p50_ms, row.p99_ms
        );
    }
    let _ = writeln!(text, "\nnodes htlcs  ordinary heap/s  secret heap/s  ratio  blocks outside");
    for row in &report.heap {
        let _ = writeln!(
            text,
            "{:>5} {:>5} {:>16.1} {:>14.1} {:>6.3} {:>15}",
            row.nodes, row.htlcs, row.ordinary_per_s, row.secret_per_s, row.ratio, row.outside_blocks
        );
    }
    let _ = writeln!(text, "\n       n what      operation         p50 us  baseline us");
    for row in &report.growth {
        let baseline = row.baseline_p50_us.map(|us| format!("{us:>12.1}")).unwrap_or_default();
        let _ = writeln!(text, "{:>8} {:<9} {:<14} {:>9.1} {baseline}", row.n, row.what, row.op, row.p50_us);
    }
    let _ = writeln!(text, "\nresident {:.1} MiB", report.rss_mb);
    text
}
