//! Operations on names and inodes: one method per operation, each one message to the mgr.
//!
//! Attributes come back complete: while somebody else writes a file, its targets are asked too.

use crate::{
    Client, ClientError, File,
    delegations::{Asking, Delegations, Named},
    error::{Answer, Result},
    inode::State,
    waits::{WaitsFor, waiting_for},
};
use pvfs_types::{Attr, Cred, Errno, FileKind, Ino, LayoutHint, Name, NewMode, SetAttr as Changes, limits};
use pvfs_wire::{
    Access, Op,
    msg::namespace::{
        CheckAccess, DirEntry, Entry, FsUsage, GetAttr, Link, Lookup, MkDir, MkNod, ReadDir, ReadLink,
        Rename, RenameMode, RmDir, SetAttr, SetLayout, StatFs, SymLink, Unlink, Unlinked,
    },
};
use std::sync::Arc;

/// A part of a directory's listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirPage {
    /// Without `.` and `..`.
    pub entries: Vec<DirItem>,
    /// Nothing comes after these.
    pub end: bool,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirItem {
    pub name: Name,
    pub ino: Ino,
    pub kind: FileKind,
    /// Where to go on after this entry. At least 3; at most `i64::MAX`.
    pub cookie: u64,
    /// Where asked for. `None` all the same for a file that another client is writing: whoever needs its attributes
    /// asks by [`Client::getattr`], so that a listing waits for no iod.
    pub attr: Option<Attr>,
}

