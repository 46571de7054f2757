//! `readdir`: pages, cookies, limits.

use crate::world::{ROOT, World};
use pvfs_meta::dentry;
use pvfs_types::limits;
use std::collections::BTreeSet;

fn filled(names: usize) -> World {
    let w = World::new();
    for n in 0..names {
        w.symlink(ROOT, &format!("name {n}"), b"x").expect("links");
    }
    w
}

#[test]
fn pages_show_every_name_once() {
    let w = filled(100);
    for entries_max in [0, 1, 7, 100, 1000] {
        let (mut cookie, mut seen, mut pages) = (0, BTreeSet::new(), 0);
        loop {
            let page = w.readdir(ROOT, cookie, entries_max).expect("lists");
            assert!(page.entries.len() <= entries_max.max(1) as usize);
            for entry in &page.entries {
                assert!(entry.cookie > cookie && entry.cookie == dentry::cookie(&entry.name));
                assert!(seen.insert(entry.name.clone()), "{} twice", entry.name);
                cookie = entry.cookie;
            }
            pages += 1;
            if page.end {
                break;
            }
        }
        assert_eq!(seen.len(), 100);
        assert_eq!(pages, 100usize.div_ceil(entries_max.max(1) as usize));
    }
}

#[test]
fn names_that_come_and_go_do_not_move_the_others() {
    let w = filled(50);
    let first = w.readdir(ROOT, 0, 20).expect("lists");
    let rest: Vec<_> = w.readdir(ROOT, first.entries[19].cookie, 1000).expect("lists").entries;
    for entry in &first.entries {
        w.unlink(ROOT, &entry.name.to_string()).expect("unlinks");
    }
    w.file(ROOT, "new");
    let again = w.readdir(ROOT, first.entries[19].cookie, 1000).expect("lists").entries;
    let old: Vec<_> = again.into_iter().filter(|entry| entry.name.as_bytes() != b"new").collect();
    assert_eq!(old, rest);
}

#[test]
fn cookies_are_what_a_signed_offset_holds_and_leave_room_for_dots() {
    for n in 0..1000 {
        let cookie = dentry::cookie(&crate::world::name(&n.to_string()));
        assert!((dentry::COOKIE_MIN..=i64::MAX.cast_unsigned()).contains(&cookie));
    }
}

#[test]
fn the_largest_reply_fits_a_frame() {
    let w = World::new();
    for n in 0..limits::READDIR_ENTRIES_MAX {
        w.file(ROOT, &format!("{n:0255}"));
    }
    let page = w.readdir(ROOT, 0, u32::MAX).expect("lists");
    assert!(!page.end);
    assert!(pvfs_wire::encode(&page).len() < limits::BODY_BYTES_MAX as usize);
}

#[test]
fn attributes_come_along() {
    let w = World::new();
    let ino = w.file(ROOT, "f");
    let page = w.readdir(ROOT, 0, 10).expect("lists");
    assert_eq!(page.entries[0].entry.as_ref().map(|entry| &entry.attr), Some(&w.attr(ino)));
    assert!(w.readdir(ROOT, u64::MAX, 10).expect("lists").entries.is_empty());
}
