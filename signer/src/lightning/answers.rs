//! Answers that could not be computed a second time (P5).
//!
//! Signatures are deterministic, with exceptions: those on wallet and anchor inputs and those that close a channel by force
//! take a fresh auxiliary nonce (the table's flag `nonce`). Their answers are kept, in the commit that made them durable, so that a repeated request
//! gets the same bytes and is counted once.

use std::collections::{BTreeMap, VecDeque};

use sha2::{Digest, Sha256};

use crate::journal::Put;
use crate::pipeline::Request;

/// Entries of a node's tenant that hold answers start with this; the answer's number follows.
pub const PREFIX: &str = "answer/";

/// How many answers a node keeps, and how many bytes of them; the oldest goes first.
const KEPT: usize = 1_024;
const KEPT_BYTES: usize = 4 << 20;

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
    kept: VecDeque<Kept>,
    /// Bytes of the replies.
    bytes: usize,
    /// The next one's number.
    next: u64,
}

struct Kept {
    number: u64,
    question: Question,
    reply: Vec<u8>,
}

/// An answer's entry is damaged; its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {0} is not an answer")]
pub struct AnswerUnreadable(String);

impl Answers {
    /// Takes the entries that hold answers out of `entries`.
    pub fn restore(entries: &mut BTreeMap<String, Vec<u8>>) -> Result<Self, AnswerUnreadable> {
        let mut found = Vec::new();
        for (key, value) in entries.extract_if(.., |key, _| key.starts_with(PREFIX)) {
            found.push(decode(&value).ok_or(AnswerUnreadable(key))?);
        }
        found.sort_by_key(|kept| kept.number);
        let next = found.last().map_or(0, |kept| kept.number + 1);
        Ok(Self { bytes: found.iter().map(|kept| kept.reply.len()).sum(), kept: found.into(), next })
    }

    /// The answer given to `question` before.
    pub fn get(&self, question: &Question) -> Option<&[u8]> {
        self.kept.iter().rev().find(|kept| kept.question == *question).map(|kept| kept.reply.as_slice())
    }

    /// Keeps an answer. Returns the entry that makes it durable, and deletions of the oldest where there are too many.
    pub fn keep(&mut self, question: Question, reply: &[u8]) -> Vec<Put> {
        let kept = Kept { number: self.next, question, reply: reply.to_vec() };
        let mut puts = vec![Put { key: key(kept.number), value: Some(encode(&kept)) }];
        self.next += 1;
        self.bytes += reply.len();
        self.kept.push_back(kept);
        while self.kept.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.reply.len();
            puts.push(Put { key: key(oldest.number), value: None });
        }
        puts
    }
}

fn key(number: u64) -> String {
    format!("{PREFIX}{number}")
}

/// Version 1: the version, the answer's number, the question, the reply.
fn encode(kept: &Kept) -> Vec<u8> {
    [&[1u8][..], &kept.number.to_be_bytes(), &kept.question, &kept.reply].concat()
}

fn decode(value: &[u8]) -> Option<Kept> {
    let (&[1], rest) = value.split_first_chunk()? else { return None };
    let (number, rest) = rest.split_first_chunk()?;
    let (question, reply) = rest.split_first_chunk()?;
    Some(Kept { number: u64::from_be_bytes(*number), question: *question, reply: reply.to_vec() })
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

    /// Keeps the answer `reply` to question number `n`, in memory and in `entries`.
    fn keep(answers: &mut Answers, entries: &mut BTreeMap<String, Vec<u8>>, n: u64, reply: &[u8]) {
        for Put { key, value } in answers.keep(question(&request(0, &n.to_be_bytes())), reply) {
            match value {
                Some(value) => drop(entries.insert(key, value)),
                None => assert!(entries.remove(&key).is_some(), "only what exists is deleted"),
            }
        }
    }

    #[test]
    fn the_newest_answers_survive_a_restart() {
        let mut answers = Answers::default();
        let mut entries = BTreeMap::from([("node".to_owned(), vec![9])]);
        let asked = KEPT as u64 + 3;
        for n in 0..asked {
            keep(&mut answers, &mut entries, n, &n.to_be_bytes());
        }
        assert_eq!(entries.len(), 1 + KEPT);
        let mut restored = Answers::restore(&mut entries.clone()).expect("readable");
        for answers in [&answers, &restored] {
            for n in 0..asked {
                let expected = (n >= 3).then_some(n.to_be_bytes());
                let kept = answers.get(&question(&request(7, &n.to_be_bytes())));
                assert_eq!(kept, expected.as_ref().map(|reply| &reply[..]));
            }
        }
        keep(&mut restored, &mut entries, asked, b"x");
        assert_eq!(entries.len(), 1 + KEPT, "the oldest goes next");
    }

    #[test]
    fn large_answers_are_fewer() {
        let (mut answers, mut entries) = (Answers::default(), BTreeMap::new());
        for n in 0..100 {
            keep(&mut answers, &mut entries, n, &[0; KEPT_BYTES / 10]);
            assert!(entries.values().map(Vec::len).sum::<usize>() < KEPT_BYTES + 1_000);
        }
        assert_eq!(entries.len(), 10);
    }

    #[test]
    fn entries_of_other_rooms_stay_and_damaged_ones_are_named() {
        let mut entries = BTreeMap::from([("node".to_owned(), vec![9])]);
        assert!(Answers::restore(&mut entries).is_ok());
        assert_eq!(entries.len(), 1);
        entries.insert("answer/0".to_owned(), vec![1, 2]);
        assert_eq!(Answers::restore(&mut entries).err(), Some(AnswerUnreadable("answer/0".to_owned())));
    }
}
