//! A PVFS directory through the client core: no kernel between, ranks are tasks.

use crate::{Place, ReadBack, Runs, Writer};
use bytes::Bytes;
use pvfs_client::{Access, Client, ClientError, CreateOptions, File, OpenOptions};
use pvfs_types::{Cred, Ino, Level, LogicalOffset, Name, Pattern};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::oneshot;

#[derive(Clone)]
pub struct Native {
    shared: Arc<Shared>,
}

struct Shared {
    client: Arc<Client>,
    cred: Cred,
    dir: Ino,
    /// Directories made here, so that a call on a name in them costs one message.
    made: Mutex<HashMap<String, Ino>>,
}

impl Native {
    /// Below directory `dir`, as `cred`.
    pub fn new(client: Arc<Client>, cred: Cred, dir: Ino) -> Native {
        Native { shared: Arc::new(Shared { client, cred, dir, made: Mutex::default() }) }
    }

    /// The directory that `name` lies in, and its last part.
    fn parent(&self, name: &str) -> io::Result<(Ino, Name)> {
        let (dir, last) = match name.rsplit_once('/') {
            None => (self.shared.dir, name),
            Some((dir, last)) => {
                let made = self.shared.made.lock().unwrap_or_else(PoisonError::into_inner);
                (*made.get(dir).ok_or(io::ErrorKind::NotFound)?, last)
            }
        };
        Ok((dir, Name::new(last).map_err(io::Error::other)?))
    }

    async fn create_file(&self, name: &str, access: Access, exclusive: bool) -> io::Result<File> {
        let (dir, name) = self.parent(name)?;
        let options = CreateOptions { access, exclusive, truncate: false, ..CreateOptions::default() };
        let made = self.shared.client.create(&self.shared.cred, dir, &name, options).await;
        Ok(made.map_err(failed)?.file)
    }
}

/// Keeps what the client says, and the kind that callers look at.
fn failed(error: ClientError) -> io::Error {
    let kind = io::Error::from_raw_os_error(error.errno().number()).kind();
    io::Error::new(kind, error)
}

fn pattern(runs: Runs) -> Pattern {
    let levels = vec![Level { count: runs.count, stride: runs.stride }];
    Pattern { start: LogicalOffset(runs.start), len: runs.len, levels }
}

impl Place for Native {
    type File = File;

    fn name(&self) -> &'static str {
        "native"
    }

    fn spawn<T: Send + 'static>(
        &self,
        rank: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (send, receive) = oneshot::channel();
        tokio::spawn(async move {
            let _ = send.send(rank.await);
        });
        receive
    }

    async fn open_writing(&self, name: &str, writer: Writer) -> io::Result<File> {
        let access = match writer {
            Writer::Only => Access::WRITE,
            Writer::ReadsToo => Access::READ_WRITE,
        };
        self.create_file(name, access, false).await
    }

    async fn write(&self, file: &File, runs: Runs, data: &Bytes) -> io::Result<()> {
        let data = data.clone();
        let written = if runs.count == 1 {
            file.write_at(runs.start, data).await
        } else {
            file.write_strided(&pattern(runs), data).await
        };
        written.map_err(failed)
    }

    async fn read<'a>(&'a self, file: &'a File, runs: Runs, _: &'a mut Vec<u8>) -> io::Result<ReadBack<'a>> {
        let read = if runs.count == 1 {
            file.read_at(runs.start, runs.len).await
        } else {
            file.read_strided(&pattern(runs)).await
        };
        Ok(ReadBack::Own(read.map_err(failed)?))
    }

    async fn sync(&self, file: &File) -> io::Result<()> {
        file.sync().await.map_err(failed)
    }

    fn forget(&self, _: &File) -> io::Result<()> {
        Ok(()) // The client core keeps no bytes.
    }

    async fn close(&self, file: File) -> io::Result<()> {
        file.close().await.map_err(failed)
    }

    async fn open_reading(&self, name: &str) -> io::Result<File> {
        let (dir, name) = self.parent(name)?;
        let Shared { client, cred, .. } = &*self.shared;
        let attr = client.lookup(cred, dir, &name).await.map_err(failed)?;
        client.open(cred, attr.ino, OpenOptions::READ).await.map_err(failed)
    }

    async fn open_direct(&self, name: &str) -> io::Result<File> {
        self.open_reading(name).await
    }

    /// As through a mount: opened for writing, written, and closed.
    async fn create(&self, name: &str, content: &Bytes) -> io::Result<()> {
        let file = self.create_file(name, Access::WRITE, true).await?;
        if !content.is_empty() {
            file.write_at(0, content.clone()).await.map_err(failed)?;
        }
        file.close().await.map_err(failed)
    }

    async fn stat(&self, name: &str) -> io::Result<()> {
        let (dir, name) = self.parent(name)?;
        self.shared.client.lookup(&self.shared.cred, dir, &name).await.map(drop).map_err(failed)
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        let (dir, name) = self.parent(name)?;
        self.shared.client.unlink(&self.shared.cred, dir, &name).await.map_err(failed)
    }

    async fn mkdir(&self, name: &str) -> io::Result<()> {
        let (dir, last) = self.parent(name)?;
        let made = self.shared.client.mkdir(&self.shared.cred, dir, &last, 0o755).await.map_err(failed)?;
        let mut known = self.shared.made.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.to_owned(), made.ino);
        Ok(())
    }

    async fn rmdir(&self, name: &str) -> io::Result<()> {
        let (dir, last) = self.parent(name)?;
        self.shared.client.rmdir(&self.shared.cred, dir, &last).await.map_err(failed)
    }
}
