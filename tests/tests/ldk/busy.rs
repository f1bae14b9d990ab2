//! A channel with payments on the way in both directions, and what comes of it.

use bitcoin::Amount;
use claviger_demo::node::LdkNode;
use claviger_demo::world::World;
use lightning::types::payment::PaymentHash;

use crate::stage::{Stage, pay, pay_held};

/// A channel with about 500,000 sat on each side, part of which the other side was offered and has yet to claim.
pub(crate) struct Busy {
    pub(crate) signed: LdkNode,
    pub(crate) plain: LdkNode,
    /// [`Self::OUT`] on its way out.
    pub(crate) outgoing: PaymentHash,
    /// [`Self::IN`] on its way in.
    pub(crate) incoming: PaymentHash,
    /// What the signed node has on the chain beside the channel.
    before: Amount,
}

impl Busy {
    /// All in sat.
    pub(crate) const OUT: i64 = 60_000;
    pub(crate) const IN: i64 = 70_000;
    /// What is left to the signed node.
    pub(crate) const TO_US: i64 = 440_000;
    /// Also on its way out, and below every dust limit: on no commitment transaction.
    const DUST: i64 = 100;

    pub(crate) fn channel(stage: &Stage) -> Self {
        let (signed, plain) = (stage.signed(), stage.plain("mallory"));
        stage.channel(&signed, &plain);
        pay(&signed, &plain, 500_000_000);
        pay_held(&signed, &plain, Self::DUST as u64 * 1_000);
        let outgoing = pay_held(&signed, &plain, Self::OUT as u64 * 1_000);
        let incoming = pay_held(&plain, &signed, Self::IN as u64 * 1_000);
        let before = signed.balance();
        Self { signed, plain, outgoing, incoming, before }
    }

    pub(crate) fn nodes(&self) -> [&LdkNode; 2] {
        [&self.signed, &self.plain]
    }

    /// The height from which on the signed node may take back what it sent.
    pub(crate) fn expiry(&self) -> u32 {
        let channel = self.signed.channel_with(&self.plain.id()).unwrap();
        channel.pending_outbound_htlcs.iter().map(|htlc| htlc.cltv_expiry).max().unwrap()
    }

    /// Stops the signed node, lets `meanwhile` happen before the peer's eyes, and starts it again.
    pub(crate) fn restart_signed(self, stage: &mut Stage, meanwhile: impl FnOnce(&mut World, &LdkNode)) -> Self {
        let signed = stage.restart(self.signed, |world| meanwhile(world, &self.plain));
        Self { signed, ..self }
    }

    /// Mines until both have everything; of the channel, the signed node has then got `expected_sat` minus fees.
    pub(crate) fn settle(&self, stage: &Stage, expected_sat: i64) {
        stage.settle(&self.signed, &self.plain, self.before, expected_sat);
    }
}
