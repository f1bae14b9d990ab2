//! `claviger-demo`: a Lightning node that holds no keys, from its first channel to a punished cheat.

mod story;

use std::process::ExitCode;

use clap::Parser;
use claviger_demo::signer::BECOME_CLAVIGER;

/// The signer's allocator: this program is the signer too, when it starts itself as one.
#[global_allocator]
static ALLOCATOR: claviger::keys::memory::Wiping = claviger::keys::memory::Wiping;

/// A real signer, a regtest chain and three real Lightning nodes, of which one has no keys.
#[derive(Debug, Parser)]
#[command(name = "claviger-demo", version)]
struct Args {
    /// Print one JSON object at the end instead of the story.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let own = args.next().unwrap_or_default();
    if args.next().is_some_and(|first| first == BECOME_CLAVIGER) {
        return claviger::cli::main(std::iter::once(own).chain(args));
    }
    let args = Args::parse();
    match story::tell(args.json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the story broke off: {error:#}");
            ExitCode::FAILURE
        }
    }
}
