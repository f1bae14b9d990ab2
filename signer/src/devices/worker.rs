//! One task for one device, in a process that ends with it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use claviger_hsm::{
    Absent, DeviceKey, DeviceKeyError, HelperSlot, KeyKind, KeySlot, Pkcs11Key, Pkcs11Slot, SlotError, TpmKey, TpmSlot,
    Tries, Wrapped,
};
use zeroize::Zeroizing;

use super::broker::Known;
use super::talk::{Answer, NewKey, Step, Task, receive, send};
use crate::keys::memory::scrubbed;

/// Does the task that comes through stdin with one of the devices of `known`, and answers there.
pub fn worker(known: &str) -> io::Result<()> {
    let known: Known = serde_json::from_str(known)?;
    let mut signer = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let task = receive(&mut signer)?;
    end_with(signer.try_clone()?)?;
    let answer = scrubbed(|| done(&known, task));
    send(&mut signer, &answer)
}

/// Ends this process when nobody waits for its answer any more, whatever the device does.
fn end_with(mut signer: UnixStream) -> io::Result<()> {
    thread::Builder::new().spawn(move || {
        let _ = io::copy(&mut signer, &mut io::sink()); // until the other end is closed
        std::process::exit(1);
    })?;
    Ok(())
}

fn done(known: &Known, task: Task) -> Answer {
    match task {
        Task::Unwrap { wrapped, .. } if !known.has(&wrapped) => Answer::Slot(Absent::Unknown.into()),
        Task::Unwrap { binding, wrapped, pin, tries } => {
            let (pin, tries) = (pin.as_ref().map(|pin| pin.0.as_slice()), tries.unwrap_or(Tries::Automatic));
            let mut key = Zeroizing::new([0; 32]);
            let unwrapped = match &wrapped {
                Wrapped::Helper(_) => HelperSlot::STORED.unwrap(&binding, &wrapped, &mut key),
                Wrapped::Pkcs11(_) => {
                    Pkcs11Slot::stored(pin.unwrap_or_default(), tries).unwrap(&binding, &wrapped, &mut key)
                }
                Wrapped::Tpm(_) => TpmSlot::stored(pin, tries).unwrap(&binding, &wrapped, &mut key),
                other => Err(SlotError::OtherKind(other.kind())),
            };
            unwrapped.map_or_else(Answer::Slot, |()| Answer::Key(*key))
        }
        Task::Count { tcti, .. } if !known.has_tpm(&tcti) => Answer::Counter(Absent::Unknown.into()),
        Task::Count { tcti, step } => count(&tcti, step),
        Task::MakeKey { new, .. } if !known.has_home(&new) => Answer::DeviceKey(Absent::Unknown.into()),
        Task::Sign { key, .. } if !known.has_key(&key) => Answer::DeviceKey(Absent::Unknown.into()),
        Task::MakeKey { new, pin } => {
            let pin = pin.as_ref().map(|pin| pin.0.as_slice()).unwrap_or_default();
            let made = match &new {
                NewKey::Tpm { tcti } => TpmKey { tcti }.create(),
                NewKey::Pkcs11 { module, token, curve } => {
                    Pkcs11Key { module, token, curve: *curve, pin, tries: Tries::Automatic }.create()
                }
            };
            made.map_or_else(Answer::DeviceKey, Answer::Made)
        }
        Task::Sign { key, pin, message } => {
            let pin = pin.as_ref().map(|pin| pin.0.as_slice()).unwrap_or_default();
            let curve = key.public.curve();
            let token = Pkcs11Key { module: Path::new(""), token: "", curve, pin, tries: Tries::Automatic };
            let signed = match key.kind() {
                KeyKind::Software => Err(DeviceKeyError::OtherKind(KeyKind::Software)),
                KeyKind::Tpm => TpmKey { tcti: "" }.sign(&key, &message),
                KeyKind::Pkcs11 => token.sign(&key, &message),
            };
            signed.map_or_else(Answer::DeviceKey, Answer::Signature)
        }
    }
}

#[cfg(feature = "tpm")]
fn count(tcti: &str, step: Step) -> Answer {
    use claviger_hsm::Counter;
    use claviger_hsm::tpm::{DEFAULT_INDEX, TpmCounter};
    let counter = TpmCounter { tcti, index: DEFAULT_INDEX };
    let reading = match step {
        Step::Create => counter.create(),
        Step::Read => counter.read(),
        Step::Increment => counter.increment(),
    };
    reading.map_or_else(Answer::Counter, Answer::Reading)
}

#[cfg(not(feature = "tpm"))]
fn count(_: &str, _: Step) -> Answer {
    Answer::Counter(Absent::Unknown.into()) // refused at the start
}
