//! Locks: who gets them, in which order, and what ends them.

use crate::world::{ROOT, World, errno};
use proptest::prelude::*;
use pvfs_meta::lock::{self, Granted};
use pvfs_meta::{Result, inode, ops, orphan, session};
use pvfs_types::LockMode::{Read, Write};
use pvfs_types::{Errno, Ino, LockKind, LockMode, LockOwner, SessionId};
use pvfs_wire::msg::lock::LockOutcome::{Granted as Got, Held, Queued};
use pvfs_wire::msg::lock::{CancelLock, LockOutcome, ReleaseLocks, SetLock, TestLock};

const END: u64 = u64::MAX;

fn posix(id: u64) -> LockOwner {
    LockOwner { kind: LockKind::Posix, id }
}

fn flock(id: u64) -> LockOwner {
    LockOwner { kind: LockKind::Flock, id }
}

/// Asks for locks as owners of the world's session; each ask has an id of its own unless told.
struct Locks {
    w: World,
    file: Ino,
    ids: u64,
}

/// What a lock is asked for with.
#[derive(Clone, Copy)]
struct Ask {
    owner: LockOwner,
    range: (u64, u64),
    mode: Option<LockMode>,
    wait: bool,
    pid: u32,
}

fn ask(owner: LockOwner, range: (u64, u64), mode: LockMode) -> Ask {
    // Unless told otherwise, each owner is a process of its own.
    let pid = u32::try_from(owner.id).expect("small");
    Ask { owner, range, mode: Some(mode), wait: false, pid }
}

fn wait(owner: LockOwner, range: (u64, u64), mode: LockMode) -> Ask {
    Ask { wait: true, ..ask(owner, range, mode) }
}

impl Locks {
    fn new() -> Locks {
        let w = World::new();
        let file = w.file(ROOT, "f");
        Locks { w, file, ids: 0 }
    }

    fn set_id(&self, file: Ino, id: u64, ask: Ask) -> Result<(LockOutcome, lock::Effects)> {
        let Ask { owner, range: (start, end), mode, wait, pid } = ask;
        let req = SetLock { by: self.w.by(), ino: file, owner, id, start, end, mode, pid, wait };
        self.w.run(|txn, env| ops::set_lock(txn, &req, env))
    }

    fn set_in(&mut self, file: Ino, ask: Ask) -> Result<LockOutcome> {
        self.ids += 1;
        Ok(self.set_id(file, self.ids, ask)?.0)
    }

    /// Its id is [`Locks::ids`] then.
    fn set(&mut self, ask: Ask) -> LockOutcome {
        self.set_in(self.file, ask).expect("no error")
    }

    /// The ids that an unlock grants.
    fn unlock(&mut self, owner: LockOwner, range: (u64, u64)) -> Vec<u64> {
        let ask = Ask { owner, range, mode: None, wait: false, pid: 0 };
        let (outcome, effects) = self.set_id(self.file, 0, ask).expect("unlocks");
        assert_eq!(outcome, Got);
        ids(&effects.granted)
    }

    fn cancel(&mut self, owner: LockOwner, id: u64, (start, end): (u64, u64)) -> Vec<u64> {
        let req = CancelLock { by: self.w.by(), ino: self.file, owner, id, start, end };
        ids(&self.w.run(|txn, _| ops::cancel_lock(txn, &req)).expect("cancels"))
    }

    fn release(&mut self, owner: LockOwner) -> Vec<u64> {
        let req = ReleaseLocks { by: self.w.by(), ino: self.file, owner };
        ids(&self.w.run(|txn, _| ops::release_locks(txn, &req)).expect("releases"))
    }

    /// `start-end mode pid` of the first lock in the way; empty: none.
    fn test(&self, owner: LockOwner, (start, end): (u64, u64), mode: LockMode) -> String {
        let req = TestLock { caller: self.w.caller(), ino: self.file, owner, start, end, mode };
        let held = self.w.read(|txn| ops::test_lock(txn, &req)).expect("tests");
        held.map_or(String::new(), |held| {
            let range = held.range;
            format!("{}-{} {:?} {}", range.start, range.end, range.mode, range.pid)
        })
    }
}

