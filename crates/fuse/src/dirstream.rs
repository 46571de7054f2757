//! How a directory becomes a stream of replies: cookies, groups, page sizes. Pure.
//!
//! Cookies 1 and 2 are `.` and `..`; from 3 on they are the mgr's, made from the names, so that they stay while
//! other names come and go. Names whose hashes collide share a cookie: a reply that ended between them would lose
//! the rest, so they are shown together or not at all.

use crate::ops::DirEntry;

/// The cookie of `.`.
pub const COOKIE_DOT: u64 = 1;
/// The cookie of `..`.
pub const COOKIE_DOT_DOT: u64 = 2;

/// Names asked from the mgr at a time where no attributes are wanted.
pub const PLAIN_ENTRIES: u32 = 1024;
/// Entries asked for at first where attributes are wanted.
pub const PLUS_ENTRIES_FIRST: u32 = 128;
const PLUS_ENTRIES_MAX: u32 = 1024;

/// The dots that a listing from `cookie` on begins with, and the mgr's cookie to go on from.
pub fn start(cookie: u64) -> (&'static [u64], u64) {
    match cookie {
        0 => (&[COOKIE_DOT, COOKIE_DOT_DOT], 0),
        COOKIE_DOT => (&[COOKIE_DOT_DOT], 0),
        COOKIE_DOT_DOT => (&[], 0),
        after => (&[], after),
    }
}

/// The entries at the front of `entries` that may be offered to one reply, whatever its room.
///
/// A reply may end after any of them without losing one: entries that share a cookie begin a reply of their own,
/// where the smallest room there is (a page) holds any group that hashing can make.
pub fn one_reply(entries: &[DirEntry]) -> &[DirEntry] {
    let Some(first) = entries.first() else { return entries };
    let group = entries.iter().take_while(|entry| entry.cookie == first.cookie).count();
    if group > 1 {
        return &entries[..group];
    }
    let singles = entries.windows(2).take_while(|pair| pair[0].cookie != pair[1].cookie).count();
    if singles + 1 == entries.len() { entries } else { &entries[..singles] }
}

/// How many entries with attributes to ask for, after `taken` of the last `asked` fitted a reply.
///
/// Attributes must not wait in a buffer for a later reply: the kernel would take them for fresh. So ask for about as
/// many as fit.
pub fn plus_entries_next(asked: u32, taken: u32) -> u32 {
    if taken >= asked {
        asked.saturating_mul(2).min(PLUS_ENTRIES_MAX)
    } else {
        (taken + taken / 4 + 4).min(PLUS_ENTRIES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_types::FileKind;

    fn entries(cookies: &[u64]) -> Vec<DirEntry> {
        let entry = |&cookie| DirEntry {
            cookie,
            ino: cookie,
            kind: FileKind::File,
            name: b"name".to_vec(),
            entry: None,
        };
        cookies.iter().map(entry).collect()
    }

    fn check(cookies: &[u64], offered: usize) {
        assert_eq!(one_reply(&entries(cookies)).len(), offered, "{cookies:?}");
    }

    #[test]
    fn a_group_of_one_cookie_is_never_split() {
        check(&[], 0);
        check(&[3], 1);
        check(&[3, 4, 5], 3);
        check(&[3, 4, 4], 1);
        check(&[3, 4, 5, 5, 6], 2);
        check(&[4, 4], 2);
        check(&[4, 4, 5], 2);
        check(&[4, 4, 5, 5], 2);
    }

    #[test]
    fn replies_of_any_room_show_every_entry_once() {
        proptest::proptest!(|(gaps in proptest::collection::vec(0_u64..3, 0..40), room in 3_usize..9)| {
            let mut cookie = 3;
            let mut cookies: Vec<u64> = gaps.iter().map(|gap| { cookie += gap; cookie }).collect();
            // No group larger than the smallest room.
            cookies.dedup_by_key(|c| *c / 3 * 3);
            let all = entries(&cookies);
            let (mut at, mut shown) = (0, Vec::new());
            loop {
                let rest: Vec<_> = all.iter().filter(|e| e.cookie > at).cloned().collect();
                let Some(last) = one_reply(&rest).iter().take(room).next_back() else { break };
                shown.extend(one_reply(&rest).iter().take(room).map(|e| e.cookie));
                at = last.cookie;
            }
            proptest::prop_assert_eq!(shown, cookies);
        });
    }

    #[test]
    fn the_dots_come_first_and_once() {
        assert_eq!(start(0), (&[1, 2][..], 0));
        assert_eq!(start(1), (&[2][..], 0));
        assert_eq!(start(2), (&[][..], 0));
        assert_eq!(start(77), (&[][..], 77));
    }

    #[test]
    fn the_page_size_follows_the_room() {
        assert_eq!(plus_entries_next(128, 128), 256);
        assert_eq!(plus_entries_next(1024, 1024), 1024);
        assert_eq!(plus_entries_next(128, 20), 29);
        assert_eq!(plus_entries_next(128, 0), 4);
    }
}
