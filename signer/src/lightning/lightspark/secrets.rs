//! Per-commitment points and secrets: ours leave in order, the counterparty's are kept.

use bitcoin::secp256k1::SecretKey;
use lightning::ln::chan_utils::CounterpartyCommitmentSecrets;
use lightning::util::ser::Writeable;
use serde_json::json;

use super::channel::Channel;
use super::event::MAX_INDEX;
use super::{Answer, LightsparkNode, REVEALED, put};
use crate::lightning::standing::Step;
use crate::reasons::{Reason, Refusal};

impl LightsparkNode {
    /// Tells the point of a commitment of ours.
    pub(super) fn tell_point(&mut self, entity: &str, number: u32, index: u64) -> Result<Answer, Refusal> {
        let mut channel = match (self.channels.get(&number), self.entities.get(entity)) {
            (None, None) => Channel::new(entity, index),
            _ => self.channel(entity, number)?.clone(),
        };
        channel.tell_point(index)?;
        let point = self.keys.per_commitment_point(number, index);
        let variables = json!({
            "channel_id": entity, "per_commitment_point": point.to_string(), "per_commitment_point_index": index,
        });
        Ok(Answer { puts: self.keep(number, channel), ..Answer::new(&variables) })
    }

    /// Releases the secret of a commitment of ours, which revokes it.
    pub(super) fn release_secret(&mut self, entity: &str, number: u32, index: u64) -> Result<Answer, Refusal> {
        // An old state does not know which commitments were signed to close since.
        self.orders.require_latest()?;
        let mut channel = self.channel(entity, number)?.clone();
        self.claimed = channel.number_of(index).map(|of| (number, Step::RevokeOurs, of));
        channel.release_secret(index)?;
        // What it revokes makes room for a new commitment.
        if let Some(stopped) = self.stopped(&channel)
            && self.channels.get(&number) != Some(&channel)
        {
            return Err(stopped);
        }
        let secret = self.keys.per_commitment_secret(number, index);
        let variables = json!({
            "channel_id": entity, "per_commitment_secret": hex::encode(&secret[..]), "per_commitment_index": index,
        });
        Ok(Answer { puts: self.keep(number, channel), ..Answer::new(&variables) })
    }

    /// The counterparty's secret of a commitment: kept, for it proves claims on that commitment.
    pub(super) fn reveal(&mut self, entity: &str, index: u64, secret: [u8; 32]) -> Result<Answer, Refusal> {
        let Some(number) = self.entities.get(entity).copied() else {
            return Err(Refusal::new(Reason::ChannelUnknown, entity));
        };
        self.claimed = Some((number, Step::RevokeTheirs, MAX_INDEX - index));
        let known = self.revealed.get(&number).cloned();
        let mut secrets = known.unwrap_or_else(CounterpartyCommitmentSecrets::new);
        let follows = secrets.get_min_seen_secret().checked_sub(1) == Some(index);
        let is_known = secrets.get_secret(index) == Some(secret);
        let is_new = || follows && SecretKey::from_slice(&secret).is_ok();
        if !is_known && (!is_new() || secrets.provide_secret(index, secret).is_err()) {
            let detail = format!("secret {index} does not follow from those before it");
            return Err(Refusal::new(Reason::SecretOrder, detail));
        }
        let entry = secrets.encode();
        self.revealed.insert(number, secrets);
        Ok(Answer { puts: vec![put(format!("{REVEALED}{number}"), entry)], ..Answer::nothing() })
    }
}
