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
