//! The command line: one file per command, each with `--json`. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.

mod admin;
mod backup;
mod bench;
mod channel;
mod doctor;
mod explain;
mod freeze;
mod grant;
mod hardening;
mod init;
mod journal;
mod lightspark;
mod lnd;
mod metrics;
mod node;
mod output;
mod policy;
mod progress;
mod rotate;
mod run;
mod seal;
mod slots;
mod status;
mod time;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use claviger_proto::v1::OrderRequest;

pub use output::{CliError, Output};

use crate::harden::Hardening;
use crate::keys::passphrase::{Passphrase, Source};

/// A signing appliance for the Lightning Network: it holds the keys of your nodes, checks every request, and signs or
/// refuses and says why.
#[derive(Debug, Parser)]
#[command(name = "claviger", version, arg_required_else_help = true, after_help = FIRST_STEPS)]
struct Cli {
    /// Where keys, journal and configuration live.
    #[arg(long, global = true, value_name = "DIR", default_value_os_t = default_data_dir())]
    data_dir: PathBuf,
    /// Print one JSON value instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const FIRST_STEPS: &str = "First steps:
  claviger init --network regtest      make a data directory; asks for a passphrase
  claviger run                         start the daemon, sealed
  claviger unseal                      open it
  claviger node add alice --kind ldk   write the bundle that node `alice` connects with
  claviger status                      see what holds and what is missing";

const RUN_EXAMPLES: &str = "Examples:
  claviger run                                 sealed; then: claviger unseal
  claviger run --passphrase-fd 3 3< FILE       unsealed, from a file or a pipe
  claviger run --passphrase-credential NAME    unsealed, under systemd with LoadCredentialEncrypted=NAME:FILE";

const UNSEAL_EXAMPLES: &str = "Examples:
  claviger unseal                              asks on the terminal
  claviger unseal --passphrase-fd 0 < FILE     takes what the file holds, without the line's end
  claviger unseal --slot 2                     asks for one share, a PIN, or nothing, as slot 2 wants";

const METRICS_EXAMPLES: &str = "Examples:
  claviger metrics                             docs/metrics.md says what each means
  claviger metrics > claviger.prom.new && mv claviger.prom.new claviger.prom     for a collector of text files

The signer opens no port for it: whoever may use the administration socket may read it.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a data directory: a random data key, wrapped by a passphrase, and a commented claviger.toml.
    Init(init::InitArgs),
    /// Run the daemon. It starts sealed unless a passphrase source is given.
    #[command(after_help = RUN_EXAMPLES)]
    Run(run::RunArgs),
    /// Open the running daemon, with the passphrase or what another slot wants.
    #[command(after_help = UNSEAL_EXAMPLES)]
    Unseal(slots::OpenArgs),
    /// Close the running daemon: nodes stop, keys are wiped from memory.
    Seal,
    /// What holds and what is missing.
    Status,
    /// What is counted and measured, in the text format of Prometheus.
    #[command(after_help = METRICS_EXAMPLES)]
    Metrics,
    /// The key slots that wrap the data key.
    #[command(subcommand)]
    Slots(slots::SlotsCommand),
    /// The nodes whose keys are held here.
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Accounts of Lightspark.
    #[command(subcommand)]
    Lightspark(lightspark::LightsparkCommand),
    /// On the machine of an lnd whose keys are in a signer.
    #[command(subcommand)]
    Lnd(lnd::LndCommand),
    /// Replace the data key: everything is sealed anew while the signer signs.
    #[command(after_help = rotate::EXAMPLES)]
    Rotate(rotate::RotateArgs),
    /// The channels of a node, as the signer knows them.
    #[command(subcommand)]
    Channel(channel::ChannelCommand),
    /// Look over the house and every channel, and say what to do.
    Doctor(doctor::DoctorArgs),
    /// What the running signer gave up so that nobody takes it: user, files, ports, system calls, memory.
    Hardening,
    /// The append-only, hash-chained record of every decision.
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// The whole appliance in one encrypted file: made while it signs, checked without restoring, put on a new machine.
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Why a request was refused or granted.
    Explain(explain::ExplainArgs),
    /// Freeze every node, in an emergency: no new state and no new spending. Closing and punishing go on.
    Freeze(freeze::FreezeArgs),
    /// Take every node's freeze back. Channels that are frozen by themselves stay frozen.
    Unfreeze(freeze::FreezeArgs),
    /// End a node's quarantine: its state was looked at, and is the latest.
    ///
    /// A node whose state may be an old copy would sign what its peers can punish. Compare its channels with the node's own first:
    /// docs/rollback.md. Where the policy names two or more people for break-glass grants, it takes such a grant of theirs.
    Restore {
        /// The node.
        name: String,
        /// Why, for the journal.
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
    },
    /// What nodes may do with the money: rules, limits and people as files, checked, tested and put in force.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// What people allow in advance or on a ticket, by their own signatures: four eyes.
    #[command(subcommand)]
    Grant(grant::GrantCommand),
    /// What the running signer starts to speak to devices.
    #[command(hide = true, subcommand)]
    Devices(DevicesCommand),
    /// Measure this machine: signing, state advances, growth. Needs no data directory.
    Bench(bench::BenchArgs),
}

