//! What this client keeps of its writes, for all targets: bounds, who waits for room, who may send to a target now.
//!
//! Memory is bounded by target and in all. A write takes its room before it is sent; where there is none it waits, and
//! asks for a commit that makes room.

use crate::held::{Held, HeldWrite};
use pvfs_env::{Counter, Gauge, Metrics};
use pvfs_types::TargetId;
use pvfs_wire::msg::data::Written;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;

/// What a write costs beside its bytes, so that many small ones are bounded too.
const OVERHEAD_BYTES: u64 = 256;

/// How much may be held, in bytes. One request is always let through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub target: u64,
    pub client: u64,
}

/// What is held for all targets.
pub(crate) struct Holds {
    targets: RwLock<BTreeMap<TargetId, Arc<Hold>>>,
    shared: Arc<Shared>,
}

struct Shared {
    bounds: Bounds,
    /// Held or being written, over all targets.
    total: AtomicU64,
    /// Something was released.
    room: Notify,
    counters: Counters,
}

pub(crate) struct Counters {
    held_bytes: Gauge,
    pub replays: Counter,
    pub replayed_bytes: Counter,
    pub lost_bytes: Counter,
    pub waits: Counter,
}

/// What is held for one target.
pub(crate) struct Hold {
    pub target: TargetId,
    state: Mutex<State>,
    shared: Arc<Shared>,
    /// Held by whoever sends again.
    pub sending_again: tokio::sync::Mutex<()>,
    /// Room is needed: a commit should not wait for its time.
    pub urgent: Notify,
}

#[derive(Default)]
struct State {
    held: Held,
    /// Held or being written.
    charged: u64,
    /// A task looks after it as long as something is held.
    is_kept: bool,
}

/// Room for one write. Dropped without [`Room::keep`], it is given back.
pub(crate) struct Room {
    hold: Arc<Hold>,
    bytes: u64,
}

impl Holds {
    pub fn new(bounds: Bounds, metrics: &Metrics) -> Holds {
        let counters = Counters {
            held_bytes: metrics.gauge("pvfs_client_held_bytes", &[]),
            replays: metrics.counter("pvfs_client_replays_total", &[]),
            replayed_bytes: metrics.counter("pvfs_client_replayed_bytes_total", &[]),
            lost_bytes: metrics.counter("pvfs_client_lost_bytes_total", &[]),
            waits: metrics.counter("pvfs_client_held_waits_total", &[]),
        };
        let shared = Shared { bounds, total: AtomicU64::new(0), room: Notify::new(), counters };
        Holds { targets: RwLock::default(), shared: Arc::new(shared) }
    }

    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    pub fn of(&self, target: TargetId) -> Arc<Hold> {
        if let Some(hold) = self.find(target) {
            return hold;
        }
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            targets.entry(target).or_insert_with(|| Arc::new(Hold::new(target, Arc::clone(&self.shared)))),
        )
    }

    /// The store generation to show to `target`: see [`Held::known`].
    pub fn known(&self, target: TargetId) -> Option<u64> {
        self.find(target)?.with(|state| state.held.known())
    }

    fn find(&self, target: TargetId) -> Option<Arc<Hold>> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner).get(&target).cloned()
    }

    fn all(&self) -> Vec<Arc<Hold>> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Waits for room for a write of `bytes` to `target`. To be held only while that is sent.
    pub async fn room(&self, target: TargetId, bytes: u64) -> Room {
        let hold = self.of(target);
        let bytes = bytes + OVERHEAD_BYTES;
        if hold.charge(bytes).is_ok() {
            return Room { hold, bytes };
        }
        self.shared.counters.waits.inc();
        loop {
            let released = self.shared.room.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            match hold.charge(bytes) {
                Ok(()) => return Room { hold, bytes },
                Err(Crowded::Target) => hold.urgent.notify_one(),
                Err(Crowded::Client) => self.all().iter().for_each(|hold| hold.urgent.notify_one()),
            }
            released.await;
        }
    }

    /// Waits until nothing is held any more, and has that come soon.
    pub async fn emptied(&self) {
        for hold in self.all() {
            loop {
                let released = self.shared.room.notified();
                tokio::pin!(released);
                released.as_mut().enable();
                if hold.with(|state| state.held.is_empty()) {
                    break;
                }
                hold.urgent.notify_one();
                released.await;
            }
        }
    }

    /// Bytes of files that are held.
    pub fn bytes(&self) -> u64 {
        self.all().iter().map(|hold| hold.with(|state| state.held.bytes())).sum()
    }
}

enum Crowded {
    Target,
    Client,
}

