//! A GraphQL document, as far as a signature on it takes: one mutation with one field, whose input comes from variables.
//!
//! What is selected of the answer is balanced and not looked at: it is read, and moves nothing.

use std::collections::BTreeMap;

/// What a document asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Document {
    /// A query or a subscription: it changes nothing.
    Reads,
    /// A mutation of one field.
    Changes(Mutation),
}

/// The one field of a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mutation {
    /// Its name.
    pub(super) field: String,
    /// The fields of its `input`, and the variable that each has its value from.
    pub(super) input: BTreeMap<String, String>,
}

/// The document is not of the one form that is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the query is not one mutation with one field: {0}")]
pub(super) struct DocumentError(&'static str);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a str),
    Mark(u8),
    /// `...`
    Spread,
    Number,
}

/// Reads a document.
pub(super) fn parse(text: &str) -> Result<Document, DocumentError> {
    let tokens = tokens(text)?;
    let mut reader = Reader { tokens: &tokens };
    let mut operation = None;
    while let Some(token) = reader.next() {
        let found = match token {
            Token::Name("mutation") => Document::Changes(reader.mutation()?),
            Token::Name("query" | "subscription") => {
                reader.skip_to_selection()?;
                Document::Reads
            }
            Token::Mark(b'{') => {
                reader.skip_block()?;
                Document::Reads
            }
            Token::Name("fragment") => {
                reader.skip_to_selection()?;
                continue;
            }
            _ => return Err(DocumentError("a definition of another kind")),
        };
        // Which of two would run is said elsewhere.
        if operation.replace(found).is_some() {
            return Err(DocumentError("it has more than one operation"));
        }
    }
    operation.ok_or(DocumentError("it has no operation"))
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(*first)
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.first().copied()
    }

    fn mark(&mut self, mark: u8) -> Result<(), DocumentError> {
        match self.next() {
            Some(Token::Mark(found)) if found == mark => Ok(()),
            _ => Err(DocumentError("another token than expected")),
        }
    }

    fn name(&mut self) -> Result<&'a str, DocumentError> {
        match self.next() {
            Some(Token::Name(name)) => Ok(name),
            _ => Err(DocumentError("a name is missing")),
        }
    }

    /// What follows `mutation`.
    fn mutation(&mut self) -> Result<Mutation, DocumentError> {
        if matches!(self.peek(), Some(Token::Name(_))) {
            self.next();
        }
        if self.peek() == Some(Token::Mark(b'(')) {
            self.next();
            while self.peek() != Some(Token::Mark(b')')) {
                self.variable()?;
            }
            self.next();
        }
        self.mark(b'{')?;
        let field = self.name()?.to_owned();
        self.mark(b'(')?;
        if self.name()? != "input" {
            return Err(DocumentError("its field has another argument than input"));
        }
        self.mark(b':')?;
        self.mark(b'{')?;
        let mut input = BTreeMap::new();
        while self.peek() != Some(Token::Mark(b'}')) {
            let name = self.name()?.to_owned();
            self.mark(b':')?;
            // A value in the text would stand beside the variables, where nobody looks for it.
            self.mark(b'$')?;
            if input.insert(name, self.name()?.to_owned()).is_some() {
                return Err(DocumentError("its input has a field twice"));
            }
        }
        self.next();
        self.mark(b')')?;
        self.mark(b'{')?;
        self.skip_block()?;
        self.mark(b'}')?;
        Ok(Mutation { field, input })
    }

    /// `$name: [Type!]!`, without a default value, which would stand in for a variable that is absent.
    fn variable(&mut self) -> Result<(), DocumentError> {
        self.mark(b'$')?;
        self.name()?;
        self.mark(b':')?;
        while self.peek() == Some(Token::Mark(b'[')) {
            self.next();
        }
        self.name()?;
        while matches!(self.peek(), Some(Token::Mark(b']' | b'!'))) {
            self.next();
        }
        Ok(())
    }

    fn skip_to_selection(&mut self) -> Result<(), DocumentError> {
        while let Some(token) = self.next() {
            if token == Token::Mark(b'{') {
                return self.skip_block();
            }
        }
        Err(DocumentError("a definition has no end"))
    }

    /// To the brace that closes the one that was read.
    fn skip_block(&mut self) -> Result<(), DocumentError> {
        let mut open = 1;
        while open > 0 {
            match self.next().ok_or(DocumentError("a brace is not closed"))? {
                Token::Mark(b'{') => open += 1,
                Token::Mark(b'}') => open -= 1,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The tokens of GraphQL but for strings and comments: Lightspark's documents have none, and they could hide others.
fn tokens(text: &str) -> Result<Vec<Token<'_>>, DocumentError> {
    let bytes = text.as_bytes();
    let run = |from: usize, of: fn(&u8) -> bool| bytes[from..].iter().take_while(|byte| of(byte)).count();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b',' => 1,
            b'!' | b'$' | b'&' | b'(' | b')' | b':' | b'=' | b'@' | b'[' | b']' | b'{' | b'|' | b'}' => {
                tokens.push(Token::Mark(*byte));
                1
            }
            b'.' if bytes[at..].starts_with(b"...") => {
                tokens.push(Token::Spread);
                3
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let len = run(at, |byte| byte.is_ascii_alphanumeric() || *byte == b'_');
                tokens.push(Token::Name(&text[at..at + len]));
                len
            }
            b'-' | b'0'..=b'9' => {
                tokens.push(Token::Number);
                1 + run(at + 1, |byte| byte.is_ascii_alphanumeric() || *byte == b'.')
            }
            _ => return Err(DocumentError("a character that Lightspark's documents do not have")),
        };
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAY: &str = "mutation PayInvoice($node_id: ID!, $amount_msats: Long) { pay_invoice(input: { node_id: $node_id \
        amount_msats: $amount_msats }) { payment { ...F } } } fragment F on OutgoingPayment { id fees: f(unit: SAT) { v } }";

    #[test]
    fn a_mutation_of_one_field_is_read_and_a_document_that_could_mean_another_is_not() {
        let input = [("node_id", "node_id"), ("amount_msats", "amount_msats")];
        let input = input.map(|(field, variable)| (field.to_owned(), variable.to_owned())).into();
        let field = "pay_invoice".to_owned();
        assert_eq!(parse(PAY), Ok(Document::Changes(Mutation { field, input })));
        for (from, to) in [
            ("payment { ...F } }", "payment { ...F } } other(input: { node_id: $node_id }) { id }"),
            ("pay_invoice(", "query: pay_invoice("),
            ("pay_invoice(", "pay_invoice @skip(if: true) ("),
            ("pay_invoice(", "...F pay_invoice("),
            (": $amount_msats", ": 7"),
            ("Long)", "Long = 7)"),
            ("input: {", "input: $input, more: {"),
            ("amount_msats: $amount_msats", "node_id: $amount_msats"),
            ("fragment F", "mutation G { a(input: {}) { b } } fragment F"),
            ("fragment F", "query G { a } fragment F"),
            ("fragment F", "# fragment F"),
            ("fragment F", "\"\"\"text\"\"\" fragment F"),
            ("fragment F", "extend type F { a } fragment F"),
            ("{ v } }", "{ v }"),
            ("mutation", "\u{feff}mutation"),
        ] {
            assert!(PAY.contains(from), "{from}");
            assert!(parse(&PAY.replacen(from, to, 1)).is_err(), "{to}");
        }
        assert!(parse("").is_err());
        assert!(parse("fragment F on T { id }").is_err());
    }

    #[test]
    fn what_only_reads_is_told_apart() {
        for text in ["query A($id: ID!) { entity(id: $id) { id } }", "{ me { id } }", "subscription { s { id } }"] {
            assert_eq!(parse(text), Ok(Document::Reads), "{text}");
        }
    }
}
