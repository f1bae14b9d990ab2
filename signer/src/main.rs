//! The signer daemon and its command line.

use std::process::ExitCode;

/// Wipes memory when it is freed (P8).
#[global_allocator]
static ALLOCATOR: claviger::keys::memory::Wiping = claviger::keys::memory::Wiping;

fn main() -> ExitCode {
    claviger::cli::main(std::env::args_os())
}
