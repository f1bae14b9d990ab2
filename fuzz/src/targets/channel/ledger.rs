//! What answers gave away, counted apart from the signer's own books: by the messages that were answered alone.
//!
//! *By right ours* is what all channels leave us in the worst case if every HTLC fails. It rises as we are paid, and falls
//! only by payments that were approved (and whose preimage was told, where the wire brings it). What is claimable may
//! never be less: what left by a forward must stand in an incoming HTLC that every valid commitment has. Dust is allowed
//! for as `docs/channel-book.md` bounds it.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::psbt::Psbt;
use bitcoin::{Transaction, Txid};
use claviger::names::NodeKind;
use claviger::pipeline::ChannelRef;
use vls_protocol::model::Htlc;
use vls_protocol::msgs::{self, DeBolt, Message};

use super::signer::allowed;

/// What may leave as dust in a day, and what outputs round away.
const DUST_MSAT_PER_CHANNEL: i128 = 100_000_000 + 2_000;
const ANCHORS_SAT: u64 = 660;
/// `limits.max_onchain_fee_sat` unless configured.
const MAX_FEE_SAT: u64 = 100_000;

type Hash = [u8; 32];

/// One node's account.
#[derive(Clone)]
pub(super) struct Ledger {
    brings_preimages: bool,
    accounts: BTreeMap<ChannelRef, Account>,
    /// What payments may take at most, and what they took.
    approved_msat: BTreeMap<Hash, (i128, i128)>,
    told: BTreeSet<Hash>,
    /// Hashes by which something left or might.
    outgoing: BTreeSet<Hash>,
    /// Those in the last message, if it brought a commitment.
    last_outgoing: Vec<Hash>,
    /// Core Lightning's commitments by their transactions: the same one again is the same commitment, whatever the message
    /// says of it besides.
    seen: BTreeSet<(ChannelRef, Txid)>,
    by_right_msat: i128,
}

/// One channel's.
#[derive(Clone, Default)]
struct Account {
    we_fund: bool,
    ours: BTreeMap<u64, Claim>,
    theirs: BTreeMap<u64, Claim>,
    /// Our commitments from this number on may be published: their secrets stay.
    unrevoked_from: u64,
    /// The same for the peer's.
    theirs_unrevoked_from: u64,
    signed: BTreeSet<u64>,
    /// A close was signed when this one was in force.
    closed_from: Option<u64>,
}

/// What is ours by one commitment.
#[derive(Clone, Debug)]
struct Claim {
    /// If every HTLC fails.
    base_msat: i128,
    incoming: Vec<(Hash, i128)>,
    outgoing: Vec<(Hash, i128)>,
}

impl Ledger {
    /// An empty account of a node of this kind.
    pub(super) fn new(kind: NodeKind) -> Self {
        Self {
            brings_preimages: kind == NodeKind::Ldk,
            accounts: BTreeMap::new(),
            approved_msat: BTreeMap::new(),
            told: BTreeSet::new(),
            outgoing: BTreeSet::new(),
            last_outgoing: Vec::new(),
            seen: BTreeSet::new(),
            by_right_msat: 0,
        }
    }

