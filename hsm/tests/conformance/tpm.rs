//! The TPM slot with swtpm, one for each test. See `docs/hsm/tpm.md`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use claviger_hsm::tpm::{TpmError, TpmSlot};
use claviger_hsm::{Envelope, EnvelopeError, KeySlot, PassphraseSlot, SlotError, Tries, Wrapped};

use crate::{Backend, KEY, binding, opened, silent};

const PIN: &str = "271828";
const WRONG: &str = "314159";
/// The state of Secure Boot, and the register for debugging, which the tests change.
const PCRS: [u8; 2] = [7, 16];

/// A TPM of its own, gone when this is.
pub(crate) struct Swtpm {
    process: Child,
    port: u16,
    tcti: String,
    state: tempfile::TempDir,
}

impl Swtpm {
    pub(crate) fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        // Another process may take a port between here and there.
        (0..50)
            .find_map(|_| Self::try_start(&state))
            .map(|(process, port)| Self { process, port, tcti: format!("swtpm:host=127.0.0.1,port={port}"), state })
            .expect("swtpm does not start: apt-get install swtpm, as ./test does")
    }

    fn try_start(state: &tempfile::TempDir) -> Option<(Child, u16)> {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let control = port.checked_add(1)?; // libtss2 expects it there
        TcpListener::bind(("127.0.0.1", control)).ok()?;
        let mut process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate", &format!("dir={}", state.path().display())])
            .args(["--server", &format!("type=tcp,bindaddr=127.0.0.1,port={port}")])
            .args(["--ctrl", &format!("type=tcp,bindaddr=127.0.0.1,port={control}")])
            .args(["--flags", "not-need-init,startup-clear"])
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let patience = Instant::now() + Duration::from_secs(60);
        while process.try_wait().ok()?.is_none() && Instant::now() < patience {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some((process, port));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = process.kill();
        let _ = process.wait();
        None
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Power off and on again.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let (process, port) = (0..50).find_map(|_| Self::try_start(&self.state)).expect("swtpm starts again");
        (self.process, self.port) = (process, port);
        self.tcti = format!("swtpm:host=127.0.0.1,port={port}");
    }

    pub(crate) fn tcti(&self) -> &str {
        &self.tcti
    }

    /// A command of TPM 2.0 part 3, with empty passwords for the first handle.
    pub(crate) fn command(&self, code: u32, handles: &[u32], parameters: &[u8]) {
        let handles = handles.iter().flat_map(|handle| handle.to_be_bytes()).collect::<Vec<_>>();
        let password = [0x4000_0009_u32.to_be_bytes().as_slice(), &[0, 0, 1, 0, 0]].concat();
        let body = [&code.to_be_bytes()[..], &handles, &9_u32.to_be_bytes(), &password, parameters].concat();
        self.send(0x8002, &body);
    }

    /// A command with its sessions, or with none (0x8001); what comes after the response code.
    fn send(&self, tag: u16, body: &[u8]) -> Vec<u8> {
        let size = body.len() as u32 + 6;
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("swtpm is there");
        stream.write_all(&[&tag.to_be_bytes()[..], &size.to_be_bytes(), body].concat()).unwrap();
        let mut head = [0; 10];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[6..], [0; 4], "command {:02x?} failed", &body[..4]);
        let size = u32::from_be_bytes(head[2..6].try_into().unwrap());
        let mut answer = vec![0; size as usize - head.len()];
        stream.read_exact(&mut answer).unwrap();
        answer
    }

    /// TPM2_PCR_Extend.
    fn extend(&self, pcr: u32) {
        self.command(0x182, &[pcr], &[&[0, 0, 0, 1, 0, 0x0b][..], &[1; 32]].concat());
    }

    /// TPM2_DictionaryAttackParameters: locks after `tries`, forgets one every 1,000 s.
    fn lock_after(&self, tries: u32) {
        let parameters = [tries, 1000, 1000].map(u32::to_be_bytes).concat();
        self.command(0x13a, &[0x4000_000a], &parameters);
    }

    /// TPM2_NV_ReadPublic: the TPMS_NV_PUBLIC of an index, as it was before it was written.
    pub(crate) fn index_as_made(&self, index: u32) -> Vec<u8> {
        let answer = self.send(0x8001, &[0x169_u32.to_be_bytes(), index.to_be_bytes()].concat());
        let size = usize::from(u16::from_be_bytes([answer[0], answer[1]]));
        let mut public = answer[2..2 + size].to_vec();
        public[6] &= !0x20; // TPMA_NV_WRITTEN, bit 29
        public
    }

    /// TPM2_NV_DefineSpace, as the owner, with an empty password.
    pub(crate) fn define_index(&self, public: &[u8]) {
        let size = (public.len() as u16).to_be_bytes();
        self.command(0x12a, &[0x4000_0001], &[&[0, 0], &size[..], public].concat());
    }

    /// TPM2_NV_UndefineSpace, as the owner.
    pub(crate) fn forget_index(&self, index: u32) {
        self.command(0x122, &[0x4000_0001, index], &[]);
    }

    /// TPM2_Clear.
    fn clear(&self) {
        self.command(0x126, &[0x4000_000a], &[]);
    }

    fn slot<'a>(&'a self, pin: Option<&'a str>) -> TpmSlot<'a> {
        TpmSlot { tcti: &self.tcti, pcrs: &PCRS, pin: pin.map(str::as_bytes), tries: Tries::Deliberate }
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sealed to registers and a PIN.
pub(crate) struct WithPin(Swtpm);

impl WithPin {
    pub(crate) fn new() -> Self {
        Self(Swtpm::start())
    }
}

impl Backend for WithPin {
    fn owner(&self) -> Box<dyn KeySlot + '_> {
        Box::new(self.0.slot(Some(PIN)))
    }

    fn stranger(&self, _: &Wrapped) -> (Box<dyn KeySlot + '_>, SlotError) {
        (Box::new(self.0.slot(Some(WRONG))), TpmError::WrongPin.into())
    }

    fn secrets(&self) -> Vec<String> {
        [PIN, WRONG].into_iter().flat_map(|pin| [pin.to_owned(), hex::encode(pin)]).collect()
    }
}

