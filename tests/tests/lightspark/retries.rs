//! Whatever is sent again, however often and whenever the signer dies: one answer, counted once (P5).

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use claviger::reasons::Reason;
use serde_json::json;
use tonic::{Code, Status};

use crate::account::{Account, event, exchange, l1_job, withdrawal};

const CALLERS: usize = 100;
/// How often each asks.
const ASKS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(120);

/// Has all callers `ask` at the same time until each has its answers, while the signer is killed after every hundred of them.
/// Returns the different answers. `ask` returns nothing where the caller shall ask again.
fn answers(account: &mut Account, ask: impl Fn() -> Option<Vec<u8>> + Sync) -> BTreeSet<Vec<u8>> {
    let (answers, deadline) = (Mutex::new(Vec::new()), Instant::now() + PATIENCE);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                for _ in 0..ASKS {
                    let answer = loop {
                        match ask() {
                            Some(answer) => break answer,
                            None => assert!(Instant::now() < deadline, "there is no answer"),
                        }
                        std::thread::sleep(Duration::from_millis(20));
                    };
                    answers.lock().unwrap().push(answer);
                }
            });
        }
        for kill in 1..ASKS {
            while answers.lock().unwrap().len() < kill * CALLERS && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            account.signer.kill().unwrap();
            account.signer.start().unwrap();
        }
    });
    let answers = answers.into_inner().unwrap();
    assert_eq!(answers.len(), CALLERS * ASKS);
    answers.into_iter().collect()
}

fn is_not_now(status: &Status) -> bool {
    Reason::ALL.iter().any(|reason| reason.retry() && status.message().starts_with(&format!("{}:", reason.id())))
}

#[test]
fn a_hundred_callers_of_one_event_get_one_answer_and_one_debit_across_kill_9() {
    let mut account = Account::new().with_budget();
    let client = account.client();
    let body = event("1", "DERIVE_KEY_AND_SIGN", json!({ "signing_jobs": [l1_job(exchange(), 20_000)] }));
    let ask = || match client.webhook(&body) {
        Ok((200, answer)) => Some(answer.into_bytes()),
        Ok((503, _)) | Err(_) => None,
        Ok(other) => panic!("{other:?}"),
    };
    let answers = answers(&mut account, ask);
    assert_eq!(answers.len(), 1);
    assert!(String::from_utf8_lossy(answers.first().unwrap()).contains("signatures"));
    assert_eq!(account.spent_msat(), 20_000_000);
}

#[test]
fn a_hundred_callers_with_one_idempotency_key_get_one_signature_and_one_debit_across_kill_9() {
    let mut account = Account::new().with_budget();
    let client = account.client();
    let body = withdrawal("w 7", 20_000);
    let ask = || match client.sign_operation(&body) {
        Ok(signature) => Some(signature),
        // The connection broke, or the signer says: not now.
        Err(status) if status.source().is_some() || status.code() == Code::Unavailable || is_not_now(&status) => None,
        Err(status) => panic!("{status:?}"),
    };
    assert_eq!(answers(&mut account, ask).len(), 1);
    assert_eq!(account.spent_msat(), 20_000_000);
    let other = client.sign_operation(&withdrawal("w 7", 20_001)).unwrap_err();
    assert!(other.message().starts_with("operation-reused"), "{other:?}");
    client.sign_operation(&withdrawal("w 8", 20_000)).expect("under its own key");
    assert_eq!(account.spent_msat(), 40_000_000);
}
