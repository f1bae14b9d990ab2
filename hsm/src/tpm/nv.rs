//! A counter in the TPM's non-volatile memory. A TPM begins each new counter above every counter that it ever had (TPM 2.0
//! part 1, NV counters): deleting one and making it anew sets nothing back, and its random policy makes it another one.

use sha2::{Digest as _, Sha256};
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::{NvIndexType, SessionType, Tss2ResponseCodeKind as Code};
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle};
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::structures::{Digest, NvPublic};
use tss_esapi::{Context, Error};

use super::chip::{Chip, SHA256};
use crate::counter::{Counter, CounterError, Reading};
use crate::kek::random;

/// A counter at an index of the TPM's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TpmCounter<'a> {
    /// How to reach the TPM.
    pub tcti: &'a str,
    /// The NV index, of those that are the owner's: 0x0180_0000 to 0x01BF_FFFF.
    pub index: u32,
}

/// An index in the range that is the owner's to give away.
pub const DEFAULT_INDEX: u32 = 0x0180_C1A0;

impl Counter for TpmCounter<'_> {
    fn create(&self) -> Result<Reading, CounterError> {
        let mut chip = Chip::connect(self.tcti)?;
        let template = chip.made(self.template())?;
        self.asked(&mut chip, "make a counter", |tpm| {
            tpm.execute_with_nullauth_session(|tpm| tpm.nv_define_space(Provision::Owner, None, template.clone()))
        })?;
        // It can be read from its first increment on.
        self.step(&mut chip, true)
    }

    fn read(&self) -> Result<Reading, CounterError> {
        self.step(&mut Chip::connect(self.tcti)?, false)
    }

    fn increment(&self) -> Result<Reading, CounterError> {
        self.step(&mut Chip::connect(self.tcti)?, true)
    }
}

impl TpmCounter<'_> {
    fn place(&self) -> String {
        format!("{}, NV index {:#010x}", self.tcti, self.index)
    }

    /// Increments it if that is wanted, and reads it, in a session whose answers only this TPM can make.
    fn step(&self, chip: &mut Chip<'_>, increment: bool) -> Result<Reading, CounterError> {
        let (parent, machine) = chip.storage_key()?;
        let session = chip.session(SessionType::Hmac, parent)?;
        let handle = chip.made(NvIndexTpmHandle::new(self.index))?;
        let handle = self.asked(chip, "find the counter", |tpm| {
            tpm.execute_without_session(|tpm| tpm.tr_from_tpm_public(handle.into()))
        })?;
        let handle = NvIndexHandle::from(handle);
        let (public, _) = self.asked(chip, "describe the counter", |tpm| {
            tpm.execute_with_session(Some(session), |tpm| tpm.nv_read_public(handle))
        })?;
        if public.attributes().index_type() != Ok(NvIndexType::Counter) || public.authorization_policy().len() != 32 {
            return Err(CounterError::Damaged(self.place()));
        }
        // The policy was drawn when the counter was made; the storage key is the machine's.
        let id = Sha256::new().chain_update(machine).chain_update(public.authorization_policy().value()).finalize();
        let session = Some(session);
        if increment {
            self.asked(chip, "increment the counter", |tpm| {
                tpm.execute_with_session(session, |tpm| tpm.nv_increment(NvAuth::NvIndex(handle), handle))
            })?;
        }
        let value = self.asked(chip, "read the counter", |tpm| {
            tpm.execute_with_session(session, |tpm| tpm.nv_read(NvAuth::NvIndex(handle), handle, 8, 0))
        })?;
        let value = <[u8; 8]>::try_from(value.value()).map_err(|_| CounterError::Damaged(self.place()))?;
        let mut reading = Reading { id: [0; 16], value: u64::from_be_bytes(value) };
        reading.id.copy_from_slice(&id[..16]);
        Ok(reading)
    }

    /// Asks, and names what is about the counter rather than the TPM.
    fn asked<T>(
        &self,
        chip: &mut Chip<'_>,
        operation: &'static str,
        mut ask: impl FnMut(&mut Context) -> Result<T, Error>,
    ) -> Result<T, CounterError> {
        let mut named = None;
        let result = chip.asked(operation, |tpm| {
            ask(tpm).inspect_err(|error| {
                let Error::Tss2Error(code) = error else { return };
                named = match code.kind() {
                    Some(Code::Handle | Code::NvUninitialized) => Some(CounterError::Missing(self.place())),
                    Some(Code::NvDefined) => Some(CounterError::Exists(self.place())),
                    Some(Code::NvRate) => Some(CounterError::TooFast(self.place())),
                    _ => None,
                };
            })
        });
        result.map_err(|error| named.unwrap_or(error.into()))
    }

    /// No password, so that it counts without a secret; a policy that nobody can fulfil, random, as its id.
    fn template(&self) -> Result<NvPublic, Error> {
        let attributes = NvIndexAttributesBuilder::new()
            .with_nv_index_type(NvIndexType::Counter)
            .with_auth_read(true)
            .with_auth_write(true)
            .with_no_da(true)
            .build()?;
        NvPublic::builder()
            .with_nv_index(NvIndexTpmHandle::new(self.index)?)
            .with_index_name_algorithm(SHA256)
            .with_index_attributes(attributes)
            .with_index_auth_policy(Digest::try_from(&random::<32>()[..])?)
            .with_data_area_size(8)
            .build()
    }
}
