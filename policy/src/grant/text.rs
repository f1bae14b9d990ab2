//! The one text of an intent: what an approver reads is what is signed, byte for byte.
//!
//! The first line is the version. Each line after it is `key: value`, always all of them and always in this order, so that
//! what is not bounded is seen as `any` and nothing can be left out or slipped in. ASCII only.

use super::intent::{ANY, GrantId, GrantKind, Intent, IntentError, PINNED, Requester, shortened};
use crate::actions::Action;
use crate::time;

/// The first line.
pub const FIRST_LINE: &str = "claviger grant 1";
/// The longest text, in bytes.
pub const MAX_TEXT: usize = 4_096;

/// Why a text is not that of an intent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Longer than [`MAX_TEXT`].
    #[error("the text has {0} bytes, more than {MAX_TEXT}")]
    TooLong(usize),
    /// The first line is another.
    #[error("line 1 is not '{FIRST_LINE}'")]
    Version,
    /// The line with this key is missing, or stands elsewhere.
    #[error("line {line} is not '{key}: …'")]
    Line {
        /// From 1.
        line: usize,
        /// What the line should say.
        key: &'static str,
    },
    /// A value that is none, or is written in another way than the one.
    #[error("line {line}: '{value}' is no value for '{key}'")]
    Value {
        /// From 1.
        line: usize,
        /// The line's key.
        key: &'static str,
        /// As given, shortened.
        value: String,
    },
    /// There is more, or the last line does not end.
    #[error("the text does not end after line {0}")]
    End(usize),
    /// It reads well and makes no sense.
    #[error(transparent)]
    Intent(#[from] IntentError),
}

impl TextError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Version => "Use the claviger version that wrote the text.".into(),
            Self::Intent(error) => error.hint(),
            _ => "Use the text as `claviger grant create` wrote it; do not edit it.".into(),
        }
    }
}

impl Intent {
    /// The text that is signed. [`Intent::parse`] gives the same intent back if [`Intent::check`] holds.
    pub fn text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        let mut line = |key: &str, value: &str| {
            text.push_str(key);
            text.push_str(": ");
            text.push_str(value);
            text.push('\n');
        };
        let amount = |bound: Option<u64>| bound.map_or(ANY.to_owned(), |msat| msat.to_string());
        line("appliance", &self.appliance);
        line("grant", &self.id.to_string());
        line("kind", self.kind.id());
        line("node", &self.node);
        line("actions", &self.actions.iter().map(|action| action.id()).collect::<Vec<_>>().join(", "));
        for fact in PINNED {
            line(fact.id(), self.pins.get(fact).map_or(ANY, String::as_str));
        }
        line("max_amount_msat", &amount(self.max_amount_msat));
        line("max_fee_msat", &amount(self.max_fee_msat));
        line("max_total_msat", &amount(self.max_total_msat));
        line("uses", &self.uses.to_string());
        line("valid_from", &time::print(self.valid_from_s));
        line("valid_until", &time::print(self.valid_until_s));
        line("group", &self.group);
        line("needs", &format!("{} {}", self.of, self.role));
        match &self.requester {
            Requester::Node(name) => line("requester", &format!("node {name}")),
            Requester::Person(name) => line("requester", &format!("person {name}")),
        }
        line("reason", &self.reason);
        text
    }

    /// The intent of which this is the text. Exactly the texts that [`Intent::text`] writes are accepted.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if text.len() > MAX_TEXT {
            return Err(TextError::TooLong(text.len()));
        }
        let mut lines = Lines { rest: text, line: 0 };
        if lines.next() != Some(FIRST_LINE) {
            return Err(TextError::Version);
        }
        let name = |value: &str| Some(value.to_owned());
        let appliance = lines.value("appliance", name)?;
        let id = lines.value("grant", GrantId::parse)?;
        let kind = lines.value("kind", |id| GrantKind::ALL.iter().copied().find(|kind| kind.id() == id))?;
        let node = lines.value("node", name)?;
        let actions = lines.value("actions", |ids| ids.split(", ").map(Action::by_id).collect::<Option<Vec<_>>>())?;
        let mut pins = std::collections::BTreeMap::new();
        for fact in PINNED {
            if let Some(value) = lines.value(fact.id(), |value| Some((value != ANY).then(|| value.to_owned())))? {
                pins.insert(*fact, value);
            }
        }
        let amount = |value: &str| if value == ANY { Some(None) } else { number(value).map(Some) };
        let intent = Self {
            appliance,
            id,
            kind,
            node,
            actions,
            pins,
            max_amount_msat: lines.value("max_amount_msat", amount)?,
            max_fee_msat: lines.value("max_fee_msat", amount)?,
            max_total_msat: lines.value("max_total_msat", amount)?,
            uses: lines.value("uses", count)?,
            valid_from_s: lines.value("valid_from", time::parse)?,
            valid_until_s: lines.value("valid_until", time::parse)?,
            group: lines.value("group", name)?,
            of: 0,
            role: String::new(),
            requester: Requester::Node(String::new()),
            reason: String::new(),
        };
        let (of, role) = lines.value("needs", |value| {
            let (of, role) = value.split_once(' ')?;
            Some((count(of)?, role.to_owned()))
        })?;
        let requester = lines.value("requester", |value| match value.split_once(' ')? {
            ("node", name) => Some(Requester::Node(name.to_owned())),
            ("person", name) => Some(Requester::Person(name.to_owned())),
            _ => None,
        })?;
        let reason = lines.value("reason", name)?;
        if !lines.rest.is_empty() {
            return Err(TextError::End(lines.line));
        }
        let intent = Self { of, role, requester, reason, ..intent };
        intent.check()?;
        // The reading above leaves no other way to write it; this keeps it so.
        if intent.text() == text { Ok(intent) } else { Err(TextError::Version) }
    }
}

impl From<Intent> for String {
    fn from(intent: Intent) -> Self {
        intent.text()
    }
}

impl TryFrom<String> for Intent {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        Self::parse(&text)
    }
}

struct Lines<'a> {
    rest: &'a str,
    /// The last line that was read, from 1.
    line: usize,
}

impl<'a> Lines<'a> {
    /// The next line that ends.
    fn next(&mut self) -> Option<&'a str> {
        let (line, rest) = self.rest.split_once('\n')?;
        self.rest = rest;
        self.line += 1;
        Some(line)
    }

    fn value<T>(&mut self, key: &'static str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, TextError> {
        let next = self.next();
        let line = if next.is_some() { self.line } else { self.line + 1 };
        let value = next.and_then(|text| text.strip_prefix(key)?.strip_prefix(": "));
        let value = value.ok_or(TextError::Line { line, key })?;
        read(value).ok_or_else(|| TextError::Value { line, key, value: shortened(value) })
    }
}

/// A number as it is printed: no sign, no leading zero.
fn number(text: &str) -> Option<u64> {
    let number = text.parse::<u64>().ok()?;
    (number.to_string() == text).then_some(number)
}

fn count(text: &str) -> Option<u32> {
    number(text).and_then(|number| u32::try_from(number).ok())
}