impl Hold {
    fn new(target: TargetId, shared: Arc<Shared>) -> Hold {
        Hold {
            target,
            state: Mutex::default(),
            shared,
            sending_again: tokio::sync::Mutex::default(),
            urgent: Notify::new(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn charge(&self, bytes: u64) -> Result<(), Crowded> {
        let Bounds { target, client } = self.shared.bounds;
        self.with(|state| {
            if state.charged > 0 && state.charged + bytes > target {
                return Err(Crowded::Target);
            }
            let fits = |total: u64| (total == 0 || total + bytes <= client).then_some(total + bytes);
            // A target that holds nothing gets its one request: whoever holds the rest may be waited for long.
            if self.shared.total.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_err() {
                if state.charged > 0 {
                    return Err(Crowded::Client);
                }
                self.shared.total.fetch_add(bytes, Ordering::SeqCst);
            }
            state.charged += bytes;
            Ok(())
        })
    }

    fn discharge(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.with(|state| state.charged -= bytes);
        self.shared.total.fetch_sub(bytes, Ordering::SeqCst);
        self.shared.room.notify_waiters();
    }

    /// Changes what is held, and gives back the room of what was released.
    pub fn change<T>(&self, act: impl FnOnce(&mut Held) -> T) -> T {
        let cost = |held: &Held| held.bytes() + held.count() as u64 * OVERHEAD_BYTES;
        let (done, freed) = self.with(|state| {
            let before = cost(&state.held);
            let done = act(&mut state.held);
            (done, before - cost(&state.held).min(before))
        });
        if freed > 0 {
            self.discharge(freed);
            self.show();
        }
        done
    }

    /// Looks at what is held.
    pub fn look<T>(&self, at: impl FnOnce(&Held) -> T) -> T {
        self.with(|state| at(&state.held))
    }

    /// Takes what an answer tells of commits.
    pub fn told(&self, written: &Written) {
        if let Some(durability) = written.durability {
            // Freed outside of the lock.
            drop(self.change(|held| held.committed(written.generations.store, durability.committed)));
        }
    }

    /// Nothing is held any more, so nobody need look after it. False: there is still something.
    pub fn let_go(&self) -> bool {
        self.with(|state| {
            let empty = state.held.is_empty();
            state.is_kept &= !empty;
            empty
        })
    }

    fn show(&self) {
        self.shared.counters.held_bytes.set(self.shared.total.load(Ordering::Relaxed));
    }
}

impl Room {
    /// The write was acknowledged: it is held. True: somebody has to begin looking after the target.
    pub fn keep(mut self, write: HeldWrite) -> bool {
        let hold = Arc::clone(&self.hold);
        let mine = std::mem::take(&mut self.bytes);
        let (is_new, released, crowded) = hold.with(|state| {
            let before = state.held.count();
            state.held.push(write);
            let kept = state.held.count() > before;
            let is_new = kept && !std::mem::replace(&mut state.is_kept, true);
            (is_new, if kept { 0 } else { mine }, state.charged > hold.shared.bounds.target / 2)
        });
        hold.discharge(released);
        hold.show();
        if crowded {
            // Before anybody has to wait.
            hold.urgent.notify_one();
        }
        is_new
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.hold.discharge(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held::What;
    use bytes::Bytes;
    use futures_util::FutureExt;
    use pvfs_types::{DataGen, Ino, Slot};
    use pvfs_wire::msg::data::{Acked, Durability, Generations, Ranges};

    fn write(bytes: u64, mark: u64) -> HeldWrite {
        HeldWrite {
            ino: Ino(1),
            data_gen: DataGen(0),
            slot: Slot(0),
            what: What::Bytes { ranges: Ranges::List(Vec::new()), payload: vec![Bytes::new()] },
            bytes,
            acked: Acked { generation: 1, mark, below: None },
        }
    }

    fn committed(mark: u64) -> Written {
        let generations = Generations { process: 1, boot: 1, store: 1 };
        Written { generations, durability: Some(Durability { mark: 0, committed: mark, below: None }) }
    }

    fn holds(target: u64, client: u64) -> Arc<Holds> {
        Arc::new(Holds::new(Bounds { target, client }, &Metrics::new()))
    }

    const ONE: TargetId = TargetId(1);
    const TWO: TargetId = TargetId(2);

    /// Whether a write of `bytes` to `target` would have to wait.
    fn waits(holds: &Holds, target: TargetId, bytes: u64) -> bool {
        holds.room(target, bytes).now_or_never().is_none()
    }

    #[tokio::test]
    async fn a_full_target_is_waited_for_until_it_commits_and_others_are_not() {
        let holds = holds(10_000, 100_000);
        assert!(holds.room(ONE, 8_000).await.keep(write(8_000, 5)), "the first write is to be looked after");
        assert!(!holds.room(ONE, 100).await.keep(write(100, 6)));
        assert!(waits(&holds, ONE, 8_000));
        assert!(!waits(&holds, TWO, 8_000));
        let waiting = tokio::spawn({
            let holds = Arc::clone(&holds);
            async move { drop(holds.room(ONE, 8_000).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        holds.of(ONE).told(&committed(5));
        waiting.await.unwrap();
        assert_eq!(holds.bytes(), 100);
    }

    #[tokio::test]
    async fn all_targets_together_are_bounded_too_and_each_may_have_one_request() {
        let holds = holds(10_000, 12_000);
        holds.room(ONE, 9_000).await.keep(write(9_000, 5));
        holds.room(TWO, 9_000).await.keep(write(9_000, 5));
        assert!(waits(&holds, TWO, 100));
        holds.of(ONE).told(&committed(5));
        assert!(!waits(&holds, TWO, 100));
    }

    #[tokio::test]
    async fn a_write_that_is_larger_than_the_bound_goes_alone() {
        let holds = holds(1_000, 1_000);
        let room = holds.room(ONE, 1 << 20).await;
        assert!(waits(&holds, ONE, 1));
        drop(room);
        assert!(!waits(&holds, ONE, 1), "a write that failed gives its room back");
    }

    #[tokio::test]
    async fn many_small_writes_are_bounded_by_what_they_cost() {
        let holds = holds(10_000, 100_000);
        let mut count = 0;
        while !waits(&holds, ONE, 1) {
            holds.room(ONE, 1).await.keep(write(1, 5));
            count += 1;
        }
        assert_eq!(count, 10_000 / (OVERHEAD_BYTES + 1));
        holds.of(ONE).told(&committed(5));
        assert!(holds.of(ONE).let_go());
        assert_eq!(holds.shared.total.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn what_is_durable_when_acknowledged_takes_no_room() {
        let holds = holds(10_000, 100_000);
        assert!(!holds.room(ONE, 100).await.keep(write(100, 0)));
        assert_eq!((holds.bytes(), holds.shared.total.load(Ordering::SeqCst)), (0, 0));
        assert_eq!(holds.known(ONE), None);
    }
}
