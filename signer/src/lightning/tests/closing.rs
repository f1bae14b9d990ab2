//! Closing and revoking exclude each other (P3): whoever owns the node has one of the two, never both.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::psbt::Psbt;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use lightning_signer::channel::ChannelId;
use vls_protocol::model::PubKey;
use vls_protocol::msgs::{self, DeBolt, SerBolt};
use vls_protocol::psbt::PsbtWrapper;
use vls_protocol::serde_bolt::{Octets, WithSize};

use super::*;
use crate::journal::{Commit, Put};
use crate::lightning::driver::{Asked, Script};
use crate::reasons::Reason;

/// What an advance asks, in this order.
const SIGN_THEIRS: usize = 0;
const VALIDATE_OURS: usize = 1;
const REVOKE_OURS: usize = 2;

/// A node with a confirmed channel, and what its peer and it would ask in four advances, of which one is done.
struct Closing {
    signer: Signer,
    alice: NodeName,
    channel: ChannelRef,
    advances: Vec<Vec<Asked>>,
}

impl Closing {
    fn start() -> Self {
        Self::with(1, LimitsConfig::default())
    }

    /// With so many HTLCs in every commitment after the first.
    fn with(htlcs: usize, limits: LimitsConfig) -> Self {
        let mut twin = Signer::start();
        let alice = twin.add("alice", NodeKind::Ldk);
        let mut funding = None;
        // The funding is confirmed while the channel is open already, so the twin is told in the middle.
        let driver = Driver::open(&mut twin.asking(&alice), 1).expect("opens");
        twin.confirm(&[&alice], vec![driver.funding().clone()]);
        let script = Script::record(&mut twin.asking(&alice), 1, |tx| funding = Some(tx.clone()), 4, htlcs);
        let script = script.expect("the twin advances");

        let mut signer = Signer::start_over(Arc::new(MemoryStore::new()), limits);
        signer.add("alice", NodeKind::Ldk);
        let channel = script.opening.iter().find_map(|(channel, _)| *channel).expect("the channel's messages name it");
        for (channel, message) in script.opening {
            replied(signer.ask(&alice, channel, message));
        }
        signer.confirm(&[&alice], vec![script.funding]);
        let closing = Self { signer, alice, channel, advances: script.advances };
        closing.play(0, 0..5);
        closing
    }

    /// Asks messages of an advance; all are answered.
    fn play(&self, advance: usize, messages: std::ops::Range<usize>) -> Vec<Vec<u8>> {
        messages.map(|n| replied(self.scripted(advance, n))).collect()
    }

    fn scripted(&self, advance: usize, n: usize) -> Outcome {
        let (channel, message) = self.advances[advance][n].clone();
        self.signer.ask(&self.alice, channel, message)
    }

    fn ask(&self, message: &dyn SerBolt) -> Outcome {
        self.signer.ask(&self.alice, Some(self.channel), message.as_vec())
    }

    fn close_with(&self, commitment_number: u64) -> Outcome {
        self.ask(&msgs::SignLocalCommitmentTx2 { commitment_number })
    }

    fn revoke(&self, commitment_number: u64) -> Outcome {
        self.ask(&msgs::RevokeCommitmentTx { commitment_number })
    }

    /// By agreement: all of it is the peer's, who also pays `fee_sat`.
    fn close_together(&self, fee_sat: u64) -> Outcome {
        self.ask(&msgs::SignMutualCloseTx2 {
            to_local_value_sat: 0,
            to_remote_value_sat: 10_000_000 - fee_sat,
            local_script: Octets::EMPTY,
            remote_script: ScriptBuf::from_hex("0014be18d152a9b012039daf3da7de4f53349eecb985")
                .expect("a script")
                .into_bytes()
                .into(),
            local_wallet_path_hint: Vec::new().into(),
        })
    }

    /// The other dialect's way to close with a commitment.
    fn close_with_5(&self, commitment_number: u64) -> Outcome {
        let message = msgs::SignCommitmentTx {
            peer_id: PubKey(self.channel.peer_id),
            dbid: self.channel.dbid,
            tx: WithSize(unused_tx()),
            psbt: WithSize(unused_psbt()),
            remote_funding_key: PubKey([2; 33]),
            commitment_number,
        };
        self.signer.ask(&self.alice, None, message.as_vec())
    }

    /// Starts the signer again from its journal, for a node of this dialect.
    fn restart_as(&mut self, kind: NodeKind) {
        self.signer.restart();
        self.signer.add("alice", kind);
    }
}

/// A transaction with the lock time of a commitment. vls reads nothing else of it.
fn unused_tx() -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(0x2000_0001),
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array([5; 32]), vout: 0 },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: bitcoin::Amount::from_sat(1_000), script_pubkey: ScriptBuf::new() }],
    }
}

