//! Times of access.

use crate::world::{ROOT, World, errno};
use pvfs_meta::{Result, ops};
use pvfs_types::{Errno, Ino, SetAttr, SetTime, Timestamp, limits};
use pvfs_wire::msg::file::{ReadAt, TouchAtimes};

fn touch(w: &World, read: Vec<(Ino, Timestamp)>, strict: bool) -> Result<()> {
    let read = read.into_iter().map(|(ino, at)| ReadAt { ino, at }).collect();
    let req = TouchAtimes { by: w.by(), read, strict };
    w.run(|txn, env| ops::touch_atimes(txn, &req, env))
}

fn later(w: &World) -> Timestamp {
    w.run(|_, env| Ok(env.now)).expect("is told")
}

#[test]
fn a_read_moves_the_time_of_access_once_after_each_change_or_always() {
    let w = World::new();
    let ino = w.file(ROOT, "a");
    let before = w.attr(ino);
    let first = later(&w);
    touch(&w, vec![(ino, first)], false).expect("touches");
    assert_eq!(w.attr(ino), pvfs_types::Attr { atime: first, ..before.clone() }, "and nothing else");
    let second = later(&w);
    touch(&w, vec![(ino, second)], false).expect("touches");
    assert_eq!(w.attr(ino).atime, first, "it has not changed since");
    touch(&w, vec![(ino, second)], true).expect("touches");
    assert_eq!(w.attr(ino).atime, second);
    touch(&w, vec![(ino, first)], true).expect("touches");
    assert_eq!(w.attr(ino).atime, second, "never back");
    w.write(ino, 5);
    w.chmod(ino, 0o600).expect("chmods");
    let third = later(&w);
    touch(&w, vec![(ino, third)], false).expect("touches");
    assert_eq!(w.attr(ino).atime, third);
}

#[test]
fn no_time_of_access_lies_ahead_of_the_mgr_and_one_of_yesterday_moves() {
    let w = World::new();
    let ino = w.file(ROOT, "a");
    touch(&w, vec![(ino, Timestamp { secs: i64::MAX, nanos: 0 })], true).expect("touches");
    assert_eq!(w.attr(ino).atime, w.now());
    let old = Timestamp { secs: -100_000, nanos: 0 };
    let all = SetTime::At(old);
    w.set(ino, SetAttr { atime: Some(all), mtime: Some(all), ..SetAttr::default() }).expect("sets");
    let now = later(&w);
    touch(&w, vec![(Ino(77), now), (ino, now)], false).expect("one that is not there is passed over");
    assert_eq!(w.attr(ino).atime, now);
}

#[test]
fn more_inodes_than_one_request_may_name_are_refused() {
    let w = World::new();
    let now = w.now();
    let many = vec![(Ino(1), now); limits::ATIMES_MAX + 1];
    assert_eq!(errno(touch(&w, many, true)), Errno::EINVAL);
}
