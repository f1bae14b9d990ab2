//! What goes wrong stays with its request and its node (P6), and nothing unrecorded leaves (P1).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vls_protocol::model::{BitcoinSignature, Htlc, PubKey, Sha256, Signature};
use vls_protocol::msgs::{self, DeBolt, SerBolt};

use super::*;
use crate::chain::SinkError;
use crate::journal::store::StoreError;
use crate::journal::store::faulty::{Failure, FaultyStore};
use crate::journal::{Commit, Put, Verdict};
use crate::lightning::driver::{invoice_to_pay_within, invoice_to_sign_within, keysend};
use crate::reasons::Reason;

/// A view of the chain with a defect: once armed, it panics when it is asked next.
#[derive(Default)]
struct Defective(AtomicBool);

impl ChainFacts for Defective {
    fn require_fresh(&self, _node: &NodeName) -> Result<(), Refusal> {
        assert!(!self.0.swap(false, Ordering::SeqCst), "a defect of the view");
        Ok(())
    }

    fn start(&self) -> Option<ChainStart> {
        MiniChain::default().start()
    }
}

/// A signer over `store` and its view of the chain, which has a defect.
fn fragile(store: Arc<dyn Store>) -> (Signer, Arc<Defective>) {
    let mut signer = Signer::start_over(store, LimitsConfig::default());
    let defect = Arc::new(Defective::default());
    signer.facts = defect.clone();
    signer.restart();
    (signer, defect)
}

/// Has the state machine panic in the middle of a request, with the locks of node and channel held.
fn poison(signer: &Signer, defect: &Defective, node: &NodeName, driver: &Driver) -> Outcome {
    let unseen = sweeps::unseen(driver.channel(), onchain::wallet_key(signer, node, 1));
    defect.0.store(true, Ordering::SeqCst);
    signer.ask(node, None, unseen)
}

/// A commitment with an HTLC, but without the HTLC's signature.
fn unsigned_htlc(signer: &Signer, node: &NodeName, driver: &Driver) -> Vec<u8> {
    let mut captured = Vec::new();
    let mut capture = |channel, message: Vec<u8>| {
        if message.starts_with(&1035u16.to_be_bytes()) {
            captured = message;
            return Outcome::Refused { request: String::new(), refusal: Refusal::new(Reason::NodeBusy, "captured") };
        }
        signer.ask(node, channel, message)
    };
    let mut driver = driver.clone();
    driver.advance(&mut capture, 1).expect_err("captured");
    let mut message: msgs::ValidateCommitmentTx2 = DeBolt::from_vec(captured).expect("whole");
    message.htlc_signatures = Vec::new().into();
    message.as_vec()
}

#[test]
fn a_panic_is_contained_and_the_node_comes_back() {
    let (mut signer, defect) = fragile(Arc::new(MemoryStore::new()));
    let alice = signer.add("alice", NodeKind::Ldk);
    let bob = signer.add("bob", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    driver.advance(&mut signer.asking(&alice), 2).expect("advances");
    let (request, refusal) = refused(poison(&signer, &defect, &alice, &driver));
    assert_eq!(refusal.reason, Reason::Fault, "{}", refusal.detail);
    let line = signer.journal().explain(&request).expect("readable").expect("recorded");
    assert!(matches!(line.decision.verdict, Verdict::Fault { .. }));
    replied(signer.ask(&bob, None, msgs::NodeInfo {}.as_vec()));
    driver.advance(&mut signer.asking(&alice), 1).expect("the node was built again");
    assert_eq!(signer.nodes().status()[0].faults, 1);
    assert_eq!(signer.nodes().status()[1].faults, 0);
}

#[test]
fn malformed_messages_are_refused_and_leave_the_node_as_it_was() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    let channel = Some(driver.channel());
    let attestations = [&2005u16.to_be_bytes()[..], &[0, 0, 1, 0xff, 0xff, 0xff, 0xff]].concat();
    let no_signature = BitcoinSignature { signature: Signature([0xff; 64]), sighash: 1 };
    let overflow = msgs::ValidateCommitmentTx2 {
        commitment_number: 1,
        feerate: 253,
        to_local_value_sat: u64::MAX,
        to_remote_value_sat: 1,
        htlcs: vec![Htlc { side: 1, amount: u64::MAX, payment_hash: Sha256([0; 32]), ctlv_expiry: 1 }].into(),
        signature: no_signature,
        htlc_signatures: Vec::new().into(),
    };
    let cases = [
        (None, attestations, Reason::NotAllowed),
        (None, vec![], Reason::Malformed),
        (None, vec![0xff, 0x00, 1], Reason::MessageUnknown),
        (None, [msgs::NodeInfo {}.as_vec(), vec![0]].concat(), Reason::Malformed),
        (None, msgs::Ecdh { point: PubKey([5; 33]) }.as_vec(), Reason::Malformed),
        (None, msgs::GetPerCommitmentPoint2 { commitment_number: 0 }.as_vec(), Reason::MessageScope),
        (channel, overflow.as_vec(), Reason::Malformed),
        (channel, unsigned_htlc(&signer, &alice, &driver), Reason::Malformed),
        (
            Some(ChannelRef { peer_id: [2; 33], dbid: 77 }),
            msgs::GetPerCommitmentPoint2 { commitment_number: 0 }.as_vec(),
            Reason::ChannelUnknown,
        ),
    ];
    for (channel, message, reason) in cases {
        let (_, refusal) = refused(signer.ask(&alice, channel, message));
        assert_eq!(refusal.reason, reason, "{}", refusal.detail);
    }
    let (_, refusal) = refused(signer.ask(&alice, None, vec![0, 1, 2]));
    assert_eq!(refusal.detail, "Ecdh (1): field 0 does not fit", "before a decoder sees it");
    let (_, refusal) = refused(signer.ask(&alice, None, vec![0x0b, 0xb8, 0, 0]));
    assert_eq!(refusal.reason, Reason::MessageScope, "preimages are a channel's");
    driver.advance(&mut signer.asking(&alice), 1).expect("nothing happened");
    assert_eq!(signer.nodes().status()[0].faults, 0);
}

