//! Memory for secrets.

use zeroize::Zeroizing;

/// `N` secret bytes.
pub struct Secret<const N: usize>(Box<Zeroizing<[u8; N]>>);

impl<const N: usize> Secret<N> {
    /// Moves `bytes` into secret memory.
    pub fn new(bytes: Zeroizing<[u8; N]>) -> Self {
        Self(Box::new(bytes))
    }

    /// Fresh random bytes from the operating system.
    pub fn random() -> Self {
        let mut bytes = Zeroizing::new([0; N]);
        getrandom::fill(bytes.as_mut_slice()).expect("the operating system provides randomness");
        Self::new(bytes)
    }

    /// Lends the bytes to `f`; what `f` copies is its own duty to wipe.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; N]) -> R) -> R {
        f(&self.0)
    }
}

impl<const N: usize> std::fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret<{N}>")
    }
}
