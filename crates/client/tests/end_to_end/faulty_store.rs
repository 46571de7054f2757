//! A mgr's store that takes no change when the test says so.

use pvfs_kv::{Engine, KvError, MemEngine, Read, WriteSet};
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
pub struct FaultyStore {
    real: MemEngine,
    fails: AtomicBool,
}

impl FaultyStore {
    pub fn fails(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }
}

impl Engine for FaultyStore {
    fn snapshot(&self) -> Result<Box<dyn Read + Send + '_>, KvError> {
        self.real.snapshot()
    }

    fn commit(&self, set: &WriteSet) -> Result<(), KvError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(KvError::Full { detail: "as the test says".into() });
        }
        self.real.commit(set)
    }

    fn used_bytes(&self) -> Result<u64, KvError> {
        self.real.used_bytes()
    }
}
