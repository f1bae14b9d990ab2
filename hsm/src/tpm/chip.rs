//! One conversation with a TPM. Its keys and sessions are flushed when it ends, however it ends.

use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use tss_esapi::attributes::{ObjectAttributesBuilder, SessionAttributesBuilder};
use tss_esapi::constants::{PropertyTag, SessionType, Tss2ResponseCodeKind as Code};
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Auth, Digest, EccPoint, KeyedHashScheme, PcrSelectionList, PcrSlot, Private, Public, PublicBuilder,
    PublicEccParametersBuilder, PublicKeyedHashParameters, SensitiveData, SymmetricDefinition,
    SymmetricDefinitionObject,
};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::traits::{Marshall, UnMarshall};
use tss_esapi::{Context, Error};
use zeroize::Zeroizing;

use super::{MAX_PIN_LEN, Pcr, Record, TpmError, TpmSlot};
use crate::kek::{Sealed, random};
use crate::slot::{Binding, KeySlot, SlotError, SlotKind, Tries, Wrapped};

pub(super) const SHA256: HashingAlgorithm = HashingAlgorithm::Sha256;
/// Of `TPM_PT_PERMANENT`: the TPM is in lock-out (TPM 2.0 part 2, 8.6).
const IN_LOCKOUT: u32 = 1 << 9;

impl KeySlot for TpmSlot<'_> {
    fn kind(&self) -> SlotKind {
        SlotKind::Tpm
    }

    /// Needs the machine in the state that it shall be in when the slot is opened.
    fn wrap(&self, binding: &Binding, data_key: &[u8; 32]) -> Result<Wrapped, SlotError> {
        if self.pcrs.is_empty() && self.pin.is_none() {
            return Err(SlotError::Parameters("choice of neither registers nor a PIN".into()));
        }
        let pin = self.pin.map(auth_value).transpose()?;
        let mut chip = Chip::connect(self.tcti)?;
        let (parent, name) = chip.storage_key()?;
        let pcrs = chip.read(self.pcrs)?;
        let trial = chip.policy(SessionType::Trial, parent, &pcrs, pin.is_some())?;
        let policy = chip.asked("compute the policy", |tpm| tpm.policy_get_digest(trial))?;
        let template = chip.made(sealed_object(policy, pin.is_some()))?;
        let kek = Zeroizing::new(random::<32>());
        let secret = chip.made(SensitiveData::try_from(&kek[..]))?;
        let session = chip.session(SessionType::Hmac, parent)?;
        let created = chip.asked("seal", |tpm| {
            tpm.execute_with_session(Some(session), |tpm| tpm.create(parent, template, pin, Some(secret), None, None))
        })?;
        Ok(Wrapped::Tpm(Record {
            tcti: self.tcti.to_owned(),
            parent: name,
            pin: self.pin.is_some(),
            pcrs,
            public: chip.made(created.out_public.marshall())?,
            private: created.out_private.value().to_vec(),
            sealed: Sealed::seal(&kek, binding, data_key),
        }))
    }

    fn unwrap(&self, binding: &Binding, wrapped: &Wrapped, data_key: &mut [u8; 32]) -> Result<(), SlotError> {
        let Wrapped::Tpm(record) = wrapped else { return Err(SlotError::OtherKind(wrapped.kind())) };
        let pin = if record.pin { Some(auth_value(self.pin.ok_or(TpmError::PinMissing)?)?) } else { None };
        let mut chip = Chip::connect(&record.tcti)?;
        let parent = chip.judge(record, self.tries)?;
        let (public, private) = (Public::unmarshall(&record.public), Private::try_from(&record.private[..]));
        let (Ok(public), Ok(private)) = (public, private) else { return Err(TpmError::Altered.into()) };
        let object = chip.asked("load the sealed key", |tpm| {
            tpm.execute_with_nullauth_session(|tpm| tpm.load(parent, private, public))
        })?;
        let session = chip.policy(SessionType::Policy, parent, &record.pcrs, record.pin)?;
        if let Some(pin) = pin {
            chip.asked("take the PIN", |tpm| tpm.tr_set_auth(object.into(), pin))?;
        }
        let kek = chip.asked("unseal", |tpm| {
            tpm.execute_with_session(Some(AuthSession::PolicySession(session)), |tpm| tpm.unseal(object.into()))
        })?;
        let kek = Zeroizing::new(<[u8; 32]>::try_from(kek.value()).map_err(|_| TpmError::Altered)?);
        record.sealed.open(&kek, binding, data_key)
    }

    fn health(&self, wrapped: &Wrapped) -> Result<(), SlotError> {
        let Wrapped::Tpm(record) = wrapped else { return Err(SlotError::OtherKind(wrapped.kind())) };
        Ok(Chip::connect(&record.tcti)?.judge(record, Tries::Deliberate).map(drop)?)
    }
}

