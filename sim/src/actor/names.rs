//! Operations on names: creating, opening, linking, renaming, removing, listing.

use super::{Actor, Done, HANDLES_MAX, Handle, Stop, aftermath::Change, name, root};
use crate::model::{Content, NodeId};
use pvfs_client::{Access, CreateOptions, OpenOptions, RenameMode};
use pvfs_types::{Errno, Ino, LayoutHint};
use tokio::time::Instant;

const DIRS_MAX: usize = 6;

impl Actor {
    pub(super) async fn name_op(&mut self) -> Done {
        match self.random.below(10) {
            0..=2 => self.create().await,
            3 => self.open().await,
            4 => self.make_dir().await,
            5 => self.remove_dir().await,
            6 => self.unlink().await,
            7 => self.link().await,
            8 => self.rename().await,
            _ => {
                let dirs = self.model.dirs();
                let dir = *self.random.pick(&dirs);
                let seat = self.any_seat();
                self.look_at_dir(seat, dir).await
            }
        }
    }

    pub(super) async fn create(&mut self) -> Done {
        let ((dir, new), seat) = (self.any_place(), self.any_seat());
        if self.handles.len() >= HANDLES_MAX {
            return Ok(());
        }
        let there = self.model.find((dir, new));
        let exclusive = self.random.one_in(2);
        let truncate = !exclusive && self.random.one_in(3);
        let layout = LayoutHint {
            pcount: self.random.one_in(2).then_some(1),
            ssize: Some(4096),
            ..LayoutHint::default()
        };
        let options = CreateOptions { exclusive, truncate, layout, ..CreateOptions::default() };
        let wanted = match there {
            Some(_) if exclusive => Err(Errno::EEXIST),
            Some(id) if self.model.content(id).is_none() => Err(Errno::EISDIR),
            _ => Ok(()),
        };
        // In case it is never told how it went.
        if wanted.is_ok()
            && truncate
            && let Some(id) = there
        {
            self.change_size(seat, id, 0);
        }
        self.under_way = Some(Change::Make(dir, new));
        let (ino, handle) = (self.model.ino(dir), self.next_handle);
        let what = format!("creates {ino}/{new} as {handle} exclusive={exclusive} truncate={truncate}");
        let made = self
            .call(seat, what, move |hands| async move {
                let made = hands.client().create(&root(), ino, &name(new), options).await?;
                hands.keep(handle, made.file);
                Ok((made.attr, made.created))
            })
            .await;
        let Some((attr, created)) = self.hold(made, wanted)? else {
            if truncate && wanted.is_ok() {
                self.loosen(there);
            }
            return Ok(());
        };
        if created != there.is_none() {
            return Err(Stop::Broken(format!("created is {created}")));
        }
        let node = match there {
            Some(node) => node,
            None => self.model.make_file((dir, new), attr.ino),
        };
        self.opened(node, handle, seat, true);
        self.check_attr(seat, node, &attr)
    }

    pub(super) fn opened(&mut self, node: NodeId, handle: u64, seat: usize, writes: bool) {
        self.next_handle += 1;
        self.handles.insert(handle, Handle { node, seat, writes });
        self.stale.remove(&(seat, node));
        self.model.opened(node);
    }

    /// Takes note of a change that is about to be tried through `seat`.
    pub(super) fn change_content(&mut self, seat: usize, node: NodeId, change: impl FnOnce(&mut Content)) {
        self.changed.insert(node, (seat, Instant::now()));
        self.touched = Some(node);
        let losses = self.cluster.losses();
        let content = self.model.file(node);
        content.begin_change(seat, losses);
        change(content);
    }

    /// As [`Actor::change_content`]; what other clients read of the file before they open it again is not promised.
    pub(super) fn change_size(&mut self, seat: usize, node: NodeId, len: usize) {
        self.change_content(seat, node, |content| content.bytes.resize(len, 0));
        let others = (0..self.seats.len()).filter(|&other| other != seat);
        self.stale.extend(others.map(|other| (other, node)));
    }

    /// A change may have been done, or a part of it.
    pub(super) fn loosen(&mut self, node: Option<NodeId>) {
        if let Some(node) = node {
            let content = self.model.file(node);
            content.loose = !content.unknown;
        }
    }

    pub(super) async fn open(&mut self) -> Done {
        let ((dir, old), seat) = (self.any_place(), self.any_seat());
        let Some(node) = self.model.find((dir, old)).filter(|_| self.handles.len() < HANDLES_MAX) else {
            return Ok(());
        };
        let writes = self.random.one_in(2);
        let truncate = writes && self.random.one_in(4);
        let access = if writes { Access::READ_WRITE } else { Access::READ };
        let is_dir = self.model.content(node).is_none();
        let wanted = if is_dir { Err(Errno::EISDIR) } else { Ok(()) };
        if truncate && !is_dir {
            self.change_size(seat, node, 0);
        }
        let (ino, handle) = (self.model.ino(node), self.next_handle);
        let what = format!("opens {ino} as {handle} writes={writes} truncate={truncate}");
        let opened = self
            .call(seat, what, move |hands| async move {
                let file = hands
                    .client()
                    .open(&root(), ino, OpenOptions { truncate, ..OpenOptions::of(access) })
                    .await?;
                hands.keep(handle, file);
                Ok(())
            })
            .await;
        if self.hold(opened, wanted)?.is_some() {
            self.opened(node, handle, seat, writes);
        } else if truncate && !is_dir {
            self.loosen(Some(node));
        }
        Ok(())
    }

