//! Rows in memory: for tests and the bench. Nothing survives the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Effect, Order, Row, Store, StoreError, StoredPut, View, check_sizes, judge};

/// Key → version and bytes.
pub(crate) type Rows = BTreeMap<String, (u64, Vec<u8>)>;

/// A [`Store`] in memory. Clones share the rows.
#[derive(Clone, Default)]
pub struct MemoryStore {
    /// Views share the map; a batch copies it only while a view is alive.
    rows: Arc<Mutex<Arc<Rows>>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes rows behind the journal's back.
    #[cfg(test)]
    pub(crate) fn tamper(&self, change: impl FnOnce(&mut Rows)) {
        change(Arc::make_mut(&mut self.lock()));
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Rows>> {
        // Nothing panics between the first and the last write of a batch, so a poisoned map is whole.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn apply(&self, batch: &[StoredPut]) -> Result<(), StoreError> {
        check_sizes(batch)?;
        let mut rows = self.lock();
        let effects = batch
            .iter()
            .map(|put| judge(put, rows.get(&put.key).map(|row| (row.0, row.1.as_slice()))))
            .collect::<Result<Vec<_>, _>>()?;
        let rows = Arc::make_mut(&mut rows);
        for (put, effect) in batch.iter().zip(effects) {
            match (effect, &put.value) {
                (Effect::Nothing, _) => {}
                (Effect::Write, None) => drop(rows.remove(&put.key)),
                (Effect::Write, Some(value)) => drop(rows.insert(put.key.clone(), (put.version, value.clone()))),
            }
        }
        Ok(())
    }

    fn view(&self) -> Result<Box<dyn View>, StoreError> {
        Ok(Box::new(MemoryView(Arc::clone(&self.lock()))))
    }

    fn recover(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct MemoryView(Arc<Rows>);

impl View for MemoryView {
    fn get(&self, key: &str) -> Result<Option<Row>, StoreError> {
        Ok(self.0.get_key_value(key).map(row))
    }

    fn version(&self, key: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.0.get(key).map(|row| row.0))
    }

    fn page(&self, from: &str, to: &str, order: Order, limit: usize) -> Result<Vec<Row>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let range = self.0.range::<str, _>((Bound::Included(from), Bound::Excluded(to)));
        Ok(match order {
            Order::Ascending => range.take(limit).map(row).collect(),
            Order::Descending => range.rev().take(limit).map(row).collect(),
        })
    }
}

fn row((key, (version, value)): (&String, &(u64, Vec<u8>))) -> Row {
    Row { key: key.clone(), version: *version, value: value.clone() }
}