/// Where a passphrase comes from: the terminal unless said otherwise. Never an argument or an environment variable.
#[derive(Clone, Debug, Default, Args)]
pub struct PassphraseArgs {
    /// Read the passphrase from this open file descriptor.
    #[arg(long, value_name = "N", conflicts_with = "passphrase_credential")]
    passphrase_fd: Option<i32>,
    /// Read the passphrase from this systemd credential (LoadCredential=, LoadCredentialEncrypted=).
    #[arg(long, value_name = "NAME")]
    passphrase_credential: Option<String>,
}

impl PassphraseArgs {
    /// Where it says to read from.
    fn source(&self) -> Source {
        match (&self.passphrase_credential, self.passphrase_fd) {
            (Some(name), _) => Source::Credential(name.clone()),
            (None, Some(fd)) => Source::Descriptor(fd),
            (None, None) => Source::Prompt,
        }
    }

    /// Whether a source other than the terminal is given.
    fn is_given(&self) -> bool {
        self.source() != Source::Prompt
    }

    /// The descriptor to leave open, if any.
    fn descriptors(&self) -> Vec<i32> {
        self.passphrase_fd.into_iter().filter(|fd| *fd > 2).collect()
    }

    /// Reads a passphrase that opens an existing slot.
    fn read(&self) -> Result<Passphrase, CliError> {
        self.source().read().map_err(|error| CliError::new(&error, error.hint()))
    }
}

/// Runs the command line `args` and returns the process's exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let output = Output::new(cli.json);
    let result = match cli.command {
        Command::Init(args) => init::init(&cli.data_dir, args, &output),
        Command::Run(args) => run::run(&cli.data_dir, args),
        Command::Unseal(args) => seal::unseal(&cli.data_dir, &args, &output),
        Command::Seal => seal::seal(&cli.data_dir, &output),
        Command::Status => status::status(&cli.data_dir, &output),
        Command::Metrics => metrics::metrics(&cli.data_dir, &output),
        Command::Slots(command) => slots::slots(&cli.data_dir, command, &output),
        Command::Rotate(args) => rotate::rotate(&cli.data_dir, &args, &output),
        Command::Node(command) => node::node(&cli.data_dir, command, &output),
        Command::Lightspark(command) => lightspark::lightspark(&cli.data_dir, command, &output),
        Command::Lnd(command) => lnd::lnd(&cli.data_dir, command, &output),
        Command::Channel(command) => channel::channel(&cli.data_dir, command, &output),
        Command::Doctor(args) => doctor::doctor(&cli.data_dir, args, &output),
        Command::Hardening => hardening::hardening(&cli.data_dir, &output),
        Command::Journal(command) => journal::journal(&cli.data_dir, command, &output),
        Command::Backup(command) => backup::backup(&cli.data_dir, command, &output),
        Command::Explain(args) => explain::explain(&cli.data_dir, &args, &output),
        Command::Freeze(args) => freeze::all(&cli.data_dir, "freeze", &args, &output),
        Command::Unfreeze(args) => freeze::all(&cli.data_dir, "thaw", &args, &output),
        Command::Restore { name, why } => {
            let request = OrderRequest { node: name, order: "restore".to_owned(), why, ..OrderRequest::default() };
            admin::connect(&cli.data_dir).and_then(|daemon| channel::order(&daemon, request, &output))
        }
        Command::Policy(command) => policy::policy(&cli.data_dir, command, &output),
        Command::Grant(command) => grant::grant(&cli.data_dir, command, &output),
        Command::Devices(command) => devices(&command),
        Command::Bench(args) => bench::bench(&args, &output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Processes of the signer's own: nobody types these.
#[derive(Debug, clap::Subcommand)]
enum DevicesCommand {
    /// Starts workers.
    Broker { known: String },
    /// Asks one device once.
    Worker { known: String },
}

fn devices(command: &DevicesCommand) -> Result<(), CliError> {
    harden(&[])?;
    let ended = match command {
        DevicesCommand::Broker { known } => crate::devices::broker(known),
        DevicesCommand::Worker { known } => crate::devices::worker(known),
    };
    ended.map_err(|error| CliError::new(error, "This is for the signer itself: `claviger run`."))
}

/// What a command that reads a secret does first (P8), before it opens anything: descriptors are closed whoever uses them,
/// except those of `keep`, which it reads from.
fn harden(keep: &[i32]) -> Result<Hardening, CliError> {
    Hardening::apply(keep).map_err(|error| CliError::new(&error, error.hint()))
}

fn default_data_dir() -> PathBuf {
    std::env::home_dir().unwrap_or_default().join(".claviger")
}
