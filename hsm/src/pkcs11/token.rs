//! One conversation with a token: load, log in, work, log out, unload. Nothing stays logged in after it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use zeroize::Zeroizing;

use super::{Pkcs11Error, Pkcs11Slot, Record};
use crate::kek::{Sealed, random};
use crate::slot::{Binding, KeySlot, SlotError, SlotKind, Tries, Wrapped};

const KEY_LABEL: &[u8] = b"claviger";
/// A module belongs to the process, not to a caller: one conversation at a time.
static TALKING: Mutex<()> = Mutex::new(());

impl KeySlot for Pkcs11Slot<'_> {
    fn kind(&self) -> SlotKind {
        SlotKind::Pkcs11
    }

    fn wrap(&self, binding: &Binding, data_key: &[u8; 32]) -> Result<Wrapped, SlotError> {
        let kek = Zeroizing::new(random::<32>());
        let mut iv = random::<12>();
        let wrapped_kek = self.with_session(self.module, self.token, None, |session, token| {
            let key = match find(session, &binding.installation)? {
                Some(key) => key,
                None => generate(session, &binding.installation)?,
            };
            let associated = binding.associated_data();
            let gcm = Mechanism::AesGcm(GcmParams::new(&mut iv, &associated, 128.into())?);
            Ok((session.encrypt(&gcm, key, &*kek)?, token.serial_number().to_owned()))
        });
        let (wrapped_kek, serial) = wrapped_kek?;
        let unusable = || self.failed(self.token, "C_Encrypt", "a wrapped key of another length");
        Ok(Wrapped::Pkcs11(Record {
            module: self.module.to_owned(),
            token: self.token.to_owned(),
            serial,
            key_id: binding.installation,
            iv,
            wrapped_kek: wrapped_kek.try_into().map_err(|_| unusable())?,
            sealed: Sealed::seal(&kek, binding, data_key),
        }))
    }

    fn unwrap(&self, binding: &Binding, wrapped: &Wrapped, data_key: &mut [u8; 32]) -> Result<(), SlotError> {
        let Wrapped::Pkcs11(record) = wrapped else { return Err(SlotError::OtherKind(wrapped.kind())) };
        let mut iv = record.iv;
        let kek = self.with_session(&record.module, &record.token, Some(&record.serial), |session, _| {
            let key = find(session, &record.key_id)?.ok_or(Failure::NoKey)?;
            let associated = binding.associated_data();
            let gcm = Mechanism::AesGcm(GcmParams::new(&mut iv, &associated, 128.into())?);
            // Tokens have many words for a tag that does not match, and none to rely on.
            session.decrypt(&gcm, key, &record.wrapped_kek).map(Zeroizing::new).map_err(Failure::of_decryption)
        })?;
        let kek = Zeroizing::new(<[u8; 32]>::try_from(&kek[..]).map_err(|_| SlotError::WrongSecret)?);
        record.sealed.open(&kek, binding, data_key)
    }

    fn health(&self, wrapped: &Wrapped) -> Result<(), SlotError> {
        let Wrapped::Pkcs11(record) = wrapped else { return Err(SlotError::OtherKind(wrapped.kind())) };
        self.with_token(&record.module, &record.token, Some(&record.serial), |_, _, info| {
            judge_pin(info, Tries::Deliberate)
        })
    }
}

/// Why the work inside a session ended.
pub(super) enum Failure {
    Token(Error),
    WrongSecret,
    NoKey,
    Pin(fn(String) -> Pkcs11Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Token(error)
    }
}

impl Failure {
    fn of_decryption(error: Error) -> Self {
        match error {
            Error::Pkcs11(RvError::DeviceRemoved | RvError::TokenNotPresent | RvError::DeviceError, _) => {
                Self::Token(error)
            }
            _ => Self::WrongSecret,
        }
    }
}

