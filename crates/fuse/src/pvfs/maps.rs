//! Files that programs map to change them in memory: what is changed under a lock is seen by who has the lock next, on whatever mount.

use super::PvfsFs;
use crate::twins::PAGE_BYTES;
use bytes::{Bytes, BytesMut};
use pvfs_client::{ClientError, File};
use pvfs_kfuse::Waiting;
use pvfs_types::Ino;
use std::ops::Range;
use tracing::warn;

/// As many runs of changed bytes are written at once. Each costs its iod a system call.
const RUNS_MAX: usize = 1024;
/// Up to here a file is written back from its end to its start, page by page.
const BACKWARDS_BYTES: u64 = 64 << 10;

impl PvfsFs {
    /// Has the kernel write back what programs have changed in memory of `ino`, and forget its pages.
    ///
    /// What is first in a file often says how much of the rest counts: so that is written last.
    pub(super) async fn settle_maps(&self, ino: Ino) {
        let (notifier, node) = (self.notifier.wait().await, self.node(ino).0);
        let settle = move |kernel: &Waiting<'_>| {
            let mut told = kernel.data_changed(node, BACKWARDS_BYTES);
            for page in (0..BACKWARDS_BYTES / PAGE_BYTES).rev() {
                told = told.and(kernel.range_changed(node, page * PAGE_BYTES, PAGE_BYTES));
            }
            told
        };
        if let Err(error) = notifier.apart(settle).await.flatten() {
            warn!(%ino, %error, "maps of the file are not written back");
        }
    }

    /// Writes what was changed here of the pages `data`.
    pub(super) async fn write_back(&self, file: &File, offset: u64, data: Bytes) -> Result<(), ClientError> {
        let runs = self.twins.written_back(file.ino(), offset, &data);
        if let [run] = &runs[..] {
            return file.write_at(offset + run.start as u64, data.slice(run.clone())).await;
        }
        for runs in runs.rchunks(RUNS_MAX) {
            let of_file = |run: &Range<usize>| (offset + run.start as u64, run.len() as u64);
            let ranges: Vec<(u64, u64)> = runs.iter().map(of_file).collect();
            let mut bytes = BytesMut::new();
            for run in runs {
                bytes.extend_from_slice(&data[run.clone()]);
            }
            file.write_list(&ranges, bytes.freeze()).await?;
        }
        Ok(())
    }
}
