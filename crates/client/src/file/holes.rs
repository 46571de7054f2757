//! Holes: made, filled, looked for; and room taken beforehand.

use super::{File, check_end};
use crate::{
    ClientError,
    error::{Answer, Result},
    io,
};
use pvfs_types::LogicalOffset;
use pvfs_wire::{Access, Op, msg::data::FillWith};

impl File {
    /// Makes `len` bytes from `offset` on zeros and gives their space back, as far as the file reaches; its size stays.
    ///
    /// # Errors
    /// `EINVAL` for no bytes; `EFBIG` it would end past the largest file size; `EBADF` not open for writing.
    pub fn punch(&self, offset: u64, len: u64) -> Answer<'_, ()> {
        self.fill(offset, len, FillWith::Zeros, false)
    }

    /// As [`File::punch`], but the file grows where it ends before.
    pub fn zero(&self, offset: u64, len: u64) -> Answer<'_, ()> {
        self.fill(offset, len, FillWith::Zeros, true)
    }

    /// Takes space for `len` bytes from `offset` on, so that writing them does not meet a full target. With `grows` the file
    /// grows where it ends before. No byte changes.
    ///
    /// # Errors
    /// `ENOSPC` a target has not so much space; `EOPNOTSUPP` a target's disk takes none beforehand; else as [`File::punch`].
    pub fn allocate(&self, offset: u64, len: u64, grows: bool) -> Answer<'_, ()> {
        self.fill(offset, len, FillWith::Room, grows)
    }

    fn fill(&self, offset: u64, len: u64, with: FillWith, grows: bool) -> Answer<'_, ()> {
        self.core.call(Op::Fill, Some(self.inode.ino), async move {
            self.need(Access::WRITE, "writing")?;
            if len == 0 {
                return Err(ClientError::EmptyRange { offset });
            }
            check_end(offset, len)?;
            self.core.send_gathered(&self.inode).await?;
            if grows {
                // Another client may have cut the file. A report of before that would not count, and no target knows better.
                self.core.refresh_attr(self.inode.ino).await?;
            }
            let range = offset..offset + len;
            let reach = if grows || with == FillWith::Room { range.end } else { 0 };
            let in_flight = io::fill(&self.core, &self.inode, range, with, reach).await?;
            let end = LogicalOffset(if grows { offset + len } else { 0 });
            self.inode.with(|state| state.sparse = true);
            in_flight.done(0, end, self.core.session.now(), &self.cred);
            if grows {
                // No target knows of a size that only zeros reach.
                self.core.report(&self.inode, None).await?;
            }
            Ok(())
        })
    }

    /// Where data lies at `offset` or next behind it, as `SEEK_DATA`. What targets' disks take for data counts: never less than
    /// was written.
    ///
    /// # Errors
    /// `ENXIO` no data follows, or the file ends before.
    pub async fn seek_data(&self, offset: u64) -> Result<u64> {
        let (size, found) = self.seek(offset, false).await?;
        found.filter(|&at| at < size).ok_or(ClientError::NoData { offset })
    }

    /// Where a hole lies at `offset` or next behind it, as `SEEK_HOLE`: at the latest at the file's end.
    ///
    /// # Errors
    /// `ENXIO` the file ends before.
    pub async fn seek_hole(&self, offset: u64) -> Result<u64> {
        let (size, found) = self.seek(offset, true).await?;
        Ok(found.unwrap_or(size).min(size))
    }

    /// The file's size, and what was found.
    fn seek(&self, offset: u64, hole: bool) -> Answer<'_, (u64, Option<u64>)> {
        self.core.call(Op::FindData, Some(self.inode.ino), async move {
            self.need(Access::default(), "looking for data")?;
            self.core.send_gathered(&self.inode).await?;
            let size = self.core.refresh_attr(self.inode.ino).await?.size;
            if offset >= size {
                return Err(ClientError::NoData { offset });
            }
            if self.inode.with(|state| state.is_inline()) {
                return Ok((size, (!hole).then_some(offset)));
            }
            let access = if self.access.write { Access::WRITE } else { Access::READ };
            Ok((size, io::find_data(&self.core, &self.inode, access, offset, hole).await?))
        })
    }
}
