//! Tests of the journal as a whole.

mod changes;
mod commits;
mod faults;
mod kill;
mod lines;
mod rotation;
mod signed;
mod tampering;

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::keys::cipher::RecordCipher;
use crate::keys::memory::Secret;

use super::store::Store;
use super::*;

/// A cipher under a fixed key.
fn cipher() -> RecordCipher {
    RecordCipher::new(Secret::new(Zeroizing::new([7; 32])))
}

/// A journal with short intervals.
fn open(store: impl Store + 'static) -> Journal {
    open_shared(Arc::new(store))
}

fn open_shared(store: Arc<dyn Store>) -> Journal {
    let options = Options { checkpoint_every: 8, probe_every: Duration::from_millis(1), ..Options::default() };
    Journal::open(store, cipher(), options).unwrap()
}

fn decision(n: u64) -> Decision {
    Decision {
        request: format!("alice-{n}"),
        at_ms: 1_700_000_000_000 + n,
        action: "SignRemoteCommitmentTx2".to_owned(),
        channel: Some("02aa:1".to_owned()),
        verdict: Verdict::Permit,
        facts: vec![],
        policy: Vec::new(),
        came_to: Vec::new(),
        request_sha256: "00".repeat(32),
        reply_sha256: None,
    }
}

/// A commit of `tenant` with one put and decision `n`.
fn commit(tenant: &str, n: u64, key: &str, value: &[u8]) -> Commit {
    let put = Put { key: key.to_owned(), value: Some(value.to_vec()) };
    Commit { tenant: tenant.to_owned(), puts: vec![put], decision: Some(decision(n)) }
}

fn barrier(tenant: &str) -> Commit {
    Commit { tenant: tenant.to_owned(), ..Commit::default() }
}

/// What became of a commit, by name.
type Outcome = (&'static str, Result<(), CommitError>);

/// Collects outcomes in the order in which they arrive.
#[derive(Clone, Default)]
struct Outcomes(Arc<Mutex<Vec<Outcome>>>);

impl Outcomes {
    fn of(&self, name: &'static str) -> Done {
        let all = Arc::clone(&self.0);
        Box::new(move |result| all.lock().unwrap().push((name, result)))
    }

    fn seen(&self) -> Vec<Outcome> {
        self.0.lock().unwrap().clone()
    }
}

/// Waits until everything that was submitted before has ended and was told.
fn settle(journal: &Journal) {
    // A reload is answered after all earlier work, whatever became of it.
    let (reply, answer) = mpsc::sync_channel(1);
    journal.queue.send(Errand::Reload("nobody".to_owned(), reply));
    let _ = answer.recv().unwrap();
    for tenant in ["alice", "bob"] {
        let _ = journal.commit(barrier(tenant)); // told after all of its tenant's, whether it passes or not
    }
}

fn verified(journal: &Journal) -> Verified {
    journal.verify(&mut |_| true).unwrap()
}