    /// Counts an answered message. Panics if it gave away what it must not.
    pub(super) fn note(&mut self, channel: Option<ChannelRef>, bytes: &[u8], reply: &[u8]) {
        self.last_outgoing.clear();
        if bytes.starts_with(&[0x0b, 0xb8]) {
            self.told.extend(bytes[4..].chunks_exact(32).map(|p| sha256::Hash::hash(p).to_byte_array()));
            return;
        }
        let Ok(message) = msgs::from_reader(&mut &bytes[..], bytes.len() as u32) else { return };
        if let Message::PreapproveKeysend(m) = &message {
            let reply = msgs::PreapproveKeysendReply::from_vec(reply.to_vec());
            if reply.is_ok_and(|reply| reply.result) {
                let most_msat = i128::from(m.amount_msat) + i128::from(m.amount_msat / 10).max(50_000);
                let known = self.approved_msat.entry(m.payment_hash.0).or_default();
                known.0 = known.0.max(most_msat);
            }
            return;
        }
        if let Message::SignCommitmentTx(m) = &message {
            let channel = ChannelRef { peer_id: m.peer_id.0, dbid: m.dbid };
            match m.tx.0.lock_time.to_consensus_u32() {
                0 => self.closes(channel, paid_to_us(&m.tx.0)),
                _ => self.publishes(channel, m.commitment_number),
            }
            return;
        }
        let Some(channel) = channel else { return };
        match message {
            Message::SetupChannel(m) => self.accounts.entry(channel).or_default().we_fund = m.is_outbound,
            Message::SignRemoteCommitmentTx2(m) => {
                let claim = self.claim(channel, m.to_local_value_sat, m.feerate, &m.htlcs);
                self.valid(channel, m.commitment_number, claim, false);
            }
            Message::ValidateCommitmentTx2(m) => {
                let claim = self.claim(channel, m.to_local_value_sat, m.feerate, &m.htlcs);
                self.valid(channel, m.commitment_number, claim, true);
            }
            Message::SignRemoteCommitmentTx(m) => {
                if !self.seen.insert((channel, m.tx.0.compute_txid())) {
                    return;
                }
                let to_us_sat = paid(&m.tx.0, &m.psbt.0.inner, |script| !is_revocable(script));
                let claim = self.claim(channel, to_us_sat, m.feerate, &m.htlcs);
                self.valid(channel, m.commitment_number, claim, false);
            }
            Message::ValidateCommitmentTx(m) => {
                if !self.seen.insert((channel, m.tx.0.compute_txid())) {
                    return;
                }
                let to_us_sat = paid(&m.tx.0, &m.psbt.0.inner, is_revocable);
                let claim = self.claim(channel, to_us_sat, m.feerate, &m.htlcs);
                self.valid(channel, m.commitment_number, claim, true);
            }
            Message::SignLocalCommitmentTx2(m) => self.publishes(channel, m.commitment_number),
            Message::SignMutualCloseTx(m) => self.closes(channel, paid_to_us(&m.tx.0)),
            Message::SignMutualCloseTx2(m) => {
                let is_ours = m.local_script.0 == allowed().as_bytes();
                self.closes(channel, if is_ours { m.to_local_value_sat } else { 0 });
            }
            Message::RevokeCommitmentTx(m) => {
                let reveals = msgs::RevokeCommitmentTxReply::from_vec(reply.to_vec()).is_ok();
                assert!(reveals, "a revocation is answered with a secret");
                self.reveals(channel, m.commitment_number);
            }
            Message::GetPerCommitmentPoint(_) => {
                let reply = msgs::GetPerCommitmentPointReply::from_vec(reply.to_vec());
                assert!(reply.is_ok_and(|reply| reply.secret.is_none()), "no secret comes with a point");
            }
            Message::ValidateRevocation(m) => {
                let account = self.accounts.entry(channel).or_default();
                account.theirs_unrevoked_from = account.theirs_unrevoked_from.max(m.commitment_number + 1);
                account.theirs = account.theirs.split_off(&account.theirs_unrevoked_from);
                self.require_conserved();
            }
            _ => {}
        }
    }

    /// The hashes of what leaves by the commitment that the last message brought.
    pub(super) fn last_outgoing(&self) -> &[Hash] {
        &self.last_outgoing
    }

    fn claim(&self, channel: ChannelRef, to_us_sat: u64, feerate_per_kw: u32, htlcs: &[Htlc]) -> Claim {
        let we_fund = self.accounts.get(&channel).is_some_and(|account| account.we_fund);
        let fee_sat = u64::from(feerate_per_kw) * (1_124 + 172 * htlcs.len() as u64) / 1_000;
        let cost_sat = if we_fund { fee_sat + ANCHORS_SAT } else { 0 };
        let of = |side| {
            let htlcs = htlcs.iter().filter(move |htlc| htlc.side == side);
            htlcs.map(|htlc| (htlc.payment_hash.0, i128::from(htlc.amount))).collect::<Vec<_>>()
        };
        let outgoing = of(Htlc::LOCAL);
        let out_msat: i128 = outgoing.iter().map(|(_, amount_msat)| amount_msat).sum();
        let base_msat = i128::from(to_us_sat + cost_sat) * 1_000 + out_msat;
        Claim { base_msat, incoming: of(Htlc::REMOTE), outgoing }
    }