#[test]
fn a_commitment_without_confirmed_funding_waits_for_the_chain() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = Driver::open(&mut signer.asking(&alice), 1).expect("opens");
    let before = driver.clone();
    let refusal = match driver.advance(&mut signer.asking(&alice), 0) {
        Err(crate::lightning::driver::DriverError::Refused { refusal, .. }) => refusal,
        other => panic!("advanced: {other:?}"),
    };
    assert_eq!(refusal.reason, Reason::ChainPending);
    assert!(refusal.detail.contains("[policy-commitment-spends-active-utxo]"), "{}", refusal.detail);
    signer.confirm(&[&alice], vec![before.funding().clone()]);
    driver = before;
    driver.advance(&mut signer.asking(&alice), 0).expect("confirmed");
}

#[test]
fn blocks_can_be_taken_back() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    let block = signer.blocks.last().expect("mined").clone();
    signer.nodes().disconnect(&alice, block.clone()).expect("the tip");
    let before = driver.clone();
    driver.advance(&mut signer.asking(&alice), 0).expect_err("the funding is unconfirmed again");
    signer.nodes().connect(&alice, block).expect("the same block");
    driver = before;
    driver.advance(&mut signer.asking(&alice), 0).expect("confirmed again");
}

#[test]
fn a_full_disk_refuses_and_signing_resumes_with_what_was_acknowledged() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let mut signer = Signer::start_over(store.clone(), LimitsConfig::default());
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    driver.advance(&mut signer.asking(&alice), 1).expect("advances");
    let acknowledged = driver.clone();

    store.fail(Some(Failure::Before(StoreError::Full)));
    let mut refusals = 0;
    for n in 0..20 {
        let (_, refusal) = refused(signer.ask(&alice, None, keysend(n, 1_000)));
        assert!(matches!(refusal.reason, Reason::JournalUnavailable | Reason::NodeRestarting), "{refusal:?}");
        assert!(refusal.reason.retry());
        refusals += 1;
    }
    driver.advance(&mut signer.asking(&alice), 1).expect_err("nothing is signed");
    assert_eq!(refusals, 20);

    store.fail(None);
    driver = acknowledged;
    for _ in 0..3 {
        driver.advance(&mut signer.asking_patiently(&alice), 1).expect("resumes by itself");
    }
    signer.journal().verify(&mut |_| true).expect("the journal is whole");
}

/// A node that is told `fault` gives up; this disk is back in a moment.
#[test]
fn a_disk_that_cannot_be_read_for_a_moment_delays_a_rebuild() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let (mut signer, defect) = fragile(store.clone());
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    let answers = [
        (StoreError::Io("the file is closed after an error".to_owned()), Reason::JournalUnavailable),
        (StoreError::Damaged("its pages are not consistent".to_owned()), Reason::Fault),
    ];
    for (error, reason) in answers {
        assert_eq!(refused(poison(&signer, &defect, &alice, &driver)).1.reason, Reason::Fault);
        store.fail_next_view(error);
        let (request, refusal) = loop {
            match refused(signer.ask(&alice, None, msgs::NodeInfo {}.as_vec())) {
                (_, refusal) if refusal.reason == Reason::NodeRestarting => std::thread::yield_now(),
                outcome => break outcome,
            }
        };
        assert_eq!(refusal.reason, reason, "{}", refusal.detail);
        let line = signer.journal().explain(&request).expect("readable");
        assert_eq!(line.is_some(), reason == Reason::Fault, "what is final is recorded");
        driver.advance(&mut signer.asking_patiently(&alice), 1).expect("readable again");
    }
}

