//! Finding out what became of what nobody answered for, and looking at everything in the end.

use super::{Actor, Done, Stop, name, root};
use crate::{
    client::CallError,
    model::{Model, NodeId, Place},
};
use pvfs_client::{OpenOptions, RenameMode};
use pvfs_types::{Errno, FileKind};
use std::{sync::Arc, time::Duration};

/// After a client died, this long until nothing of it is on its way any more.
const ALL_ARRIVED: Duration = Duration::from_mins(1);

impl Actor {
    /// After the death of a client, or a call that was given up: waits until nothing of it is on its way, then finds out whether its last operation
    /// was done.
    pub(super) async fn recover(&mut self) -> Result<(), String> {
        self.now.set(&format!("{} waits for the last of a dead client", self.name));
        tokio::time::sleep(ALL_ARRIVED).await;
        self.now.set(&format!("{} closes what a dead client had open", self.name));
        self.discard_handles().await;
        if let Some(node) = self.touched.take().filter(|&node| self.model.has(node)) {
            self.loosen(Some(node));
        }
        let Some(change) = self.under_way.take() else { return Ok(()) };
        let done = self.with_change(&change).await?;
        let undone = std::mem::replace(&mut self.model, done);
        let Err(not_done) = self.look_at_dirs().await else { return Ok(()) };
        self.model = undone;
        self.look_at_dirs().await.map_err(|what| format!("half done: {what}; and {not_done}"))
    }

    /// Closes the handle that was being opened, and the one that was being closed, in whatever client.
    async fn discard_handles(&mut self) {
        let handles: Vec<u64> = self.closing.take().into_iter().chain([self.next_handle]).collect();
        self.next_handle += 1;
        for seat in 0..self.seats.len() {
            loop {
                self.notice_new_clients().await;
                self.seats[seat].changes_ended().await;
                let handles = handles.clone();
                let what = format!("lets go of {handles:?}");
                let discarded = self.call(seat, what, move |hands| async move {
                    for handle in handles {
                        hands.discard(handle);
                    }
                    Ok(())
                });
                if discarded.await.is_ok() {
                    break;
                }
            }
        }
        for handle in handles {
            self.forget_handle(handle);
        }
    }

    /// The model as it is if `change` was done.
    pub(super) async fn with_change(&mut self, change: &Change) -> Result<Model, String> {
        let mut model = self.model.clone();
        match *change {
            Change::Make(dir, new) if model.find((dir, new)).is_none() => {
                let (ino, new_name) = (model.ino(dir), name(new));
                let found = loop {
                    let (new_name, what) = (new_name.clone(), format!("looks for {ino}/{new}"));
                    let found = self.call(0, what, move |hands| async move {
                        hands.client().lookup(&root(), ino, &new_name).await
                    });
                    match found.await {
                        Ok(attr) => break Some(attr),
                        Err(CallError::Refused(error)) if error.errno() == Errno::ENOENT => break None,
                        Err(CallError::Refused(error)) => return Err(error.to_string()),
                        Err(CallError::Died) => self.notice_new_clients().await,
                    }
                };
                match found {
                    Some(attr) if attr.kind == FileKind::Dir => model.make_dir((dir, new), attr.ino),
                    Some(attr) => {
                        model.make_file((dir, new), attr.ino);
                    }
                    None => {}
                }
            }
            Change::Make(..) => {}
            Change::Unlink(dir, old) => drop(model.unlink((dir, old))),
            Change::RemoveDir(dir, old) => drop(model.remove_dir((dir, old))),
            Change::Link(node, dir, new) => drop(model.link(node, (dir, new))),
            Change::Rename(from, to, mode) => drop(model.rename(from, to, mode)),
        }
        Ok(model)
    }

    pub(super) async fn look_at_dirs(&mut self) -> Result<(), String> {
        for dir in self.model.dirs() {
            loop {
                match self.look_at_dir(0, dir).await {
                    Ok(()) => break,
                    Err(Stop::Broken(what)) => return Err(what),
                    Err(Stop::Died) => self.notice_new_clients().await,
                }
            }
        }
        Ok(())
    }

