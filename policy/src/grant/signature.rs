//! Whether a signature of `ssh-keygen -Y sign` is an approver's, over this text and for this purpose.
//!
//! The format is OpenSSH's PROTOCOL.sshsig; hardware keys sign as PROTOCOL.u2f says. The namespace is part of what is signed, so
//! that a signature for one purpose is none for another.

use ssh_key::{HashAlg, PublicKey, SshSig};

use super::intent::shortened;
use super::signers::Approvers;

/// The longest signature, in bytes.
pub const MAX_SIGNATURE: usize = 4_096;

/// In the flags of a hardware key's signature: somebody touched it.
const USER_PRESENT: u8 = 0x01;

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The name in the `allowed_signers` file.
    pub person: String,
    /// The key, as `ssh-keygen -l` shows it: `SHA256:…`.
    pub fingerprint: String,
}

/// Why a signature does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Longer than [`MAX_SIGNATURE`].
    #[error("the signature has {0} bytes, more than {MAX_SIGNATURE}")]
    TooLong(usize),
    /// Not what `ssh-keygen -Y sign` writes.
    #[error("this is no SSH signature")]
    Format,
    /// Made for another purpose.
    #[error("the signature is for '{found}', not for '{wanted}'")]
    Namespace {
        /// The signature's, shortened.
        found: String,
        /// What would count.
        wanted: &'static str,
    },
    /// No approver's key.
    #[error("the key {0} is in no line of allowed_signers")]
    UnknownKey(String),
    /// The key's line does not allow the purpose.
    #[error("{person}'s key may not sign for '{namespace}'")]
    KeyPurpose {
        /// Whose key.
        person: String,
        /// The purpose.
        namespace: &'static str,
    },
    /// The key's line does not allow the time.
    #[error("{0}'s key is not valid now")]
    KeyTime(String),
    /// A hardware key signed by itself.
    #[error("nobody touched {0}'s hardware key for this signature")]
    NotPresent(String),
    /// Over other text, or not by this key.
    #[error("the signature by {0}'s key is not over this text")]
    Wrong(String),
}

impl SignatureError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::TooLong(_) | Self::Format => "Give the .sig file that `ssh-keygen -Y sign` wrote.".into(),
            Self::Namespace { wanted, .. } => format!("Sign with `ssh-keygen -Y sign -n {wanted}`."),
            Self::UnknownKey(_) => "List the key in the policy's allowed_signers, or sign with one that is.".into(),
            Self::KeyPurpose { namespace, .. } => {
                format!("Sign with a key whose line has no namespaces, or has {namespace}.")
            }
            Self::KeyTime(_) => "See valid-after and valid-before in allowed_signers.".into(),
            Self::NotPresent(_) => "Make the key without no-touch-required, and touch it when it blinks.".into(),
            Self::Wrong(_) => "Sign the file as `claviger grant show` writes it, unchanged, with no line added.".into(),
        }
    }
}

impl Approvers {
    /// Who made `signature`, a PEM of `ssh-keygen -Y sign`, over `text` for `namespace` at `now_ms`.
    pub fn verify(
        &self,
        text: &str,
        namespace: &'static str,
        signature: &str,
        now_ms: u64,
    ) -> Result<Signer, SignatureError> {
        if signature.len() > MAX_SIGNATURE {
            return Err(SignatureError::TooLong(signature.len()));
        }
        let signature = SshSig::from_pem(signature).map_err(|_| SignatureError::Format)?;
        if signature.version() != SshSig::VERSION || !signature.reserved().is_empty() {
            return Err(SignatureError::Format);
        }
        if signature.namespace() != namespace {
            return Err(SignatureError::Namespace { found: shortened(signature.namespace()), wanted: namespace });
        }
        let Some(known) = self.by_key(signature.public_key()) else {
            let fingerprint = signature.public_key().fingerprint(HashAlg::Sha256);
            return Err(SignatureError::UnknownKey(fingerprint.to_string()));
        };
        let person = known.person.clone();
        if !known.signs_for(namespace) {
            return Err(SignatureError::KeyPurpose { person, namespace });
        }
        if !known.is_valid(now_ms) {
            return Err(SignatureError::KeyTime(person));
        }
        if signature.algorithm() != known.key.algorithm() {
            return Err(SignatureError::Wrong(person));
        }
        if PublicKey::from(known.key.clone()).verify(namespace, text.as_bytes(), &signature).is_err() {
            return Err(SignatureError::Wrong(person));
        }
        let is_hardware = known.key.is_sk_ed25519() || known.key.is_sk_ecdsa_p256();
        if is_hardware && !is_present(signature.signature_bytes()) {
            return Err(SignatureError::NotPresent(person));
        }
        Ok(Signer { person, fingerprint: known.fingerprint.clone() })
    }
}

/// Whether the trailer of a hardware key's signature, one byte of flags and four of a counter, says that somebody was there.
fn is_present(signature: &[u8]) -> bool {
    let flags = signature.len().checked_sub(5).and_then(|at| signature.get(at));
    flags.is_some_and(|flags| flags & USER_PRESENT != 0)
}
