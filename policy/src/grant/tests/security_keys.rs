//! Signatures of FIDO hardware keys, built here as OpenSSH's PROTOCOL.u2f says: the key signs
//! sha256(application) || flags || counter || sha256(message), and the message is PROTOCOL.sshsig's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;
use sha2::{Digest, Sha256, Sha512};

use super::*;

const NAMESPACE: &str = "claviger-grant";
const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;
const COUNTER: u32 = 9;

/// A hardware key in software.
struct Token {
    algorithm: &'static str,
    key: Key,
    application: &'static str,
}

enum Key {
    Ed25519(ed25519_dalek::SigningKey),
    P256(p256::ecdsa::SigningKey),
}

impl Token {
    fn ed25519(application: &'static str) -> Self {
        let key = Key::Ed25519(ed25519_dalek::SigningKey::from_bytes(&[5; 32]));
        Self { algorithm: "sk-ssh-ed25519@openssh.com", key, application }
    }

    fn p256(application: &'static str) -> Self {
        let key = Key::P256(p256::ecdsa::SigningKey::from_slice(&[6; 32]).expect("a scalar"));
        Self { algorithm: "sk-ecdsa-sha2-nistp256@openssh.com", key, application }
    }

    fn both() -> [Self; 2] {
        [Self::ed25519("ssh:"), Self::p256("ssh:treasury")]
    }

    /// The key as an allowed_signers line has it.
    fn line(&self, person: &str) -> String {
        format!("{person} {} {}\n", self.algorithm, STANDARD.encode(self.public()))
    }

    fn public(&self) -> Vec<u8> {
        let mut key = string(self.algorithm.as_bytes());
        match &self.key {
            Key::Ed25519(secret) => key.extend(string(secret.verifying_key().as_bytes())),
            Key::P256(secret) => {
                key.extend(string(b"nistp256"));
                key.extend(string(secret.verifying_key().to_encoded_point(false).as_bytes()));
            }
        }
        key.extend(string(self.application.as_bytes()));
        key
    }

    /// The PEM that `ssh-keygen -Y sign` would write, with the flags that the key would report.
    fn sign(&self, text: &str, flags: u8) -> String {
        self.sign_reported(text, flags, flags)
    }

    /// Signs `flags` and reports others.
    fn sign_reported(&self, text: &str, flags: u8, reported: u8) -> String {
        let mut message = b"SSHSIG".to_vec();
        for part in [NAMESPACE.as_bytes(), b"", b"sha512", &Sha512::digest(text)] {
            message.extend(string(part));
        }
        let mut signed = Sha256::digest(self.application).to_vec();
        signed.push(flags);
        signed.extend(COUNTER.to_be_bytes());
        signed.extend(Sha256::digest(&message));
        let mut signature = string(self.algorithm.as_bytes());
        match &self.key {
            Key::Ed25519(secret) => signature.extend(string(&secret.sign(&signed).to_bytes())),
            Key::P256(secret) => {
                let made: p256::ecdsa::Signature = secret.sign(&signed);
                let (r, s) = made.split_bytes();
                signature.extend(string(&[mpint(&r), mpint(&s)].concat()));
            }
        }
        signature.push(reported);
        signature.extend(COUNTER.to_be_bytes());
        let mut blob = b"SSHSIG".to_vec();
        blob.extend(1_u32.to_be_bytes());
        for part in [self.public().as_slice(), NAMESPACE.as_bytes(), b"", b"sha512", &signature] {
            blob.extend(string(part));
        }
        let base64 = STANDARD.encode(blob);
        let lines: Vec<_> = base64.as_bytes().chunks(70).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"))
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
}

fn mpint(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let sign = if bytes.get(start).is_some_and(|byte| byte & 0x80 != 0) { vec![0] } else { vec![] };
    string(&[&sign, &bytes[start..]].concat())
}

fn verify(token: &Token, text: &str, signature: &str) -> Result<String, SignatureError> {
    let approvers = Approvers::parse(&token.line("alice")).expect("a good file");
    approvers.verify(text, NAMESPACE, signature, NOW_MS).map(|signer| signer.person)
}

#[test]
fn a_touched_hardware_key_approves_as_ssh_keygen_has_it() {
    let people = People::new(&[]);
    let text = intent().text();
    for token in Token::both() {
        for flags in [PRESENT, PRESENT | VERIFIED] {
            let signature = token.sign(&text, flags);
            assert_eq!(verify(&token, &text, &signature), Ok("alice".into()), "{}", token.algorithm);
            assert!(people.verify(&token.line("alice"), "alice", NAMESPACE, &text, &signature, "20261123090000Z"));
        }
    }
}

#[test]
fn a_hardware_key_that_nobody_touched_does_not_approve() {
    let text = intent().text();
    for token in Token::both() {
        for flags in [0, VERIFIED] {
            let refused = verify(&token, &text, &token.sign(&text, flags));
            assert_eq!(refused, Err(SignatureError::NotPresent("alice".into())), "{}", token.algorithm);
        }
    }
}

#[test]
fn what_a_hardware_key_reports_is_what_it_signed() {
    let text = intent().text();
    for token in Token::both() {
        let wrong = Err(SignatureError::Wrong("alice".into()));
        assert_eq!(verify(&token, &text, &token.sign_reported(&text, 0, PRESENT)), wrong);
        assert_eq!(verify(&token, &format!("{text}more"), &token.sign(&text, PRESENT)), wrong);
    }
}

#[test]
fn a_hardware_key_of_another_application_is_refused() {
    for token in [Token::ed25519("https://example.com"), Token::p256("")] {
        let errors = Approvers::parse(&token.line("alice")).expect_err("refused");
        assert_eq!(errors[0].fault, SignerFault::Application(token.application.into()));
    }
    for token in Token::both() {
        assert!(Approvers::parse(&token.line("alice")).is_ok());
    }
}

#[test]
fn the_same_secret_in_hardware_and_software_form_is_two_keys() {
    let text = intent().text();
    let [token, _] = Token::both();
    let other = Token::ed25519("ssh:other");
    let refused = verify(&other, &text, &token.sign(&text, PRESENT));
    assert!(matches!(refused, Err(SignatureError::UnknownKey(_))));
}