/// An authorisation value of the TPM's, which knows no NUL at the end.
fn auth_value(pin: &[u8]) -> Result<Auth, SlotError> {
    let fits = (1..=MAX_PIN_LEN).contains(&pin.len()) && !pin.ends_with(&[0]);
    fits.then(|| Auth::try_from(pin).ok()).flatten().ok_or(SlotError::Parameters("length of the PIN".into()))
}

/// A connection. Dropping the context flushes every key and session that was made in it.
pub(super) struct Chip<'a> {
    tpm: Context,
    tcti: &'a str,
}

impl<'a> Chip<'a> {
    pub(super) fn connect(tcti: &'a str) -> Result<Self, TpmError> {
        let named = (tcti.starts_with("device:/") || tcti.starts_with("swtpm:"))
            .then(|| TctiNameConf::from_str(tcti).ok())
            .flatten()
            .ok_or_else(|| TpmError::BadTcti(tcti.to_owned()))?;
        let tpm = Context::new(named).map_err(|_| TpmError::Away(tcti.to_owned()))?;
        Ok(Self { tpm, tcti })
    }

    /// Asks the TPM for something, and names what went wrong.
    pub(super) fn asked<T>(
        &mut self,
        operation: &'static str,
        ask: impl FnOnce(&mut Context) -> Result<T, Error>,
    ) -> Result<T, TpmError> {
        let error = match ask(&mut self.tpm) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let failed =
            TpmError::Failed { tcti: self.tcti.to_owned(), operation: operation.into(), code: error.to_string() };
        let Error::Tss2Error(code) = error else { return Err(failed) };
        Err(match code.kind() {
            // Not of the TPM's codes: what carries them failed.
            None => TpmError::Away(self.tcti.to_owned()),
            Some(Code::AuthFail) => TpmError::WrongPin,
            // They changed since they were read.
            Some(Code::PolicyFail | Code::PcrChanged | Code::Value)
                if ["unseal", "check its registers"].contains(&operation) =>
            {
                TpmError::PcrsDiffer(Vec::new())
            }
            Some(Code::Lockout) => TpmError::LockedOut { recovery_s: self.property(PropertyTag::LockoutInterval)? },
            Some(Code::BadAuth | Code::AuthMissing) => TpmError::OwnerPassword,
            Some(Code::Integrity | Code::Size | Code::Type | Code::Attributes | Code::Hash)
                if operation == "load the sealed key" =>
            {
                TpmError::Altered
            }
            Some(
                Code::SessionMemory | Code::SessionHandles | Code::ObjectMemory | Code::ObjectHandles | Code::Memory,
            ) => TpmError::Full(self.tcti.to_owned()),
            Some(_) => failed,
        })
    }

    /// What could be built from our own values.
    pub(super) fn made<T>(&mut self, built: Result<T, Error>) -> Result<T, TpmError> {
        self.asked("take its parameters", |_| built)
    }

    /// The storage key of the owner hierarchy, made from the TPM's seed: always the same one. And its name.
    pub(super) fn storage_key(&mut self) -> Result<(KeyHandle, [u8; 34]), TpmError> {
        let template = self.made(storage_template())?;
        let created = self.asked("make its storage key", |tpm| {
            tpm.execute_with_nullauth_session(|tpm| {
                tpm.create_primary(Hierarchy::Owner, template, None, None, None, None)
            })
        })?;
        let name = self.asked("name its storage key", |tpm| tpm.tr_get_name(created.key_handle.into()))?;
        let name = <[u8; 34]>::try_from(name.value()).map_err(|_| TpmError::OtherTpm(self.tcti.to_owned()))?;
        Ok((created.key_handle, name))
    }

    /// The storage key, if this TPM can open `record` now and trying a PIN is safe.
    fn judge(&mut self, record: &Record, tries: Tries) -> Result<KeyHandle, TpmError> {
        let (parent, name) = self.storage_key()?;
        if name != record.parent {
            return Err(TpmError::OtherTpm(self.tcti.to_owned()));
        }
        let now = self.read(&record.pcrs())?;
        let changed = now.iter().zip(&record.pcrs).filter(|(now, then)| now != then);
        let changed: Vec<_> = changed.map(|(now, _)| now.index).collect();
        if !changed.is_empty() {
            return Err(TpmError::PcrsDiffer(changed));
        }
        if record.pin {
            self.judge_tries(tries)?;
        }
        Ok(parent)
    }

