//! Slots whose device's library is not part of this build.

/// `KeySlot` for such a slot: it says so.
macro_rules! not_built {
    ($slot:ident, $kind:ident) => {
        impl crate::KeySlot for $slot<'_> {
            fn kind(&self) -> crate::SlotKind {
                crate::SlotKind::$kind
            }

            fn wrap(&self, _: &crate::Binding, _: &[u8; 32]) -> Result<crate::Wrapped, crate::SlotError> {
                Err(crate::SlotError::NotBuilt(self.kind()))
            }

            fn unwrap(&self, _: &crate::Binding, _: &crate::Wrapped, _: &mut [u8; 32]) -> Result<(), crate::SlotError> {
                Err(crate::SlotError::NotBuilt(self.kind()))
            }

            fn health(&self, _: &crate::Wrapped) -> Result<(), crate::SlotError> {
                Err(crate::SlotError::NotBuilt(self.kind()))
            }
        }
    };
}
pub(crate) use not_built;

/// `DeviceKey` for such a device: it says so.
macro_rules! no_device_keys {
    ($key:ident, $kind:ident) => {
        impl crate::DeviceKey for $key<'_> {
            fn kind(&self) -> crate::KeyKind {
                crate::KeyKind::$kind
            }

            fn create(&self) -> Result<crate::KeyRecord, crate::DeviceKeyError> {
                Err(crate::DeviceKeyError::NotBuilt(self.kind()))
            }

            fn sign(
                &self,
                _: &crate::KeyRecord,
                _: &[u8],
            ) -> Result<crate::device_key::Signature, crate::DeviceKeyError> {
                Err(crate::DeviceKeyError::NotBuilt(self.kind()))
            }
        }
    };
}
pub(crate) use no_device_keys;