impl Client {
    /// The inode that `name` in `dir` names.
    pub fn lookup<'a>(&'a self, cred: &'a Cred, dir: Ino, name: &'a Name) -> Answer<'a, Attr> {
        self.look_up(cred, dir, name, Delegations::lookup)
    }

    /// As [`Client::lookup`]; but of a directory that this client itself has changed, the times, the size and the number of
    /// links may be from before: enough to walk a path.
    pub fn step<'a>(&'a self, cred: &'a Cred, dir: Ino, name: &'a Name) -> Answer<'a, Attr> {
        self.look_up(cred, dir, name, Delegations::step)
    }

    fn look_up<'a>(
        &'a self,
        cred: &'a Cred,
        dir: Ino,
        name: &'a Name,
        known: fn(&Delegations, &Cred, Ino, &Name) -> Option<Named>,
    ) -> Answer<'a, Attr> {
        self.core.call(Op::Lookup, Some(dir), async move {
            let delegations = &self.core.delegations;
            match known(delegations, cred, dir, name) {
                Some(Named::Nothing) => return Err(nothing_of_that_name()),
                Some(Named::Inode(attr)) => {
                    if let Some(attr) = self.core.known(attr) {
                        return Ok(attr);
                    }
                }
                None => {}
            }
            let mut is_last = false;
            loop {
                let asking = delegations.ask();
                let make = |caller| Lookup { caller, dir, name: Some(name.clone()) };
                let asked = self.core.ask(cred, make).await;
                if let Err(ClientError::Refused { errno: Errno::ENOENT, .. }) = &asked {
                    asking.learn_name(dir, name, None);
                }
                let entry = asked?;
                asking.learn_name(dir, name, Some(entry.attr.ino));
                if let Some(attr) = self.core.answered(&asking, entry, is_last).await? {
                    return Ok(attr);
                }
                is_last = true;
            }
        })
    }

    /// `..` of `dir`.
    pub fn lookup_parent<'a>(&'a self, cred: &'a Cred, dir: Ino) -> Answer<'a, Attr> {
        self.core.call(Op::Lookup, Some(dir), async move {
            let entry = self.core.ask(cred, |caller| Lookup { caller, dir, name: None }).await?;
            Ok(entry.attr)
        })
    }

    /// Attributes of an inode.
    pub fn getattr<'a>(&'a self, cred: &'a Cred, ino: Ino) -> Answer<'a, Attr> {
        self.core.call(Op::GetAttr, Some(ino), async move {
            let delegations = &self.core.delegations;
            if let Some(attr) = delegations.attr(ino).and_then(|attr| self.core.known(attr)) {
                return Ok(attr);
            }
            let mut is_last = false;
            loop {
                let asking = delegations.ask();
                let entry = self.core.ask(cred, |caller| GetAttr { caller, ino }).await?;
                if let Some(attr) = self.core.answered(&asking, entry, is_last).await? {
                    return Ok(attr);
                }
                is_last = true;
            }
        })
    }

    /// Changes attributes. With `handle`, a change of size needs only that the handle is open for writing.
    pub fn setattr<'a>(
        &'a self,
        cred: &'a Cred,
        ino: Ino,
        changes: Changes,
        handle: Option<&'a File>,
    ) -> Answer<'a, Attr> {
        self.core.call(Op::SetAttr, Some(ino), async move {
            if let Some(size) = changes.size.filter(|&size| size > limits::FILE_BYTES_MAX) {
                return Err(ClientError::TooBig { offset: 0, len: size });
            }
            if changes.size.is_some() && handle.is_some_and(|handle| !handle.access().write) {
                return Err(ClientError::NotOpenFor { wanted: "writing" });
            }
            let (by_handle, want) =
                (handle.is_some(), handle.map(File::access).filter(|_| changes.size.is_some()));
            self.core.set_attributes(cred, ino, changes, by_handle, want).await
        })
    }

    /// The target of a symbolic link.
    pub fn readlink<'a>(&'a self, cred: &'a Cred, ino: Ino) -> Answer<'a, Vec<u8>> {
        self.core.call(Op::ReadLink, Some(ino), async move {
            Ok(self.core.ask(cred, |caller| ReadLink { caller, ino }).await?.target)
        })
    }

    /// Lists at most `entries_max` entries of `dir` after `cookie` (0: from the start); `plus` with attributes.
    pub fn readdir<'a>(
        &'a self,
        cred: &'a Cred,
        dir: Ino,
        cookie: u64,
        entries_max: u32,
        plus: bool,
    ) -> Answer<'a, DirPage> {
        self.core.call(Op::ReadDir, Some(dir), async move {
            let entries_max = entries_max.clamp(1, limits::READDIR_ENTRIES_MAX);
            let asking = self.core.delegations.ask();
            let page =
                self.core.ask(cred, |caller| ReadDir { caller, dir, cookie, entries_max, plus }).await?;
            for DirEntry { name, ino, entry, .. } in &page.entries {
                if let Some(entry) = entry {
                    asking.learn(entry);
                }
                asking.learn_name(dir, name, Some(*ino));
            }
            let entries = page.entries.into_iter().map(|entry| DirItem {
                attr: entry
                    .entry
                    .filter(|entry| !entry.has_writers)
                    .and_then(|entry| self.core.known(entry.attr))
                    .filter(|attr| !self.core.has_closed(attr, &asking)),
                name: entry.name,
                ino: entry.ino,
                kind: entry.kind,
                cookie: entry.cookie,
            });
            Ok(DirPage { entries: entries.collect(), end: page.end })
        })
    }

    /// The whole listing of `dir`, in no particular order.
    pub async fn readdir_all(&self, cred: &Cred, dir: Ino, plus: bool) -> Result<Vec<DirItem>> {
        let (mut all, mut cookie) = (Vec::new(), 0);
        loop {
            let page = self.readdir(cred, dir, cookie, limits::READDIR_ENTRIES_MAX, plus).await?;
            let last = page.entries.last().map(|entry| entry.cookie);
            all.extend(page.entries);
            match last {
                Some(last) if !page.end => cookie = last,
                _ => return Ok(all),
            }
        }
    }

    /// Space and inodes of the whole file system; where `at` is in a tree with limits, of those.
    pub fn statfs(&self, at: Option<Ino>) -> Answer<'_, FsUsage> {
        self.core.call(Op::StatFs, None, async move {
            waiting_for(WaitsFor::Mgr, self.core.mgr.call(&StatFs { at }))
                .await
                .map_err(crate::calls::refused::<StatFs>)
        })
    }

    /// `access(2)`: may `cred` do all of `mask` (bits of [`pvfs_types::mode`])?
    pub fn access<'a>(&'a self, cred: &'a Cred, ino: Ino, mask: u32) -> Answer<'a, ()> {
        self.core.call(Op::Access, Some(ino), async move {
            self.core.ask(cred, |caller| CheckAccess { caller, ino, mask }).await?;
            Ok(())
        })
    }

    /// Makes a directory. A mode that is a number has the umask applied already, here and below.
    pub fn mkdir<'a>(
        &'a self,
        cred: &'a Cred,
        dir: Ino,
        name: &'a Name,
        mode: impl Into<NewMode>,
    ) -> Answer<'a, Attr> {
        let NewMode { mode, unmasked } = mode.into();
        self.core.call(Op::MkDir, Some(dir), async move {
            let name = name.clone();
            let make = move |by| MkDir { by, dir, name: name.clone(), mode, unmasked };
            Ok(self.core.mutate(cred, make).await?.attr)
        })
    }

    /// Makes a FIFO, socket, device node or an empty regular file that is not opened.
    pub fn mknod<'a>(
        &'a self,
        cred: &'a Cred,
        dir: Ino,
        name: &'a Name,
        kind: FileKind,
        mode: impl Into<NewMode>,
        rdev: (u32, u32),
    ) -> Answer<'a, Attr> {
        let NewMode { mode, unmasked } = mode.into();
        self.core.call(Op::MkNod, Some(dir), async move {
            let name = name.clone();
            let make = move |by| MkNod { by, dir, name: name.clone(), mode, kind, rdev, unmasked };
            Ok(self.core.mutate(cred, make).await?.attr)
        })
    }

    /// Makes a symbolic link to `target`.
    pub fn symlink<'a>(
        &'a self,
        cred: &'a Cred,
        dir: Ino,
        name: &'a Name,
        target: &'a [u8],
    ) -> Answer<'a, Attr> {
        self.core.call(Op::SymLink, Some(dir), async move {
            if target.is_empty() {
                return Err(ClientError::PathEmpty);
            }
            if target.len() > limits::PATH_BYTES_MAX {
                return Err(ClientError::PathTooLong { bytes: target.len() });
            }
            let (name, target) = (name.clone(), target.to_vec());
            let make = move |by| SymLink { by, dir, name: name.clone(), target: target.clone() };
            Ok(self.core.mutate(cred, make).await?.attr)
        })
    }

    /// Gives `ino` one more name.
    pub fn link<'a>(&'a self, cred: &'a Cred, ino: Ino, dir: Ino, name: &'a Name) -> Answer<'a, Attr> {
        self.core.call(Op::Link, Some(ino), async move {
            let name = name.clone();
            let entry = self.core.mutate(cred, move |by| Link { by, ino, dir, name: name.clone() }).await?;
            self.core.complete(entry).await
        })
    }

    /// Removes a name that is not a directory's.
    pub fn unlink<'a>(&'a self, cred: &'a Cred, dir: Ino, name: &'a Name) -> Answer<'a, ()> {
        self.core.call(Op::Unlink, Some(dir), async move {
            let name = name.clone();
            let unlinked = self.core.mutate(cred, move |by| Unlink { by, dir, name: name.clone() }).await?;
            self.orphaned(&unlinked);
            Ok(())
        })
    }

    /// Removes an empty directory.
    pub fn rmdir<'a>(&'a self, cred: &'a Cred, dir: Ino, name: &'a Name) -> Answer<'a, ()> {
        self.core.call(Op::RmDir, Some(dir), async move {
            let name = name.clone();
            self.core.mutate(cred, move |by| RmDir { by, dir, name: name.clone() }).await?;
            Ok(())
        })
    }

    /// Moves a name, as `renameat2(2)`.
    pub fn rename<'a>(
        &'a self,
        cred: &'a Cred,
        (dir, name): (Ino, &'a Name),
        (new_dir, new_name): (Ino, &'a Name),
        mode: RenameMode,
    ) -> Answer<'a, ()> {
        self.core.call(Op::Rename, Some(dir), async move {
            let (name, new_name) = (name.clone(), new_name.clone());
            let make =
                move |by| Rename { by, dir, name: name.clone(), new_dir, new_name: new_name.clone(), mode };
            let unlinked = self.core.mutate(cred, make).await?;
            self.orphaned(&unlinked);
            Ok(())
        })
    }

    /// Sets what files made in directory `ino` inherit; open fields go back to the system's choice.
    pub fn set_layout<'a>(&'a self, cred: &'a Cred, ino: Ino, layout: LayoutHint) -> Answer<'a, Attr> {
        self.core.call(Op::SetLayout, Some(ino), async move {
            Ok(self.core.mutate(cred, move |by| SetLayout { by, ino, layout }).await?.attr)
        })
    }

    fn orphaned(&self, unlinked: &Unlinked) {
        if unlinked.orphan.is_some() {
            self.core.session.check_in_soon();
        }
    }
}