    /// Refuses a try that could lock the TPM. Its counter is one for all its users, and only time counts it down.
    fn judge_tries(&mut self, tries: Tries) -> Result<(), TpmError> {
        let failed = self.property(PropertyTag::LockoutCounter)?;
        let limit = self.property(PropertyTag::MaxAuthFail)?;
        if self.property(PropertyTag::Permanent)? & IN_LOCKOUT != 0 || failed >= limit {
            Err(TpmError::LockedOut { recovery_s: self.property(PropertyTag::LockoutInterval)? })
        } else if failed + 1 == limit && failed > 0 {
            Err(TpmError::FinalTry)
        } else if tries == Tries::Automatic && failed >= limit.div_ceil(2) {
            Err(TpmError::TriesLow { failed, limit })
        } else {
            Ok(())
        }
    }

    fn property(&mut self, property: PropertyTag) -> Result<u32, TpmError> {
        self.asked("tell its properties", |tpm| tpm.get_tpm_property(property)).map(Option::unwrap_or_default)
    }

    /// The present values of registers, in the order of their numbers.
    fn read(&mut self, pcrs: &[u8]) -> Result<Vec<Pcr>, TpmError> {
        let mut indices = pcrs.to_vec();
        indices.sort_unstable();
        indices.dedup();
        let mut values = Vec::new();
        for index in indices {
            let selection = selection(&[index])?;
            let (_, _, digests) = self.asked("read its registers", |tpm| tpm.pcr_read(selection))?;
            let value = digests.value().first().and_then(|digest| <[u8; 32]>::try_from(digest.value()).ok());
            values.push(Pcr { index, value: value.ok_or(TpmError::NoPcr(index))? });
        }
        Ok(values)
    }

    /// A session in which what matters travels encrypted, under a secret that only this TPM can learn.
    pub(super) fn session(&mut self, kind: SessionType, parent: KeyHandle) -> Result<AuthSession, TpmError> {
        let started = self.asked("start a session", |tpm| {
            tpm.start_auth_session(Some(parent), None, None, kind, SymmetricDefinition::AES_128_CFB, SHA256)
        })?;
        let session = started.ok_or_else(|| TpmError::Full(self.tcti.to_owned()))?;
        if kind != SessionType::Trial {
            let (attributes, mask) =
                SessionAttributesBuilder::new().with_decrypt(kind == SessionType::Hmac).with_encrypt(true).build();
            self.asked("encrypt the session", |tpm| tpm.tr_sess_set_attributes(session, attributes, mask))?;
        }
        Ok(session)
    }

    /// A session under the policy: these values in these registers, and the PIN.
    fn policy(
        &mut self,
        kind: SessionType,
        parent: KeyHandle,
        pcrs: &[Pcr],
        pin: bool,
    ) -> Result<PolicySession, TpmError> {
        let session = self.session(kind, parent)?;
        let session = self.made(PolicySession::try_from(session))?;
        if !pcrs.is_empty() {
            let selection = selection(&pcrs.iter().map(|pcr| pcr.index).collect::<Vec<_>>())?;
            let values = pcrs.iter().fold(Sha256::new(), |hash, pcr| hash.chain_update(pcr.value)).finalize();
            let values = self.made(Digest::try_from(&values[..]))?;
            self.asked("check its registers", |tpm| tpm.policy_pcr(session, values, selection))?;
        }
        if pin {
            self.asked("ask for the PIN", |tpm| tpm.policy_auth_value(session))?;
        }
        Ok(session)
    }
}

fn selection(pcrs: &[u8]) -> Result<PcrSelectionList, TpmError> {
    let slot = |index: &u8| {
        let bit = 1u32.checked_shl((*index).into()).filter(|_| *index < 24); // as PC clients have
        bit.and_then(|bit| PcrSlot::try_from(bit).ok()).ok_or(TpmError::NoPcr(*index))
    };
    let slots = pcrs.iter().map(slot).collect::<Result<Vec<_>, _>>()?;
    PcrSelectionList::builder().with_selection(SHA256, &slots).build().map_err(|_| TpmError::Altered)
}

/// The TCG's template of a storage key over P-256 (TCG EK credential profile and TPM provisioning guidance).
fn storage_template() -> Result<Public, Error> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()?;
    let aes = SymmetricDefinitionObject::AES_128_CFB;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(SHA256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(
            PublicEccParametersBuilder::new_restricted_decryption_key(aes, EccCurve::NistP256).build()?,
        )
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

/// A sealed object that opens by its policy alone. Wrong PINs count; without a PIN nothing counts, so that others' wrong
/// tries do not keep the machine from unsealing.
fn sealed_object(policy: Digest, pin: bool) -> Result<Public, Error> {
    let attributes =
        ObjectAttributesBuilder::new().with_fixed_tpm(true).with_fixed_parent(true).with_no_da(!pin).build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(SHA256)
        .with_object_attributes(attributes)
        .with_auth_policy(policy)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
}