#[test]
fn a_block_that_was_not_recorded_is_shown_again() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let mut signer = Signer::start_over(store.clone(), LimitsConfig::default());
    let alice = signer.add("alice", NodeKind::Ldk);
    signer.confirm(&[&alice], vec![]);
    let next = signer.chain.mine(vec![]);
    store.fail(Some(Failure::Before(StoreError::Full)));
    assert!(matches!(signer.nodes().connect(&alice, next.clone()), Err(SinkError::Busy(_))));
    assert_eq!(signer.nodes().trackers(), [], "where it stands is not known");
    store.fail(None);
    let position = loop {
        match signer.nodes().trackers().pop() {
            Some(position) => break position,
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(position.height, 1, "it stands where the journal does");
    assert_eq!(signer.nodes().connect(&alice, next.clone()).expect("fits").hash, next.hash());
}

#[test]
fn a_node_that_floods_its_queue_is_told_to_wait_and_others_are_served() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let mut signer = Signer::start_over(store.clone(), LimitsConfig::default());
    let alice = signer.add("alice", NodeKind::Ldk);
    let bob = signer.add("bob", NodeKind::Ldk);
    replied(signer.ask(&alice, None, msgs::NodeInfo {}.as_vec()));
    replied(signer.ask(&bob, None, msgs::NodeInfo {}.as_vec()));
    // Told of one commit, the journal has done with all before it: bob's next question waits for none of them.
    let puts = vec![Put { key: "test".to_owned(), value: Some(Vec::new()) }];
    signer.journal().commit(Commit { tenant: HOUSE.to_owned(), puts, decision: None }).expect("recorded");
    store.hold(true);
    let bound = SignerConfig::default().queue_requests;
    let sign = |n: usize| msgs::SignMessage { message: n.to_be_bytes().to_vec().into() }.as_vec();
    let flood: Vec<_> = (0..bound + 100).map(|n| signer.submit(&alice, None, sign(n))).collect();
    replied(signer.ask(&bob, None, msgs::NodeInfo {}.as_vec()));
    for outcome in &flood[bound..] {
        assert_eq!(refused(outcome.recv().expect("answered at once")).1.reason, Reason::NodeBusy);
    }
    store.hold(false);
    signer.confirm(&[&alice], vec![]);
    for outcome in &flood[..bound] {
        replied(outcome.recv().expect("every request is answered"));
    }
    assert_eq!(signer.nodes().status()[0].unanswered, 0);
}

#[test]
fn switches_of_the_library_in_the_environment_do_nothing() {
    // The daemon refuses to start with them; this shows that the library does not read them either.
    let test = "lightning::tests::limits::a_payment_above_the_limit_is_refused_and_costs_nothing";
    let output = std::process::Command::new(std::env::current_exe().expect("this test binary"))
        .args(["--exact", test])
        .envs([("VLS_PERMISSIVE", "1"), ("VLS_AUTOAPPROVE", "1"), ("VLS_ONCHAIN_VALIDATION_DISABLE", "1")])
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// SetupChannel as the driver sends it for channel `dbid`, whose earlier messages are answered.
fn setup_of(signer: &Signer, node: &NodeName, dbid: u64) -> (ChannelRef, msgs::SetupChannel) {
    let mut setup = None;
    let mut ask = |channel: Option<ChannelRef>, message: Vec<u8>| match msgs::SetupChannel::from_vec(message.clone()) {
        Ok(message) => {
            setup = channel.zip(Some(message));
            Outcome::Refused { request: String::new(), refusal: Refusal::new(Reason::NodeBusy, "captured") }
        }
        Err(_) => signer.ask(node, channel, message),
    };
    Driver::open(&mut ask, dbid).err().expect("captured");
    setup.expect("captured")
}

#[test]
fn a_funding_output_belongs_to_one_channel() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut first = signer.channel(&alice, 1);
    let (second, setup) = setup_of(&signer, &alice, 2);
    let funding = first.funding().compute_txid();
    let stolen = msgs::SetupChannel { funding_txid: funding, ..setup_of(&signer, &alice, 2).1 };
    let (_, refusal) = refused(signer.ask(&alice, Some(second), stolen.as_vec()));
    assert_eq!(refusal.reason, Reason::Validation);
    assert!(refusal.detail.contains(&format!("another channel is funded by {funding}:0")), "{}", refusal.detail);

    for _ in 0..2 {
        replied(signer.ask(&alice, Some(second), setup.as_vec())); // its own, also when it is asked again
    }
    let (channel, again) = setup_of(&signer, &alice, 1);
    replied(signer.ask(&alice, Some(channel), again.as_vec()));
    signer.restart();
    signer.add("alice", NodeKind::Ldk);
    first.advance(&mut signer.asking(&alice), 0).expect("the node was restored");
}

#[test]
fn an_invoice_without_an_end_is_refused_and_the_chain_goes_on() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let years = |years: u64| Duration::from_secs(years * 365 * 86_400);
    for endless in [Duration::from_secs(u64::MAX), years(101)] {
        for message in [invoice_to_sign_within(1, 1_000, endless), invoice_to_pay_within(1, 1_000, endless)] {
            let (_, refusal) = refused(signer.ask(&alice, None, message));
            assert_eq!(refusal.reason, Reason::Malformed, "{}", refusal.detail);
        }
    }
    replied(signer.ask(&alice, None, invoice_to_sign_within(1, 1_000, years(100))));
    replied(signer.ask(&alice, None, invoice_to_pay_within(1, 1_000, years(100))));
    for _ in 0..13 {
        signer.confirm(&[&alice], vec![]); // prunes twice
    }
    assert_eq!(signer.nodes().status()[0].faults, 0);
}