fn ids(granted: &[Granted]) -> Vec<u64> {
    granted.iter().map(|granted| granted.id).collect()
}

#[test]
fn ranges_conflict_only_between_owners_where_one_writes() {
    let mut l = Locks::new();
    assert_eq!(l.set(ask(posix(1), (10, 19), Read)), Got);
    assert_eq!(l.set(ask(posix(2), (15, 30), Read)), Got);
    assert_eq!(l.set(ask(posix(2), (15, 30), Write)), Held);
    assert_eq!(l.set(ask(posix(2), (20, 30), Write)), Got);
    assert_eq!(l.set(ask(posix(1), (0, END), Write)), Held);
    assert_eq!(l.set(ask(flock(3), (0, END), Write)), Got, "of another kind");
    assert_eq!(l.test(posix(9), (0, END), Write), "10-19 Read 1");
    assert_eq!(l.test(posix(9), (0, END), Read), "20-30 Write 2");
    assert_eq!(l.test(posix(2), (12, END), Read), "");
    l.unlock(posix(2), (0, END));
    assert_eq!(l.set(ask(posix(1), (0, END), Write)), Got);
}

#[test]
fn who_waits_is_granted_by_the_unlock_in_the_order_of_coming() {
    let mut l = Locks::new();
    assert_eq!(l.set(ask(posix(1), (0, END), Write)), Got);
    for owner in 2..=5 {
        let mode = if owner < 4 { Read } else { Write };
        assert_eq!(l.set(wait(posix(owner), (0, 9), mode)), Queued);
    }
    assert_eq!(l.unlock(posix(1), (0, 4)), [0; 0], "half of it is still locked");
    assert_eq!(l.unlock(posix(1), (5, END)), [2, 3], "both readers at once");
    assert_eq!(l.unlock(posix(2), (0, END)), [0; 0]);
    assert_eq!(l.release(posix(3)), [4]);
    assert_eq!(l.release(posix(4)), [5]);
}

#[test]
fn a_writer_that_waits_is_not_overtaken_by_readers_that_come_later() {
    let mut l = Locks::new();
    assert_eq!(l.set(ask(posix(1), (0, 9), Read)), Got);
    assert_eq!(l.set(wait(posix(2), (5, 9), Write)), Queued);
    assert_eq!(l.set(wait(posix(3), (0, 9), Read)), Queued, "behind the writer");
    assert_eq!(l.set(wait(posix(4), (0, 4), Read)), Got, "the writer does not want these");
    assert_eq!(l.unlock(posix(1), (0, END)), [2]);
    assert_eq!(l.unlock(posix(2), (0, END)), [3]);
}

#[test]
fn who_holds_something_does_not_wait_behind_those_who_may_wait_for_it() {
    let mut l = Locks::new();
    let other = l.w.file(ROOT, "other");
    assert_eq!(l.set_in(other, ask(flock(1), (0, END), Read)).expect("locks"), Got);
    assert_eq!(l.set(ask(flock(2), (0, END), Read)), Got);
    assert_eq!(l.set(wait(flock(3), (0, END), Write)), Queued);
    // The process of owner 1 comes by another open file. Whoever holds this one may wait for the other.
    assert_eq!(l.set(Ask { pid: 1, ..wait(flock(4), (0, END), Read) }), Got);
    assert_eq!(l.set(wait(flock(5), (0, END), Read)), Queued, "this one holds nothing");
}

#[test]
fn a_lock_asked_for_again_under_its_id_is_the_same_lock() {
    let mut l = Locks::new();
    assert_eq!(l.set(ask(posix(1), (0, 9), Write)), Got);
    let again = wait(posix(2), (0, 9), Write);
    for _ in 0..3 {
        assert_eq!(l.set_id(l.file, 50, again).expect("waits").0, Queued);
    }
    assert_eq!(l.unlock(posix(1), (0, 9)), [50]);
    assert_eq!(l.set_id(l.file, 50, again).expect("has it").0, Got);
    assert_eq!(l.unlock(posix(2), (0, 9)), [0; 0]);
    assert_eq!(l.test(posix(9), (0, END), Write), "", "nobody stands there twice");
}