    pub(super) async fn make_dir(&mut self) -> Done {
        let ((dir, new), seat) = (self.any_place(), self.any_seat());
        if self.model.dirs().len() >= DIRS_MAX {
            return Ok(());
        }
        let (ino, wanted) = (self.model.ino(dir), self.model.may_make((dir, new)));
        self.under_way = Some(Change::Make(dir, new));
        let made = self
            .call(seat, format!("makes directory {ino}/{new}"), move |hands| async move {
                hands.client().mkdir(&root(), ino, &name(new), 0o755).await
            })
            .await;
        if let Some(attr) = self.hold(made, wanted)? {
            self.model.make_dir((dir, new), attr.ino);
        }
        Ok(())
    }

    pub(super) async fn remove_dir(&mut self) -> Done {
        let ((dir, old), seat, ino) = self.place_and_seat();
        let wanted = self.model.names().remove_dir((dir, old));
        self.under_way = Some(Change::RemoveDir(dir, old));
        let gone = self
            .call(seat, format!("removes directory {ino}/{old}"), move |hands| async move {
                hands.client().rmdir(&root(), ino, &name(old)).await
            })
            .await;
        if self.hold(gone, wanted)?.is_some() {
            let _ = self.model.remove_dir((dir, old));
        }
        Ok(())
    }

    pub(super) fn place_and_seat(&self) -> ((NodeId, &'static str), usize, Ino) {
        let (place, seat) = (self.any_place(), self.any_seat());
        (place, seat, self.model.ino(place.0))
    }

    pub(super) async fn unlink(&mut self) -> Done {
        let ((dir, old), seat, ino) = self.place_and_seat();
        let wanted = self.model.names().unlink((dir, old));
        self.under_way = Some(Change::Unlink(dir, old));
        let gone = self
            .call(seat, format!("unlinks {ino}/{old}"), move |hands| async move {
                hands.client().unlink(&root(), ino, &name(old)).await
            })
            .await;
        if self.hold(gone, wanted)?.is_some() {
            let _ = self.model.unlink((dir, old));
        }
        Ok(())
    }

    pub(super) async fn link(&mut self) -> Done {
        let ((dir, new), seat, ino) = self.place_and_seat();
        let files = self.model.files();
        let named: Vec<NodeId> = files.into_iter().filter(|&file| self.model.node(file).names > 0).collect();
        if named.is_empty() {
            return Ok(());
        }
        let node = *self.random.pick(&named);
        let (target, wanted) = (self.model.ino(node), self.model.may_make((dir, new)));
        self.under_way = Some(Change::Link(node, dir, new));
        let made = self
            .call(seat, format!("links {target} as {ino}/{new}"), move |hands| async move {
                hands.client().link(&root(), target, ino, &name(new)).await
            })
            .await;
        if let Some(attr) = self.hold(made, wanted)? {
            let _ = self.model.link(node, (dir, new));
            self.check_attr(seat, node, &attr)?;
        }
        Ok(())
    }

    pub(super) async fn rename(&mut self) -> Done {
        let ((dir, old), seat, ino) = self.place_and_seat();
        let (new_dir, new) = self.any_place();
        let new_ino = self.model.ino(new_dir);
        let mode = *self.random.pick(&[
            RenameMode::Replace,
            RenameMode::Replace,
            RenameMode::NoReplace,
            RenameMode::Exchange,
        ]);
        let wanted = self.model.names().rename((dir, old), (new_dir, new), mode);
        self.under_way = Some(Change::Rename((dir, old), (new_dir, new), mode));
        let what = format!("renames {ino}/{old} to {new_ino}/{new} {mode:?}");
        let renamed = self
            .call(seat, what, move |hands| async move {
                hands.client().rename(&root(), (ino, &name(old)), (new_ino, &name(new)), mode).await
            })
            .await;
        if self.hold(renamed, wanted)?.is_some() {
            let _ = self.model.rename((dir, old), (new_dir, new), mode);
        }
        Ok(())
    }

    pub(super) async fn look_at_dir(&mut self, seat: usize, dir: NodeId) -> Done {
        let ino = self.model.ino(dir);
        let listed = self
            .call(seat, format!("lists {ino}"), move |hands| async move {
                hands.client().readdir_all(&root(), ino, false).await
            })
            .await;
        let Some(items) = self.hold(listed, Ok(()))? else { return Ok(()) };
        let mut found: Vec<(String, Ino)> = items
            .into_iter()
            .map(|item| (String::from_utf8_lossy(item.name.as_bytes()).into_owned(), item.ino))
            .collect();
        found.sort();
        let entries = self.model.entries(dir);
        let wanted: Vec<(String, Ino)> =
            entries.iter().map(|(name, &node)| (name.clone(), self.model.ino(node))).collect();
        if found != wanted {
            return Err(Stop::Broken(format!("found {found:?}, {wanted:?} is right")));
        }
        Ok(())
    }
}
