//! How the suite gets slots of each kind, and strangers to them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use claviger_hsm::helper::{HelperError, HelperFailure, Refusal};
use claviger_hsm::{HelperSlot, KeySlot, PassphraseSlot, Share, SharesSlot, SlotError, Wrapped};

use super::{Backend, QUICK};

/// See `docs/hsm/passphrase.md`.
pub(crate) struct Passphrase;

impl Passphrase {
    pub(crate) fn new() -> Self {
        Self
    }
}

impl Backend for Passphrase {
    fn owner(&self) -> Box<dyn KeySlot + '_> {
        Box::new(PassphraseSlot { passphrase: b"correct horse", cost: QUICK })
    }

    fn stranger(&self, _: &Wrapped) -> (Box<dyn KeySlot + '_>, SlotError) {
        (Box::new(PassphraseSlot { passphrase: b"battery staple", cost: QUICK }), SlotError::WrongSecret)
    }

    fn secrets(&self) -> Vec<String> {
        vec!["correct horse".to_owned(), "battery staple".to_owned()]
    }
}

/// See `docs/hsm/shares.md`.
pub(crate) struct Shares {
    dealt: SharesSlot,
}

impl Shares {
    pub(crate) fn new() -> Self {
        Self { dealt: SharesSlot::deal(2, 3).expect("dealt") }
    }
}

impl Backend for Shares {
    fn owner(&self) -> Box<dyn KeySlot + '_> {
        Box::new(self.dealt.clone())
    }

    fn stranger(&self, _: &Wrapped) -> (Box<dyn KeySlot + '_>, SlotError) {
        let ours: Share = self.dealt.shares()[0].clone();
        let theirs: Share = SharesSlot::deal(2, 3).expect("dealt").shares()[1].clone();
        let error = claviger_hsm::shares::ShareError::Foreign { index: 2 };
        (Box::new(SharesSlot::collected(vec![ours, theirs])), error.into())
    }

    fn secrets(&self) -> Vec<String> {
        self.dealt.shares().iter().map(|share| share.reveal().split('-').nth(3).unwrap().to_owned()).collect()
    }
}

/// The smallest program that keeps the contract: its key is a file, its cipher an exclusive or.
pub(crate) struct Helper {
    dir: tempfile::TempDir,
}

const XOR: &str = r#"
import json, sys
request, key = json.load(sys.stdin), bytes.fromhex(open(sys.argv[1]).read())
mixed = lambda text: bytes(a ^ b for a, b in zip(bytes.fromhex(text), key)).hex()
reply = {"wrap": lambda: {"wrapped": mixed(request["key"])}, "unwrap": lambda: {"key": mixed(request["wrapped"])},
         "health": lambda: {"healthy": True}}
print(json.dumps({"claviger": 1, **reply[request["operation"]]()}))
"#;

impl Helper {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("program"), XOR).unwrap();
        std::fs::write(dir.path().join("key"), "5a".repeat(32)).unwrap();
        Self { dir }
    }
}

impl Backend for Helper {
    fn owner(&self) -> Box<dyn KeySlot + '_> {
        helper(&[&python(), &self.dir.path().join("program"), &self.dir.path().join("key")])
    }

    fn stranger(&self, _: &Wrapped) -> (Box<dyn KeySlot + '_>, SlotError) {
        // The same program, whose key is another one by now.
        std::fs::write(self.dir.path().join("key"), "a5".repeat(32)).unwrap();
        (Box::new(HelperSlot::STORED), SlotError::WrongSecret)
    }

    fn secrets(&self) -> Vec<String> {
        vec!["5a".repeat(32)]
    }
}

/// `hsm/helpers/age` with the real tool. See `docs/hsm/helper.md`.
pub(crate) struct Age {
    dir: tempfile::TempDir,
    recipient: String,
    identity: String,
}

impl Age {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("age-keygen").arg("-o").arg(dir.path().join("identity")).output();
        assert!(made.is_ok_and(|made| made.status.success()), "age is missing: apt-get install age, as ./test does");
        let identity = std::fs::read_to_string(dir.path().join("identity")).unwrap();
        let recipient = identity.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
        Self { dir, recipient, identity: identity.lines().last().unwrap().to_owned() }
    }
}

