//! The handles of objects lately used, a bounded number of them, so that their descriptors stay open.
//!
//! Second chance, the clock's approximation of least recently used: a hit costs one flag. Handles in use are never
//! dropped, so that an object has one handle at a time; the bound is passed by as many as are in use at once.

use crate::handle::Handle;
use pvfs_env::Counter;
use pvfs_types::ObjectId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

pub(crate) struct Cache {
    clock: Mutex<Clock>,
    handles_max: usize,
    counters: CacheCounters,
}

pub(crate) struct CacheCounters {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) evictions: Counter,
}

#[derive(Default)]
struct Clock {
    places: HashMap<ObjectId, usize>,
    entries: Vec<Entry>,
    hand: usize,
}

struct Entry {
    handle: Arc<Handle>,
    used: bool,
}

impl Cache {
    pub(crate) fn new(handles_max: usize, counters: CacheCounters) -> Cache {
        Cache { clock: Mutex::default(), handles_max: handles_max.max(1), counters }
    }

    /// The object's handle.
    pub(crate) fn get(&self, id: ObjectId) -> Arc<Handle> {
        // Closing a descriptor may take long: what goes is dropped after the lock.
        let mut gone = Vec::new();
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&place) = clock.places.get(&id) {
            let entry = &mut clock.entries[place];
            entry.used = true;
            self.counters.hits.inc();
            return Arc::clone(&entry.handle);
        }
        clock.shrink(self.handles_max - 1, &mut gone);
        let handle = Arc::new(Handle::new(id));
        clock.insert(Arc::clone(&handle));
        drop(clock);
        self.counters.misses.inc();
        self.counters.evictions.add(gone.len() as u64);
        handle
    }

    /// Closes the descriptors that were more than the bound while they were in use.
    pub(crate) fn trim(&self) {
        let mut gone = Vec::new();
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).shrink(self.handles_max, &mut gone);
        self.counters.evictions.add(gone.len() as u64);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Handle>> {
        let clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.entries.iter().map(|entry| Arc::clone(&entry.handle)).collect()
    }

    /// Closes every descriptor that nobody uses right now.
    pub(crate) fn evict_idle(&self) {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = std::iter::from_fn(|| clock.evict_one()).collect();
        drop(clock);
        self.counters.evictions.add(gone.len() as u64);
    }
}

impl Clock {
    fn insert(&mut self, handle: Arc<Handle>) {
        self.places.insert(handle.id, self.entries.len());
        self.entries.push(Entry { handle, used: false });
    }

    /// Takes out handles until there are `len`, as far as they are not in use.
    fn shrink(&mut self, len: usize, gone: &mut Vec<Arc<Handle>>) {
        while self.entries.len() > len
            && let Some(handle) = self.evict_one()
        {
            gone.push(handle);
        }
    }

    /// Takes out the next handle that was not used since the hand last passed; `None` when all are in use.
    fn evict_one(&mut self) -> Option<Arc<Handle>> {
        for _ in 0..2 * self.entries.len() {
            let place = self.hand % self.entries.len();
            let entry = &mut self.entries[place];
            // Under the lock nobody else can take a second reference.
            if Arc::strong_count(&entry.handle) == 1 && !entry.used {
                return Some(self.take(place));
            }
            entry.used = false;
            self.hand = place + 1;
        }
        None
    }

    fn take(&mut self, place: usize) -> Arc<Handle> {
        let handle = self.entries.swap_remove(place).handle;
        self.places.remove(&handle.id);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.handle.id, place);
        }
        handle
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_env::Metrics;
    use pvfs_types::{DataGen, Ino, Slot};

    fn id(ino: u64) -> ObjectId {
        ObjectId { ino: Ino(ino), data_gen: DataGen(0), slot: Slot(0) }
    }

    fn cache(handles_max: usize) -> Cache {
        let counter = |event| Metrics::new().counter("x", &[("event", event)]);
        let counters =
            CacheCounters { hits: counter("hit"), misses: counter("miss"), evictions: counter("evict") };
        Cache::new(handles_max, counters)
    }

    #[test]
    fn an_object_in_use_keeps_its_one_handle() {
        let cache = cache(2);
        let held = cache.get(id(0));
        for ino in 1..100 {
            cache.get(id(ino));
        }
        assert!(Arc::ptr_eq(&held, &cache.get(id(0))));
        assert_eq!(cache.counters.hits.get(), 1);
    }

    #[test]
    fn handles_are_bounded_but_for_those_in_use() {
        let cache = cache(4);
        let held: Vec<_> = (0..10).map(|ino| cache.get(id(ino))).collect();
        let count = || cache.clock.lock().unwrap().entries.len();
        assert_eq!(count(), 10);
        drop(held);
        cache.trim();
        assert_eq!(count(), 4);
        cache.get(id(10));
        assert_eq!(count(), 4);
        cache.evict_idle();
        assert_eq!(count(), 0);
    }

    #[test]
    fn what_is_used_again_outlives_what_is_used_once() {
        let cache = cache(8);
        cache.get(id(0));
        for ino in 1..1000 {
            cache.get(id(0));
            cache.get(id(ino));
        }
        assert_eq!(cache.counters.hits.get(), 999);
    }
}
