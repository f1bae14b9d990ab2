//! Bounds on the text of rules, before anything parses it: parsers and evaluators recurse as deep as a rule is nested.

use super::fault::RuleFault;
use crate::place::Place;

/// All rules of a policy together, in bytes.
pub const MAX_TEXT: usize = 2 << 20;
/// Rules of a policy.
pub const MAX_RULES: usize = 2_000;
/// One rule with its comments, in bytes.
pub const MAX_RULE_BYTES: usize = 16 << 10;
/// Brackets within brackets.
pub const MAX_DEPTH: usize = 24;
/// Characters of operators in one rule: `&&` counts twice.
pub const MAX_OPERATORS: usize = 400;

/// Whether every rule of the file is within the bounds; else the first that is not.
pub(super) fn check(text: &str) -> Result<(), (Place, RuleFault)> {
    let mut rule = Rule::default();
    let mut within = Within::Code;
    for (at, byte) in text.bytes().enumerate() {
        let next = text.as_bytes().get(at + 1);
        within = match (within, byte) {
            (Within::Comment, b'\n') => Within::Code,
            (Within::Text, b'\\') => Within::Escape,
            (Within::Text, b'"') => Within::Code,
            (Within::Escape, _) => Within::Text,
            (Within::Code, b'"') => Within::Text,
            (Within::Code, b'/') if next == Some(&b'/') => Within::Comment,
            (Within::Code, _) => {
                rule.count(byte);
                Within::Code
            }
            (other, _) => other,
        };
        let fault = if at - rule.start >= MAX_RULE_BYTES {
            RuleFault::TooLong
        } else if rule.depth > MAX_DEPTH || rule.operators > MAX_OPERATORS {
            RuleFault::TooDeep
        } else {
            if matches!(within, Within::Code) && byte == b';' {
                rule = Rule { start: at + 1, ..Rule::default() };
            }
            continue;
        };
        return Err((Place::of(text, at), fault));
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Within {
    Code,
    Comment,
    Text,
    Escape,
}

#[derive(Default)]
struct Rule {
    start: usize,
    depth: usize,
    operators: usize,
}

impl Rule {
    fn count(&mut self, byte: u8) {
        match byte {
            b'(' | b'[' | b'{' => self.depth += 1,
            b')' | b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            b'&' | b'|' | b'!' | b'<' | b'>' | b'=' | b'+' | b'-' | b'*' | b'.' => self.operators += 1,
            _ => {}
        }
    }
}
