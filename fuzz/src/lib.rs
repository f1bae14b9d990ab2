//! Fuzz targets as plain functions: each takes bytes and panics when a property of Claviger does not hold.
//!
//! `cargo run -p claviger-fuzz -- TARGET` mutates the seeds in `fuzz/corpus/TARGET` with the words of `fuzz/dictionary`
//! and asks the target; `cargo test -p claviger-fuzz` replays the corpus. A crash is written to `fuzz/corpus/TARGET`, where
//! it stays as a seed. libFuzzer can drive the same functions: `fuzz_target!(|data: &[u8]| (TARGETS[0].fuzz)(data))`.

pub mod mutate;
pub mod seeds;
pub mod targets;

use std::path::PathBuf;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Panics if a property does not hold for these bytes.
    pub fuzz: fn(&[u8]),
    /// Inputs are not made longer than this many bytes.
    pub max_bytes: usize,
}

/// All targets.
pub const TARGETS: [Target; 3] = [
    Target { name: "link_frames", fuzz: targets::link_frames::fuzz, max_bytes: 4_096 },
    Target { name: "guard_decoder", fuzz: targets::guard_decoder::fuzz, max_bytes: 4_096 },
    Target { name: "channel", fuzz: targets::channel::fuzz, max_bytes: 40 },
];

impl Target {
    /// Where its seeds and crashes are.
    pub fn corpus(&self) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(self.name)
    }

    /// Its seeds: those in the corpus, then one for every message it can be given.
    pub fn seeds(&self) -> std::io::Result<Vec<Vec<u8>>> {
        let mut paths: Vec<_> = std::fs::read_dir(self.corpus())?.collect::<Result<Vec<_>, _>>()?;
        paths.sort_by_key(std::fs::DirEntry::file_name);
        let mut seeds = paths.iter().map(|entry| std::fs::read(entry.path())).collect::<Result<Vec<_>, _>>()?;
        seeds.extend(seeds::of(self.name));
        Ok(seeds)
    }
}

/// Words that mean something to a decoder: one in hex on each line, `#` begins a remark.
pub fn dictionary() -> Vec<Vec<u8>> {
    let text = include_str!("../dictionary");
    text.lines().filter_map(|line| hex::decode(line.split('#').next()?.trim()).ok()).filter(|w| !w.is_empty()).collect()
}
