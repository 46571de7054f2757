//! A directory of this machine through the kernel: a mount of PVFS, or a local one to hold it against.
//!
//! Its futures never wait: each rank is a thread that blocks in system calls, as an application's would.

use crate::{Place, ReadBack, Runs, Writer};
use bytes::Bytes;
use rustix::fs::Advice;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::oneshot;

/// What reads past the kernel's cache want of their buffer.
const DIRECT_ALIGN_BYTES: usize = 4096;

#[derive(Clone, Debug)]
pub struct Local {
    dir: Arc<PathBuf>,
    name: &'static str,
}

impl Local {
    /// `name` stands in the report's column `where`.
    pub fn new(dir: impl Into<PathBuf>, name: &'static str) -> Local {
        Local { dir: Arc::new(dir.into()), name }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(Path::new(name))
    }
}

impl Place for Local {
    type File = File;

    fn name(&self) -> &'static str {
        self.name
    }

    fn spawn<T: Send + 'static>(
        &self,
        rank: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (send, receive) = oneshot::channel();
        std::thread::spawn(move || {
            // Without a runtime the rank is lost, and its receiver says so.
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() {
                let _ = send.send(runtime.block_on(rank));
            }
        });
        receive
    }

    async fn open_writing(&self, name: &str, writer: Writer) -> io::Result<File> {
        let reads = writer == Writer::ReadsToo;
        OpenOptions::new().read(reads).write(true).create(true).truncate(false).open(self.path(name))
    }

    async fn write(&self, file: &File, runs: Runs, data: &Bytes) -> io::Result<()> {
        runs.slices(data).try_for_each(|(offset, run)| file.write_all_at(run, offset))
    }

    async fn read<'a>(
        &'a self,
        file: &'a File,
        runs: Runs,
        scratch: &'a mut Vec<u8>,
    ) -> io::Result<ReadBack<'a>> {
        let len = usize::try_from(runs.bytes()).unwrap_or(usize::MAX);
        scratch.resize(len.saturating_add(DIRECT_ALIGN_BYTES), 0);
        let aligned = scratch.as_ptr().align_offset(DIRECT_ALIGN_BYTES).min(DIRECT_ALIGN_BYTES);
        let scratch = &mut scratch[aligned..][..len];
        let mut read = 0;
        for (offset, run) in runs.slices_mut(scratch) {
            let got = read_full(file, run, offset)?;
            read += got;
            if got < run.len() {
                break;
            }
        }
        Ok(ReadBack::Scratch(&scratch[..read]))
    }

    async fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn forget(&self, file: &File) -> io::Result<()> {
        rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?;
        Ok(())
    }

    async fn close(&self, file: File) -> io::Result<()> {
        // The errors of close(2) are those of writes: std offers no other way to see them than a sync.
        drop(file);
        Ok(())
    }

    async fn open_reading(&self, name: &str) -> io::Result<File> {
        File::open(self.path(name))
    }

    async fn open_direct(&self, name: &str) -> io::Result<File> {
        let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or_default();
        match OpenOptions::new().read(true).custom_flags(direct).open(self.path(name)) {
            // A file system without it.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => File::open(self.path(name)),
            opened => opened,
        }
    }

    async fn create(&self, name: &str, content: &Bytes) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).open(self.path(name))?;
        if content.is_empty() { Ok(()) } else { file.write_all_at(content, 0) }
    }

    async fn stat(&self, name: &str) -> io::Result<()> {
        std::fs::symlink_metadata(self.path(name)).map(drop)
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    async fn mkdir(&self, name: &str) -> io::Result<()> {
        std::fs::create_dir(self.path(name))
    }

    async fn rmdir(&self, name: &str) -> io::Result<()> {
        std::fs::remove_dir(self.path(name))
    }
}

/// Fills `run` from `offset` on, up to the file's end; how many bytes there were.
fn read_full(file: &File, run: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < run.len() {
        match file.read_at(&mut run[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(bytes) => done += bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
