//! How commands speak: text or one JSON value on stdout, errors with their next step on stderr.

use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;

use super::progress::Bar;

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

/// What failed and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CliError {
    /// What failed, in one sentence. Never holds a secret.
    pub error: String,
    /// The next step.
    pub hint: String,
    /// The daemon's id of it, or `unreachable` where none answers; else empty.
    #[serde(skip)]
    pub id: String,
}

impl CliError {
    /// An error with its next step.
    pub fn new(error: impl ToString, hint: impl Into<String>) -> Self {
        Self { error: error.to_string(), hint: hint.into(), id: String::new() }
    }

    /// The same with an id.
    pub(super) fn with_id(self, id: impl Into<String>) -> Self {
        Self { id: id.into(), ..self }
    }
}

impl Output {
    /// Text, or JSON if `json`.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints a command's result: `value` as JSON, or the lines of `text`.
    pub fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            self.json_line(value);
        } else {
            let text = text();
            if !text.is_empty() {
                print(text.trim_end());
            }
        }
    }

    /// Prints one element of a list: a JSON line or a text line.
    pub fn line(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            self.json_line(value);
        } else {
            print(&text());
        }
    }

    /// Progress of long work, for people only.
    pub fn progress(&self, text: &str) {
        if !self.json {
            eprintln!("{text}");
        }
    }

    /// A bar for long work, where somebody watches.
    pub fn bar(&self, what: &'static str, total: Option<u64>) -> Bar {
        Bar::new(!self.json && std::io::stderr().is_terminal(), what, total)
    }

    /// Prints `error` on stderr.
    pub fn error(&self, error: &CliError) {
        if self.json {
            eprintln!("{}", serde_json::to_string(error).unwrap_or_else(|_| error.error.clone()));
        } else {
            eprintln!("error: {}", error.error);
            if !error.hint.is_empty() {
                eprintln!("  hint: {}", error.hint);
            }
        }
    }

    fn json_line(&self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => print(&text),
            Err(error) => eprintln!("error: {error}"),
        }
    }
}

/// One line on stdout. A reader that has seen enough (`| head`) ends the command, without a word.
fn print(line: &str) {
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("error: cannot print: {error}");
            std::process::exit(1);
        }
    }
}