#[test]
fn a_cancelled_lock_leaves_what_was_held_before_it() {
    let mut l = Locks::new();
    assert_eq!(l.set(ask(posix(1), (0, 9), Write)), Got);
    // Taken back while it waits: those behind it move up.
    assert_eq!(l.set(wait(posix(2), (0, 9), Write)), Queued);
    assert_eq!(l.set(wait(posix(3), (5, 14), Write)), Queued);
    assert_eq!(l.cancel(posix(2), 2, (0, 9)), [0; 0]);
    assert_eq!(l.unlock(posix(1), (0, 9)), [3]);
    // Taken back after it was granted.
    assert_eq!(l.cancel(posix(3), 3, (5, 14)), [0; 0]);
    assert_eq!(l.test(posix(9), (0, END), Write), "");
    // An upgrade that is taken back leaves the lock that was there.
    assert_eq!(l.set(ask(posix(1), (0, 9), Read)), Got);
    assert_eq!(l.set(ask(posix(2), (0, 9), Read)), Got);
    assert_eq!(l.set(wait(posix(1), (5, 14), Write)), Queued);
    let upgrade = l.ids;
    assert_eq!(l.unlock(posix(2), (0, 9)), [upgrade]);
    assert_eq!(l.set(wait(posix(3), (5, 14), Read)), Queued);
    assert_eq!(l.cancel(posix(1), upgrade, (5, 14)), [upgrade + 1]);
    assert_eq!(l.test(posix(9), (0, END), Write), "0-9 Read 1");
    assert_eq!(l.cancel(posix(1), upgrade, (5, 14)), [0; 0], "twice");
    assert_eq!(l.test(posix(9), (0, END), Write), "0-9 Read 1", "not known any more: all stays as it is");
    assert_eq!(l.release(posix(3)), [0; 0]);
    // What its owner has changed since is not taken back with it.
    assert_eq!(l.set(wait(posix(1), (0, 9), Write)), Got);
    let upgrade = l.ids;
    assert_eq!(l.set(ask(posix(1), (5, 9), Write)), Got);
    assert_eq!(l.cancel(posix(1), upgrade, (0, 9)), [0; 0]);
    assert_eq!(l.test(posix(9), (0, END), Read), "5-9 Write 1");
    assert_eq!(l.test(posix(9), (0, END), Write), "0-4 Read 1");
}

#[test]
fn waiting_for_one_another_is_refused_to_the_last_over_any_number_of_files() {
    let mut l = Locks::new();
    let files: Vec<Ino> = (0..4).map(|n| l.w.file(ROOT, &format!("{n}"))).collect();
    for (n, file) in (1..).zip(&files) {
        assert_eq!(l.set_in(*file, ask(posix(n), (0, 9), Write)).expect("locks"), Got);
    }
    for (n, file) in (1..4).zip(&files[1..]) {
        assert_eq!(l.set_in(*file, wait(posix(n), (5, 5), Read)).expect("waits"), Queued);
    }
    assert_eq!(errno(l.set_in(files[0], wait(posix(4), (9, 9), Write))), Errno::EDEADLK);
    assert_eq!(l.set_in(files[0], ask(posix(4), (9, 9), Write)).expect("a try is none"), Held);
    assert_eq!(l.set_in(files[0], wait(posix(5), (9, 9), Write)).expect("waits"), Queued);
}

#[test]
fn two_that_upgrade_an_flock_do_not_wait_for_each_other_and_fcntl_says_deadlock() {
    let mut l = Locks::new();
    for owner in [1, 2] {
        assert_eq!(l.set(ask(flock(owner), (0, END), Read)), Got);
        assert_eq!(l.set(ask(posix(owner), (0, END), Read)), Got);
    }
    assert_eq!(l.set(wait(flock(1), (0, END), Write)), Queued);
    // (Its process holds the other lock: it would not wait behind the first one, did that not come first.)
    assert_eq!(l.set(wait(flock(2), (0, END), Write)), Queued, "and with that the first one has it");
    assert_eq!(l.test(flock(9), (0, END), Read), format!("0-{END} Write 1"));
    assert_eq!(l.set(wait(posix(1), (0, END), Write)), Queued);
    assert_eq!(errno(l.set_in(l.file, wait(posix(2), (0, END), Write))), Errno::EDEADLK);
}

