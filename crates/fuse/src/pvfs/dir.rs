//! Listing directories: pages of the mgr as replies of any size.

use super::{PvfsFs, errno, of_inode};
use crate::{
    CacheMode, creds,
    dirstream::{self, COOKIE_DOT, PLAIN_ENTRIES, PLUS_ENTRIES_FIRST, plus_entries_next},
    ops::{Context, DirEntry, DirPage, DirRequest, Reply},
};
use pvfs_client::DirItem;
use pvfs_types::{Attr, Cred, FileKind, Ino};
use std::sync::{Arc, Mutex, PoisonError};

/// An open directory: what of it was fetched and not shown yet.
#[derive(Debug, Default)]
pub struct OpenDir(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The last page of names. (Attributes are never kept: the kernel would take them for fresh.)
    page: Option<Page>,
    /// The cookies of the last page with attributes, and how many were asked for.
    plus: Option<(Vec<u64>, u32)>,
}

#[derive(Debug)]
struct Page {
    entries: Arc<[DirEntry]>,
    /// Nothing comes after these.
    end: bool,
}

impl OpenDir {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is at hand after `cookie`. A listing that begins anew fetches anew.
    fn at_hand(&self, cookie: u64) -> Option<DirPage> {
        self.with(|state| {
            let page = state.page.as_ref().filter(|_| cookie != 0)?;
            let from = page.entries.iter().rposition(|entry| entry.cookie == cookie)? + 1;
            let any = from < page.entries.len() || page.end;
            any.then(|| DirPage::new(Arc::clone(&page.entries), from))
        })
    }

    /// How many entries with attributes to ask for, when those up to `cookie` were taken of the last page.
    fn plus_entries(&self, cookie: u64) -> u32 {
        self.with(|state| {
            let Some((cookies, asked)) = &state.plus else { return PLUS_ENTRIES_FIRST };
            let Some(last) = cookies.iter().rposition(|&c| c == cookie) else { return PLUS_ENTRIES_FIRST };
            let all = last + 1 == cookies.len();
            let taken = if all { *asked } else { u32::try_from(last + 1).unwrap_or(*asked) };
            plus_entries_next(*asked, taken)
        })
    }
}

impl PvfsFs {
    /// The directory that `dir` is in; of the mount's root: itself.
    pub(super) async fn parent(&self, ctx: &Context, dir: Ino) -> Reply<Attr> {
        if dir == self.root {
            return self.attr(ctx, dir).await;
        }
        let ask =
            |cred: Cred| async move { self.client.lookup_parent(&cred, dir).await.map_err(|e| of_inode(&e)) };
        creds::reading(ctx, ask).await
    }

    /// Entries of `dir` after the cookie asked for.
    pub(super) async fn list(
        &self,
        ctx: &Context,
        dir: Ino,
        open: &OpenDir,
        DirRequest { cookie, plus }: DirRequest,
    ) -> Reply<DirPage> {
        // What is listed is mostly looked at next. Where that can be known then without a question, it is fetched with the names;
        // the kernel would ask again all the same.
        let remembers = self.cache == CacheMode::Coherent;
        let plus = plus && !remembers;
        if !plus && let Some(page) = open.at_hand(cookie) {
            return Ok(page);
        }
        let asked = if plus { open.plus_entries(cookie) } else { PLAIN_ENTRIES };
        let (dots, after) = dirstream::start(cookie);
        let fetch = |cred: Cred| async move {
            self.client.readdir(&cred, dir, after, asked, plus || remembers).await.map_err(|e| errno(&e))
        };
        let (page, dots) = tokio::join!(creds::reading(ctx, fetch), self.dots(ctx, dir, dots));
        let page = page?;
        if cookie == 0 {
            self.was_looked_at(dir, true);
        }
        let items = page.entries.iter().map(|item| self.shown(item, plus));
        let entries: Arc<[DirEntry]> = dots?.into_iter().chain(items).collect();
        open.with(|state| {
            if plus {
                state.plus = Some((entries.iter().map(|entry| entry.cookie).collect(), asked));
            } else {
                state.page = Some(Page { entries: Arc::clone(&entries), end: page.end });
            }
        });
        Ok(DirPage::new(entries, 0))
    }

    async fn dots(&self, ctx: &Context, dir: Ino, cookies: &[u64]) -> Reply<Vec<DirEntry>> {
        let mut dots = Vec::with_capacity(cookies.len());
        for &cookie in cookies {
            let (name, ino) = match cookie {
                COOKIE_DOT => (&b"."[..], dir),
                _ if dir == self.root => (&b".."[..], dir),
                _ => (&b".."[..], self.parent(ctx, dir).await?.ino),
            };
            let name = name.to_vec();
            dots.push(DirEntry { cookie, ino: ino.0, kind: FileKind::Dir, name, entry: None });
        }
        Ok(dots)
    }

    fn shown(&self, item: &DirItem, plus: bool) -> DirEntry {
        DirEntry {
            cookie: item.cookie,
            ino: item.ino.0,
            kind: item.kind,
            name: item.name.as_bytes().to_vec(),
            entry: item.attr.as_ref().filter(|_| plus).map(|attr| self.entry(attr)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(cookies: &[u64], end: bool) -> OpenDir {
        let entry = |&cookie| DirEntry {
            cookie,
            ino: cookie,
            kind: FileKind::File,
            name: b"n".to_vec(),
            entry: None,
        };
        let open = OpenDir::default();
        open.with(|state| state.page = Some(Page { entries: cookies.iter().map(entry).collect(), end }));
        open
    }

    #[test]
    fn a_page_is_used_up_before_the_next_is_fetched() {
        let left = |open: &OpenDir, cookie| open.at_hand(cookie).map(|page| page.entries().len());
        let open = page(&[1, 2, 5, 7, 7, 9], false);
        assert_eq!(left(&open, 2), Some(4));
        assert_eq!(left(&open, 7), Some(1), "a shared cookie: after the last of them");
        assert_eq!(left(&open, 9), None, "used up: fetch");
        assert_eq!(left(&open, 0), None, "rewound: fetch anew");
        assert_eq!(left(&open, 6), None, "somewhere else: fetch");
        assert_eq!(left(&page(&[5, 9], true), 9), Some(0), "the end is known");
    }

    #[test]
    fn pages_with_attributes_follow_what_replies_take() {
        let open = OpenDir::default();
        assert_eq!(open.plus_entries(0), PLUS_ENTRIES_FIRST);
        open.with(|state| state.plus = Some(((3..131).collect(), 128)));
        assert_eq!(open.plus_entries(130), 256, "all fitted");
        assert_eq!(open.plus_entries(22), 29, "20 fitted");
        assert_eq!(open.plus_entries(1000), PLUS_ENTRIES_FIRST);
    }
}
