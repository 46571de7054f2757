//! An open file of the mount: opened by this worker, now or when it is first read, or taken over from one that died and
//! opened again when it is used.

use pvfs_client::{Access, Client, ClientError, File, Held};
use pvfs_types::{Cred, Ino};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::OnceCell;

/// An open file.
#[derive(Debug)]
pub struct OpenFile {
    file: OnceCell<File>,
    /// Not opened at the mgr yet: counts as open.
    held: Option<Held>,
    way: Way,
    /// Its reads leave the time of access as it is (`O_NOATIME`).
    no_atime: bool,
    was_read: AtomicBool,
}

/// How the kernel reads and writes by a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the page cache.
    Pages,
    Direct,
}

impl OpenFile {
    pub fn opened(file: File, way: Way) -> OpenFile {
        OpenFile::new(OnceCell::new_with(Some(file)), None, way)
    }

    pub fn held(held: Held, way: Way) -> OpenFile {
        OpenFile::new(OnceCell::new(), Some(held), way)
    }

    fn new(file: OnceCell<File>, held: Option<Held>, way: Way) -> OpenFile {
        OpenFile { file, held, way, no_atime: false, was_read: AtomicBool::new(false) }
    }

    /// Its reads leave the time of access as it is, if that is said here.
    #[must_use]
    pub fn without_atime(self, no_atime: bool) -> OpenFile {
        OpenFile { no_atime, ..self }
    }

    pub fn way(&self) -> Way {
        self.way
    }

    /// The file, if it is opened at the mgr.
    pub fn loaded(&self) -> Option<&File> {
        self.file.get()
    }

    pub fn counts_reads(&self) -> bool {
        !self.no_atime
    }

    /// True once.
    pub fn is_first_read(&self) -> bool {
        !self.was_read.swap(true, Ordering::Relaxed)
    }

    /// The file, opened again if need be. `cred` then stands for who opened it.
    pub async fn load(&self, client: &Client, cred: impl FnOnce() -> Cred) -> Result<&File, ClientError> {
        let Some(held) = &self.held else {
            return self.file.get().ok_or(ClientError::NotOpenFor { wanted: "anything" });
        };
        self.file.get_or_try_init(|| async { client.open_held(&cred(), held).await }).await
    }

    pub fn ino(&self) -> Option<Ino> {
        self.held.as_ref().map(Held::ino).or_else(|| self.file.get().map(File::ino))
    }

    pub fn access(&self) -> Option<Access> {
        self.held.as_ref().map(Held::access).or_else(|| self.file.get().map(File::access))
    }

    /// Tells the mgr what was written through it, by whomever.
    pub async fn close(&self, client: &Client) -> Result<(), ClientError> {
        let must_tell = self.held.as_ref().is_some_and(|held| held.access().write);
        match self.file.get() {
            Some(file) => file.close().await,
            None if must_tell => match self.load(client, Cred::root).await {
                Ok(file) => file.close().await,
                // Unlinked, and nobody has it open any more: nothing is left to tell.
                Err(ClientError::Gone { .. }) => Ok(()),
                Err(error) => Err(error),
            },
            None => Ok(()),
        }
    }
}
