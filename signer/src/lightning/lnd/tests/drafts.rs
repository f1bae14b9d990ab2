//! Answers that were drafted before their turn: which are, and that they leave only when they were judged. That a draft is what the
//! node itself makes of the question is held of every question in these tests.

use super::states::second_level;
use super::*;
use crate::lightning::tests::Signer;
use crate::pipeline::Outcome;

#[test]
fn signatures_on_htlcs_are_drafted_and_no_others() {
    let mut lnd = Lnd::with_channel(0, 1);
    let state = lnd.commitment(0, 2, Some(600_000));
    assert!(lnd.class(&state).is_ok());
    let spend = lnd.spend(&[(0, 50_000)], &[50_000], 0, vec![out(49_000, lnd.address(1))]);
    assert_eq!(lnd.class(&spend), Ok("wallet-spend".to_owned()));
    assert_eq!(lnd.drafts, 0);
    let htlc = second_level(&lnd, &state, 1, 2, 20_000);
    assert_eq!(lnd.class(&htlc), Ok("counterparty-htlc".to_owned()));
    assert_eq!(lnd.drafts, 1);
}

#[test]
fn hostile_calls_are_not_drafted() {
    let mut lnd = Lnd::with_channel(0, 1);
    let state = lnd.commitment(0, 2, Some(600_000));
    let honest = second_level(&lnd, &state, 1, 2, 20_000);
    let message = |psbt: &Psbt| Method::SignPsbt.request(&SignPsbtRequest { funded_psbt: psbt.serialize() });
    let drafter = lnd.node.drafter();
    let drafts = |message: &[u8]| drafter.draft(message).is_some();
    assert!(drafts(&message(&honest)));
    let mut padded = honest.clone();
    padded.unknown.insert(raw::Key { type_value: 0x70, key: vec![] }, vec![0; 5_000]);
    assert!(!drafts(&message(&padded)), "what is large waits for its turn");
    assert!(lnd.class(&padded).is_ok(), "and is answered then");
    let mut blind = honest.clone();
    blind.inputs[0].witness_script = None;
    let mut raised = honest.clone();
    raised.unsigned_tx.output[0].value += Amount::ONE_SAT;
    for attack in [blind, raised] {
        assert!(!drafts(&message(&attack)));
        assert_eq!(lnd.class(&attack), Err(Reason::TransactionUnknown));
    }
    let bytes = message(&honest);
    for len in 0..bytes.len() {
        assert!(!drafts(&bytes[..len]), "{len}");
    }
    assert!(!drafts(&Method::SignMessage.request(&SignPsbtRequest { funded_psbt: honest.serialize() })));
}

#[test]
fn hostile_a_draft_does_not_leave_when_its_question_is_refused_and_leaves_when_it_is_permitted() {
    let mut lnd = Lnd::with_channel(0, 1);
    let state = lnd.commitment(0, 2, Some(600_000));
    assert!(lnd.class(&state).is_ok());
    let call = SignPsbtRequest { funded_psbt: second_level(&lnd, &state, 1, 2, 20_000).serialize() };
    let message = Method::SignPsbt.request(&call);
    let row = guard::row(NodeKind::Lnd, &message).expect("known");
    let request = Request { request_id: 0, channel: None, message };
    let handle = |lnd: &mut Lnd| {
        let draft = lnd.node.drafter().draft(&request.message).expect("an HTLC");
        let drafted = draft.reply.clone();
        (drafted, lnd.node.handle(row, &request, Some(draft)).reply)
    };
    let (drafted, reply) = handle(&mut lnd);
    assert_eq!(reply.ok(), Some(drafted));
    lnd.order(&Order::Freeze(None)).expect("ordered");
    let (_, reply) = handle(&mut lnd);
    assert_eq!(reply.map_err(|refusal| refusal.reason), Err(Reason::Frozen));
}

#[test]
fn many_htlcs_at_once_get_the_answers_that_they_get_one_by_one_and_a_frozen_node_gets_none() {
    let signer = Signer::start();
    let name = spec().name;
    signer.nodes().add(spec()).expect("not running yet");
    let mut lnd = Lnd::new();
    let mut questions = |first: u32| {
        let state = lnd.commitment(0, 2, Some(600_000));
        let call = |vout| {
            let htlc = second_level(&lnd, &state, vout, 2, 20_000 + u64::from(vout));
            SignPsbtRequest { funded_psbt: htlc.serialize() }
        };
        let calls: Vec<_> = (first..first + 100).map(call).collect();
        let answers: Vec<_> = calls.iter().map(|call| lnd.ask(Method::SignPsbt, call).expect("signed").0).collect();
        (calls, answers)
    };
    let ask = |calls: &[SignPsbtRequest]| {
        let submit = |call| signer.submit(&name, None, Method::SignPsbt.request(call));
        let waiting: Vec<_> = calls.iter().map(submit).collect();
        waiting.into_iter().map(|answer| answer.recv().expect("an answer")).collect::<Vec<_>>()
    };
    for first in [0, 100, 200] {
        let (calls, answers) = questions(first);
        for (outcome, answer) in ask(&calls).into_iter().zip(answers) {
            assert!(matches!(outcome, Outcome::Reply(reply) if reply == answer));
        }
    }
    let (calls, _) = questions(300);
    let frozen =
        signer.nodes().get(&name).map(|actor| actor.order(Order::Freeze(None), "uid 0".to_owned(), String::new()));
    assert!(matches!(frozen, Some(Ok(_))));
    for outcome in ask(&calls) {
        assert!(matches!(outcome, Outcome::Refused { refusal, .. } if refusal.reason == Reason::Frozen));
    }
}
