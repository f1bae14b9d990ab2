//! What budgets, lists, groups and rules may be called.

/// Whether the text is a name: 1–32 of `a-z 0-9 -`, starting with a letter.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 32 && is_word(text)
}

/// Whether the text may be the `@id` of a rule: as a name, but up to 64 long.
pub(crate) fn is_rule_id(text: &str) -> bool {
    text.len() <= 64 && is_word(text)
}

fn is_word(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
