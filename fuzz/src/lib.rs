//! Fuzz targets as plain functions: each takes bytes and panics when a property of Claviger does not hold.
//!
//! `cargo run -p claviger-fuzz -- TARGET` mutates the seeds in `fuzz/corpus/TARGET` with the words of `fuzz/dictionary`
//! and asks the target; `cargo test -p claviger-fuzz` replays the corpus. A crash is written to `fuzz/corpus/TARGET`, where
//! it stays as a seed. A target with a [`World`] is asked input after input, each world from the seed and its number alone;
//! what is kept of a crash is the shortest world that was found to end in it. libFuzzer can drive the same functions:
//! `fuzz_target!(|data: &[u8]| (TARGETS[0].fuzz)(data))`.

pub mod mutate;
pub mod seeds;
pub mod targets;

use std::cell::RefCell;
use std::path::PathBuf;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Panics if a property does not hold for these bytes: an input of the corpus.
    pub fuzz: fn(&[u8]),
    /// Inputs are not made longer than this many bytes.
    pub max_bytes: usize,
    /// For a target that lives through many inputs: begins the world with a number.
    pub begin: Option<fn(u64) -> Box<dyn World>>,
}

/// What lives through many inputs.
pub trait World {
    /// One execution. Panics if a property does not hold.
    fn run(&mut self, input: &[u8]);
    /// Whether another world would see more.
    fn is_over(&self) -> bool;
    /// The last check.
    fn end(&mut self);
}

/// The corpus file that plays `inputs` in the world with this number: see [`Target::fuzz`].
pub fn recipe(number: u64, inputs: &[Vec<u8>]) -> Vec<u8> {
    let played = inputs.iter().flat_map(|input| [&[input.len() as u8], &input[..]].concat());
    [number as u8].into_iter().chain(played).collect()
}

/// All targets.
pub const TARGETS: [Target; 3] = [
    Target { name: "link_frames", fuzz: targets::link_frames::fuzz, max_bytes: 4_096, begin: None },
    Target { name: "guard_decoder", fuzz: targets::guard_decoder::fuzz, max_bytes: 4_096, begin: None },
    Target {
        name: "channel",
        fuzz: targets::channel::fuzz,
        max_bytes: 1_024,
        begin: Some(|number| Box::new(targets::channel::World::new(number))),
    },
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

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From now on panics are remembered and not printed: contained ones would fill the screen.
pub fn remember_panics() {
    std::panic::set_hook(Box::new(|panic| LAST_PANIC.set(panic.to_string())));
}

/// What this thread's last panic said.
pub fn last_panic() -> String {
    LAST_PANIC.with_borrow(Clone::clone)
}

/// Words that mean something to a decoder: one in hex on each line, `#` begins a remark.
pub fn dictionary() -> Vec<Vec<u8>> {
    let text = include_str!("../dictionary");
    text.lines().filter_map(|line| hex::decode(line.split('#').next()?.trim()).ok()).filter(|w| !w.is_empty()).collect()
}
