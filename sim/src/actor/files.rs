//! Operations on open files.

use super::{Actor, Done, Handle, Stop};
use crate::model::NodeId;
use bytes::Bytes;
use pvfs_types::FileKind;
use std::time::Duration;

/// Files reach over some strips of the smallest size.
const OFFSET_MAX: u64 = 40_000;
const WRITE_MAX: u64 = 12_000;
/// Some of them are a small file that the mgr keeps.
const SMALL_WRITE_MAX: u64 = 1_500;
/// In runs of seeds from here on, files are mostly small and soon closed.
const SMALL_FROM: u64 = 3_000_000;
/// Versions of one file that are remembered before it is synced.
const EARLIER_MAX: usize = 12;
/// How long a client may go by what it knows of a size, where it reads past the end of it.
const SIZE_IS_FRESH: Duration = Duration::from_secs(2);

/// Whether programs of that run mostly make small files.
pub(super) fn makes_small_files(seed: u64) -> bool {
    seed >= SMALL_FROM
}

impl Actor {
    pub(super) async fn file_op(&mut self, handle: u64) -> Done {
        let writes = self.handles[&handle].writes;
        if self.makes_small_files {
            return match self.random.below(12) {
                0..=3 if writes => self.write(handle, true).await,
                4 if writes => self.write(handle, false).await,
                5 if writes => self.truncate(handle).await,
                6 => self.sync(handle).await,
                7..=9 => self.close(handle).await,
                10 => self.stat(handle).await,
                _ => self.read(handle).await,
            };
        }
        match self.random.below(12) {
            0..=3 if writes => self.write(handle, false).await,
            4 if writes => self.write(handle, true).await,
            5 if writes => self.truncate(handle).await,
            6 => self.sync(handle).await,
            7 => self.close(handle).await,
            8 => self.stat(handle).await,
            _ => self.read(handle).await,
        }
    }

    pub(super) async fn write(&mut self, handle: u64, append: bool) -> Done {
        let Handle { node, seat, .. } = self.handles[&handle];
        if self.model.content(node).is_some_and(|content| content.earlier.len() >= EARLIER_MAX) {
            return self.sync(handle).await;
        }
        let write_max = if self.makes_small_files { SMALL_WRITE_MAX } else { WRITE_MAX };
        let len = usize::try_from(self.random.between(1..=write_max)).expect("small");
        let end = self.model.file(node).bytes.len();
        if append && self.model.file(node).unknown {
            return self.sync(handle).await;
        }
        let offset = if append { end as u64 } else { self.random.between(0..=OFFSET_MAX - WRITE_MAX) };
        if append && end as u64 + WRITE_MAX > OFFSET_MAX {
            return self.truncate(handle).await;
        }
        let at = usize::try_from(offset).expect("small");
        self.stamp = self.stamp % 250 + 1;
        let data: Vec<u8> = vec![self.stamp; len];
        self.change_content(seat, node, |content| content.write(at, &data));
        let data = Bytes::from(data);
        let stamp = self.stamp;
        let what = format!("writes {len} bytes {stamp:#04x} at {offset} to {handle} append={append}");
        let written = self
            .call(seat, what, move |hands| async move {
                let file = hands.file(handle);
                if append {
                    file.append(data).await.map(Some)
                } else {
                    file.write_at(offset, data).await.map(|()| None)
                }
            })
            .await;
        match self.hold(written, Ok(()))? {
            Some(Some(at)) if at != offset => {
                // Where the end is now, if others have not sent again yet what lay before it.
                if !self.may_lack(seat, node) {
                    return Err(Stop::Broken(format!("appended at {at}")));
                }
                self.model.file(node).unknown = true;
                Ok(())
            }
            Some(_) => Ok(()),
            None => {
                self.loosen(Some(node));
                Ok(())
            }
        }
    }

