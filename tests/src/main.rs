//! `claviger`, built with the tests so that they run the code they were compiled with.

use std::process::ExitCode;

/// The allocator of the shipped binary.
#[global_allocator]
static ALLOCATOR: claviger::keys::memory::Wiping = claviger::keys::memory::Wiping;

fn main() -> ExitCode {
    claviger::cli::main(std::env::args_os())
}
