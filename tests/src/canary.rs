//! Canary secrets: where in a process, a file or a text does a known secret appear?

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use memchr::memmem;

/// A known secret, looked for raw and in the encodings in which secrets leak.
#[derive(Clone, Debug)]
pub struct Canary {
    /// For the report; never the secret.
    pub name: &'static str,
    patterns: Vec<(&'static str, Vec<u8>)>,
}

/// Where a canary was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Which secret.
    pub canary: &'static str,
    /// In which encoding.
    pub encoding: &'static str,
    /// In which mapping or file.
    pub place: String,
    /// How far into it, in bytes.
    pub offset: u64,
}

impl Canary {
    /// Looks for `secret` raw, in hex of both cases, and in base64 (without the last, position-dependent characters).
    pub fn new(name: &'static str, secret: &[u8]) -> Self {
        let lower = hex::encode(secret);
        let patterns = vec![
            ("raw", secret.to_vec()),
            ("hex", lower.clone().into_bytes()),
            ("HEX", lower.to_uppercase().into_bytes()),
            ("base64", base64_prefix(secret).into_bytes()),
            ("reversed", secret.iter().rev().copied().collect()),
        ];
        Self { name, patterns }
    }

    fn sightings<'a>(&'a self, place: &'a str, base: u64, bytes: &'a [u8]) -> impl Iterator<Item = Sighting> + 'a {
        self.patterns.iter().flat_map(move |(encoding, pattern)| {
            memmem::find_iter(bytes, pattern).map(move |at| Sighting {
                canary: self.name,
                encoding,
                place: place.to_owned(),
                offset: base + at as u64,
            })
        })
    }
}

/// Everything `/proc/PID/mem` shows to root. Pages the kernel refuses to read are skipped: that is the point of
/// memfd_secret.
pub fn scan_process(pid: u32, canaries: &[Canary]) -> std::io::Result<Vec<Sighting>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        let place = words.nth(3).unwrap_or("[anonymous]");
        let Some((start, end)) = range.split_once('-') else { continue };
        let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) else { continue };
        if !rights.starts_with('r') || place == "[vvar]" || place == "[vsyscall]" {
            continue;
        }
        scan_range(&mut memory, start, end, place, canaries, &mut found);
    }
    Ok(found)
}

/// Everything in the files below `dir`.
pub fn scan_files(dir: &Path, canaries: &[Canary]) -> std::io::Result<Vec<Sighting>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(scan_files(&path, canaries)?);
        } else if path.is_file() {
            let bytes = std::fs::read(&path)?;
            found.extend(scan_text(&path.display().to_string(), &bytes, canaries));
        }
    }
    Ok(found)
}

/// Everything in `bytes`, which were found at `place`.
pub fn scan_text(place: &str, bytes: &[u8], canaries: &[Canary]) -> Vec<Sighting> {
    canaries.iter().flat_map(|canary| canary.sightings(place, 0, bytes)).collect()
}

/// Reads in windows that overlap, so that a secret across a window's edge is seen.
fn scan_range(memory: &mut File, start: u64, end: u64, place: &str, canaries: &[Canary], found: &mut Vec<Sighting>) {
    const WINDOW: u64 = 1 << 20;
    const OVERLAP: u64 = 256;
    let mut buffer = Vec::new();
    let mut at = start;
    while at < end {
        let length = (end - at).min(WINDOW + OVERLAP);
        buffer.resize(usize::try_from(length).unwrap_or(0), 0);
        let readable = memory.seek(SeekFrom::Start(at)).and_then(|_| memory.read(&mut buffer)).unwrap_or(0);
        for canary in canaries {
            for sighting in canary.sightings(place, at, &buffer[..readable]) {
                if !found.contains(&sighting) {
                    found.push(sighting);
                }
            }
        }
        at += WINDOW;
    }
}

fn base64_prefix(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks_exact(3) {
        let word = u32::from(chunk[0]) << 16 | u32::from(chunk[1]) << 8 | u32::from(chunk[2]);
        for shift in [18, 12, 6, 0] {
            text.push(char::from(ALPHABET[(word >> shift & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_seen_in_every_encoding_and_its_absence_too() {
        let canary = Canary::new("seed", b"\x01\x02\x03\xfe\xff\x00");
        for (encoding, text) in [("raw", b"..\x01\x02\x03\xfe\xff\x00..".to_vec()), ("hex", b"010203feff00".to_vec())] {
            let found: Vec<_> = canary.sightings("text", 0, &text).collect();
            assert_eq!(found.first().map(|sighting| sighting.encoding), Some(encoding));
        }
        assert_eq!(canary.sightings("text", 0, b"AQID/v8A").count(), 1);
        assert_eq!(canary.sightings("text", 0, b"nothing here").count(), 0);
    }

    #[test]
    fn this_process_shows_its_own_heap() {
        let secret: Vec<u8> = (0..32).map(|i| (i * 7 + 3) as u8).collect();
        let found = scan_process(std::process::id(), &[Canary::new("heap", &secret)]).unwrap();
        assert!(found.iter().any(|sighting| sighting.encoding == "raw"), "a scan that sees nothing proves nothing");
    }
}
