//! Honest sessions: channels advance, survive restarts between any two messages, and get the same answer twice.

use std::sync::Arc;

use vls_protocol::msgs::{self, SerBolt};

use super::*;
use crate::journal::Verdict;
use crate::lightning::driver::{call, invoice_to_sign, keysend};
use crate::reasons::Reason;

#[test]
fn a_channel_opens_and_advances() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    for htlcs in [0, 10, 0, 3, 3] {
        driver.advance(&mut signer.asking(&alice), htlcs).expect("advances");
    }
    assert_eq!(driver.number(), 5);
    let status = &signer.nodes().status()[0];
    assert_eq!((status.channels, status.faults), (1, 0));
    assert_eq!(status.tip.map(|(height, _)| height), Some(1));
}

#[test]
fn every_message_of_an_advance_leaves_a_decision() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    let before = signer.journal().stats().last_seq;
    driver.advance(&mut signer.asking(&alice), 1).expect("advances");
    let log = signer.journal().decisions(before + 1, 100).expect("readable");
    let actions: Vec<_> = log.iter().map(|line| line.decision.action.as_str()).collect();
    let expected = ["SignRemoteCommitmentTx2", "ValidateCommitmentTx2", "RevokeCommitmentTx", "ValidateRevocation"];
    assert_eq!(actions, expected, "the point is public and costs no flush");
    assert!(log.iter().all(|line| line.decision.verdict == Verdict::Permit));
}

#[test]
fn the_signer_restarts_between_any_two_messages() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    let mut reference = Signer::start();
    reference.add("alice", NodeKind::Ldk);
    let mut twin = reference.channel(&alice, 1);

    // Each message is answered by a signer that has just been started, and again by the next one.
    let mut answers = Vec::new();
    let mut restarting = |channel, message: Vec<u8>| {
        let first = replied(signer.ask(&alice, channel, message.clone()));
        signer.restart();
        signer.add("alice", NodeKind::Ldk);
        let again = replied(signer.ask(&alice, channel, message));
        assert_eq!(first, again, "the same question gets the same answer");
        answers.push(first);
        Outcome::Reply(again)
    };
    for htlcs in [2, 0, 1] {
        driver.advance(&mut restarting, htlcs).expect("advances across restarts");
    }
    let mut expected = Vec::new();
    let mut recording = |channel, message| {
        let reply = replied(reference.ask(&alice, channel, message));
        expected.push(reply.clone());
        Outcome::Reply(reply)
    };
    for htlcs in [2, 0, 1] {
        twin.advance(&mut recording, htlcs).expect("advances");
    }
    assert_eq!(answers, expected, "a restart changes no answer");
}

#[test]
fn commitment_secrets_leave_by_revocation_only() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    for _ in 0..3 {
        driver.advance(&mut signer.asking(&alice), 0).expect("advances");
    }
    let point = msgs::GetPerCommitmentPoint { commitment_number: 3 };
    let reply: msgs::GetPerCommitmentPointReply =
        call(&mut signer.asking(&alice), Some(driver.channel()), &point).expect("a point");
    assert!(reply.secret.is_none());
    let current = msgs::RevokeCommitmentTx { commitment_number: 3 };
    let (_, refusal) = refused(signer.ask(&alice, Some(driver.channel()), current.as_vec()));
    assert_eq!(refusal.reason, Reason::Validation, "{}", refusal.detail);
    let old = msgs::RevokeCommitmentTx { commitment_number: 2 };
    replied(signer.ask(&alice, Some(driver.channel()), old.as_vec()));
}

#[test]
fn negotiation_can_be_repeated_and_never_lowers_the_version() {
    let signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let init = |network: &str| msgs::HsmdInit2 {
        derivation_style: 0,
        network_name: vls_protocol::serde_bolt::WireString(network.as_bytes().to_vec()),
        dev_seed: None,
        dev_allowlist: Vec::new().into(),
    };
    let first = replied(signer.ask(&alice, None, init("regtest").as_vec()));
    assert_eq!(first, replied(signer.ask(&alice, None, init("regtest").as_vec())));
    assert_eq!(refused(signer.ask(&alice, None, init("bitcoin").as_vec())).1.reason, Reason::Validation);

    let bob = signer.add("bob", NodeKind::Cln);
    let genesis = bitcoin::blockdata::constants::genesis_block(Network::Regtest).block_hash();
    let init = |chain_params, min, max| {
        msgs::HsmdInit {
            key_version: vls_protocol::model::Bip32KeyVersion { pubkey_version: 0, privkey_version: 0 },
            chain_params,
            encryption_key: None,
            dev_privkey: None,
            dev_bip32_seed: None,
            dev_channel_secrets: None,
            dev_channel_secrets_shaseed: None,
            hsm_wire_min_version: min,
            hsm_wire_max_version: max,
        }
        .as_vec()
    };
    for _ in 0..2 {
        let reply: msgs::HsmdInitReplyV4 =
            msgs::DeBolt::from_vec(replied(signer.ask(&bob, None, init(genesis, 5, 6)))).expect("a reply");
        assert_eq!(reply.hsm_version, 6);
    }
    let elsewhere = bitcoin::blockdata::constants::genesis_block(Network::Bitcoin).block_hash();
    assert_eq!(refused(signer.ask(&bob, None, init(elsewhere, 5, 6))).1.reason, Reason::Validation);
    assert_eq!(refused(signer.ask(&bob, None, init(genesis, 2, 5))).1.reason, Reason::Validation, "would auto-revoke");
}

