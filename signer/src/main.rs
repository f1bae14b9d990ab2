//! The signer daemon and its command line.

fn main() {}
