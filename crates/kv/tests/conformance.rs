//! Both engines pass the one suite.

use pvfs_kv::{Durability, KvError, LmdbEngine, MemEngine, MemStore, conformance::Place, conformance_suite};
use tempfile::TempDir;

struct MemPlace(MemStore);

impl Place for MemPlace {
    type Engine = MemEngine;

    fn new(bytes: usize) -> MemPlace {
        MemPlace(MemStore::new(bytes))
    }

    fn open(&self) -> Result<MemEngine, KvError> {
        self.0.open()
    }
}

struct LmdbPlace {
    dir: TempDir,
    bytes: usize,
}

impl Place for LmdbPlace {
    type Engine = LmdbEngine;

    fn new(bytes: usize) -> LmdbPlace {
        LmdbPlace { dir: TempDir::new().expect("a directory"), bytes }
    }

    fn open(&self) -> Result<LmdbEngine, KvError> {
        // So little journal that a suite of commits goes through it many times, and past it once the map is nearly full.
        LmdbEngine::with_journal(self.dir.path(), self.bytes * 2, Durability::NoSync, 32 << 10)
    }
}

conformance_suite!(mem, MemPlace);
conformance_suite!(lmdb, LmdbPlace);