impl Backend for Age {
    fn owner(&self) -> Box<dyn KeySlot + '_> {
        let identity = self.dir.path().join("identity");
        helper(&[
            &python(),
            &shipped("age"),
            "--recipient".as_ref(),
            self.recipient.as_ref(),
            "--identity".as_ref(),
            &identity,
        ])
    }

    fn stranger(&self, _: &Wrapped) -> (Box<dyn KeySlot + '_>, SlotError) {
        std::fs::remove_file(self.dir.path().join("identity")).unwrap();
        let made = Command::new("age-keygen").arg("-o").arg(self.dir.path().join("identity")).output().unwrap();
        assert!(made.status.success());
        (Box::new(HelperSlot::STORED), said(python(), Refusal::Foreign))
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.identity.clone()]
    }
}

fn said(program: PathBuf, refusal: Refusal) -> SlotError {
    HelperError { program, failure: HelperFailure::Said(refusal) }.into()
}

fn helper(command: &[&Path]) -> Box<dyn KeySlot> {
    let command = command.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    Box::new(HelperSlot { command, timeout: Duration::from_secs(120) })
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("helpers").join(name)
}

/// The interpreter behind whatever shim is in front of it.
fn python() -> PathBuf {
    let found =
        Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).stderr(Stdio::inherit()).output();
    PathBuf::from(String::from_utf8(found.expect("python3 is missing").stdout).unwrap().trim())
}

#[cfg(feature = "pkcs11")]
pub(crate) mod pkcs11 {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use claviger_hsm::Tries;
    use claviger_hsm::pkcs11::{Pkcs11Error, Pkcs11Slot};

    use super::*;

    /// A token is one for all tests: a wrong PIN of one shows in another.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    const PIN: &str = "271828";

    /// See `docs/hsm/pkcs11.md`.
    pub(crate) struct Pkcs11 {
        module: PathBuf,
        _alone: MutexGuard<'static, ()>,
    }

    impl Pkcs11 {
        pub(crate) fn new() -> Self {
            assert!(std::env::var_os("SOFTHSM2_CONF").is_some(), "there is no token: run hsm/tests/run");
            let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
            Self { module: "/usr/lib/softhsm/libsofthsm2.so".into(), _alone: alone }
        }

        fn slot<'a>(&'a self, pin: &'a str) -> Pkcs11Slot<'a> {
            Pkcs11Slot { module: &self.module, token: "claviger", pin: pin.as_bytes(), tries: Tries::Deliberate }
        }

        pub(crate) fn device_key(&self) -> claviger_hsm::Pkcs11Key<'_> {
            let (module, pin) = (&self.module, PIN.as_bytes());
            let curve = claviger_hsm::Curve::P256;
            claviger_hsm::Pkcs11Key { module, token: "claviger", curve, pin, tries: Tries::Deliberate }
        }
    }

    impl Backend for Pkcs11 {
        fn owner(&self) -> Box<dyn KeySlot + '_> {
            Box::new(self.slot(PIN))
        }

        fn stranger(&self, _: &Wrapped) -> (Box<dyn KeySlot + '_>, SlotError) {
            (Box::new(self.slot("314159")), Pkcs11Error::WrongPin("claviger".to_owned()).into())
        }

        fn secrets(&self) -> Vec<String> {
            vec![PIN.to_owned(), "314159".to_owned()]
        }
    }

    #[test]
    #[ignore = "needs SoftHSM2: hsm/tests/run"]
    fn a_pin_from_a_file_is_not_tried_again_after_a_wrong_one_and_a_persons_is() {
        let token = Pkcs11::new();
        let owner = token.slot(PIN);
        let place = crate::binding(&owner);
        let wrapped = owner.wrap(&place, &crate::KEY).expect("wraps");
        let by_itself =
            |pin| crate::opened(&Pkcs11Slot { tries: Tries::Automatic, ..token.slot(pin) }, &place, &wrapped);
        assert_eq!(by_itself(PIN), Ok(crate::KEY));
        assert_eq!(by_itself("314159"), Err(Pkcs11Error::WrongPin("claviger".to_owned()).into()));
        for pin in [PIN, "314159"] {
            assert_eq!(by_itself(pin), Err(Pkcs11Error::PinCountLow("claviger".to_owned()).into()));
        }
        assert_eq!(crate::opened(&owner, &place, &wrapped), Ok(crate::KEY));
        assert_eq!(by_itself(PIN), Ok(crate::KEY), "a right PIN resets the count");
    }

    #[test]
    #[ignore = "needs SoftHSM2: hsm/tests/run"]
    fn a_missing_token_and_a_missing_module_are_named() {
        let token = Pkcs11::new();
        let owner = token.slot(PIN);
        let place = crate::binding(&owner);
        let away = Pkcs11Slot { token: "elsewhere", ..owner };
        assert_eq!(away.wrap(&place, &crate::KEY), Err(Pkcs11Error::NoToken("elsewhere".to_owned()).into()));
        for module in ["/nonexistent.so", "libsofthsm2.so", "/bin/true"] {
            let slot = Pkcs11Slot { module: module.as_ref(), ..owner };
            assert_eq!(slot.wrap(&place, &crate::KEY), Err(Pkcs11Error::Module(module.into()).into()));
        }
    }
}

