//! `claviger policy`: what nodes may do with the money, as files that are checked, tested and put in force.

mod dir;
mod history;
mod offline;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use claviger_policy::preset;

use self::history::HistoryArgs;
use super::init::NetworkName;
use super::{CliError, Output};

const CHECK_EXAMPLES: &str = "Examples:
  claviger policy check policy                             what is wrong, and what is odd
  claviger policy check policy --strict                    in CI: what is odd fails too
  claviger policy check policy --text-to-sign > text       then: ssh-keygen -Y sign -n claviger-policy -f KEY text
  claviger policy check policy --follows policy-in-force   is it newer, and signed by enough people?

A bundle is a directory: policy.toml, NAME.cedar, NAME.test.toml, lists/NAME.toml, allowed_signers, signatures/NAME.sig.
docs/policy/getting-started.md shows one from scratch.";

const TEST_EXAMPLES: &str = "A test in NAME.test.toml gives the facts of one request and the verdict that is expected:

  [[test]]
  name = \"a millisatoshi above the limit does not pass\"
  action = \"PayInvoice\"
  facts = { amount_msat = 200_000_001, payee = \"03cd\", payment_hash = \"e3b0\" }
  expect = \"deny\"

expect is permit, deny, needs-approval or fault. docs/policy/facts.md lists actions and facts.";

const SIMULATE_EXAMPLES: &str = "Examples:
  claviger policy simulate --candidate policy --history last-month.jsonl
  claviger policy simulate --candidate policy --history last-month.jsonl --since 7d

Budgets are counted along from the beginning of the history, empty at first. Approvals of that time count where their
group means the same.";

const SHOW_EXAMPLES: &str = "Examples:
  claviger policy show policy            what it says, in words
  claviger policy show policy --cedar    its rules, the preset's included";

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Ready-made policies, and with a name one with its numbers. Needs no data directory, as all down to `show DIR`.
    Presets {
        /// Which.
        name: Option<String>,
    },
    /// Write a bundle to start from: a preset with all its numbers in sight, and tests of it.
    Init {
        /// The directory to make.
        dir: PathBuf,
        /// From which preset: `claviger policy presets` lists them.
        #[arg(long, value_name = "NAME", default_value = preset::DEFAULT)]
        preset: String,
    },
    /// Check a bundle: every error with file, line and column, what is odd, and what to do.
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// The bundle's directory.
        dir: PathBuf,
        #[command(flatten)]
        network: NetworkArgs,
        /// Fail on what is odd, too.
        #[arg(long)]
        strict: bool,
        /// Print the text that its signers sign, and nothing else.
        #[arg(long, conflicts_with = "strict")]
        text_to_sign: bool,
        /// Whether it could be applied after the bundle in this directory: newer, and signed as that one asks.
        #[arg(long, value_name = "DIR", conflicts_with_all = ["strict", "text_to_sign"])]
        follows: Option<PathBuf>,
    },
    /// Run a bundle's tests.
    #[command(after_help = TEST_EXAMPLES)]
    Test {
        /// The bundle's directory.
        dir: PathBuf,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// What changes in meaning from one bundle to another: actions, limits, people. Comments and order mean nothing.
    Diff {
        /// The bundle before.
        old: PathBuf,
        /// The bundle after.
        new: PathBuf,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// What a bundle says.
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// The bundle's directory.
        dir: PathBuf,
        /// Its rules in Cedar.
        #[arg(long)]
        cedar: bool,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Let a bundle decide again all that was decided, and list each request that would have come out otherwise.
    #[command(after_help = SIMULATE_EXAMPLES)]
    Simulate {
        /// The bundle's directory.
        #[arg(long, value_name = "DIR")]
        candidate: PathBuf,
        #[command(flatten)]
        history: HistoryArgs,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Make every verdict again with the bundle that gave it: all must come out as they are recorded, byte for byte.
    Replay {
        #[command(flatten)]
        history: HistoryArgs,
        #[command(flatten)]
        network: NetworkArgs,
    },
}

/// Whose addresses the lists hold, where no signer says it.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct NetworkArgs {
    /// The Bitcoin network of the signer: addresses and keys of lists are of it.
    #[arg(long, value_enum, default_value_t = NetworkName::Mainnet)]
    network: NetworkName,
}

/// Runs one `claviger policy` command.
pub(super) fn policy(_data_dir: &Path, command: PolicyCommand, output: &Output) -> Result<(), CliError> {
    match command {
        PolicyCommand::Presets { name } => offline::presets(name.as_deref(), output),
        PolicyCommand::Init { dir, preset } => offline::init(&dir, &preset, output),
        PolicyCommand::Check { dir, network, text_to_sign: true, .. } => {
            offline::text(&dir, network.network.into(), output)
        }
        PolicyCommand::Check { dir, network, follows: Some(before), .. } => {
            offline::follows(&dir, &before, network.network.into(), output)
        }
        PolicyCommand::Check { dir, network, strict, .. } => {
            offline::check(&dir, network.network.into(), strict, output)
        }
        PolicyCommand::Simulate { candidate, history, network } => {
            history::simulate(&candidate, &history, network.network.into(), output)
        }
        PolicyCommand::Replay { history, network } => history::replay(&history, network.network.into(), output),
        PolicyCommand::Test { dir, network } => offline::test(&dir, network.network.into(), output),
        PolicyCommand::Diff { old, new, network } => offline::diff(&old, &new, network.network.into(), output),
        PolicyCommand::Show { dir, cedar, network } => offline::show(&dir, network.network.into(), cedar, output),
    }
}