fn unused_psbt() -> PsbtWrapper {
    Psbt::from_unsigned_tx(unused_tx()).expect("unsigned").into()
}

fn reason(outcome: Outcome) -> Reason {
    refused(outcome).1.reason
}

#[test]
fn hostile_node_gets_no_secret_of_a_commitment_that_was_signed() {
    let mut closing = Closing::start();
    closing.play(1, SIGN_THEIRS..REVOKE_OURS);
    replied(closing.close_with(1));
    for kind in [NodeKind::Ldk, NodeKind::Ldk, NodeKind::Cln, NodeKind::Cln] {
        for number in [1, 2, 3] {
            assert_eq!(reason(closing.revoke(number)), Reason::RevokeAfterClose, "{kind} {number}");
        }
        closing.restart_as(kind);
    }
    // The older way to tell a secret tells a point only.
    let point = closing.ask(&msgs::GetPerCommitmentPoint { commitment_number: 3 });
    assert!(msgs::GetPerCommitmentPointReply::from_vec(replied(point)).expect("reads").secret.is_none());
}

#[test]
fn hostile_node_gets_no_secret_after_closing_in_the_other_dialect() {
    let mut closing = Closing::start();
    closing.play(1, SIGN_THEIRS..REVOKE_OURS);
    closing.restart_as(NodeKind::Cln);
    replied(closing.close_with_5(1));
    assert_eq!(reason(closing.scripted(1, REVOKE_OURS)), Reason::RevokeAfterClose);
    closing.restart_as(NodeKind::Ldk);
    assert_eq!(reason(closing.scripted(1, REVOKE_OURS)), Reason::RevokeAfterClose);
}

#[test]
fn honest_node_hears_again_what_it_was_told_before_the_close() {
    let mut closing = Closing::start();
    let before = closing.play(1, SIGN_THEIRS..REVOKE_OURS);
    let released = replied(closing.revoke(0));
    let signature = replied(closing.close_with(1));
    for _ in 0..2 {
        assert_eq!(replied(closing.revoke(0)), released, "that secret had left");
        assert_eq!(closing.play(1, SIGN_THEIRS..REVOKE_OURS), before, "asked again after a lost reply");
        assert_eq!(replied(closing.close_with(1)), signature, "on every block");
        closing.restart_as(NodeKind::Ldk);
    }
    replied(closing.ask(&msgs::GetPerCommitmentPoint2 { commitment_number: 1 }));
}

#[test]
fn hostile_node_gets_no_update_after_a_close() {
    for by_force in [true, false] {
        let mut closing = Closing::with(0, LimitsConfig::default());
        replied(if by_force { closing.close_with(1) } else { closing.close_together(1_000) });
        for _ in 0..2 {
            assert_eq!(reason(closing.scripted(1, SIGN_THEIRS)), Reason::UpdateAfterClose);
            assert_eq!(reason(closing.scripted(1, VALIDATE_OURS)), Reason::UpdateAfterClose);
            assert_eq!(reason(closing.scripted(1, REVOKE_OURS)), Reason::RevokeAfterClose);
            closing.restart_as(NodeKind::Ldk);
        }
        closing.restart_as(NodeKind::Cln);
        let (tx, psbt) = (WithSize(unused_tx()), WithSize(unused_psbt()));
        let sign = msgs::SignRemoteCommitmentTx {
            tx,
            psbt,
            remote_funding_key: PubKey([2; 33]),
            remote_per_commitment_point: PubKey(closing.channel.peer_id), // any point does
            option_static_remotekey: true,
            commitment_number: 2,
            htlcs: Vec::new().into(),
            feerate: 1_000,
        };
        assert_eq!(reason(closing.ask(&sign)), Reason::UpdateAfterClose);
        let (_, validate) = &closing.advances[1][VALIDATE_OURS];
        let known = msgs::ValidateCommitmentTx2::from_vec(validate.clone()).expect("whole");
        let validate = msgs::ValidateCommitmentTx {
            tx: WithSize(unused_tx()),
            psbt: WithSize(unused_psbt()),
            htlcs: known.htlcs,
            commitment_number: 2,
            feerate: 1_000,
            signature: known.signature,
            htlc_signatures: known.htlc_signatures,
        };
        assert_eq!(reason(closing.ask(&validate)), Reason::UpdateAfterClose);
    }
}

#[test]
fn hostile_node_gets_no_other_validation_in_place_of_one_before_the_close() {
    let closing = Closing::start();
    closing.play(1, SIGN_THEIRS..REVOKE_OURS);
    replied(closing.close_with(1));
    let (_, message) = &closing.advances[1][VALIDATE_OURS];
    let mut other = msgs::ValidateCommitmentTx2::from_vec(message.clone()).expect("whole");
    other.signature = other.htlc_signatures[0].clone();
    other.signature.sighash = 1;
    assert_eq!(reason(closing.ask(&other)), Reason::UpdateAfterClose);
}

