//! The commitments that a driver's two sides agree on.

use bitcoin::secp256k1::PublicKey;
use lightning::ln::chan_utils::{CommitmentTransaction, DirectedChannelTransactionParameters, HTLCOutputInCommitment};
use lightning::sign::ChannelSigner;
use lightning::types::payment::PaymentHash;
use vls_protocol::model::{Htlc, Sha256};

use super::{ANCHORS_SAT, CHANNEL_SAT, Driver, DriverError, DriverHtlc, FIRST_COMMITMENT, Holdings};

impl Driver {
    /// The signer's commitment in force.
    pub fn our_commitment(&self) -> CommitmentTransaction {
        self.commitment(self.number, &self.points[0], &self.holdings)
    }

    /// The peer's commitment in force, and its point.
    pub fn peer_commitment(&self) -> Result<(CommitmentTransaction, PublicKey), DriverError> {
        self.theirs(self.number, &self.holdings)
    }

    pub(super) fn theirs(
        &self,
        number: u64,
        holdings: &Holdings,
    ) -> Result<(CommitmentTransaction, PublicKey), DriverError> {
        let point = self.peer_point(number)?;
        let theirs = |htlc| HTLCOutputInCommitment { offered: !htlc_in_ours(htlc).offered, ..htlc_in_ours(htlc) };
        let commitment = CommitmentTransaction::new(
            FIRST_COMMITMENT - number,
            &point,
            self.to_peer_in(number, holdings),
            holdings.to_us_sat,
            self.feerate_of(number),
            self.shown(holdings).map(theirs).collect(),
            &self.of_peer(),
            &self.secp,
        );
        Ok((commitment, point))
    }

    pub(super) fn commitment(&self, number: u64, ours: &PublicKey, holdings: &Holdings) -> CommitmentTransaction {
        CommitmentTransaction::new(
            FIRST_COMMITMENT - number,
            ours,
            holdings.to_us_sat,
            self.to_peer_in(number, holdings),
            self.feerate_of(number),
            self.shown(holdings).map(htlc_in_ours).collect(),
            &self.of_us(),
            &self.secp,
        )
    }

    /// The channel as a commitment of the signer's node sees it, and of the peer.
    pub(super) fn of_us(&self) -> DirectedChannelTransactionParameters<'_> {
        self.parameters.as_counterparty_broadcastable()
    }

    pub(super) fn of_peer(&self) -> DirectedChannelTransactionParameters<'_> {
        self.parameters.as_holder_broadcastable()
    }

    pub(super) fn peer_point(&self, number: u64) -> Result<PublicKey, DriverError> {
        let point = self.peer.get_per_commitment_point(FIRST_COMMITMENT - number, &self.secp);
        point.map_err(|()| DriverError::Peer("tell its point"))
    }

    pub(super) fn feerate_of(&self, number: u64) -> u32 {
        self.feerates_per_kw[usize::from(number > self.number)]
    }

    /// What the peer would be left with in a commitment without HTLCs.
    pub fn to_peer_sat(&self) -> u64 {
        self.to_peer_in(self.number, &Holdings { htlcs: Vec::new(), ..self.holdings.clone() })
    }

    /// What the peer is left with: all of the channel less the fee and the anchors, the HTLCs and what is ours. What is
    /// trimmed goes to miners.
    pub(super) fn to_peer_in(&self, number: u64, holdings: &Holdings) -> u64 {
        let in_htlcs: u64 = holdings.htlcs.iter().map(|htlc| htlc.amount_sat).sum();
        let cost_sat = cost_sat(self.feerate_of(number), self.shown(holdings).count());
        [cost_sat, in_htlcs, holdings.to_us_sat].into_iter().fold(CHANNEL_SAT, u64::saturating_sub)
    }

    /// The HTLCs that have an output.
    fn shown<'a>(&self, holdings: &'a Holdings) -> impl Iterator<Item = &'a DriverHtlc> + use<'a> {
        let dust_limit_sat = self.dust_limit_sat;
        holdings.htlcs.iter().filter(move |htlc| htlc.amount_sat >= dust_limit_sat)
    }

    pub(super) fn wire_htlcs(&self, holdings: &Holdings) -> Vec<Htlc> {
        self.shown(holdings).map(wire_htlc).collect()
    }
}

/// The fee (BOLT 3, appendix A) and the anchors.
pub(super) fn cost_sat(feerate_per_kw: u32, htlcs: usize) -> u64 {
    (1_124 + 172 * htlcs as u64) * u64::from(feerate_per_kw) / 1_000 + ANCHORS_SAT
}

fn wire_htlc(htlc: &DriverHtlc) -> Htlc {
    Htlc {
        side: if htlc.is_ours { Htlc::LOCAL } else { Htlc::REMOTE },
        amount: htlc.amount_sat * 1_000,
        payment_hash: Sha256(htlc.payment_hash),
        ctlv_expiry: htlc.cltv_expiry,
    }
}

/// As it stands in the signer's commitment.
fn htlc_in_ours(htlc: &DriverHtlc) -> HTLCOutputInCommitment {
    HTLCOutputInCommitment {
        offered: htlc.is_ours,
        amount_msat: htlc.amount_sat * 1_000,
        cltv_expiry: htlc.cltv_expiry,
        payment_hash: PaymentHash(htlc.payment_hash),
        transaction_output_index: None,
    }
}
