//! Channels between two sides.

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Transaction, Txid};
use lightning_signer::channel::{ChannelBase, ChannelId, ChannelSetup, CommitmentType};
use lightning_signer::tx::tx::HTLCInfo2;

use super::{Side, hash, spend};

const FEERATE_PER_KW: u32 = 1_000;
const FEE_SAT: u64 = 3_000;

impl Side {
    /// This side's current commitment transaction.
    pub(in super::super) fn unilateral_close(&self, link: &Link) -> Transaction {
        let spent = vec![true; link.htlcs.len()];
        self.node.with_channel(&link.a, |c| c.sign_holder_commitment_tx_for_recovery_dry_run(&spent, None)).unwrap().0
    }
}

/// A channel funded by `a`.
#[derive(Clone)]
pub(in super::super) struct Link {
    pub(in super::super) a: ChannelId,
    pub(in super::super) b: ChannelId,
    pub(in super::super) funding: Transaction,
    pub(in super::super) commitment: u64,
    pub(in super::super) to_a_sat: u64,
    pub(in super::super) to_b_sat: u64,
    /// Offered by `a`.
    pub(in super::super) htlcs: Vec<HTLCInfo2>,
}

const CAPACITY_SAT: u64 = 3_000_000;
pub(in super::super) const HTLC_SAT: u64 = 50_000;

/// NewChannel on one side.
pub(in super::super) fn stub(side: &mut Side, dbid: u64) -> ChannelId {
    let (id, _) = side.node.new_channel(dbid, &[3; 33], &side.node).unwrap();
    side.flush();
    id
}

/// NewChannel and SetupChannel on both sides, and the first commitment.
pub(in super::super) fn open(a: &mut Side, b: &mut Side, dbid: u64) -> Link {
    let (id_a, id_b) = (stub(a, dbid), stub(b, dbid));
    let funding = spend(OutPoint { txid: Txid::from_byte_array([9; 32]), vout: dbid as u32 }, dbid);
    setup(a, &id_a, b, &id_b, &funding, true);
    setup(b, &id_b, a, &id_a, &funding, false);
    let mut link = Link {
        a: id_a,
        b: id_b,
        funding,
        commitment: 0,
        to_a_sat: CAPACITY_SAT - FEE_SAT,
        to_b_sat: 0,
        htlcs: Vec::new(),
    };
    commit(a, b, &mut link, 0);
    a.node.unchecked_sign_onchain_tx(&link.funding, &[], &[], vec![]).unwrap();
    a.flush();
    link
}

fn setup(side: &mut Side, id: &ChannelId, other: &Side, other_id: &ChannelId, funding: &Transaction, outbound: bool) {
    let counterparty_points = other.node.get_channel(other_id).unwrap().lock().unwrap().get_channel_basepoints();
    let setup = ChannelSetup {
        is_outbound: outbound,
        channel_value_sat: CAPACITY_SAT,
        push_value_msat: 0,
        funding_outpoint: OutPoint { txid: funding.compute_txid(), vout: 0 },
        holder_selected_contest_delay: 6,
        holder_shutdown_script: None,
        counterparty_points,
        counterparty_selected_contest_delay: 6,
        counterparty_shutdown_script: None,
        commitment_type: CommitmentType::StaticRemoteKey,
    };
    side.node.setup_channel(id.clone(), None, setup, &vec![].into()).unwrap();
    side.flush();
}

/// `a` offers one more HTLC (approved) and both sides advance.
pub(in super::super) fn pay(a: &mut Side, b: &mut Side, link: &mut Link, n: u64) {
    a.keysend(hash(n), HTLC_SAT * 1000);
    link.to_a_sat -= HTLC_SAT;
    link.htlcs.push(HTLCInfo2 { value_sat: HTLC_SAT, payment_hash: hash(n), cltv_expiry: 500 });
    link.commitment += 1;
    commit(a, b, link, link.commitment);
}

/// `b` claims the oldest HTLC and both sides advance.
pub(in super::super) fn settle(a: &mut Side, b: &mut Side, link: &mut Link) {
    if link.htlcs.is_empty() {
        return;
    }
    link.to_b_sat += link.htlcs.remove(0).value_sat;
    link.commitment += 1;
    commit(a, b, link, link.commitment);
}

/// Both sides sign, validate, revoke and check the revocation for commitment `n`.
fn commit(a: &mut Side, b: &mut Side, link: &mut Link, n: u64) {
    let (htlcs, none) = (link.htlcs.clone(), Vec::new());
    half((a, &link.a, link.to_a_sat), (b, &link.b, link.to_b_sat), n, none.clone(), htlcs.clone());
    half((b, &link.b, link.to_b_sat), (a, &link.a, link.to_a_sat), n, htlcs, none);
}

/// `signer` signs the holder's commitment `n`; HTLCs from the holder's view.
fn half(
    signer: (&mut Side, &ChannelId, u64),
    holder: (&mut Side, &ChannelId, u64),
    n: u64,
    offered: Vec<HTLCInfo2>,
    received: Vec<HTLCInfo2>,
) {
    let (signer, signer_id, to_signer_sat) = signer;
    let (holder, holder_id, to_holder_sat) = holder;
    let point = holder.channel(holder_id, |c| c.get_per_commitment_point(n));
    let (signature, htlc_signatures) = signer.channel(signer_id, |c| {
        let (offered, received) = (offered.clone(), received.clone());
        c.sign_counterparty_commitment_tx_phase2(
            &point,
            n,
            FEERATE_PER_KW,
            to_signer_sat,
            to_holder_sat,
            offered,
            received,
        )
    });
    holder.channel(holder_id, |c| {
        c.validate_holder_commitment_tx_phase2(
            n,
            FEERATE_PER_KW,
            to_holder_sat,
            to_signer_sat,
            offered,
            received,
            &signature,
            &htlc_signatures,
        )
    });
    if n == 0 {
        holder.channel(holder_id, |c| c.activate_initial_commitment());
    } else {
        let (_, secret) = holder.channel(holder_id, |c| c.revoke_previous_holder_commitment(n));
        signer.channel(signer_id, |c| c.validate_counterparty_revocation(n - 1, &secret.unwrap()));
    }
}