    /// A commitment is valid from now on.
    fn valid(&mut self, channel: ChannelRef, number: u64, claim: Claim, is_ours: bool) {
        let before_msat = self.base_msat();
        self.last_outgoing = claim.outgoing.iter().map(|(hash, _)| *hash).collect();
        let account = self.accounts.entry(channel).or_default();
        let is_first = account.ours.is_empty() && account.theirs.is_empty();
        let unrevoked = if is_ours { account.unrevoked_from } else { account.theirs_unrevoked_from };
        if number < unrevoked {
            return;
        }
        self.outgoing.extend(&self.last_outgoing);
        let chain = if is_ours { &mut account.ours } else { &mut account.theirs };
        let previous = number.checked_sub(1).and_then(|number| chain.get(&number)).map(|claim| claim.outgoing.clone());
        let kept = claim.outgoing.clone();
        chain.insert(number, claim);
        assert!(chain.len() <= 2, "{} commitments of one side are valid", chain.len());
        let now_msat = self.base_msat();
        if is_first {
            self.by_right_msat += now_msat - before_msat;
            return;
        }
        let mut fell_msat = before_msat - now_msat;
        for (hash, _) in previous.unwrap_or_default().iter().filter(|htlc| !kept.contains(htlc)) {
            if fell_msat <= 0 || (self.brings_preimages && !self.told.contains(hash)) {
                continue;
            }
            if let Some((most_msat, taken_msat)) = self.approved_msat.get_mut(hash) {
                let paid_msat = fell_msat.min(*most_msat - *taken_msat);
                *taken_msat += paid_msat;
                fell_msat -= paid_msat;
                self.by_right_msat -= paid_msat;
            }
        }
        self.require_conserved();
    }

    fn reveals(&mut self, channel: ChannelRef, number: u64) {
        let account = self.accounts.entry(channel).or_default();
        assert!(!account.signed.contains(&number), "commitment {number} was signed and is revoked");
        if number < account.unrevoked_from {
            return;
        }
        assert!(account.closed_from.is_none_or(|from| number < from), "the channel was closed; {number} is revoked");
        assert!(account.ours.contains_key(&(number + 1)), "{number} is revoked and nothing follows");
        account.unrevoked_from = number + 1;
        account.ours = account.ours.split_off(&account.unrevoked_from);
        self.require_conserved();
    }

    fn publishes(&mut self, channel: ChannelRef, number: u64) {
        let account = self.accounts.entry(channel).or_default();
        assert!(number >= account.unrevoked_from, "commitment {number} was revoked and is signed");
        account.signed.insert(number);
        account.closed_from = Some(account.closed_from.map_or(number, |from| from.min(number)));
    }

    fn closes(&mut self, channel: ChannelRef, to_us_sat: u64) {
        let account = self.accounts.entry(channel).or_default();
        let base_msat = account.ours.values().chain(account.theirs.values()).map(|claim| claim.base_msat).min();
        let fee_sat = if account.we_fund { MAX_FEE_SAT } else { 0 };
        let owed_msat = base_msat.unwrap_or(0) - i128::from(fee_sat) * 1_000;
        assert!(i128::from(to_us_sat) * 1_000 > owed_msat - 1_000, "a close pays {to_us_sat} sat of {owed_msat} msat");
        let in_force = account.unrevoked_from;
        account.closed_from = Some(account.closed_from.map_or(in_force, |from| from.min(in_force)));
    }

    /// What all channels leave us in the worst case if every HTLC fails.
    fn base_msat(&self) -> i128 {
        self.worst(|claim| claim.base_msat)
    }