#[test]
fn ranges_and_files_that_are_none_are_refused() {
    let mut l = Locks::new();
    assert_eq!(errno(l.set_in(l.file, ask(posix(1), (5, 4), Read))), Errno::EINVAL);
    assert_eq!(errno(l.set_in(Ino(999), ask(posix(1), (0, 4), Read))), Errno::ESTALE);
    assert_eq!(errno(l.set_in(ROOT, ask(posix(1), (0, 4), Read))), Errno::EINVAL);
    assert_eq!(l.set(ask(posix(1), (END, END), Write)), Got, "the last byte of all");
    l.w.is_short.set(true);
    assert_eq!(errno(l.set_in(l.file, ask(posix(1), (0, 4), Read))), Errno::ENOLCK);
    assert_eq!(l.unlock(posix(1), (0, END)), [0; 0], "unlocking goes on");
}

#[test]
fn a_closed_sessions_locks_are_free_at_once_and_an_expelled_ones_when_they_are_settled() {
    for closes in [true, false] {
        let mut l = Locks::new();
        let other = l.w.open_session(7);
        let file = l.file;
        let req = |by, id, wait| SetLock {
            by,
            ino: file,
            owner: posix(1),
            id,
            start: 0,
            end: 9,
            mode: Some(Write),
            pid: 1,
            wait,
        };
        let held = l.w.in_session(other, |w| {
            let req = req(w.by(), 1, false);
            w.run(|txn, env| ops::set_lock(txn, &req, env)).expect("locks").0
        });
        assert_eq!(held, Got);
        assert_eq!(l.set(wait(posix(1), (0, 9), Write)), Queued, "the same number, of another session");
        let waits = l.w.in_session(other, |w| {
            let req = SetLock { start: 5, owner: posix(2), ..req(w.by(), 2, true) };
            w.run(|txn, env| ops::set_lock(txn, &req, env)).expect("waits").0
        });
        assert_eq!(waits, Queued);
        assert_eq!(l.w.read(|txn| lock::sessions(txn)).expect("reads"), [l.w.session, other]);
        assert!(l.w.read(|txn| lock::in_the_way(txn)).expect("reads").contains(&other));
        let granted =
            l.w.run(|txn, _| if closes { session::close(txn, other) } else { session::expel(txn, other) });
        let granted = granted.expect("ends");
        let mine = [Granted { session: l.w.session, id: 1 }];
        assert_eq!(granted, if closes { &mine[..] } else { &[] });
        let settle = |session| l.w.run(|txn, _| lock::settle(txn, file, session)).expect("settles");
        assert_eq!(settle(l.w.session), [], "one that is there is left alone");
        assert_eq!(settle(other), if closes { &[] } else { &mine[..] });
        assert_eq!(l.w.read(|txn| lock::sessions(txn)).expect("reads"), [l.w.session]);
        assert_eq!(l.test(posix(9), (0, END), Write), "0-9 Write 1");
    }
}

#[test]
fn a_lock_hinders_no_unlink_and_goes_with_the_inode() {
    let mut l = Locks::new();
    assert_eq!(l.set(ask(posix(1), (0, 9), Write)), Got);
    let gone = l.w.unlink(ROOT, "f").expect("unlinks").expect("the last name");
    assert_eq!(l.set(ask(posix(2), (0, 9), Write)), Held, "unlinked, not gone");
    assert!(l.w.run(|txn, _| orphan::reap(txn, gone.seq, gone.ino)).expect("reaps"));
    assert!(l.w.read(|txn| inode::find(txn, l.file)).expect("reads").is_none());
    assert_eq!(l.w.read(|txn| lock::sessions(txn)).expect("reads"), [SessionId(0); 0]);
}

