//! The writes to one target that are acknowledged and not yet known to be durable, in their order. Pure.
//!
//! A target's store generation tells whether it may have lost any of them. As long as it is the known one, a commit, or
//! a sync of the object, releases them; under a newer one all of them are to be sent again, in order, before anything
//! else of this client reaches the target.

use bytes::Bytes;
use pvfs_types::{DataGen, Ino, ObjectOffset, Slot};
use pvfs_wire::msg::data::{Acked, Ranges};
use std::collections::{BTreeMap, HashMap};

/// Payloads below this are copied out of the caller's buffer: a small slice must not pin a large buffer.
const SHARED_BYTES_MIN: u64 = 32 << 10;

/// An acknowledged write to one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldWrite {
    pub ino: Ino,
    pub data_gen: DataGen,
    pub slot: Slot,
    pub what: What,
    /// Length of the payload.
    pub bytes: u64,
    /// How far it was acknowledged when it was last sent.
    pub acked: Acked,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Bytes {
        ranges: Ranges,
        payload: Vec<Bytes>,
    },
    /// Zeros from `start` to before `end`, with no payload.
    Zeros {
        start: ObjectOffset,
        end: ObjectOffset,
    },
}

pub(crate) type Object = (Ino, DataGen, Slot);

impl HeldWrite {
    fn object(&self) -> Object {
        (self.ino, self.data_gen, self.slot)
    }
}

/// `payload`, `bytes` long and cut out of a buffer of `whole` bytes, so that keeping it keeps little more than its own length
/// in memory: a third at most, but for what a caller has cut out of larger ones. `join` puts parts into one.
pub(crate) fn own(
    payload: Vec<Bytes>,
    bytes: u64,
    whole: u64,
    join: impl Fn(&[Bytes]) -> Bytes,
) -> Vec<Bytes> {
    if bytes < SHARED_BYTES_MIN {
        vec![payload.concat().into()]
    } else if bytes < whole / 4 * 3 {
        vec![join(&payload)]
    } else {
        payload
    }
}

/// What is held for one target.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// The store generation that all held writes are counted under; `None`: nothing is held.
    known: Option<u64>,
    writes: BTreeMap<u64, HeldWrite>,
    bytes: u64,
    /// All up to this mark is known to be durable.
    committed: u64,
    next: u64,
}

