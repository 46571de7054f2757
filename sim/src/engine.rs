//! The mgr's metadata store: durable with each commit, as LMDB is, whatever dies; with commits that fail.

use crate::{
    process::Process,
    random::Random,
    trace::{Trace, event},
};
use pvfs_kv::{Engine, KvError, Read, Visit, WriteSet};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The store as it lies on the mgr's disk; outlives every process. Clones are the same one.
#[derive(Clone)]
pub struct EngineImage {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    map: Arc<Map>,
    /// One commit in so many fails; 0: none does.
    fail_one_in: u64,
    random: Random,
}

/// What a process has open.
pub struct SimEngine {
    image: EngineImage,
    process: Arc<Process>,
    trace: Trace,
}

impl EngineImage {
    pub fn new(random: Random) -> EngineImage {
        EngineImage { inner: Arc::new(Mutex::new(Inner { map: Arc::default(), fail_one_in: 0, random })) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One commit in `n` fails from now on; 0: none does.
    pub fn fail_one_in(&self, n: u64) {
        self.with(|inner| inner.fail_one_in = n);
    }

    pub fn open(&self, process: &Arc<Process>, trace: &Trace) -> SimEngine {
        SimEngine { image: self.clone(), process: Arc::clone(process), trace: trace.clone() }
    }

    /// What it holds now.
    pub fn view(&self) -> impl Read + use<> {
        View(self.with(|inner| Arc::clone(&inner.map)))
    }

    /// Changes it from outside of any process.
    pub fn apply(&self, set: &WriteSet) {
        self.with(|inner| {
            let map = Arc::make_mut(&mut inner.map);
            for (key, value) in set.iter() {
                match value {
                    Some(value) => map.insert(key.to_vec(), value.to_vec()),
                    None => map.remove(key),
                };
            }
        });
    }
}

fn dead() -> KvError {
    KvError::Engine { detail: "the process is dead".into() }
}

impl Engine for SimEngine {
    fn snapshot(&self) -> Result<Box<dyn Read + Send + '_>, KvError> {
        Ok(Box::new(View(self.image.with(|inner| Arc::clone(&inner.map)))))
    }

    /// A process may die right before, and right after: what it has answered by then is then a part of the truth.
    fn commit(&self, set: &WriteSet) -> Result<(), KvError> {
        set.check_keys()?;
        if !self.process.effect() {
            return Err(dead());
        }
        if self.image.with(|inner| inner.fail_one_in > 0 && inner.random.one_in(inner.fail_one_in)) {
            event!(self.trace, self.process.name, "commit of {} keys fails", set.len());
            return Err(if set.len().is_multiple_of(2) {
                KvError::Full { detail: "simulated".into() }
            } else {
                KvError::Io { what: "simulated commit".into(), source: io::Error::from_raw_os_error(5) }
            });
        }
        self.image.apply(set);
        let mut hasher = DefaultHasher::new();
        set.iter().for_each(|pair| pair.hash(&mut hasher));
        event!(self.trace, self.process.name, "commit of {} keys {:016x}", set.len(), hasher.finish());
        if self.process.effect() { Ok(()) } else { Err(dead()) }
    }

    fn used_bytes(&self) -> Result<u64, KvError> {
        let map = self.image.with(|inner| Arc::clone(&inner.map));
        Ok(map.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() as u64)
    }
}

struct View(Arc<Map>);

impl Read for View {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.0.get(key).cloned())
    }

    fn range(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        let bounds = (Bound::Included(from), Bound::Excluded(to.max(from)));
        for (key, value) in self.0.range::<[u8], _>(bounds) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}