    fn worst(&self, of: impl Fn(&Claim) -> i128) -> i128 {
        let accounts = self.accounts.values();
        accounts.map(|a| a.ours.values().chain(a.theirs.values()).map(&of).min().unwrap_or(0)).sum()
    }

    fn require_conserved(&mut self) {
        let claimable_msat = self.worst(|claim| {
            let covering = claim.incoming.iter().filter(|(hash, _)| self.outgoing.contains(hash));
            claim.base_msat + covering.map(|(_, amount_msat)| amount_msat).sum::<i128>()
        });
        let dust_msat = DUST_MSAT_PER_CHANNEL * self.accounts.len() as i128;
        let right_msat = self.by_right_msat;
        assert!(claimable_msat + dust_msat >= right_msat, "{claimable_msat} msat are left of {right_msat} msat");
        self.by_right_msat = right_msat.max(self.base_msat());
    }
}

fn paid_to_us(tx: &Transaction) -> u64 {
    let ours = tx.output.iter().filter(|txout| txout.script_pubkey == allowed());
    ours.map(|txout| txout.value.to_sat()).sum()
}

/// The sum of the outputs to one side: revocable ones are the commitment's owner's. The amounts are those of the transaction,
/// which is what is signed; the PSBT beside it may tell others, and adds the scripts alone.
fn paid(tx: &Transaction, psbt: &Psbt, is_theirs: impl Fn(&[u8]) -> bool) -> u64 {
    let main = |script: &[u8]| is_revocable(script) || script.ends_with(&[0xad, 0x51, 0xb2]);
    let outputs = psbt.outputs.iter().zip(&tx.output);
    let scripts = outputs.filter_map(|(output, txout)| Some((output.witness_script.as_ref()?.as_bytes(), txout)));
    scripts.filter(|(script, _)| main(script) && is_theirs(script)).map(|(_, txout)| txout.value.to_sat()).sum()
}

