//! A store that fails on demand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::{Order, Row, Store, StoreError, StoredPut, View};

/// How a batch fails.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// Nothing is written.
    Before(StoreError),
    /// Everything is written, and yet an error comes back.
    After(StoreError),
    /// A defect of the store.
    Panic,
}

/// Passes everything on, unless told to fail or to wait.
pub(crate) struct FaultyStore {
    inner: Arc<dyn Store>,
    failure: Mutex<Option<Failure>>,
    unreadable: Mutex<Option<StoreError>>,
    held: Mutex<bool>,
    released: Condvar,
    applied: AtomicU64,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            failure: Mutex::default(),
            unreadable: Mutex::default(),
            held: Mutex::default(),
            released: Condvar::new(),
            applied: AtomicU64::new(0),
        }
    }

    /// From now on, batches fail so; `None` repairs the disk.
    pub(crate) fn fail(&self, failure: Option<Failure>) {
        *self.failure.lock().unwrap() = failure;
    }

    /// Reading from the next view fails so.
    pub(crate) fn fail_next_view(&self, error: StoreError) {
        *self.unreadable.lock().unwrap() = Some(error);
    }

    /// Keeps batches waiting in `apply`, or lets them go.
    pub(crate) fn hold(&self, hold: bool) {
        *self.held.lock().unwrap() = hold;
        self.released.notify_all();
    }

    /// Number of batches that reached the inner store.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::SeqCst)
    }

    fn apply_inner(&self, batch: &[StoredPut]) -> Result<(), StoreError> {
        self.inner.apply(batch)?;
        self.applied.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

impl Store for FaultyStore {
    fn apply(&self, batch: &[StoredPut]) -> Result<(), StoreError> {
        drop(self.released.wait_while(self.held.lock().unwrap(), |held| *held).unwrap());
        let failure = self.failure.lock().unwrap().clone();
        match failure {
            None => self.apply_inner(batch),
            Some(Failure::Before(error)) => Err(error),
            Some(Failure::Panic) => panic!("a defect of the store"),
            Some(Failure::After(error)) => self.apply_inner(batch).and(Err(error)),
        }
    }

    fn view(&self) -> Result<Box<dyn View>, StoreError> {
        match self.unreadable.lock().unwrap().take() {
            Some(error) => Ok(Box::new(Unreadable(error))),
            None => self.inner.view(),
        }
    }

    fn recover(&self) -> Result<(), StoreError> {
        self.inner.recover()
    }
}

/// A view from which nothing can be read.
struct Unreadable(StoreError);

impl View for Unreadable {
    fn get(&self, _key: &str) -> Result<Option<Row>, StoreError> {
        Err(self.0.clone())
    }

    fn version(&self, _key: &str) -> Result<Option<u64>, StoreError> {
        Err(self.0.clone())
    }

    fn page(&self, _from: &str, _to: &str, _order: Order, _limit: usize) -> Result<Vec<Row>, StoreError> {
        Err(self.0.clone())
    }
}