fn nothing_of_that_name() -> ClientError {
    ClientError::Refused { op: Op::Lookup, errno: Errno::ENOENT, text: "nothing has that name".to_owned() }
}

impl crate::client::Core {
    /// `attr` with what this client knows, if that needs no question to the targets.
    pub fn known(&self, mut attr: Attr) -> Option<Attr> {
        let Some(inode) = self.inodes.find(attr.ino) else { return Some(attr) };
        inode.with(|state| {
            state.absorb(&attr);
            state.end_is_known();
            state.overlay(&mut attr);
            state.doubts().is_none().then_some(attr)
        })
    }

    /// Learns from an answer. `None`: it may be from before a close of this client's, so ask once more; not if this was the last
    /// time, for what is asked after that close knows of it.
    async fn answered(
        self: &Arc<Self>,
        asking: &Asking,
        entry: Entry,
        is_last: bool,
    ) -> Result<Option<Attr>> {
        asking.learn(&entry);
        let attr = self.complete(entry).await?;
        Ok((is_last || !self.has_closed(&attr, asking)).then_some(attr))
    }

    /// Whether this client may have closed the file since it asked for `attr`: what it wrote is told to the mgr since, and not
    /// known here any more.
    fn has_closed(&self, attr: &Attr, asking: &Asking) -> bool {
        attr.kind == FileKind::File && !self.inodes.is_open(attr.ino) && asking.is_overtaken(attr.ino)
    }

