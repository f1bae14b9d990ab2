//! Where honest and hostile messages meet the signer: what honest ones may expect, and what hostile ones have spoilt.

use std::collections::{BTreeSet, VecDeque};

use claviger::pipeline::{ChannelRef, Outcome};

use super::ledger::Ledger;
use super::line::{Line, hash};
use super::signer::Signer;

/// Honest messages that are remembered.
const REMEMBERED: usize = 64;

/// Messages to the node that harm none of its channels: NewChannel, PreapproveKeysend.
const HARMLESS: [u16; 2] = [30, 39];

/// A message and the channel it names.
pub(super) type Asked = (Option<ChannelRef>, Vec<u8>);

/// One node, and what is known of it from outside.
pub(super) struct Desk {
    pub(super) signer: Signer,
    pub(super) ledger: Ledger,
    /// The last honest messages that were answered.
    pub(super) asked: VecDeque<Asked>,
    /// Channels on which a hostile message got something done: honest ones may be refused there from then on.
    pub(super) doubted: Vec<ChannelRef>,
    /// Payments that a hostile message let leave: what they depend on may not be given up.
    pub(super) tainted: BTreeSet<[u8; 32]>,
    /// A hostile message to the node changed something.
    pub(super) all_doubted: bool,
}

impl Desk {
    /// The desk of a new node.
    pub(super) fn new(signer: Signer, ledger: Ledger) -> Self {
        Self {
            signer,
            ledger,
            asked: VecDeque::new(),
            doubted: Vec::new(),
            tainted: BTreeSet::new(),
            all_doubted: false,
        }
    }

    /// What the honest node asks.
    pub(super) fn honest(&mut self, channel: Option<ChannelRef>, message: Vec<u8>) -> Outcome {
        let answer = self.signer.ask(channel, message.clone());
        match answer.reply {
            Ok(reply) => {
                self.ledger.note(channel, &message, &reply);
                if self.asked.len() == REMEMBERED {
                    self.asked.pop_front();
                }
                self.asked.push_back((channel, message));
                Outcome::Reply(reply)
            }
            Err(refusal) => Outcome::Refused { request: String::new(), refusal },
        }
    }

    /// What somebody else asks in its name. Returns whether it was answered.
    pub(super) fn hostile(&mut self, (channel, message): Asked) -> bool {
        let answer = self.signer.ask(channel, message.clone());
        let Ok(reply) = answer.reply else { return false };
        self.ledger.note(channel, &message, &reply);
        match channel {
            _ if !answer.changed => {}
            Some(channel) => {
                self.doubted.push(channel);
                self.tainted.extend(self.ledger.last_outgoing());
            }
            None => self.all_doubted |= !HARMLESS.iter().any(|number| message.starts_with(&number.to_be_bytes())),
        }
        true
    }

    /// Whether an honest message on `line` must be answered.
    pub(super) fn trusts(&self, line: &Line) -> bool {
        let is_doubted = self.all_doubted || self.doubted.contains(&line.driver.channel());
        !is_doubted && !line.flying.iter().any(|flying| self.tainted.contains(&hash(flying.n)))
    }
}
