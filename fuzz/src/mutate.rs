//! What chance does to an input.

use fastrand::Rng;

/// Changes `input` in one to eight places and keeps it within `max_bytes`.
pub fn mutate(random: &mut Rng, input: &mut Vec<u8>, words: &[Vec<u8>], other: &[u8], max_bytes: usize) {
    for _ in 0..1 << random.usize(..4) {
        let at = random.usize(..=input.len());
        match random.usize(..8) {
            0 => flip(input, at, 1 << random.usize(..8)),
            1 => flip(input, at, random.u8(..)),
            2 => input.truncate(at),
            3 => drop(input.splice(at..at, std::iter::repeat_n(0, random.usize(..16)))),
            4 => drop(input.drain(at..(at + random.usize(..16)).min(input.len()))),
            5 => overwrite(input, at, &words[random.usize(..words.len())]),
            6 => drop(input.splice(at..at, words[random.usize(..words.len())].iter().copied())),
            _ => {
                let from = random.usize(..=other.len());
                let piece = &other[from..(from + random.usize(..64)).min(other.len())];
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
