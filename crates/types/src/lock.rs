//! Locks on bytes of a file: who may hold them, and what a lock or an unlock makes of what its owner holds. Pure.

use minicbor::{Decode, Encode};

/// How a range is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum LockMode {
    /// Shared: others may read-lock the same bytes.
    #[n(0)]
    Read,
    /// Alone.
    #[n(1)]
    Write,
}

/// Which calls made a lock. Locks of different kinds do not see each other, as in Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum LockKind {
    /// `fcntl(2)`: POSIX locks, whose owner is a process, and those of an open file (OFD). They see each other.
    #[n(0)]
    Posix,
    /// `flock(2)`: the whole file, owned by an open file.
    #[n(1)]
    Flock,
    /// No call: the right to append to a file, whole, of one client at a time. Who waits for it comes in strict order.
    #[n(2)]
    Append,
}

/// Who holds locks within one session: what the kernel calls the owner, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct LockOwner {
    #[n(0)]
    pub kind: LockKind,
    #[n(1)]
    pub id: u64,
}

impl LockOwner {
    /// Before all others in order.
    pub const FIRST: LockOwner = LockOwner { kind: LockKind::Posix, id: 0 };
    /// All appends of a session.
    pub const APPEND: LockOwner = LockOwner { kind: LockKind::Append, id: 0 };
}

/// A locked range. `start <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct LockRange {
    #[n(0)]
    pub start: u64,
    /// The last byte.
    #[n(1)]
    pub end: u64,
    #[n(2)]
    pub mode: LockMode,
    /// The process that locked it, as its own machine calls it; 0: not known.
    #[n(3)]
    pub pid: u32,
}

impl LockRange {
    pub fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start <= end && start <= self.end
    }

    /// Whether a lock of `mode` on `start..=end` by another owner cannot stand beside this one.
    pub fn conflicts(&self, start: u64, end: u64, mode: LockMode) -> bool {
        self.overlaps(start, end) && (self.mode == LockMode::Write || mode == LockMode::Write)
    }
}

/// What one owner holds of one file: ranges in order that do not overlap; where two touch, their modes differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Locked(#[n(0)] Vec<LockRange>);

impl Locked {
    pub fn ranges(&self) -> &[LockRange] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Locks `new`, in place of whatever is held of its bytes.
    pub fn lock(&mut self, new: LockRange) {
        self.unlock(new.start, new.end);
        let at = self.0.partition_point(|held| held.end < new.start);
        self.0.insert(at, new);
        self.merge_with_next(at);
        if let Some(before) = at.checked_sub(1) {
            self.merge_with_next(before);
        }
    }

    /// Makes one of the ranges `at` and after it, if they touch and are locked alike. The pid of a locked range counts
    /// for people only.
    fn merge_with_next(&mut self, at: usize) {
        let (Some(left), Some(right)) = (self.0.get(at).copied(), self.0.get(at + 1).copied()) else {
            return;
        };
        if left.mode == right.mode && left.end.checked_add(1) == Some(right.start) {
            self.0[at].end = right.end;
            self.0.remove(at + 1);
        }
    }

    /// Gives up whatever is held of `start..=end`.
    pub fn unlock(&mut self, start: u64, end: u64) {
        if !self.0.iter().any(|held| held.overlaps(start, end)) {
            return;
        }
        let mut kept = Vec::with_capacity(self.0.len() + 1);
        for held in self.0.drain(..) {
            if !held.overlaps(start, end) {
                kept.push(held);
                continue;
            }
            if held.start < start {
                kept.push(LockRange { end: start - 1, ..held });
            }
            if held.end > end {
                kept.push(LockRange { start: end + 1, ..held });
            }
        }
        self.0 = kept;
    }

    /// What is held of `start..=end`.
    #[must_use]
    pub fn within(&self, start: u64, end: u64) -> Locked {
        let cut =
            |held: &LockRange| LockRange { start: held.start.max(start), end: held.end.min(end), ..*held };
        Locked(self.0.iter().filter(|held| held.overlaps(start, end)).map(cut).collect())
    }

