//! `claviger-demo`: a Lightning node that holds no keys, from its first channel to a punished cheat.

mod story;

use std::process::ExitCode;

use clap::Parser;
use claviger_demo::interrupt;
use claviger_demo::signer::BECOME_CLAVIGER;

/// The signer's allocator: this program is the signer too, when it starts itself as one.
#[global_allocator]
static ALLOCATOR: claviger::keys::memory::Wiping = claviger::keys::memory::Wiping;

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// A real signer, a regtest chain and three real Lightning nodes, of which one has no keys: they open channels, pay, are
/// killed and restarted, close, cheat and are punished.
///
/// Takes less than a minute. Needs no network, no bitcoind and no configuration; listens on 127.0.0.1 only; keeps its
/// files in a temporary directory and removes them.
#[derive(Debug, Parser)]
#[command(name = "claviger-demo", version, after_help = ENDS)]
struct Args {
    /// Print one JSON object at the end instead of the story.
    #[arg(long)]
    json: bool,
}

const ENDS: &str = "Exit codes: 0 all went well, 1 the story broke off, 2 wrong usage, 130 interrupted.
LDK_LOG=1 prints what the nodes log.";

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let own = args.next().unwrap_or_default();
    if args.next().is_some_and(|first| first == BECOME_CLAVIGER) {
        return claviger::cli::main(std::iter::once(own).chain(args));
    }
    let args = Args::parse();
    match interrupt::watch().map_err(anyhow::Error::new).and_then(|()| story::tell(args.json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::asked() => {
            eprintln!("interrupted: everything is stopped and removed");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