    pub(super) async fn truncate(&mut self, handle: u64) -> Done {
        let Handle { node, seat, writes } = self.handles[&handle];
        if !writes {
            return Ok(());
        }
        let size = if self.random.one_in(3) { 0 } else { self.random.between(0..=OFFSET_MAX / 2) };
        let len = usize::try_from(size).expect("small");
        self.change_size(seat, node, len);
        let cut = self
            .call(seat, format!("truncates {handle} to {size}"), move |hands| async move {
                hands.file(handle).truncate(size).await
            })
            .await;
        if let Some(attr) = self.hold(cut, Ok(()))? {
            return self.check_attr(seat, node, &attr);
        }
        self.loosen(Some(node));
        Ok(())
    }

    pub(super) async fn sync(&mut self, handle: u64) -> Done {
        let Handle { node, seat, .. } = self.handles[&handle];
        let synced =
            self.call(seat, format!("syncs {handle}"), move |hands| async move {
                hands.file(handle).sync().await
            })
            .await;
        match self.hold(synced, Ok(()))? {
            Some(()) => {
                // What its writers have not sent again is not there yet, and may never be.
                if !self.may_lack(seat, node) {
                    self.model.file(node).synced();
                }
            }
            None => self.loosen(Some(node)),
        }
        Ok(())
    }

    pub(super) async fn close(&mut self, handle: u64) -> Done {
        let seat = self.handles[&handle].seat;
        self.closing = Some(handle);
        let closed = self
            .call(seat, format!("closes {handle}"), move |hands| async move { hands.close(handle).await })
            .await;
        let node = self.handles[&handle].node;
        if self.hold(closed, Ok(()))?.is_none() {
            self.loosen(Some(node));
        }
        self.forget_handle(handle);
        Ok(())
    }

    pub(super) async fn stat(&mut self, handle: u64) -> Done {
        let Handle { node, seat, .. } = self.handles[&handle];
        let found =
            self.call(seat, format!("stats {handle}"), move |hands| async move {
                hands.file(handle).attr().await
            })
            .await;
        match self.hold(found, Ok(()))? {
            Some(attr) => self.check_attr(seat, node, &attr),
            None => Ok(()),
        }
    }

    pub(super) fn check_attr(&self, seat: usize, node: NodeId, attr: &pvfs_types::Attr) -> Done {
        let Some(content) = self.model.content(node) else { return Ok(()) };
        let (least, most) = content.lengths();
        let size = usize::try_from(attr.size).unwrap_or(usize::MAX);
        let names = self.model.node(node).names;
        let loose = self.may_lack(seat, node);
        if (size < least || size > most) && !loose {
            return Err(Stop::Broken(format!("size is {size}, {least} to {most} is right")));
        }
        if attr.nlink != names || attr.kind != FileKind::File {
            return Err(Stop::Broken(format!(
                "{:?} with {} names, {names} are right",
                attr.kind, attr.nlink
            )));
        }
        Ok(())
    }

    pub(super) async fn read(&mut self, handle: u64) -> Done {
        let Handle { node, seat, .. } = self.handles[&handle];
        let offset = self.random.between(0..=OFFSET_MAX);
        let len = self.random.between(1..=OFFSET_MAX);
        let read = self
            .call(seat, format!("reads {len} bytes at {offset} of {handle}"), move |hands| async move {
                hands.file(handle).read_at(offset, len).await
            })
            .await;
        let Some(found) = self.hold(read, Ok(()))? else { return Ok(()) };
        if self.may_lack(seat, node) || self.stale.contains(&(seat, node)) {
            return Ok(());
        }
        let grown =
            self.changed.get(&node).is_some_and(|(by, at)| *by != seat && at.elapsed() < SIZE_IS_FRESH);
        let content = self.model.file(node);
        let at = usize::try_from(offset).expect("small");
        let wanted = content.bytes.len().saturating_sub(at).min(usize::try_from(len).expect("small"));
        let fits = found.len() == wanted || (grown && found.len() < wanted);
        if !content.loose && !content.unknown && !fits {
            return Err(Stop::Broken(format!("found {} bytes, {wanted} are right", found.len())));
        }
        Ok(content.check(at, &found)?)
    }
}
