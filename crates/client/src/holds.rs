//! What this client keeps of its writes, for all targets: bounds, who waits for room, who may send to a target now.
//!
//! Memory is bounded by target and in all, however many targets there are. A write takes its room before it is sent; where
//! there is none it waits, and asks for a commit that makes room. A target has at most half of what the others leave: so
//! one that commits late, or not at all, never has the room without which nobody can write to the others.

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

/// How much may be held, in bytes: no more than `client` and one request, over all targets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub target: u64,
    pub client: u64,
}

impl Bounds {
    /// How much a target may have that has `mine` of `total`: half of what the others leave, so that as much stays free. One
    /// that stands still has half of all in the end, two have a third each, and so on.
    fn share(self, mine: u64, total: u64) -> u64 {
        let left = self.client.saturating_sub(total.saturating_sub(mine));
        self.target.min(left / 2)
    }

    /// Whether it may have `bytes` more. One request of any length is let through to a target that has nothing: there is no
    /// commit that it could wait for.
    fn admits(self, mine: u64, total: u64, bytes: u64) -> bool {
        if mine == 0 { total < self.client } else { mine + bytes <= self.share(mine, total) }
    }

    /// Whether it is to commit, before anybody has to wait.
    fn is_crowded(self, mine: u64, total: u64) -> bool {
        mine > self.share(mine, total) / 2
    }
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
        if hold.charge(bytes) {
            return Room { hold, bytes };
        }
        self.shared.counters.waits.inc();
        loop {
            let released = self.shared.room.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if hold.charge(bytes) {
                return Room { hold, bytes };
            }
            self.ask_for_room(&hold, bytes);
            released.await;
        }
    }

    /// Has those commit who have what a write of `bytes` waits for: its own target, and those that have more than that.
    fn ask_for_room(&self, hold: &Hold, bytes: u64) {
        hold.urgent.notify_one();
        let mine = hold.with(|state| state.charged);
        if mine + bytes <= self.shared.bounds.target {
            let larger = |other: &&Arc<Hold>| other.with(|state| state.charged) > mine;
            self.all().iter().filter(larger).for_each(|other| other.urgent.notify_one());
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

    /// Takes room, if there is some.
    fn charge(&self, bytes: u64) -> bool {
        let Shared { bounds, total, .. } = &*self.shared;
        self.with(|state| {
            let mine = state.charged;
            let more = |total: u64| bounds.admits(mine, total, bytes).then_some(total + bytes);
            let has_room = total.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok();
            state.charged += if has_room { bytes } else { 0 };
            has_room
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

    /// Somebody would have to wait soon.
    pub fn is_crowded(&self) -> bool {
        let total = self.shared.total.load(Ordering::SeqCst);
        self.shared.bounds.is_crowded(self.with(|state| state.charged), total)
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
        let (is_new, released) = hold.with(|state| {
            let before = state.held.count();
            state.held.push(write);
            let kept = state.held.count() > before;
            let is_new = kept && !std::mem::replace(&mut state.is_kept, true);
            (is_new, if kept { 0 } else { mine })
        });
        hold.discharge(released);
        hold.show();
        if hold.is_crowded() {
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
    use proptest::prelude::*;
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
        holds.room(ONE, 4_000).await.keep(write(4_000, 5));
        holds.room(TWO, 3_000).await.keep(write(3_000, 5));
        assert!(waits(&holds, TWO, 1_000));
        assert!(!waits(&holds, TargetId(3), 20_000));
        holds.of(ONE).told(&committed(5));
        assert!(!waits(&holds, TWO, 1_000));
    }

    #[tokio::test]
    async fn who_waits_because_of_others_has_those_commit_and_not_the_ones_that_have_less() {
        let holds = holds(10_000, 12_000);
        let [large, small] = [(TargetId(3), 5_000), (TargetId(4), 100)].map(|(target, bytes)| {
            holds.room(target, bytes).now_or_never().unwrap().keep(write(bytes, 5));
            holds.of(target)
        });
        let is_asked = |hold: &Hold| hold.urgent.notified().now_or_never().is_some();
        for hold in [&large, &small] {
            is_asked(hold);
        }
        holds.room(ONE, 1_000).await.keep(write(1_000, 5));
        assert!(waits(&holds, ONE, 3_000));
        assert_eq!([&large, &small, &holds.of(ONE)].map(|hold| is_asked(hold)), [true, false, true]);
    }

    const MIB: u64 = 1 << 20;
    const DEFAULT: Bounds = Bounds { target: 64 * MIB, client: 128 * MIB };

    /// What `count` targets have when each has got all that it is given, in turn, a MiB at a time, and none commits.
    fn standing(count: usize) -> Vec<u64> {
        let mut have = vec![0; count];
        loop {
            let before = have.clone();
            for at in 0..count {
                let total = have.iter().sum();
                have[at] += if DEFAULT.admits(have[at], total, MIB) { MIB } else { 0 };
            }
            if have == before {
                return have;
            }
        }
    }

    #[test]
    fn targets_that_stand_still_leave_as_much_as_each_of_them_has() {
        for (count, each) in [(1, 64), (2, 42), (3, 32), (7, 16), (31, 4), (100, 1)] {
            let have = standing(count);
            let most = have.iter().max().unwrap() / MIB;
            assert!(most == each || most == each + 1, "each of {count} has {most}");
            let total: u64 = have.iter().sum();
            assert!(total + most * MIB <= DEFAULT.client, "{count} have {} MiB", total / MIB);
            let is_last = |n: &u64| !DEFAULT.admits(n * MIB, total + n * MIB, MIB);
            let another = (0..=128).find(is_last).unwrap();
            assert!(another >= each.div_ceil(2), "another one beside {count} has {another} MiB");
        }
    }

    #[test]
    fn a_target_is_asked_to_commit_when_half_of_what_it_may_have_is_left() {
        for others in [0, 30, 64, 100, 120, 127] {
            let others = others * MIB;
            let steps = || (0..=DEFAULT.client).step_by(4096);
            let asked = steps().find(|have| DEFAULT.is_crowded(*have, others + have)).unwrap();
            let most = steps().find(|have| !DEFAULT.admits(*have, others + have, 4096)).unwrap();
            assert!(asked * 2 <= most + 2 * 4096, "asked at {asked} of {most}, others have {others}");
        }
    }

    proptest! {
        #[test]
        fn however_many_targets_there_are_no_more_is_held_than_the_bound_and_one_request(
            requests in proptest::collection::vec((0usize..300, 1u64..4 * MIB), 0..2_000),
        ) {
            let mut have = vec![0; 300];
            let (mut total, mut largest) = (0, 0);
            for (at, bytes) in requests {
                if DEFAULT.admits(have[at], total, bytes) {
                    have[at] += bytes;
                    total += bytes;
                    largest = largest.max(bytes);
                    prop_assert!(total <= DEFAULT.client + largest, "{total} bytes");
                    prop_assert!(have[at] == bytes || have[at] + total <= DEFAULT.client, "as much stays free");
                } else {
                    prop_assert!(have[at] > 0 || total >= DEFAULT.client, "one request is let through");
                }
            }
        }
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
