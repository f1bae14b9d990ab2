//! `Secret<N>`: the one type for key material.

use std::fmt;

use zeroize::Zeroizing;

use super::arena::{CHUNK, Slot};

/// `N` secret bytes in secret memory, wiped when dropped. Neither `Clone`, comparable nor printable.
pub struct Secret<const N: usize>(Slot);

impl<const N: usize> Secret<N> {
    /// Moves `bytes` into secret memory. Prefer `init`, which never has them anywhere else.
    pub fn new(bytes: Zeroizing<[u8; N]>) -> Self {
        Self::init(|secret| secret.copy_from_slice(bytes.as_slice()))
    }

    /// Fresh random bytes, written by the operating system straight into secret memory.
    pub fn random() -> Self {
        Self::init(|secret| getrandom::fill(secret).expect("the operating system provides randomness"))
    }

    /// A secret that `fill` writes in place, over zeros.
    pub fn init(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let Ok(secret) = Self::try_init(|bytes| {
            fill(bytes);
            Ok::<_, std::convert::Infallible>(())
        });
        secret
    }

    /// A secret that `fill` writes in place, over zeros; what it wrote is wiped if it fails.
    pub fn try_init<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        const { assert!(N > 0 && N <= CHUNK) };
        let mut slot = Slot::take(N);
        let bytes = slot.bytes_mut().first_chunk_mut().unwrap_or_else(|| unreachable!("the slot has N bytes"));
        fill(bytes)?;
        Ok(Self(slot))
    }

    /// Lends the bytes to `f`; what `f` copies is its own duty to wipe.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; N]) -> R) -> R {
        f(self.0.bytes().first_chunk().unwrap_or_else(|| unreachable!("the slot has N bytes")))
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>")
    }
}
