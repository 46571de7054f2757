//! Where a benchmark runs: the calls it needs, whoever answers them.

use crate::Writer;
use bytes::Bytes;
use std::{io, ops::Deref};

/// `count` runs of `len` bytes, `stride` bytes from start to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    pub start: u64,
    pub len: u64,
    pub stride: u64,
    pub count: u64,
}

impl Runs {
    pub fn one(start: u64, len: u64) -> Runs {
        Runs { start, len, stride: len, count: 1 }
    }

    /// In all runs.
    pub fn bytes(self) -> u64 {
        self.len * self.count
    }

    /// Each run's offset in the file and its part of `data`.
    pub fn slices(self, data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
        let parts = data.chunks(usize::try_from(self.len.max(1)).unwrap_or(usize::MAX));
        (0..self.count).map(move |n| self.start + n * self.stride).zip(parts)
    }

    pub fn slices_mut(self, data: &mut [u8]) -> impl Iterator<Item = (u64, &mut [u8])> {
        let parts = data.chunks_mut(usize::try_from(self.len.max(1)).unwrap_or(usize::MAX));
        (0..self.count).map(move |n| self.start + n * self.stride).zip(parts)
    }
}

/// What a read gave: in the caller's buffer, or in one of the place's own.
pub enum ReadBack<'a> {
    Scratch(&'a [u8]),
    Own(Bytes),
}

impl Deref for ReadBack<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            ReadBack::Scratch(bytes) => bytes,
            ReadBack::Own(bytes) => bytes,
        }
    }
}

/// A directory under test. Names are relative to it and may hold slashes.
pub trait Place: Clone + Send + Sync + 'static {
    type File: Send + Sync + 'static;

    /// For the report's column `where`.
    fn name(&self) -> &'static str;

    /// Starts one rank: a thread of its own, or a task.
    fn spawn<T: Send + 'static>(
        &self,
        rank: impl Future<Output = T> + Send + 'static,
    ) -> tokio::sync::oneshot::Receiver<T>;

    /// Opens for writing, and creates what is not there.
    fn open_writing(&self, name: &str, writer: Writer)
    -> impl Future<Output = io::Result<Self::File>> + Send;

    fn write(
        &self,
        file: &Self::File,
        runs: Runs,
        data: &Bytes,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Shorter than asked only at the file's end.
    fn read<'a>(
        &'a self,
        file: &'a Self::File,
        runs: Runs,
        scratch: &'a mut Vec<u8>,
    ) -> impl Future<Output = io::Result<ReadBack<'a>>> + Send + 'a;

    fn sync(&self, file: &Self::File) -> impl Future<Output = io::Result<()>> + Send;

    /// Lets caches between here and the file system forget the file's bytes, where there are any.
    fn forget(&self, file: &Self::File) -> io::Result<()>;

    fn close(&self, file: Self::File) -> impl Future<Output = io::Result<()>> + Send;

    /// Opens for reading.
    fn open_reading(&self, name: &str) -> impl Future<Output = io::Result<Self::File>> + Send;

    /// Opens for reading, past the kernel's cache where there is one.
    fn open_direct(&self, name: &str) -> impl Future<Output = io::Result<Self::File>> + Send;

    /// A new file with `content`; `EEXIST` where the name is taken.
    fn create(&self, name: &str, content: &Bytes) -> impl Future<Output = io::Result<()>> + Send;

    fn stat(&self, name: &str) -> impl Future<Output = io::Result<()>> + Send;

    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>> + Send;

    fn mkdir(&self, name: &str) -> impl Future<Output = io::Result<()>> + Send;

    fn rmdir(&self, name: &str) -> impl Future<Output = io::Result<()>> + Send;
}
