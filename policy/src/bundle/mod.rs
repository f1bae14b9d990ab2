//! Bundles: a policy as a directory of files, with a version, a hash and signatures. docs/policy/bundles.md
//!
//! The crate does no I/O: a bundle is made of named contents. What is in force, what waits and what can be gone back to is
//! [`InForce`].

mod error;
mod files;
mod force;
mod manifest;
mod parse;
mod signing;
mod stored;
#[cfg(test)]
mod tests;

pub use self::error::{BundleError, BundleFault, MAX_ERRORS};
pub use self::files::{
    BundleHash, Files, FilesError, MAX_BUNDLE_BYTES, MAX_FILE_BYTES, MAX_FILES, MAX_NAME_BYTES, Part,
};
pub use self::force::{Applied, ApplyError, InForce};
pub use self::parse::Bundle;
pub use self::signing::{NAMESPACE, Signing, SigningError, text_to_roll_back, text_to_sign};
pub use self::stored::BundleUnreadable;