/// Sealed to registers alone: the machine opens it by itself.
pub(crate) struct WithoutPin(Swtpm);

impl WithoutPin {
    pub(crate) fn new() -> Self {
        Self(Swtpm::start())
    }
}

impl Backend for WithoutPin {
    fn owner(&self) -> Box<dyn KeySlot + '_> {
        Box::new(self.0.slot(None))
    }

    fn stranger(&self, _: &Wrapped) -> (Box<dyn KeySlot + '_>, SlotError) {
        self.0.extend(16); // other firmware
        (self.owner(), TpmError::PcrsDiffer(vec![16]).into())
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

fn wrapped(slot: &TpmSlot<'_>) -> Wrapped {
    slot.wrap(&binding(slot), &KEY).expect("wraps")
}

fn try_open(slot: TpmSlot<'_>, wrapped: &Wrapped) -> Result<[u8; 32], SlotError> {
    opened(&slot, &binding(&slot), wrapped)
}

#[test]
#[ignore = "needs swtpm: hsm/tests/run"]
fn wrong_pins_end_before_the_lock_out_and_those_from_a_file_half_way() {
    let tpm = Swtpm::start();
    tpm.lock_after(5);
    let by_itself = |pin| TpmSlot { tries: Tries::Automatic, ..tpm.slot(Some(pin)) };
    let sealed = wrapped(&tpm.slot(Some(PIN)));
    let unattended = wrapped(&tpm.slot(None));
    for _ in 0..3 {
        assert_eq!(try_open(by_itself(PIN), &sealed), Ok(KEY));
        assert_eq!(try_open(by_itself(WRONG), &sealed), Err(TpmError::WrongPin.into()));
    }
    for pin in [PIN, WRONG] {
        assert_eq!(try_open(by_itself(pin), &sealed), Err(TpmError::TriesLow { failed: 3, limit: 5 }.into()));
    }
    assert_eq!(try_open(tpm.slot(Some(PIN)), &sealed), Ok(KEY), "a person may go on");
    assert_eq!(try_open(tpm.slot(Some(WRONG)), &sealed), Err(TpmError::WrongPin.into()));
    for _ in 0..3 {
        assert_eq!(try_open(tpm.slot(Some(WRONG)), &sealed), Err(TpmError::FinalTry.into()));
    }
    assert_eq!(try_open(tpm.slot(None), &sealed), Err(TpmError::PinMissing.into()));
    tpm.lock_after(4); // as many as were wrong
    assert_eq!(try_open(tpm.slot(Some(PIN)), &sealed), Err(TpmError::LockedOut { recovery_s: 1000 }.into()));
    assert_eq!(tpm.slot(None).health(&sealed), Err(TpmError::LockedOut { recovery_s: 1000 }.into()));
    assert_eq!(try_open(tpm.slot(None), &unattended), Ok(KEY), "a lock-out is about PINs");
}

#[test]
#[ignore = "needs swtpm: hsm/tests/run"]
fn keys_and_sessions_are_flushed_whatever_happens() {
    // Without a resource manager there is room for three of each.
    let tpm = Swtpm::start();
    tpm.lock_after(1000);
    let sealed = wrapped(&tpm.slot(Some(PIN)));
    for _ in 0..5 {
        assert_eq!(try_open(tpm.slot(Some(PIN)), &sealed), Ok(KEY));
        assert_eq!(try_open(tpm.slot(Some(WRONG)), &sealed), Err(TpmError::WrongPin.into()));
        assert_eq!(tpm.slot(None).health(&sealed), Ok(()));
        wrapped(&tpm.slot(Some(PIN)));
    }
    tpm.extend(16);
    for _ in 0..5 {
        assert_eq!(try_open(tpm.slot(Some(PIN)), &sealed), Err(TpmError::PcrsDiffer(vec![16]).into()));
    }
}

#[test]
#[ignore = "needs swtpm: hsm/tests/run"]
fn after_a_firmware_update_another_slot_opens_and_the_tpms_is_resealed() {
    let mut tpm = Swtpm::start();
    let offline = PassphraseSlot { passphrase: b"kept in a safe", cost: crate::QUICK };
    let mut envelope = Envelope::create(&KEY, &offline).expect("created");
    assert_eq!(envelope.add(&KEY, &tpm.slot(None)), Ok(2));
    tpm.restart();
    tpm.extend(16);
    // The record knows the first port, the machine has moved to another: only the tests do that.
    let mut key = [0; 32];
    let error = envelope.open(&tpm.slot(None), Some(2), &mut key);
    assert!(matches!(error, Err(EnvelopeError::Slot(SlotError::Tpm(TpmError::Away(_))))), "{error:?}");
    assert_eq!(envelope.open(&offline, None, &mut key), Ok(1));
    assert_eq!(envelope.rewrap(2, &key, &tpm.slot(None)), Ok(()));
    assert_eq!(envelope.open(&tpm.slot(None), Some(2), &mut [0; 32]), Ok(2));
    tpm.extend(7);
    let differs = EnvelopeError::Slot(TpmError::PcrsDiffer(vec![7]).into());
    assert_eq!(envelope.open(&tpm.slot(None), Some(2), &mut [0; 32]), Err(differs.clone()));
    assert!(differs.hint().contains("claviger slots reseal"));
    assert_eq!(envelope.rewrap(2, &key, &tpm.slot(None)), Ok(()));
    assert_eq!(envelope.open(&tpm.slot(None), Some(2), &mut [0; 32]), Ok(2));
}

#[test]
#[ignore = "needs swtpm: hsm/tests/run"]
fn another_a_cleared_and_a_missing_tpm_are_named() {
    let mut tpm = Swtpm::start();
    let sealed = wrapped(&tpm.slot(None));
    let elsewhere = Swtpm::start();
    let mut moved = serde_json::to_value(&sealed).unwrap();
    moved["tcti"] = elsewhere.tcti().into();
    let moved = serde_json::from_value(moved).unwrap();
    let other = |tpm: &Swtpm| Err(TpmError::OtherTpm(tpm.tcti().to_owned()).into());
    assert_eq!(try_open(elsewhere.slot(None), &moved), other(&elsewhere));
    tpm.clear();
    assert_eq!(try_open(tpm.slot(None), &sealed), other(&tpm));
    assert_eq!(tpm.slot(None).health(&sealed).map(|()| KEY), other(&tpm));
    tpm.stop();
    let error = try_open(tpm.slot(None), &sealed).expect_err("it is gone");
    assert_eq!(error, TpmError::Away(tpm.tcti().to_owned()).into());
    silent(&WithoutPin(tpm), &format!("{error:?} {}", error.hint()));
}

#[test]
#[ignore = "needs swtpm: hsm/tests/run"]
fn what_is_no_tpm_and_what_would_bind_nothing_is_refused() {
    let tpm = Swtpm::start();
    let wrap = |slot: TpmSlot<'_>| slot.wrap(&binding(&slot), &KEY).map(drop);
    for tcti in ["", "/dev/tpmrm0", "device", "cmd:reboot", "swtpm:host=a b", "tabrmd:", "device:\0"] {
        let refused = Err(TpmError::BadTcti(tcti.to_owned()).into());
        assert_eq!(wrap(TpmSlot { tcti, ..tpm.slot(None) }), refused, "{tcti}");
    }
    assert_eq!(
        wrap(TpmSlot { tcti: "device:/dev/null0", ..tpm.slot(None) }),
        Err(TpmError::Away("device:/dev/null0".into()).into())
    );
    assert_eq!(wrap(TpmSlot { pcrs: &[24], ..tpm.slot(None) }), Err(TpmError::NoPcr(24).into()));
    let nothing = SlotError::Parameters("choice of neither registers nor a PIN".into());
    assert_eq!(wrap(TpmSlot { pcrs: &[], ..tpm.slot(None) }), Err(nothing));
    assert_eq!(wrap(TpmSlot { pcrs: &[], ..tpm.slot(Some(PIN)) }), Ok(()));
    for pin in ["", "123456789012345678901234567890123", "1\0"] {
        assert_eq!(wrap(tpm.slot(Some(pin))), Err(SlotError::Parameters("length of the PIN".into())));
    }
}