impl Pkcs11Slot<'_> {
    /// Runs `work` in a session that is logged in with the PIN, unless trying the PIN is not safe.
    pub(super) fn with_session<R>(
        &self,
        module: &Path,
        token: &str,
        serial: Option<&str>,
        work: impl FnOnce(&Session, &TokenInfo) -> Result<R, Failure>,
    ) -> Result<R, SlotError> {
        self.with_token(module, token, serial, |context, slot, info| {
            judge_pin(info, self.tries)?;
            let session = context.open_rw_session(slot)?;
            let pin = RawAuthPin::new(Box::new(self.pin.to_vec()));
            session.login_with_raw(UserType::User, &pin).map_err(|error| match error {
                Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _) => {
                    Failure::Pin(Pkcs11Error::WrongPin)
                }
                Error::Pkcs11(RvError::PinLocked, _) => Failure::Pin(Pkcs11Error::PinLocked),
                error => Failure::Token(error),
            })?;
            let result = work(&session, info);
            let _ = session.logout(); // unloading does it too
            result
        })
    }

    /// Runs `work` on the token of this label and serial number.
    fn with_token<R>(
        &self,
        module: &Path,
        label: &str,
        serial: Option<&str>,
        work: impl FnOnce(&Pkcs11, Slot, &TokenInfo) -> Result<R, Failure>,
    ) -> Result<R, SlotError> {
        let _talking = TALKING.lock().unwrap_or_else(PoisonError::into_inner); // it guards no data
        let unusable = |_| SlotError::from(Pkcs11Error::Module(PathBuf::from(module)));
        if !module.is_absolute() {
            return Err(Pkcs11Error::Module(module.to_owned()).into());
        }
        let context = Pkcs11::new(module).map_err(unusable)?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(unusable(error)),
        }
        let result = find_token(&context, label, serial).and_then(|found| match found[..] {
            [] => Err(Failure::Pin(Pkcs11Error::NoToken)),
            [(slot, ref info)] => work(&context, slot, info),
            _ => Err(Failure::Pin(Pkcs11Error::SeveralTokens)),
        });
        let _ = context.finalize(); // there is nothing to do if it refuses
        result.map_err(|failure| match failure {
            Failure::WrongSecret => SlotError::WrongSecret,
            Failure::NoKey => Pkcs11Error::NoKey(label.to_owned()).into(),
            Failure::Pin(error) => error(label.to_owned()).into(),
            Failure::Token(Error::Pkcs11(RvError::DeviceRemoved | RvError::TokenNotPresent, _)) => {
                Pkcs11Error::NoToken(label.to_owned()).into()
            }
            Failure::Token(Error::Pkcs11(code, function)) => {
                self.failed(label, &function.to_string(), &format!("{code:?}"))
            }
            Failure::Token(_) => self.failed(label, "the module", "something unexpected"),
        })
    }

    fn failed(&self, token: &str, function: &str, code: &str) -> SlotError {
        Pkcs11Error::Failed { token: token.to_owned(), function: function.to_owned(), code: code.to_owned() }.into()
    }
}

fn find_token(context: &Pkcs11, label: &str, serial: Option<&str>) -> Result<Vec<(Slot, TokenInfo)>, Failure> {
    let mut found = Vec::new();
    for slot in context.get_slots_with_token()? {
        // One that cannot be read is not the one.
        let Ok(info) = context.get_token_info(slot) else { continue };
        if info.label() == label && serial.is_none_or(|serial| info.serial_number() == serial) {
            found.push((slot, info));
        }
    }
    Ok(found)
}

/// Refuses a try that could lock the token.
fn judge_pin(info: &TokenInfo, tries: Tries) -> Result<(), Failure> {
    if info.user_pin_locked() {
        Err(Failure::Pin(Pkcs11Error::PinLocked))
    } else if info.user_pin_final_try() {
        Err(Failure::Pin(Pkcs11Error::FinalTry))
    } else if info.user_pin_count_low() && tries == Tries::Automatic {
        Err(Failure::Pin(Pkcs11Error::PinCountLow))
    } else {
        Ok(())
    }
}

fn find(session: &Session, key_id: &[u8; 16]) -> Result<Option<ObjectHandle>, Failure> {
    let wanted = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::Id(key_id.to_vec()),
        Attribute::Label(KEY_LABEL.to_vec()),
    ];
    Ok(session.find_objects(&wanted)?.into_iter().next())
}

/// A new AES key that the token never tells.
fn generate(session: &Session, key_id: &[u8; 16]) -> Result<ObjectHandle, Failure> {
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(32.into()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Id(key_id.to_vec()),
        Attribute::Label(KEY_LABEL.to_vec()),
    ];
    Ok(session.generate_key(&Mechanism::AesKeyGen, &template)?)
}
