//! `claviger policy`: what nodes may do with the money, as files that are checked, tested and put in force.

pub(super) mod applied;
mod dir;
mod history;
mod offline;
mod shadow;

use std::path::{Path, PathBuf};

use bitcoin::Network;
use clap::{Args, Subcommand};
use claviger_policy::preset;

use self::history::HistoryArgs;
use super::init::NetworkName;
use super::{CliError, Output, admin, grant, time};

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

const DIFF_EXAMPLES: &str = "Examples:
  claviger policy diff policy            from the policy in force to this one
  claviger policy diff before after      from one directory to another, without a signer";

const APPLY_EXAMPLES: &str = "Examples:
  claviger policy apply policy                             at once
  claviger policy apply policy --at 2026-12-01T09:00:00Z   from then on
  claviger policy apply --rollback                         the one before

A bundle follows with a higher version than all before, and with the signatures that the one in force asks for.";

const SIMULATE_EXAMPLES: &str = "Examples:
  claviger policy simulate --candidate policy --since 30d
  claviger policy simulate --candidate policy --history last-month.jsonl     elsewhere, from `policy export`

Budgets are counted along from the beginning of the history, empty at first. Approvals of that time count where their
group means the same.";

const SHADOW_EXAMPLES: &str = "Examples:
  claviger policy shadow policy     judge it beside the one in force from now on; it decides nothing
  claviger policy shadow            what it would have decided otherwise so far
  claviger policy shadow --stop

Needs no signatures and no higher version. What is counted, and the shadow's budgets, begin anew when the signer does.";

const SHOW_EXAMPLES: &str = "Examples:
  claviger policy show policy            what it says, in words
  claviger policy show policy --cedar    its rules, the preset's included
  claviger policy show                   the policy in force";

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Ready-made policies, and with a name one with its numbers.
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
    #[command(after_help = DIFF_EXAMPLES)]
    Diff {
        /// The bundle after, or with a second one the bundle before.
        #[arg(value_name = "DIR")]
        first: PathBuf,
        /// The bundle after.
        #[arg(value_name = "NEW")]
        second: Option<PathBuf>,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// What a bundle says, or the one in force.
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// The bundle's directory; the policy in force if absent.
        dir: Option<PathBuf>,
        /// Its rules in Cedar.
        #[arg(long)]
        cedar: bool,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Which policy is in force, what is left of its budgets, and when they refill.
    Status,
    /// Put a bundle in force: its tests run, what it changes is shown, and all of it counts at once.
    #[command(after_help = APPLY_EXAMPLES)]
    Apply(ApplyArgs),
    /// Judge a bundle beside the one in force, on every decision and without effect, or show what came of that.
    #[command(after_help = SHADOW_EXAMPLES)]
    Shadow {
        /// The bundle's directory.
        dir: Option<PathBuf>,
        /// End it.
        #[arg(long, conflicts_with = "dir")]
        stop: bool,
    },
    /// What was decided, with the bundles that did: lines of JSON, for `simulate` and `replay` elsewhere.
    Export {
        /// Only what was decided within this time: a number and s, m, h or d.
        #[arg(long, value_name = "TIME", value_parser = time::seconds)]
        since: Option<u64>,
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

/// Which bundle comes into force.
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// The bundle's directory.
    #[arg(required_unless_present = "rollback", conflicts_with = "rollback")]
    dir: Option<PathBuf>,
    /// In force from then on, as 2026-12-01T09:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = grant::at, conflicts_with = "rollback")]
    at: Option<u64>,
    /// Go back to the bundle before the one in force.
    #[arg(long)]
    rollback: bool,
    /// Of a rollback: a signature over its text, if the policy in force asks for signatures. May be repeated.
    #[arg(long, value_name = "FILE", requires = "rollback")]
    signature: Vec<PathBuf>,
    /// Of a rollback: print the text that signers sign, and do nothing else.
    #[arg(long, requires = "rollback", conflicts_with = "signature")]
    text_to_sign: bool,
}

/// Whose addresses the lists hold, where no signer says it.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct NetworkArgs {
    /// The Bitcoin network of the signer: addresses and keys of lists are of it.
    #[arg(long, value_enum, default_value_t = NetworkName::Mainnet)]
    network: NetworkName,
}

/// Runs one `claviger policy` command.
pub(super) fn policy(data_dir: &Path, command: PolicyCommand, output: &Output) -> Result<(), CliError> {
    let daemon = || admin::connect(data_dir);
    match command {
        PolicyCommand::Presets { name } => offline::presets(name.as_deref(), output),
        PolicyCommand::Init { dir, preset } => offline::init(&dir, &preset, output),
        PolicyCommand::Check { dir, network, text_to_sign: true, .. } => offline::text(&dir, network.into(), output),
        PolicyCommand::Check { dir, network, follows: Some(before), .. } => {
            offline::follows(&dir, &before, network.into(), output)
        }
        PolicyCommand::Check { dir, network, strict, .. } => offline::check(&dir, network.into(), strict, output),
        PolicyCommand::Test { dir, network } => offline::test(&dir, network.into(), output),
        PolicyCommand::Diff { first, second: Some(second), network } => {
            offline::diff(&first, &second, network.into(), output)
        }
        PolicyCommand::Diff { first, second: None, .. } => applied::diff(&daemon()?, &first, output),
        PolicyCommand::Show { dir: Some(dir), cedar, network } => offline::show(&dir, network.into(), cedar, output),
        PolicyCommand::Show { dir: None, cedar, .. } => applied::show(&daemon()?, cedar, output),
        PolicyCommand::Status => applied::status(&daemon()?, output),
        PolicyCommand::Apply(ApplyArgs { rollback: true, text_to_sign: true, .. }) => {
            applied::rollback_text(&daemon()?, output)
        }
        PolicyCommand::Apply(ApplyArgs { rollback: true, signature, .. }) => {
            applied::rollback(&daemon()?, &signature, output)
        }
        PolicyCommand::Apply(ApplyArgs { dir, at, .. }) => {
            applied::apply(&daemon()?, &dir.unwrap_or_default(), at, output)
        }
        PolicyCommand::Shadow { dir, stop } => shadow::shadow(&daemon()?, dir.as_deref(), stop, output),
        PolicyCommand::Export { since } => applied::export(&daemon()?, since),
        PolicyCommand::Simulate { candidate, history, network } => {
            history::simulate(data_dir, &candidate, &history, network.into(), output)
        }
        PolicyCommand::Replay { history, network } => history::replay(data_dir, &history, network.into(), output),
    }
}

impl From<NetworkArgs> for Network {
    fn from(args: NetworkArgs) -> Self {
        args.network.into()
    }
}
