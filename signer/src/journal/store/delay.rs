//! A store whose flush takes longer: for the bench, which measures what one flush costs and how many it serves.

use std::sync::Arc;
use std::time::Duration;

use super::{Store, StoreError, StoredPut, View};

/// Sleeps for a fixed time in each [`Store::apply`], as a slow disk would.
pub struct DelayStore {
    inner: Arc<dyn Store>,
    delay: Duration,
}

impl DelayStore {
    /// `inner`, with `delay` added to each batch.
    pub fn new(inner: Arc<dyn Store>, delay: Duration) -> Self {
        Self { inner, delay }
    }
}

impl Store for DelayStore {
    fn apply(&self, batch: &[StoredPut]) -> Result<(), StoreError> {
        std::thread::sleep(self.delay);
        self.inner.apply(batch)
    }

    fn view(&self) -> Result<Box<dyn View>, StoreError> {
        self.inner.view()
    }

    fn recover(&self) -> Result<(), StoreError> {
        self.inner.recover()
    }
}