#[test]
fn hostile_node_cannot_have_a_revoked_commitment_signed() {
    let mut closing = Closing::start();
    for kind in [NodeKind::Ldk, NodeKind::Cln] {
        closing.restart_as(kind);
        let close = |number| match kind {
            NodeKind::Ldk => closing.close_with(number),
            _ => closing.close_with_5(number),
        };
        assert_eq!(reason(close(0)), Reason::CommitmentRevoked, "{kind}");
        assert_eq!(reason(close(3)), Reason::Validation, "{kind}: never validated");
    }
    // Nothing was signed: the channel goes on.
    closing.restart_as(NodeKind::Ldk);
    closing.play(1, 0..5);
    replied(closing.close_with(2));
}

#[test]
fn honest_node_closes_with_a_commitment_that_is_validated_but_not_in_force() {
    let closing = Closing::start();
    closing.play(1, SIGN_THEIRS..REVOKE_OURS);
    replied(closing.close_with(2));
    replied(closing.revoke(1)); // older than what was signed: nothing is lost with it
    assert_eq!(reason(closing.revoke(2)), Reason::RevokeAfterClose);
    assert_eq!(reason(closing.close_with(1)), Reason::CommitmentRevoked);
}

#[test]
fn honest_node_negotiates_the_fee_of_a_close_and_closes_by_force_after_all() {
    let mut closing = Closing::with(0, LimitsConfig::default());
    let first = replied(closing.close_together(1_000));
    let second = replied(closing.close_together(2_000));
    assert_ne!(first, second);
    closing.restart_as(NodeKind::Ldk);
    assert_eq!(replied(closing.close_together(1_000)), first);
    replied(closing.close_with(1));
    assert_eq!(reason(closing.scripted(1, SIGN_THEIRS)), Reason::UpdateAfterClose);
}

#[test]
fn honest_channels_beside_a_closing_one_go_on() {
    let mut closing = Closing::start();
    let alice = closing.alice.clone();
    let mut other = closing.signer.channel(&alice, 2);
    replied(closing.close_with(1));
    other.advance(&mut closing.signer.asking(&alice), 1).expect("another channel");
}

/// The entry in the journal and vls's own state back each other up; what is left of a channel that is gone goes too.
#[test]
fn hostile_node_gains_nothing_from_an_entry_that_is_missing() {
    let mut closing = Closing::start();
    replied(closing.close_with(1));
    let id = ChannelId::new_from_peer_id_and_oid(&closing.channel.peer_id, closing.channel.dbid);
    let [entry, orphan] = [id.as_slice(), &[7; 41]].map(|id| format!("closing/{}", hex::encode(id)));
    let tenant = closing.alice.to_string();
    let get = |closing: &Closing, key: &str| closing.signer.journal().get(&tenant, key).expect("readable");
    let written = get(&closing, &entry).expect("in the commit of the signature");
    let puts = vec![Put { key: entry.clone(), value: None }, Put { key: orphan.clone(), value: Some(written) }];
    closing.signer.journal().commit(Commit { tenant: tenant.clone(), puts, decision: None }).expect("written");
    closing.restart_as(NodeKind::Ldk);
    assert_eq!(reason(closing.revoke(1)), Reason::RevokeAfterClose);
    assert_eq!(reason(closing.scripted(1, SIGN_THEIRS)), Reason::UpdateAfterClose);
    assert_eq!(get(&closing, &entry), None);
    replied(closing.revoke(0)); // a commit that lets something out
    assert_eq!(get(&closing, &orphan), None);
}

/// Whatever the operator's file says of every limit.
#[test]
fn hostile_limits_weaken_no_rule() {
    let defaults = serde_json::to_value(LimitsConfig::default()).expect("writes");
    let keys: Vec<String> = defaults.as_object().expect("a table").keys().cloned().collect();
    for key in keys {
        let addresses = serde_json::json!(["bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"]);
        let values = match &defaults[&key] {
            serde_json::Value::Array(_) => vec![addresses],
            serde_json::Value::String(_) => vec![hex::encode([2; 33]).into()],
            _ => vec![0.into(), u64::MAX.into()],
        };
        for value in values {
            let mut limits = defaults.clone();
            limits[&key] = value.clone();
            let closing = Closing::with(0, serde_json::from_value(limits).expect("reads"));
            closing.play(1, SIGN_THEIRS..REVOKE_OURS);
            assert_eq!(reason(closing.close_with(0)), Reason::CommitmentRevoked, "{key} = {value}");
            replied(closing.close_with(1));
            assert_eq!(reason(closing.revoke(1)), Reason::RevokeAfterClose, "{key} = {value}");
        }
    }
}