#[test]
fn an_issued_invoice_is_remembered_across_restarts() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let invoice = invoice_to_sign(1, 5_000);
    let first = replied(signer.ask(&alice, None, invoice.clone()));
    signer.restart();
    signer.add("alice", NodeKind::Ldk);
    assert_eq!(replied(signer.ask(&alice, None, invoice)), first);
    let (_, refusal) = refused(signer.ask(&alice, None, invoice_to_sign(1, 6_000)));
    assert!(refusal.detail.contains("different invoice"), "one hash, one invoice: {}", refusal.detail);
}

#[test]
fn answers_leave_in_the_order_of_the_questions_on_every_node() {
    let signer = Arc::new(Signer::start());
    let names: Vec<NodeName> = (0..6).map(|n| signer.add(&format!("node-{n}"), NodeKind::Ldk)).collect();
    let asking: Vec<_> = names
        .into_iter()
        .map(|name| {
            let signer = signer.clone();
            std::thread::spawn(move || {
                let (order, ordered) = channel();
                for n in 0..200u64 {
                    // Every third question costs no flush and must not overtake those that do.
                    let message = match n % 3 {
                        0 => msgs::NodeInfo {}.as_vec(),
                        1 => keysend(n, 1),
                        _ => msgs::SignMessage { message: n.to_be_bytes().to_vec().into() }.as_vec(),
                    };
                    let order = order.clone();
                    let respond = Box::new(move |outcome| drop(order.send((n, replied(outcome)))));
                    signer.nodes().submit(&name, Request { request_id: n, channel: None, message }, respond);
                }
                drop(order);
                let numbers: Vec<u64> = ordered.iter().map(|(n, _)| n).collect();
                assert_eq!(numbers, (0..200).collect::<Vec<_>>());
            })
        })
        .collect();
    for thread in asking {
        thread.join().expect("in order");
    }
}

#[test]
fn a_new_node_waits_for_the_chain_and_starts_by_itself() {
    let facts = Arc::new(LateChain::default());
    let mut signer = Signer::start();
    signer.facts = facts.clone();
    signer.restart();
    let alice = signer.add("alice", NodeKind::Ldk);
    let (_, refusal) = refused(signer.ask(&alice, None, msgs::NodeInfo {}.as_vec()));
    assert_eq!(refusal.reason, Reason::ChainStale);
    assert!(refusal.reason.retry());
    *facts.0.lock().expect("not poisoned") = MiniChain::default().start();
    replied(signer.ask(&alice, None, msgs::NodeInfo {}.as_vec()));
}

#[test]
fn keys_are_gone_after_shutdown() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    signer.channel(&alice, 1);
    assert!(signer.nodes().remove(&alice));
    assert!(!signer.nodes().remove(&alice));
    assert_eq!(refused(signer.ask(&alice, None, msgs::NodeInfo {}.as_vec())).1.reason, Reason::Sealed);
    signer.add("alice", NodeKind::Ldk);
    replied(signer.ask(&alice, None, msgs::NodeInfo {}.as_vec()));
    signer.nodes().shutdown();
    assert!(signer.nodes().status().is_empty());
    signer.add("alice", NodeKind::Ldk);
    assert!(signer.nodes().remove(&alice), "too late, and yet nobody waits for ever");
}

/// LDK asks for the signature of a force close again with every block until it is confirmed.
#[test]
fn a_force_close_is_signed_with_the_same_bytes_whenever_it_is_asked() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    driver.advance(&mut signer.asking(&alice), 1).expect("advances");
    let close = msgs::SignLocalCommitmentTx2 { commitment_number: 1 }.as_vec();
    let first = replied(signer.ask(&alice, Some(driver.channel()), close.clone()));
    for _ in 0..2 {
        assert_eq!(replied(signer.ask(&alice, Some(driver.channel()), close.clone())), first);
        signer.restart();
        signer.add("alice", NodeKind::Ldk);
    }
    assert_eq!(replied(signer.ask(&alice, Some(driver.channel()), close)), first);
    let revoked = msgs::SignLocalCommitmentTx2 { commitment_number: 0 };
    refused(signer.ask(&alice, Some(driver.channel()), revoked.as_vec()));
}
