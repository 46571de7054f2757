//! The caller's groups. The kernel tells uid and gid with each request; supplementary groups stand in /proc.

use crate::ops::{Context, Reply};
use pvfs_types::{Cred, Errno, limits::GROUPS_SENT_MAX};
use std::{fs, future::Future};

/// Who asks to change something: with all groups, since they decide rights, and what becomes of set-group-id bits.
pub fn whole(ctx: &Context) -> Cred {
    let groups = if ctx.uid == 0 { Vec::new() } else { groups_of(ctx.pid) };
    Cred { uid: ctx.uid, gid: ctx.gid, groups }
}

/// Runs `read` for the caller without supplementary groups, and where that has no right, again with them. (The kernel has
/// checked the caller's rights already, by attributes up to their time-out old; reads must not pay for /proc.)
pub async fn reading<T, Fut>(ctx: &Context, read: impl Fn(Cred) -> Fut) -> Reply<T>
where
    Fut: Future<Output = Reply<T>>,
{
    let alone = Cred { uid: ctx.uid, gid: ctx.gid, groups: Vec::new() };
    let answer = read(alone).await;
    match answer {
        Err(Errno::EACCES) if ctx.uid != 0 => {
            let cred = whole(ctx);
            if cred.groups.is_empty() { Err(Errno::EACCES) } else { read(cred).await }
        }
        answer => answer,
    }
}

/// None where /proc does not show the process (it is gone, or in another pid name space).
fn groups_of(pid: u32) -> Vec<u32> {
    if pid == 0 {
        return Vec::new();
    }
    fs::read(format!("/proc/{pid}/status")).map(|status| parse_groups(&status)).unwrap_or_default()
}

fn parse_groups(status: &[u8]) -> Vec<u32> {
    let line = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Groups:"));
    let text = line.and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|gid| gid.parse().ok()).take(GROUPS_SENT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn groups_are_read_from_the_status_file() {
        assert_eq!(parse_groups(b"Name:\tx\nGroups:\t4 24 1000 \nNgid:\t0\n"), [4, 24, 1000]);
        assert_eq!(parse_groups(b"Groups:\t\n"), Vec::<u32>::new());
        assert_eq!(parse_groups(b"nothing"), Vec::<u32>::new());
        let many = format!("Groups:{}", " 7".repeat(5000));
        assert_eq!(parse_groups(many.as_bytes()).len(), GROUPS_SENT_MAX);
    }

    #[tokio::test]
    async fn a_read_that_has_no_right_is_tried_once_more_with_groups() {
        let pid = std::process::id();
        let ctx = Context { request: 2, resent: false, uid: 1000, gid: 1000, pid };
        let seen = Mutex::new(Vec::new());
        let answer = reading(&ctx, |cred| {
            seen.lock().expect("not poisoned").push(cred.groups.len());
            async { Err::<(), _>(Errno::EACCES) }
        });
        assert_eq!(answer.await, Err(Errno::EACCES));
        let groups = groups_of(pid).len();
        let expected = if groups == 0 { vec![0] } else { vec![0, groups] };
        assert_eq!(*seen.lock().expect("not poisoned"), expected);
    }
}