    /// The first range that a lock of `mode` on `start..=end` by another owner cannot stand beside.
    pub fn conflict(&self, start: u64, end: u64, mode: LockMode) -> Option<LockRange> {
        self.0.iter().copied().find(|held| held.conflicts(start, end, mode))
    }

    /// Whether this is what locking and unlocking makes; what is read from a disk need not be.
    pub fn is_well_formed(&self) -> bool {
        let touches = |left: &LockRange, right: &LockRange| left.end.checked_add(1) == Some(right.start);
        self.0.iter().all(|held| held.start <= held.end)
            && self.0.windows(2).all(|pair| {
                pair[0].end < pair[1].start && !(touches(&pair[0], &pair[1]) && pair[0].mode == pair[1].mode)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that the model looks at: the first ones and the last ones there are.
    const BYTES: u64 = 24;

    /// The position that stands for `at`: the upper half of the bytes lies at the end of all numbers.
    fn place(at: u64) -> u64 {
        if at < BYTES / 2 { at } else { u64::MAX - (BYTES - 1 - at) }
    }

    #[derive(Clone, Debug)]
    struct Step {
        from: u64,
        to: u64,
        mode: Option<LockMode>,
    }

    fn step() -> impl Strategy<Value = Step> {
        let mode = prop::sample::select(vec![None, Some(LockMode::Read), Some(LockMode::Write)]);
        (0..BYTES, 0..BYTES, mode).prop_map(|(a, b, mode)| Step { from: a.min(b), to: a.max(b), mode })
    }

    fn at(locked: &Locked, byte: u64) -> Option<LockMode> {
        let at = place(byte);
        locked.ranges().iter().find(|held| held.overlaps(at, at)).map(|held| held.mode)
    }

    proptest! {
        #[test]
        fn ranges_hold_what_locking_each_byte_gives(steps in prop::collection::vec(step(), 0..40)) {
            let (mut locked, mut model) = (Locked::default(), vec![None; 24]);
            for Step { from, to, mode } in steps {
                let (start, end) = (place(from), place(to));
                match mode {
                    Some(mode) => locked.lock(LockRange { start, end, mode, pid: 1 }),
                    None => locked.unlock(start, end),
                }
                for byte in from..=to {
                    model[usize::try_from(byte).expect("small")] = mode;
                }
                prop_assert!(locked.is_well_formed(), "{locked:?}");
                for byte in 0..BYTES {
                    prop_assert_eq!(at(&locked, byte), model[usize::try_from(byte).expect("small")]);
                }
                for mode in [LockMode::Read, LockMode::Write] {
                    let conflicts = (from..=to).any(|byte| {
                        at(&locked, byte).is_some_and(|held| held == LockMode::Write || mode == LockMode::Write)
                    });
                    prop_assert_eq!(locked.conflict(start, end, mode).is_some(), conflicts);
                }
                let within = locked.within(start, end);
                for byte in 0..BYTES {
                    let expected = at(&locked, byte).filter(|_| (from..=to).contains(&byte));
                    prop_assert_eq!(at(&within, byte), expected);
                }
            }
        }
    }

    #[test]
    fn a_downgrade_splits_and_an_upgrade_joins() {
        let range = |start, end, mode| LockRange { start, end, mode, pid: 7 };
        let mut locked = Locked::default();
        locked.lock(range(0, u64::MAX, LockMode::Write));
        locked.lock(range(10, 19, LockMode::Read));
        let three = [
            range(0, 9, LockMode::Write),
            range(10, 19, LockMode::Read),
            range(20, u64::MAX, LockMode::Write),
        ];
        assert_eq!(locked.ranges(), three);
        locked.lock(range(10, 19, LockMode::Write));
        assert_eq!(locked.ranges(), [range(0, u64::MAX, LockMode::Write)]);
        locked.unlock(0, u64::MAX);
        assert!(locked.is_empty());
    }
}
