//! A generator of pseudo-random numbers that is the same everywhere, and what it does to an input.

/// SplitMix64 (Steele, Lea and Flood 2014): a run is repeated by its seed.
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }
}

/// Changes `input` in one to eight places and keeps it within `max_bytes`.
pub fn mutate(random: &mut Random, input: &mut Vec<u8>, words: &[Vec<u8>], other: &[u8], max_bytes: usize) {
    for _ in 0..1 << random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(8) {
            0 => flip(input, at, 1 << random.below(8)),
            1 => flip(input, at, random.number() as u8),
            2 => input.truncate(at),
            3 => drop(input.splice(at..at, std::iter::repeat_n(0, random.below(16)))),
            4 => drop(input.drain(at..(at + random.below(16)).min(input.len()))),
            5 => overwrite(input, at, &words[random.below(words.len())]),
            6 => drop(input.splice(at..at, words[random.below(words.len())].iter().copied())),
            _ => {
                let from = random.below(other.len());
                let piece = &other[from..(from + random.below(64)).min(other.len())];
                overwrite(input, at, piece);
            }
        }
    }
    input.truncate(max_bytes);
}

fn flip(input: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte ^= bits;
    }
}

fn overwrite(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = (at + piece.len()).min(input.len());
    drop(input.splice(at..end, piece.iter().copied()));
}
