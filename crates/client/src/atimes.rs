//! Times of access: whoever reads tells of them, when it likes.

use crate::{Client, error::Answer};
use pvfs_types::{Cred, Ino, Timestamp, limits::ATIMES_MAX};
use pvfs_wire::{
    Op,
    msg::file::{ReadAt, TouchAtimes},
};

impl Client {
    /// Moves times of access forward to when each was read; unless `strict`, only where `relatime` has it. In messages of
    /// `ATIMES_MAX` inodes.
    pub fn touch_atimes(&self, read: &[(Ino, Timestamp)], strict: bool) -> Answer<'_, ()> {
        let all = read.iter().map(|&(ino, at)| ReadAt { ino, at }).collect::<Vec<_>>();
        self.core.call(Op::TouchAtimes, None, async move {
            for some in all.chunks(ATIMES_MAX) {
                let read = some.to_vec();
                let make = move |by| TouchAtimes { by, read: read.clone(), strict };
                self.core.mutate(&Cred::root(), make).await?;
            }
            Ok(())
        })
    }
}
