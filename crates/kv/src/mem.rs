//! The engine for tests and the simulator: a map in memory.

use crate::{Engine, KvError, Read, Visit, WriteSet};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Where the pairs lie: outlives the engine, as a disk outlives a daemon. Clones are the same store.
#[derive(Clone, Debug)]
pub struct MemStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    map: RwLock<Arc<Map>>,
    open: AtomicBool,
    bytes_max: usize,
}

impl MemStore {
    /// An empty store that takes `bytes_max` bytes of keys and values.
    pub fn new(bytes_max: usize) -> MemStore {
        let inner = Inner { map: RwLock::default(), open: AtomicBool::new(false), bytes_max };
        MemStore { inner: Arc::new(inner) }
    }

    /// # Errors
    /// [`KvError::InUse`]: an engine of this store has not been dropped yet.
    pub fn open(&self) -> Result<MemEngine, KvError> {
        if self.inner.open.swap(true, Ordering::AcqRel) {
            return Err(KvError::InUse { dir: PathBuf::from("(memory)") });
        }
        Ok(MemEngine { inner: self.inner.clone() })
    }
}

/// A store in memory. A commit while a snapshot is held copies the whole map, so this is for small stores.
#[derive(Debug)]
pub struct MemEngine {
    inner: Arc<Inner>,
}

impl MemEngine {
    /// An engine over a new, empty, unbounded store of its own.
    pub fn new() -> MemEngine {
        MemStore::new(usize::MAX).open().expect("nobody else knows the new store")
    }
}

impl Default for MemEngine {
    fn default() -> MemEngine {
        MemEngine::new()
    }
}

impl Drop for MemEngine {
    fn drop(&mut self) {
        self.inner.open.store(false, Ordering::Release);
    }
}

fn byte_count(map: &Map) -> usize {
    map.iter().map(|(key, value)| key.len() + value.len()).sum()
}

impl Engine for MemEngine {
    fn snapshot(&self) -> Result<Box<dyn Read + Send + '_>, KvError> {
        let map = self.inner.map.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Box::new(MemSnapshot { map: map.clone() }))
    }

    fn commit(&self, set: &WriteSet) -> Result<(), KvError> {
        set.check_keys()?;
        let mut map = self.inner.map.write().unwrap_or_else(PoisonError::into_inner);
        let bytes_max = self.inner.bytes_max;
        if bytes_max < usize::MAX && byte_count(&map) + set.byte_count() > bytes_max {
            return Err(KvError::Full { detail: format!("{bytes_max} bytes of memory") });
        }
        let map = Arc::make_mut(&mut map);
        for (key, value) in set.iter() {
            match value {
                Some(value) => {
                    map.insert(key.to_vec(), value.to_vec());
                }
                None => {
                    map.remove(key);
                }
            }
        }
        Ok(())
    }

    fn used_bytes(&self) -> Result<u64, KvError> {
        let map = self.inner.map.read().unwrap_or_else(PoisonError::into_inner);
        Ok(byte_count(&map) as u64)
    }
}

struct MemSnapshot {
    map: Arc<Map>,
}

impl Read for MemSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.map.get(key).cloned())
    }

    fn range(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        let bounds = (Bound::Included(from), Bound::Excluded(to.max(from)));
        for (key, value) in self.map.range::<[u8], _>(bounds) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}
