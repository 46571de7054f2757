//! The lock under which clients append: one at a time, strictly in order, never beside bytes of a writer that is dead.

use crate::world::{ROOT, World};
use pvfs_meta::lock::Granted;
use pvfs_meta::{Settled, lock, ops, session, settle};
use pvfs_types::{Ino, LockKind, LockMode, LockOwner, SessionId};
use pvfs_wire::Access;
use pvfs_wire::msg::lock::LockOutcome::{Granted as Got, Queued};
use pvfs_wire::msg::lock::{LockOutcome, ReleaseLocks, SetLock};

fn lock_as(w: &World, file: Ino, owner: LockOwner, id: u64) -> LockOutcome {
    let mode = Some(LockMode::Write);
    let req = SetLock { by: w.by(), ino: file, owner, id, start: 0, end: u64::MAX, mode, pid: 7, wait: true };
    w.run(|txn, env| ops::set_lock(txn, &req, env)).expect("no error").0
}

fn append(w: &mut World, session: SessionId, file: Ino, id: u64) -> LockOutcome {
    w.in_session(session, |w| lock_as(w, file, LockOwner::APPEND, id))
}

fn release(w: &mut World, session: SessionId, file: Ino) -> Vec<Granted> {
    w.in_session(session, |w| {
        let req = ReleaseLocks { by: w.by(), ino: file, owner: LockOwner::APPEND };
        w.run(|txn, _| ops::release_locks(txn, &req)).expect("releases")
    })
}

#[test]
fn one_client_appends_at_a_time_and_others_locks_do_not_count() {
    let mut w = World::new();
    let file = w.file(ROOT, "f");
    let (one, two, three) = (w.session, w.open_session(2), w.open_session(3));
    let flock = LockOwner { kind: LockKind::Flock, id: 1 };
    assert_eq!(lock_as(&w, file, flock, 1), Got);
    assert_eq!(append(&mut w, two, file, 2), Got, "beside the flock");
    assert_eq!(append(&mut w, one, file, 3), Queued);
    assert_eq!(append(&mut w, three, file, 4), Queued);
    assert_eq!(append(&mut w, two, file, 5), Got, "it has it: others wait for it, not it for them");
    let granted = |session, id| vec![Granted { session, id }];
    assert_eq!(release(&mut w, two, file), granted(one, 3));
    assert_eq!(append(&mut w, two, file, 6), Queued);
    assert_eq!(release(&mut w, one, file), granted(three, 4));
    assert_eq!(release(&mut w, three, file), granted(two, 6));
    w.is_short.set(true);
    assert_eq!(append(&mut w, one, file, 7), Queued, "also while the store is full");
}

#[test]
fn who_holds_other_locks_does_not_append_before_who_came_first() {
    let mut w = World::new();
    let (file, other) = (w.file(ROOT, "f"), w.file(ROOT, "other"));
    let (one, two, three) = (w.session, w.open_session(2), w.open_session(3));
    assert_eq!(append(&mut w, one, file, 1), Got);
    assert_eq!(append(&mut w, two, file, 2), Queued);
    assert_eq!(append(&mut w, three, other, 3), Got);
    assert_eq!(append(&mut w, three, file, 4), Queued);
    assert_eq!(release(&mut w, one, file), [Granted { session: two, id: 2 }]);
}

#[test]
fn nobody_appends_until_a_dead_writer_is_settled_and_then_who_waits_does() {
    let mut w = World::new();
    let file = w.file(ROOT, "f");
    let (one, dead) = (w.session, w.open_session(2));
    w.open(file, Access::WRITE).expect("opens");
    w.in_session(dead, |w| w.open(file, Access::WRITE).map(drop)).expect("opens");
    assert_eq!(append(&mut w, dead, file, 1), Got);
    assert_eq!(append(&mut w, one, file, 2), Queued);
    w.run(|txn, _| session::expel(txn, dead)).expect("expels");
    assert_eq!(w.run(|txn, _| lock::settle(txn, file, dead)).expect("settles"), [], "its bytes may come");
    let settled = w.run(|txn, _| settle(txn, file, dead, 900, 0, None)).expect("settles");
    assert_eq!(settled, Settled::Done(vec![Granted { session: one, id: 2 }]));
    assert_eq!(append(&mut w, one, file, 2), Got);
}