impl Held {
    /// The target's store generation, if anything is held that a newer one may have lost.
    pub fn known(&self) -> Option<u64> {
        self.known
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn count(&self) -> usize {
        self.writes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The number that the next write will get: those held now have lower ones.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Keeps a write, unless it is durable already.
    pub fn push(&mut self, write: HeldWrite) {
        let known = *self.known.get_or_insert(write.acked.generation);
        if known == write.acked.generation && write.acked.mark <= self.committed {
            return self.settle();
        }
        self.bytes += write.bytes;
        self.writes.insert(self.next, write);
        self.next += 1;
    }

    /// The target told, under store generation `generation`, that all up to `committed` is durable. Gives what is
    /// released; freeing it may take long.
    pub fn committed(&mut self, generation: u64, committed: u64) -> Vec<HeldWrite> {
        if self.known != Some(generation) || committed <= self.committed {
            return Vec::new();
        }
        self.committed = committed;
        self.release(|_, write| write.acked.generation == generation && write.acked.mark <= committed)
    }

    /// What was held of the object when `next` was the next number is durable, if the sync ended under the generation
    /// known. `None`: it did not, and nothing may be called synced before all is sent again.
    pub fn synced(&mut self, object: Object, next: u64, generation: u64) -> Option<Vec<HeldWrite>> {
        if self.known.is_some_and(|known| known < generation) {
            return None;
        }
        Some(self.release(|number, write| {
            number < next && write.object() == object && write.acked.generation == generation
        }))
    }

    /// What must be sent again under store generation `generation`: for each object, in their order, all from the first
    /// one on that may be lost.
    pub fn stale(&self, generation: u64) -> Vec<Vec<(u64, HeldWrite)>> {
        let mut places: HashMap<Object, usize> = HashMap::new();
        let mut objects: Vec<Vec<(u64, HeldWrite)>> = Vec::new();
        for (&number, write) in &self.writes {
            let place = places.get(&write.object()).copied();
            if place.is_none() && write.acked.generation >= generation {
                continue;
            }
            let place = place.unwrap_or_else(|| {
                objects.push(Vec::new());
                places.insert(write.object(), objects.len() - 1);
                objects.len() - 1
            });
            objects[place].push((number, write.clone()));
        }
        objects
    }

    /// The write was sent again and acknowledged so.
    pub fn sent_again(&mut self, number: u64, acked: Acked) {
        if let Some(write) = self.writes.get_mut(&number) {
            write.acked = acked;
        }
        if acked.mark <= self.committed {
            self.forget(number);
        }
    }

    /// The write is durable, or of no use any more.
    pub fn forget(&mut self, number: u64) {
        if let Some(write) = self.writes.remove(&number) {
            self.bytes -= write.bytes;
        }
    }

    /// All has been sent again under `generation`, if nothing came in since that has not. True: so it is.
    pub fn caught_up(&mut self, generation: u64) -> bool {
        if self.writes.values().any(|write| write.acked.generation < generation) {
            return false;
        }
        self.known = Some(generation);
        self.settle();
        true
    }

    /// Gives up everything.
    pub fn clear(&mut self) -> Vec<HeldWrite> {
        self.release(|_, _| true)
    }

    fn release(&mut self, done: impl Fn(u64, &HeldWrite) -> bool) -> Vec<HeldWrite> {
        let released: Vec<HeldWrite> = self
            .writes
            .extract_if(.., |number, write| done(*number, write))
            .map(|(_, write)| write)
            .collect();
        self.bytes -= released.iter().map(|write| write.bytes).sum::<u64>();
        self.settle();
        released
    }

    fn settle(&mut self) {
        if self.writes.is_empty() {
            self.known = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pvfs_wire::msg::data::Run;

    fn write(ino: u64, at: u64, text: &'static str, generation: u64, mark: u64) -> HeldWrite {
        let len = u32::try_from(text.len()).unwrap();
        HeldWrite {
            ino: Ino(ino),
            data_gen: DataGen(0),
            slot: Slot(0),
            what: What::Bytes {
                ranges: Ranges::List(vec![Run { offset: ObjectOffset(at), len }]),
                payload: vec![Bytes::from_static(text.as_bytes())],
            },
            bytes: text.len() as u64,
            acked: Acked { generation, mark, below: None },
        }
    }

    fn object(ino: u64) -> Object {
        (Ino(ino), DataGen(0), Slot(0))
    }

    /// What is to be sent again, by object, as `number:text`.
    fn stale(held: &Held, generation: u64) -> Vec<String> {
        let text = |(number, write): &(u64, HeldWrite)| {
            let What::Bytes { payload, .. } = &write.what else { panic!("no bytes") };
            format!("{number}:{}", String::from_utf8(payload.concat()).unwrap())
        };
        held.stale(generation)
            .iter()
            .map(|writes| writes.iter().map(text).collect::<Vec<_>>().join(" "))
            .collect()
    }

    #[test]
    fn a_commit_releases_what_it_covers() {
        let mut held = Held::default();
        assert_eq!(held.known(), None);
        held.push(write(1, 0, "aa", 7, 10));
        held.push(write(2, 0, "bbb", 7, 11));
        assert_eq!((held.known(), held.bytes()), (Some(7), 5));
        assert_eq!(held.committed(7, 9), []);
        assert_eq!(held.committed(7, 10).len(), 1);
        assert_eq!(held.bytes(), 3);
        assert_eq!(held.committed(7, 11).len(), 1);
        assert_eq!((held.known(), held.bytes()), (None, 0), "nothing is held");
    }

    #[test]
    fn a_commit_of_another_generation_releases_nothing() {
        let mut held = Held::default();
        held.push(write(1, 0, "aa", 7, 10));
        assert_eq!(held.committed(8, 99), [], "what it covered may not be what was written");
        assert_eq!(held.committed(6, 99), [], "an answer that was overtaken");
        assert_eq!(held.bytes(), 2);
    }

    #[test]
    fn what_is_durable_when_it_is_acknowledged_is_not_held() {
        let mut held = Held::default();
        held.push(write(1, 0, "aa", 7, 0));
        assert_eq!((held.known(), held.bytes()), (None, 0));
        held.push(write(1, 0, "aa", 7, 10));
        held.committed(7, 10);
        held.push(write(1, 0, "bb", 7, 10));
        assert_eq!((held.known(), held.bytes()), (None, 0));
    }

    #[test]
    fn a_sync_releases_what_was_held_of_its_object_when_it_began() {
        let mut held = Held::default();
        held.push(write(1, 0, "a", 7, 10));
        held.push(write(2, 0, "b", 7, 10));
        let next = held.next();
        held.push(write(1, 0, "c", 7, 10));
        assert_eq!(held.synced(object(1), next, 7).map(|released| released.len()), Some(1));
        assert_eq!(held.count(), 2);
    }

    #[test]
    fn nothing_is_synced_under_a_generation_that_may_have_lost_bytes() {
        let mut held = Held::default();
        held.push(write(1, 0, "a", 7, 10));
        assert_eq!(held.synced(object(2), held.next(), 8), None);
        assert_eq!(held.count(), 1);
    }

    #[test]
    fn what_may_be_lost_is_sent_again_in_order_with_all_that_follows_it_on_the_object() {
        let mut held = Held::default();
        held.push(write(1, 0, "old", 7, 10));
        held.push(write(2, 0, "other", 7, 10));
        held.push(write(1, 1, "overlap", 7, 11));
        held.push(write(1, 2, "raced", 8, 30));
        held.push(write(3, 0, "safe", 8, 30));
        assert_eq!(held.known(), Some(7), "the oldest counts");
        assert_eq!(stale(&held, 8), ["0:old 2:overlap 3:raced", "1:other"]);
        assert_eq!(stale(&held, 7), Vec::<String>::new());
    }

    #[test]
    fn a_target_is_caught_up_with_when_nothing_of_an_older_generation_is_left() {
        let mut held = Held::default();
        held.push(write(1, 0, "a", 7, 10));
        held.push(write(1, 0, "b", 7, 10));
        held.sent_again(0, Acked { generation: 8, mark: 30, below: None });
        assert!(!held.caught_up(8));
        held.sent_again(1, Acked { generation: 8, mark: 30, below: None });
        held.push(write(1, 0, "late answer", 7, 10));
        assert!(!held.caught_up(8), "it was acknowledged before the loss");
        held.forget(2);
        assert!(held.caught_up(8));
        assert_eq!(held.known(), Some(8));
        // They are as good as new ones: another loss brings them all back.
        assert_eq!(stale(&held, 9), ["0:a 1:b"]);
        assert_eq!(held.committed(8, 30).len(), 2);
    }

    #[test]
    fn what_a_cut_has_overtaken_is_released_when_it_is_sent_again() {
        let mut held = Held::default();
        held.push(write(1, 0, "a", 7, 10));
        held.sent_again(0, Acked { generation: 8, mark: 0, below: None });
        assert!(held.caught_up(8));
        assert_eq!((held.known(), held.bytes()), (None, 0));
    }

    #[test]
    fn small_payloads_let_go_of_the_large_buffer_they_came_in() {
        let large = Bytes::from(vec![7; 1 << 20]);
        let join = |parts: &[Bytes]| parts.concat().into();
        let is_of_it = |part: &[Bytes]| large.as_ptr_range().contains(&part[0].as_ptr());
        let small = own(vec![large.slice(10..20), large.slice(30..40)], 20, 20, join);
        assert_eq!(small.concat(), [7; 20]);
        assert!(!is_of_it(&small));
        for (bytes, copied) in [(1 << 18, true), (1 << 19, true), (3 << 18, false), (1 << 20, false)] {
            let part = own(vec![large.slice(..bytes)], bytes as u64, 1 << 20, join);
            assert_eq!(part.concat(), large[..bytes]);
            assert_eq!(!is_of_it(&part), copied, "{bytes} of a MiB");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write { object: u64 },
        Commit,
        Sync { object: u64 },
        Lose,
        SendAgain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..3).prop_map(|object| Step::Write { object }),
            1 => Just(Step::Commit),
            1 => (0u64..3).prop_map(|object| Step::Sync { object }),
            2 => Just(Step::Lose),
            2 => Just(Step::SendAgain),
        ]
    }

    proptest! {
        /// Objects of one value each: after any losses, sending again what is held brings back the last value written.
        #[test]
        fn sending_again_brings_back_the_last_values(steps in proptest::collection::vec(step(), 0..60)) {
            let mut held = Held::default();
            let (mut generation, mut mark) = (1, 1);
            let (mut cache, mut disk, mut truth) = ([0u64; 3], [0u64; 3], [0u64; 3]);
            let mut values: HashMap<u64, u64> = HashMap::new();
            for step in steps.into_iter().chain([Step::SendAgain]) {
                // As the iod refuses whoever knows only an older generation.
                let refused = held.known().is_some_and(|known| known < generation);
                match step {
                    Step::Write { object } if !refused => {
                        let value = held.next() + 1;
                        let at = usize::try_from(object).unwrap();
                        (cache[at], truth[at]) = (value, value);
                        values.insert(held.next(), value);
                        held.push(write(object, 0, "v", generation, mark));
                    }
                    Step::Commit => {
                        disk = cache;
                        if !refused {
                            held.committed(generation, mark);
                        }
                        mark += 1;
                    }
                    Step::Sync { object } if !refused => {
                        let at = usize::try_from(object).unwrap();
                        disk[at] = cache[at];
                        let synced = held.synced(self::object(object), held.next(), generation);
                        prop_assert!(synced.is_some());
                    }
                    Step::Lose => {
                        (cache, generation, mark) = (disk, generation + 1, mark + 1);
                    }
                    Step::SendAgain => {
                        for (number, write) in held.stale(generation).into_iter().flatten() {
                            cache[usize::try_from(write.ino.0).unwrap()] = values[&number];
                            held.sent_again(number, Acked { generation, mark, below: None });
                        }
                        if held.known().is_some() {
                            prop_assert!(held.caught_up(generation));
                        }
                        prop_assert_eq!(cache, truth);
                    }
                    Step::Write { .. } | Step::Sync { .. } => {}
                }
                prop_assert_eq!(held.bytes(), held.count() as u64);
            }
        }
    }
}
