//! Who signs a bundle, and what: OpenSSH signatures over its version and hash, by so many distinct people of a role.
//!
//! The bundle in force says who signs the next one. A bundle that named its own signers would be signed by anybody.

use std::collections::BTreeSet;

use super::{BundleHash, Files, Part};
use crate::grant::{Approvals, SignatureError};

/// What a bundle's signers sign it for: `ssh-keygen -Y sign -n NAMESPACE`.
pub const NAMESPACE: &str = "claviger-policy";

/// `[signing]`: who signs the bundle that follows.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Signing {
    /// People with this role …
    pub role: String,
    /// … so many of them: at least 1.
    pub of: u32,
}

/// Why a bundle does not count as signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// A signature that is none, or nobody's who counts. A stray signature is refused, not passed over: it was meant to count.
    #[error("{file}: {error}")]
    Signature {
        /// The signature's file.
        file: String,
        /// Why it does not count.
        error: SignatureError,
    },
    /// Not text.
    #[error("{0}: the signature is not text")]
    NotText(String),
    /// Somebody who has another role.
    #[error("{file}: {person} does not have the role '{role}'")]
    NotOfRole {
        /// The signature's file.
        file: String,
        /// Who signed.
        person: String,
        /// Who should.
        role: String,
    },
    /// Too few people, however many signatures.
    #[error("{} of the {of} people of '{role}' that the policy in force asks for have signed", signed.len())]
    TooFew {
        /// The role.
        role: String,
        /// How many must sign.
        of: u32,
        /// Who did.
        signed: Vec<String>,
    },
}

impl SigningError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Signature { error, .. } => error.hint(),
            Self::NotText(_) => "Give the .sig file that `ssh-keygen -Y sign` wrote.".into(),
            Self::NotOfRole { role, .. } => format!("Take the signature out; somebody with the role '{role}' signs."),
            Self::TooFew { .. } => format!(
                "Write the text with `claviger policy check DIR --text-to-sign`, sign it with `ssh-keygen -Y sign -n \
                 {NAMESPACE}`, and put the .sig into signatures/. Two keys of one person are one person."
            ),
        }
    }
}

/// What is signed to let a bundle follow the one in force.
pub fn text_to_sign(version: u64, hash: BundleHash) -> String {
    format!("claviger policy bundle\nversion {version}\nsha256 {hash}\n")
}

/// What is signed to go back from the bundle in force to the one before.
pub fn text_to_roll_back(from: BundleHash, to: BundleHash) -> String {
    format!("claviger policy rollback\nfrom {from}\nto {to}\n")
}

impl Signing {
    /// Who signed `text` with the signatures of `files`, if they are enough. `approvals` are those of the bundle in force.
    pub fn signers(
        &self,
        text: &str,
        files: &Files,
        approvals: &Approvals,
        now_ms: u64,
    ) -> Result<Vec<String>, SigningError> {
        let mut signed = BTreeSet::new();
        for (file, signature) in files.of(Part::Signature) {
            let signature = std::str::from_utf8(signature).map_err(|_| SigningError::NotText(file.to_owned()))?;
            let signer = approvals.approvers().verify(text, NAMESPACE, signature, now_ms);
            let person = signer.map_err(|error| SigningError::Signature { file: file.to_owned(), error })?.person;
            if !approvals.people(&self.role).any(|holder| holder == person) {
                return Err(SigningError::NotOfRole { file: file.to_owned(), person, role: self.role.clone() });
            }
            signed.insert(person);
        }
        let signed: Vec<_> = signed.into_iter().collect();
        if signed.len() < self.of.max(1) as usize {
            return Err(SigningError::TooFew { role: self.role.clone(), of: self.of, signed });
        }
        Ok(signed)
    }
}