    /// Finds out what files hold of which it is not certain.
    pub(super) async fn settle_all(&mut self) -> Result<(), String> {
        let mut tries = 0;
        while let Some(node) = self.next_loose() {
            tries += 1;
            if tries > 1000 {
                return Err(format!("{}: nothing can be settled", self.name));
            }
            match self.settle(node).await {
                Ok(()) => {}
                Err(Stop::Broken(what)) => return Err(format!("{}: {what}", self.now.what())),
                Err(Stop::Died) => {
                    self.now.set(&format!("{} waits for the last of a dead client", self.name));
                    tokio::time::sleep(ALL_ARRIVED).await;
                    self.notice_new_clients().await;
                }
            }
            self.note_losses();
        }
        Ok(())
    }

    pub(super) fn next_loose(&self) -> Option<NodeId> {
        self.model.files().into_iter().find(|&file| self.model.content(file).is_some_and(|c| c.loose))
    }

    pub(super) async fn settle(&mut self, node: NodeId) -> Done {
        // Without a name it cannot be opened again.
        let nameless = self.model.node(node).names == 0;
        let handle = self.handles.iter().find(|(_, handle)| nameless && handle.node == node);
        let (handle, seat) = handle.map_or((None, self.any_seat()), |(id, handle)| (Some(*id), handle.seat));
        let (ino, losses) = (self.model.ino(node), self.cluster.losses());
        let found = self
            .call(seat, format!("settles {ino}"), move |hands| async move {
                let file = match handle {
                    Some(handle) => hands.file(handle),
                    None => Arc::new(hands.client().open(&root(), ino, OpenOptions::READ).await?),
                };
                file.sync().await?;
                let size = file.attr().await?.size;
                let bytes = file.read_at(0, size).await?;
                if handle.is_none() {
                    file.close().await?;
                }
                Ok((size, bytes))
            })
            .await;
        let Some((size, bytes)) = self.hold(found, Ok(()))? else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Ok(());
        };
        if losses != self.cluster.losses() || !self.newly_declared().is_empty() {
            return Ok(());
        }
        let content = self.model.file(node);
        let (least, most) = content.lengths();
        if bytes.len() as u64 != size || bytes.len() < least || bytes.len() > most {
            let len = bytes.len();
            return Err(Stop::Broken(format!(
                "size is {size}, {len} bytes came, {least} to {most} is right"
            )));
        }
        content.check(0, &bytes)?;
        content.settle(bytes.into());
        Ok(())
    }

    /// Looks at everything it has made, through each of its clients.
    pub async fn look_at_all(&mut self) -> Result<(), String> {
        for seat in 0..self.seats.len() {
            let dirs = self.model.dirs().into_iter().map(Look::Dir);
            let todo: Vec<Look> = dirs.chain(self.model.files().into_iter().map(Look::File)).collect();
            for look in todo {
                let looked = match look {
                    Look::Dir(dir) => self.look_at_dir(seat, dir).await,
                    Look::File(file) => self.look_at_file(seat, file).await,
                };
                match looked {
                    Ok(()) => {}
                    Err(Stop::Broken(what)) => return Err(format!("{}: {what}", self.now.what())),
                    Err(Stop::Died) => return Err(format!("{}: a client died at the end", self.name)),
                }
            }
        }
        Ok(())
    }

    pub(super) async fn look_at_file(&mut self, seat: usize, node: NodeId) -> Done {
        let ino = self.model.ino(node);
        let found = self
            .call(seat, format!("looks at {ino}"), move |hands| async move {
                let attr = hands.client().getattr(&root(), ino).await?;
                let file = hands.client().open(&root(), ino, OpenOptions::READ).await?;
                let bytes = file.read_at(0, attr.size + 1).await?;
                file.close().await?;
                Ok((attr, bytes))
            })
            .await;
        let Some((attr, bytes)) = self.hold(found, Ok(()))? else { return Ok(()) };
        self.check_attr(seat, node, &attr)?;
        if self.may_lack(seat, node) {
            return Ok(());
        }
        if bytes.len() as u64 != attr.size {
            return Err(Stop::Broken(format!("{} bytes came of {}", bytes.len(), attr.size)));
        }
        Ok(self.model.file(node).check(0, &bytes)?)
    }
}

/// A change of names.
#[derive(Clone, Copy)]
pub(super) enum Change {
    Make(NodeId, &'static str),
    Unlink(NodeId, &'static str),
    RemoveDir(NodeId, &'static str),
    Link(NodeId, NodeId, &'static str),
    Rename(Place<'static>, Place<'static>, RenameMode),
}

/// Something to look at.
enum Look {
    Dir(NodeId),
    File(NodeId),
}
