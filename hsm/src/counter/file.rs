//! A counter in a file: the weak default. It notices state that was set back without it; whoever sets back both is not
//! noticed.

use std::io;
use std::path::{Path, PathBuf};

use super::{Counter, CounterError, Reading};
use crate::file::{read_limited, write_atomically};
use crate::kek::random;

const MAGIC: &str = "claviger-counter 1";
/// Of the line `claviger-counter 1 ID VALUE`.
const MAX_BYTES: usize = 128;

/// A counter at this path, which one process at a time may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCounter {
    path: PathBuf,
}

impl FileCounter {
    /// The counter at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn write(&self, reading: Reading) -> Result<Reading, CounterError> {
        let line = format!("{MAGIC} {} {}\n", hex::encode(reading.id), reading.value);
        write_atomically(&self.path, line.as_bytes()).map_err(|error| failed(&self.path, &error))?;
        Ok(reading)
    }
}

fn failed(path: &Path, error: &io::Error) -> CounterError {
    CounterError::File { path: path.to_owned(), kind: error.kind() }
}

impl Counter for FileCounter {
    fn create(&self) -> Result<Reading, CounterError> {
        match self.read() {
            Err(CounterError::Missing(_)) => self.write(Reading { id: random(), value: 1 }),
            Ok(_) => Err(CounterError::Exists(self.place())),
            Err(error) => Err(error),
        }
    }

    fn read(&self) -> Result<Reading, CounterError> {
        let bytes = read_limited(&self.path, MAX_BYTES).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CounterError::Missing(self.place()),
            io::ErrorKind::FileTooLarge => CounterError::Damaged(self.place()),
            _ => failed(&self.path, &error),
        })?;
        parse(&bytes).ok_or_else(|| CounterError::Damaged(self.place()))
    }

    fn increment(&self) -> Result<Reading, CounterError> {
        let Reading { id, value } = self.read()?;
        let value = value.checked_add(1).ok_or_else(|| CounterError::AtItsEnd(self.place()))?;
        self.write(Reading { id, value })
    }
}

fn parse(bytes: &[u8]) -> Option<Reading> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (id, value) = line.strip_prefix(MAGIC)?.strip_prefix(' ')?.split_once(' ')?;
    let mut reading = Reading { id: [0; 16], value: value.parse().ok()? };
    hex::decode_to_slice(id, &mut reading.id).ok()?;
    Some(reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_counter_is_named_and_left_alone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("counter");
        let counter = FileCounter::new(&path);
        let id = "5a".repeat(16);
        let long = format!("claviger-counter 1 {id} {}1\n", "0".repeat(MAX_BYTES));
        for content in [
            "",
            "1\n",
            &format!("claviger-counter 2 {id} 1\n"),
            &format!("claviger-counter 1 {id} 1"),
            &format!("claviger-counter 1 {id} -1\n"),
            &format!("claviger-counter 1 {id}5a 1\n"),
            &long,
        ] {
            std::fs::write(&path, content).expect("write");
            for result in [counter.read(), counter.increment(), counter.create()] {
                assert_eq!(result, Err(CounterError::Damaged(path.display().to_string())), "{content}");
            }
            assert_eq!(std::fs::read_to_string(&path).expect("read"), content);
        }
        std::fs::write(&path, format!("claviger-counter 1 {id} {}\n", u64::MAX)).expect("write");
        assert_eq!(counter.increment(), Err(CounterError::AtItsEnd(path.display().to_string())));
        assert_eq!(counter.read().map(|reading| reading.value), Ok(u64::MAX));
    }
}