/// OP_IF at the beginning: an output that can be taken once the commitment is revoked (BOLT 3).
fn is_revocable(script: &[u8]) -> bool {
    script.first() == Some(&0x63)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use vls_protocol::model::{BitcoinSignature, DisclosedSecret, PubKey, Sha256, Signature};
    use vls_protocol::msgs::SerBolt;

    use super::*;

    const CHANNEL: Option<ChannelRef> = Some(ChannelRef { peer_id: [2; 33], dbid: 1 });

    /// The peer's commitment, signed: what is ours, and HTLCs by hash, direction and amount in sat.
    fn signed(number: u64, to_us_sat: u64, htlcs: &[(u8, u8, u64)]) -> Vec<u8> {
        let htlc = |(side, n, sat): &(u8, u8, u64)| Htlc {
            side: *side,
            amount: sat * 1_000,
            payment_hash: Sha256([*n; 32]),
            ctlv_expiry: 500,
        };
        msgs::SignRemoteCommitmentTx2 {
            remote_per_commitment_point: PubKey([2; 33]),
            commitment_number: number,
            feerate: 1_000,
            to_local_value_sat: to_us_sat,
            to_remote_value_sat: 0,
            htlcs: htlcs.iter().map(htlc).collect::<Vec<_>>().into(),
        }
        .as_vec()
    }

    fn approval(n: u8, sat: u64) -> Vec<u8> {
        let (destination, payment_hash) = (PubKey([2; 33]), Sha256([n; 32]));
        msgs::PreapproveKeysend { destination, payment_hash, amount_msat: sat * 1_000 }.as_vec()
    }

    /// The peer's commitment, revoked.
    fn revoked(commitment_number: u64) -> Vec<u8> {
        let commitment_secret = DisclosedSecret([1; 32]);
        msgs::ValidateRevocation { commitment_number, commitment_secret }.as_vec()
    }

    /// Whether an account that holds 5,000,000 sat takes these commitments, one after the other.
    fn takes(approved: bool, commitments: &[Vec<u8>]) -> bool {
        let mut ledger = Ledger::new(NodeKind::Cln);
        ledger.note(CHANNEL, &signed(0, 5_000_000, &[]), &[]);
        if approved {
            ledger.note(None, &approval(1, 1_000_000), &msgs::PreapproveKeysendReply { result: true }.as_vec());
        }
        let play = || commitments.iter().for_each(|bytes| ledger.note(CHANNEL, bytes, &[]));
        catch_unwind(AssertUnwindSafe(play)).is_ok()
    }

    #[test]
    fn hostile_losses_are_seen_and_honest_payments_are_none() {
        let leaves = || signed(1, 4_000_000, &[(Htlc::LOCAL, 1, 1_000_000)]);
        assert!(!takes(false, &[signed(1, 4_000_000, &[])]), "a shift");
        assert!(!takes(false, &[leaves(), revoked(0), signed(2, 4_000_000, &[])]), "an unapproved payment");
        assert!(takes(true, &[leaves(), revoked(0), signed(2, 4_000_000, &[])]));
        let once = [leaves(), revoked(0), signed(2, 4_000_000, &[]), revoked(1)];
        let again = [signed(3, 3_000_000, &[(Htlc::LOCAL, 1, 1_000_000)]), revoked(2), signed(4, 3_000_000, &[])];
        assert!(!takes(true, &[&once[..], &again].concat()), "a payment made twice");
        let received = [signed(1, 6_000_000, &[]), revoked(0)];
        assert!(takes(false, &received));
        assert!(!takes(false, &[&received[..], &[signed(2, 5_500_000, &[])]].concat()), "what came");
    }

    #[test]
    fn hostile_forwards_must_stand_in_what_comes_in() {
        let comes = |number, sat| signed(number, 5_000_000, &[(Htlc::REMOTE, 1, sat)]);
        let passed = |number, sat| signed(number, 4_000_000, &[(Htlc::REMOTE, 1, sat), (Htlc::LOCAL, 1, 1_000_000)]);
        let settled = |number, sat| signed(number, 4_000_000, &[(Htlc::REMOTE, 1, sat)]);
        let story = |sat| [comes(1, sat), revoked(0), passed(2, sat), revoked(1), settled(3, sat)];
        assert!(takes(false, &story(1_010_000)));
        assert!(!takes(false, &story(500_000)), "half of it");
        assert!(!takes(false, &[&story(1_010_000)[..], &[revoked(2), signed(4, 4_000_000, &[])]].concat()), "given up");
    }

    #[test]
    fn hostile_revocation_and_signature_of_the_same_commitment_are_seen() {
        let sign = |commitment_number| msgs::SignLocalCommitmentTx2 { commitment_number }.as_vec();
        let revoke = msgs::RevokeCommitmentTx { commitment_number: 0 }.as_vec();
        let secret = msgs::RevokeCommitmentTxReply {
            next_per_commitment_point: PubKey([2; 33]),
            old_commitment_secret: DisclosedSecret([1; 32]),
        };
        let validated = |number| {
            let zero = BitcoinSignature { signature: Signature([1; 64]), sighash: 1 };
            msgs::ValidateCommitmentTx2 {
                commitment_number: number,
                feerate: 1_000,
                to_local_value_sat: 5_000_000,
                to_remote_value_sat: 0,
                htlcs: Vec::new().into(),
                signature: zero,
                htlc_signatures: Vec::new().into(),
            }
            .as_vec()
        };
        let takes = |messages: &[&Vec<u8>]| {
            let mut ledger = Ledger::new(NodeKind::Ldk);
            (0..2).for_each(|number| ledger.note(CHANNEL, &validated(number), &[]));
            let play = || messages.iter().for_each(|bytes| ledger.note(CHANNEL, bytes, &secret.as_vec()));
            catch_unwind(AssertUnwindSafe(play)).is_ok()
        };
        assert!(takes(&[&revoke, &revoke, &sign(1)]));
        assert!(!takes(&[&revoke, &sign(0)]));
        assert!(!takes(&[&sign(0), &revoke]));
        assert!(!takes(&[&msgs::RevokeCommitmentTx { commitment_number: 1 }.as_vec()]), "nothing follows");
    }
}