    /// `setattr`, brought to its end also when dropped.
    pub async fn set_attributes(
        self: &Arc<Self>,
        cred: &Cred,
        ino: Ino,
        changes: Changes,
        by_handle: bool,
        want: Option<Access>,
    ) -> Result<Attr> {
        let (core, cred) = (Arc::clone(self), cred.clone());
        self.finish(async move {
            let inode = core.inodes.find(ino);
            if let Some(inode) = &inode {
                core.send_gathered(inode).await?;
            }
            // A time that is set by hand is not to be overridden by the report of an earlier write, and none may be
            // under way.
            let (record, unreported) = match &inode {
                Some(inode) if changes.mtime.is_some() => {
                    (Some(inode.record.lock().await), inode.with(|state| state.mtime.take()))
                }
                _ => (None, None),
            };
            let make = |by| {
                let changes = changes.clone();
                SetAttr { by, ino, changes, by_handle, want, drop_privileges: None }
            };
            let emptying = (changes.size == Some(0)).then(|| core.emptyings.one());
            let set = core.mutate_here(&cred, make).await;
            match set {
                Ok(set) => {
                    if let Some(inode) = &inode {
                        inode.truncated(&set.entry.attr, changes.size.is_some());
                        if changes.uid.is_some() || changes.gid.is_some() {
                            inode.with(State::forget_write_capability);
                        }
                        set.capability
                            .inspect(|&capability| inode.with(|state| state.put_capability(capability)));
                    }
                    // What it asks of targets may wait for bytes to be sent again, and those for these.
                    drop((record, emptying));
                    core.complete(set.entry).await
                }
                Err(error) => {
                    if let Some(inode) = &inode {
                        inode.with(|state| {
                            state.mtime = state.mtime.or(unreported);
                            if changes.size.is_some() {
                                state.maybe_truncated();
                            }
                        });
                    }
                    Err(error)
                }
            }
        })
        .await
    }
}
