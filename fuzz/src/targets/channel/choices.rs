//! What an execution does, read off the bytes of its input.

/// The bytes that are left. Behind their end everything is 0.
pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// All of `input`.
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `bound`, which is at most 65,536; 0 if that is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let wide = usize::from(self.byte()) | if bound > 256 { usize::from(self.byte()) << 8 } else { 0 };
        wide % bound.max(1)
    }

    /// Whether something happens that does once in `n` times. Not behind the end.
    pub(super) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    /// One of these.
    pub(super) fn of<'b, T>(&mut self, all: &'b [T]) -> Option<&'b T> {
        all.get(self.below(all.len()))
    }

    /// A number as attackers like them: small, a power of two or next to one, the largest.
    pub(super) fn number(&mut self) -> u64 {
        let (kind, n) = (self.byte() % 4, u64::from(self.byte()));
        match kind {
            0 => n,
            1 => 1 << (n % 64),
            2 => (1 << (n % 64)) - 1,
            _ => u64::MAX - n,
        }
    }
}
