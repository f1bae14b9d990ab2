//! One suite over all key slots: what every backend must do, and what none may.
//!
//! A backend says in `backends` how its slots are made. Devices are played by SoftHSM2, swtpm, the `age` tool and moto's AWS KMS:
//! their tests are run by `hsm/tests/run`, which `./test` calls, and which fails without them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // what fails may panic

mod backends;
mod counters;
mod device_keys;
#[cfg(feature = "pkcs11")]
mod node_identity;
#[cfg(feature = "tpm")]
mod tpm;

use claviger_hsm::{Argon2id, Binding, Envelope, EnvelopeError, KeySlot, PassphraseSlot, SlotError, Wrapped};

const KEY: [u8; 32] = [0x42; 32];
const QUICK: Argon2id = Argon2id { memory_kib: 8, passes: 1, lanes: 1 };

/// A backend ready to be used. Its device goes away with it.
trait Backend {
    /// A slot that wraps, and that opens what it wrapped.
    fn owner(&self) -> Box<dyn KeySlot + '_>;

    /// A slot that looks alike and has another secret, and what it meets at `wrapped`.
    fn stranger(&self, wrapped: &Wrapped) -> (Box<dyn KeySlot + '_>, SlotError);

    /// What may stand in no error, record or `Debug`.
    fn secrets(&self) -> Vec<String>;
}

macro_rules! conformance {
    ($(#[$attribute:meta])* $name:ident: $($backend:ident)::+) => {
        mod $name {
            #[test]
            $(#[$attribute])*
            fn the_owner_opens_it_and_a_stranger_does_not() {
                super::the_owner_opens_it_and_a_stranger_does_not(&super::$($backend)::+::new());
            }

            #[test]
            $(#[$attribute])*
            fn a_wrapped_key_opens_only_in_its_own_place() {
                super::a_wrapped_key_opens_only_in_its_own_place(&super::$($backend)::+::new());
            }

            #[test]
            $(#[$attribute])*
            fn an_edited_record_does_not_open() {
                super::an_edited_record_does_not_open(&super::$($backend)::+::new());
            }

            #[test]
            $(#[$attribute])*
            fn it_stands_beside_a_passphrase_in_one_envelope() {
                super::it_stands_beside_a_passphrase_in_one_envelope(&super::$($backend)::+::new());
            }
        }
    };
}

conformance!(passphrase: backends::Passphrase);
conformance!(shares: backends::Shares);
conformance!(helper: backends::Helper);
conformance!(#[ignore = "needs age: hsm/tests/run"] age: backends::Age);
conformance!(#[ignore = "needs moto: hsm/tests/run"] aws_kms: backends::AwsKms);
conformance!(#[ignore = "needs a transit engine: hsm/tests/run"] vault: backends::Vault);
#[cfg(feature = "pkcs11")]
conformance!(#[ignore = "needs SoftHSM2: hsm/tests/run"] pkcs11: backends::pkcs11::Pkcs11);
#[cfg(feature = "tpm")]
conformance!(#[ignore = "needs swtpm: hsm/tests/run"] tpm_with_pin: tpm::WithPin);
#[cfg(feature = "tpm")]
conformance!(#[ignore = "needs swtpm: hsm/tests/run"] tpm_without_pin: tpm::WithoutPin);

fn binding(slot: &dyn KeySlot) -> Binding {
    Binding { version: 2, installation: [5; 16], slot: 3, kind: slot.kind() }
}

/// What `slot` finds in `wrapped`. A failure leaves the buffer alone.
fn opened(slot: &dyn KeySlot, binding: &Binding, wrapped: &Wrapped) -> Result<[u8; 32], SlotError> {
    let mut key = [0; 32];
    let result = slot.unwrap(binding, wrapped, &mut key);
    assert!(result.is_ok() || key == [0; 32], "a failure wrote into the buffer");
    result.map(|()| key)
}

fn silent(backend: &dyn Backend, text: &str) {
    let key = hex::encode(KEY);
    for secret in backend.secrets().into_iter().chain([key]) {
        assert!(!text.contains(&secret), "a secret is in {text}");
    }
}

fn the_owner_opens_it_and_a_stranger_does_not(backend: &dyn Backend) {
    let owner = backend.owner();
    let place = binding(&*owner);
    let wrapped = owner.wrap(&place, &KEY).expect("wraps");
    assert_eq!(opened(&*owner, &place, &wrapped), Ok(KEY));
    assert_eq!(owner.health(&wrapped), Ok(()));
    assert_ne!(owner.wrap(&place, &KEY).expect("wraps"), wrapped, "two wrappings are alike");
    let (stranger, expected) = backend.stranger(&wrapped);
    let error = opened(&*stranger, &place, &wrapped).expect_err("a stranger opened it");
    assert_eq!(error, expected);
    assert!(!error.hint().is_empty());
    silent(backend, &format!("{error} {error:?} {}", error.hint()));
    silent(backend, &serde_json::to_string(&wrapped).unwrap());
}

fn a_wrapped_key_opens_only_in_its_own_place(backend: &dyn Backend) {
    let owner = backend.owner();
    let place = binding(&*owner);
    let wrapped = owner.wrap(&place, &KEY).expect("wraps");
    for moved in
        [Binding { version: 1, ..place }, Binding { installation: [6; 16], ..place }, Binding { slot: 4, ..place }]
    {
        let error = opened(&*owner, &moved, &wrapped).expect_err("it opened elsewhere");
        silent(backend, &format!("{error} {error:?}"));
    }
    assert_eq!(opened(&*owner, &place, &wrapped), Ok(KEY));
}

/// Turns over one bit, or one letter, of each string in the record in turn.
fn an_edited_record_does_not_open(backend: &dyn Backend) {
    let owner = backend.owner();
    let place = binding(&*owner);
    let wrapped = owner.wrap(&place, &KEY).expect("wraps");
    let json = serde_json::to_value(&wrapped).unwrap();
    for path in strings(&json, String::new()) {
        let mut edited = json.clone();
        let text = edited.pointer_mut(&path).unwrap();
        let before = text.as_str().unwrap();
        let (head, last) = before.split_at(before.len() - 1);
        *text = format!("{head}{}", if last == "0" { "1" } else { "0" }).into();
        // It is unreadable, or it does not open.
        let Ok(edited) = serde_json::from_value::<Wrapped>(edited) else { continue };
        let error = opened(&*owner, &place, &edited).expect_err(&path);
        silent(backend, &format!("{error} {error:?}"));
    }
}

/// Where strings are in `json`, but for the kind, a helper's command and a TPM's place: that is where to ask, not what to
/// believe.
fn strings(json: &serde_json::Value, at: String) -> Vec<String> {
    match json {
        serde_json::Value::String(text)
            if !text.is_empty() && at != "/kind" && at != "/tcti" && !at.starts_with("/command/") =>
        {
            vec![at]
        }
        serde_json::Value::Object(map) => {
            map.iter().flat_map(|(name, value)| strings(value, format!("{at}/{name}"))).collect()
        }
        serde_json::Value::Array(list) => {
            list.iter().enumerate().flat_map(|(index, value)| strings(value, format!("{at}/{index}"))).collect()
        }
        _ => Vec::new(),
    }
}

fn it_stands_beside_a_passphrase_in_one_envelope(backend: &dyn Backend) {
    let offline = PassphraseSlot { passphrase: b"kept in a safe", cost: QUICK };
    let owner = backend.owner();
    let mut envelope = Envelope::create(&KEY, &offline).expect("created");
    let id = envelope.add(&KEY, &*owner).expect("added");
    assert_eq!(id, 2);
    let mut envelope = Envelope::decode(&envelope.encode()).expect("survives the file");
    let open = |envelope: &Envelope, slot: &dyn KeySlot, only| {
        let mut key = [0; 32];
        envelope.open(slot, only, &mut key).map(|id| (id, key))
    };
    assert_eq!(open(&envelope, &*owner, Some(2)), Ok((2, KEY)));
    assert_eq!(open(&envelope, &offline, None).map(|(_, key)| key), Ok(KEY));
    assert_eq!(envelope.rewrap(2, &KEY, &*owner), Ok(()));
    assert_eq!(open(&envelope, &*owner, Some(2)), Ok((2, KEY)));
    assert_eq!(envelope.remove(1, |_| true), Ok(()));
    assert_eq!(open(&envelope, &*owner, None), Ok((2, KEY)));
    assert_eq!(envelope.remove(2, |_| true), Err(EnvelopeError::LastSlot(2)));
}