/// `hsm/helpers/aws-kms` with moto's KMS, which `./test` starts. See `docs/hsm/helper.md`.
pub(crate) struct AwsKms {
    python: String,
    endpoint: String,
    key: String,
    credentials: tempfile::TempDir,
}

impl AwsKms {
    pub(crate) fn new() -> Self {
        let given = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run hsm/tests/run"));
        let credentials = tempfile::tempdir().unwrap();
        let file = "[default]\naws_access_key_id = AKIATESTTESTTESTTEST\naws_secret_access_key = canary-of-kms\n";
        std::fs::write(credentials.path().join("credentials"), file).unwrap();
        let (python, endpoint, key) = (given("MOTO_PYTHON"), given("MOTO_ENDPOINT"), given("MOTO_KEY"));
        Self { python, endpoint, key, credentials }
    }
}

impl Backend for AwsKms {
    fn owner(&self) -> Box<dyn KeySlot + '_> {
        let (helper_file, credentials) = (shipped("aws-kms"), self.credentials.path().join("credentials"));
        helper(&[
            self.python.as_ref(),
            &helper_file,
            "--key".as_ref(),
            self.key.as_ref(),
            "--region".as_ref(),
            "eu-central-1".as_ref(),
            "--endpoint".as_ref(),
            self.endpoint.as_ref(),
            "--credentials".as_ref(),
            &credentials,
        ])
    }

    fn stranger(&self, _: &Wrapped) -> (Box<dyn KeySlot + '_>, SlotError) {
        // A file without credentials: whoever took the disk has the program and not the role.
        std::fs::write(self.credentials.path().join("credentials"), "[default]\n").unwrap();
        (Box::new(HelperSlot::STORED), said(PathBuf::from(&self.python), Refusal::Denied))
    }

    fn secrets(&self) -> Vec<String> {
        vec!["canary-of-kms".to_owned()]
    }
}

/// `hsm/helpers/vault` with a double of the transit engine, which `hsm/tests/run` starts. See `docs/hsm/helper.md`.
pub(crate) struct Vault {
    address: String,
    token: tempfile::TempDir,
}

/// The token that the double takes.
const VAULT_TOKEN: &str = "canary-of-vault";

impl Vault {
    pub(crate) fn new() -> Self {
        let address = std::env::var("TRANSIT_ADDRESS").expect("TRANSIT_ADDRESS is not set: run hsm/tests/run");
        let token = tempfile::tempdir().unwrap();
        std::fs::write(token.path().join("token"), VAULT_TOKEN).unwrap();
        Self { address, token }
    }
}

impl Backend for Vault {
    fn owner(&self) -> Box<dyn KeySlot + '_> {
        let (helper_file, token) = (shipped("vault"), self.token.path().join("token"));
        helper(&[
            &python(),
            &helper_file,
            "--address".as_ref(),
            self.address.as_ref(),
            "--key".as_ref(),
            "claviger".as_ref(),
            "--token".as_ref(),
            &token,
        ])
    }

    fn stranger(&self, _: &Wrapped) -> (Box<dyn KeySlot + '_>, SlotError) {
        std::fs::write(self.token.path().join("token"), "somebody else's").unwrap();
        (Box::new(HelperSlot::STORED), said(python(), Refusal::Denied))
    }

    fn secrets(&self) -> Vec<String> {
        vec![VAULT_TOKEN.to_owned()]
    }
}