#[test]
fn one_owner_has_at_most_so_many_ranges_and_can_always_give_some_up() {
    let mut l = Locks::new();
    let max = u64::try_from(pvfs_types::limits::LOCK_RANGES_MAX).expect("small");
    for n in 0..max {
        assert_eq!(l.set(ask(posix(1), (n * 2, n * 2), Write)), Got);
    }
    assert_eq!(errno(l.set_in(l.file, ask(posix(1), (max * 2, max * 2), Write))), Errno::ENOLCK);
    assert_eq!(l.unlock(posix(1), (0, 0)), [0; 0]);
    assert_eq!(l.set(ask(posix(1), (max * 2, max * 2), Write)), Got);
    assert_eq!(l.set(ask(posix(1), (0, END), Write)), Got, "fewer than before");
}

#[derive(Clone, Debug)]
enum Step {
    Set { owner: u64, start: u64, end: u64, mode: Option<LockMode>, wait: bool },
    Cancel { nth: usize },
    Release { owner: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let mode = prop::sample::select(vec![None, Some(Read), Some(Write)]);
    prop_oneof![
        6 => (1..6_u64, 0..12_u64, 0..12_u64, mode, any::<bool>()).prop_map(|(owner, a, b, mode, wait)| {
            Step::Set { owner, start: a.min(b), end: a.max(b), mode, wait }
        }),
        1 => (0..4_usize).prop_map(|nth| Step::Cancel { nth }),
        1 => (1..6_u64).prop_map(|owner| Step::Release { owner }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// After each step the checker (at the world's end, and here) finds no two that exclude each other; and whoever waits
    /// is granted once, at the latest when all others have let go.
    #[test]
    fn whatever_is_asked_no_two_exclude_each_other_and_nobody_waits_for_ever(steps in prop::collection::vec(step(), 1..60)) {
        let mut l = Locks::new();
        let mut waiting: Vec<(u64, u64, (u64, u64))> = Vec::new();
        let mut granted_once = Vec::new();
        for step in steps {
            let granted = match step {
                // A process that waits does nothing else. (One that does, by other threads, can make a deadlock unseen.)
                Step::Set { owner, .. } if waiting.iter().any(|(_, by, _)| *by == owner) => continue,
                Step::Set { owner, start, end, mode, wait } => {
                    l.ids += 1;
                    let id = l.ids;
                    let pid = u32::try_from(owner).expect("small");
                    let ask = Ask { owner: posix(owner), range: (start, end), mode, wait, pid };
                    match l.set_id(l.file, id, ask) {
                        Ok((outcome, effects)) => {
                            prop_assert!(outcome != Queued || (wait && mode.is_some()));
                            prop_assert!(outcome != Held || !wait);
                            if outcome == Queued {
                                waiting.push((id, owner, (start, end)));
                            }
                            ids(&effects.granted).into_iter().filter(|other| *other != id).collect()
                        }
                        Err(error) => {
                            prop_assert_eq!(error.errno(), Errno::EDEADLK);
                            Vec::new()
                        }
                    }
                }
                Step::Cancel { nth } => {
                    if nth >= waiting.len() {
                        continue;
                    }
                    let (id, owner, range) = waiting.remove(nth);
                    l.cancel(posix(owner), id, range)
                }
                Step::Release { owner } => {
                    waiting.retain(|(_, by, _)| *by != owner);
                    l.release(posix(owner))
                }
            };
            for id in &granted {
                let place = waiting.iter().position(|(waits, ..)| waits == id);
                prop_assert!(place.is_some(), "{} was not waiting", id);
                waiting.remove(place.expect("checked"));
            }
            granted_once.extend(granted);
            prop_assert_eq!(l.w.findings(), Vec::<String>::new());
        }
        // Deadlocks were refused: whoever waits is reached by letting go of what is held, without cancelling anything.
        let mut rounds = 0;
        while !waiting.is_empty() {
            let is_waiting = |owner: u64| waiting.iter().any(|(_, by, _)| *by == owner);
            let free: Vec<u64> = (1..6).filter(|owner| !is_waiting(*owner)).collect();
            prop_assert!(!free.is_empty() && rounds < 100, "all wait: {:?}", waiting);
            for owner in free {
                let granted = l.unlock(posix(owner), (0, END));
                waiting.retain(|(id, ..)| !granted.contains(id));
            }
            rounds += 1;
        }
    }
}
