//! A stretch of the journal as lines of JSON: first the bundles that decided, then what happened, in order. What
//! `claviger policy export` writes, and simulation and replay read, here or in a CI.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::Event;
use crate::bundle::{BundleHash, Files};

/// The longest line, in bytes: a bundle with every byte escaped. Whoever reads lines reads no longer ones.
pub const MAX_LINE_BYTES: usize = 64 << 20;
/// The most bundles.
pub const MAX_BUNDLES: usize = 1_000;

/// Why a history cannot be read further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The line could not be had.
    #[error("line {line} cannot be read: {cause}")]
    Unread {
        /// From 1.
        line: u64,
        /// In words.
        cause: String,
    },
    /// Not a bundle, not an event, or one with unknown parts.
    #[error("line {line} is not of a history: {cause}")]
    Foreign {
        /// From 1.
        line: u64,
        /// In words.
        cause: String,
    },
    /// Bundles stand first.
    #[error("line {line} is a bundle after the first event")]
    LateBundle {
        /// From 1.
        line: u64,
    },
    /// More than [`MAX_BUNDLES`].
    #[error("line {line} is one bundle more than the {MAX_BUNDLES} of a history")]
    TooMany {
        /// From 1.
        line: u64,
    },
}

impl HistoryError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unread { .. } => "Export the history again with `claviger policy export`.",
            Self::Foreign { .. } | Self::LateBundle { .. } => {
                "Give what `claviger policy export` of this version wrote, as it was."
            }
            Self::TooMany { .. } => "Export a shorter time with --since.",
        }
    }
}

/// A bundle as a line: names and texts.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BundleLine {
    bundle: BTreeMap<String, String>,
}

enum Line {
    Bundle(Files),
    Event(Event),
}

impl Event {
    /// As a line of a history, without its end.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("maps have texts for keys")
    }
}

impl Files {
    /// As a line of a history, without its end. Files that were applied are text.
    pub fn to_line(&self) -> String {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let bundle = self.iter().map(|(name, bytes)| (name.to_owned(), text(bytes))).collect();
        serde_json::to_string(&BundleLine { bundle }).expect("maps have texts for keys")
    }
}

/// A history that is read line by line.
pub struct History<I> {
    lines: I,
    line: u64,
    bundles: BTreeMap<BundleHash, Files>,
    next: Option<Event>,
    error: Option<HistoryError>,
}

impl<I: Iterator<Item = Result<String, E>>, E: ToString> History<I> {
    /// Reads up to the first event. `lines` come without their ends and are at most [`MAX_LINE_BYTES`] long.
    pub fn read(lines: I) -> Result<Self, HistoryError> {
        let mut history = Self { lines, line: 0, bundles: BTreeMap::new(), next: None, error: None };
        loop {
            match history.line()? {
                Some(Line::Bundle(_)) if history.bundles.len() == MAX_BUNDLES => {
                    return Err(HistoryError::TooMany { line: history.line });
                }
                Some(Line::Bundle(files)) => history.bundles.insert(files.hash(), files),
                Some(Line::Event(event)) => {
                    history.next = Some(event);
                    return Ok(history);
                }
                None => return Ok(history),
            };
        }
    }

    /// The bundles that decided, by hash.
    pub fn bundles(&self) -> &BTreeMap<BundleHash, Files> {
        &self.bundles
    }

    /// What happened. Ends at the first line that is not understood: [`History::finish`] says so.
    pub fn events(&mut self) -> impl Iterator<Item = Event> {
        std::iter::from_fn(|| {
            if let Some(first) = self.next.take() {
                return Some(first);
            }
            if self.error.is_some() {
                return None;
            }
            match self.line() {
                Ok(Some(Line::Event(event))) => return Some(event),
                Ok(Some(Line::Bundle(_))) => self.error = Some(HistoryError::LateBundle { line: self.line }),
                Ok(None) => {}
                Err(error) => self.error = Some(error),
            }
            None
        })
    }

    /// Whether all lines that were asked for could be read.
    pub fn finish(self) -> Result<(), HistoryError> {
        self.error.map_or(Ok(()), Err)
    }

    fn line(&mut self) -> Result<Option<Line>, HistoryError> {
        let Some(text) = self.lines.next() else { return Ok(None) };
        self.line += 1;
        let line = self.line;
        let text = text.map_err(|error| HistoryError::Unread { line, cause: error.to_string() })?;
        let foreign = |cause: String| HistoryError::Foreign { line, cause };
        if !text.starts_with("{\"bundle\":") {
            let event = serde_json::from_str(&text).map_err(|error| foreign(error.to_string()))?;
            return Ok(Some(Line::Event(event)));
        }
        let BundleLine { bundle } = serde_json::from_str(&text).map_err(|error| foreign(error.to_string()))?;
        let mut files = Files::default();
        for (name, text) in bundle {
            files.add(&name, text.into_bytes()).map_err(|error| foreign(error.to_string()))?;
        }
        Ok(Some(Line::Bundle(files)))
    }
}
