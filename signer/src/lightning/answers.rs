//! Answers that could not be computed a second time (P5).
//!
//! Signatures are deterministic, with one exception: those on wallet and anchor inputs use a fresh auxiliary nonce. Their
//! answers are kept, in the commit that made them durable, so that a repeated request gets the same bytes and is counted
//! once.

use std::collections::{BTreeMap, VecDeque};

use sha2::{Digest, Sha256};

use crate::journal::Put;
use crate::pipeline::Request;

/// Entries of a node's tenant that hold answers start with this.
pub const PREFIX: &str = "answer/";

/// How many answers a node keeps; the oldest goes first.
const KEPT: u64 = 32;

/// Identifies what was asked: channel and message, not the request's number.
pub type Question = [u8; 32];

/// The digest of a request.
pub fn question(request: &Request) -> Question {
    let mut hash = Sha256::new();
    match &request.channel {
        None => hash.update([0]),
        Some(channel) => {
            hash.update([1]);
            hash.update(channel.peer_id);
            hash.update(channel.dbid.to_be_bytes());
        }
    }
    hash.update(&request.message);
    hash.finalize().into()
}

/// The kept answers of one node, oldest first.
#[derive(Default)]
pub struct Answers {
    kept: VecDeque<(Question, Vec<u8>)>,
    /// How many were ever kept.
    count: u64,
}

/// An answer's entry is damaged; its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {0} is not an answer")]
pub struct AnswerUnreadable(String);

impl Answers {
    /// Takes the entries that hold answers out of `entries`.
    pub fn restore(entries: &mut BTreeMap<String, Vec<u8>>) -> Result<Self, AnswerUnreadable> {
        let mut found = BTreeMap::new();
        for (key, value) in entries.extract_if(.., |key, _| key.starts_with(PREFIX)) {
            let Some((number, question, reply)) = decode(&value) else { return Err(AnswerUnreadable(key)) };
            found.insert(number, (question, reply));
        }
        let count = found.last_key_value().map_or(0, |(number, _)| number + 1);
        Ok(Self { kept: found.into_values().collect(), count })
    }

    /// The answer given to `question` before.
    pub fn get(&self, question: &Question) -> Option<&[u8]> {
        self.kept.iter().rev().find(|(kept, _)| kept == question).map(|(_, reply)| reply.as_slice())
    }

    /// Keeps an answer. Returns the entry that makes it durable, in place of the oldest.
    pub fn keep(&mut self, question: Question, reply: &[u8]) -> Put {
        let number = self.count;
        self.count += 1;
        self.kept.push_back((question, reply.to_vec()));
        if self.kept.len() > KEPT as usize {
            self.kept.pop_front();
        }
        Put { key: format!("{PREFIX}{}", number % KEPT), value: Some(encode(number, &question, reply)) }
    }
}

/// Version 1: the version, the answer's number, the question, the reply.
fn encode(number: u64, question: &Question, reply: &[u8]) -> Vec<u8> {
    [&[1u8][..], &number.to_be_bytes(), question, reply].concat()
}

fn decode(value: &[u8]) -> Option<(u64, Question, Vec<u8>)> {
    let (&[1], rest) = value.split_first_chunk()? else { return None };
    let (number, rest) = rest.split_first_chunk()?;
    let (question, reply) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), *question, reply.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::ChannelRef;

    fn request(request_id: u64, message: &[u8]) -> Request {
        Request { request_id, channel: None, message: message.to_vec() }
    }

    #[test]
    fn the_question_is_what_is_asked_and_about_which_channel() {
        assert_eq!(question(&request(1, b"a")), question(&request(2, b"a")), "asked again under another number");
        assert_ne!(question(&request(1, b"a")), question(&request(1, b"b")));
        let channel = Some(ChannelRef { peer_id: [2; 33], dbid: 1 });
        assert_ne!(question(&request(1, b"a")), question(&Request { channel, ..request(1, b"a") }));
    }

    #[test]
    fn the_newest_answers_survive_a_restart() {
        let mut answers = Answers::default();
        let mut entries = BTreeMap::from([("node".to_owned(), vec![9])]);
        for n in 0..KEPT as u8 + 3 {
            let put = answers.keep(question(&request(0, &[n])), &[n; 5]);
            entries.insert(put.key, put.value.expect("a value"));
        }
        assert_eq!(entries.len(), 1 + KEPT as usize);
        let mut restored = Answers::restore(&mut entries).expect("readable");
        assert_eq!(entries.len(), 1, "other rooms' entries stay");
        for n in 0..KEPT as u8 + 3 {
            let expected = (n >= 3).then_some([n; 5]);
            assert_eq!(restored.get(&question(&request(7, &[n]))), expected.as_ref().map(|a| &a[..]));
        }
        assert_eq!(restored.keep([0; 32], b"x").key, "answer/3", "the oldest goes next");
        let mut damaged = BTreeMap::from([("answer/0".to_owned(), vec![1, 2])]);
        assert_eq!(Answers::restore(&mut damaged).err(), Some(AnswerUnreadable("answer/0".to_owned())));
    }
}
