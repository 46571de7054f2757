//! The two sides of a copy behind the same few operations: this machine's files and PVFS.

use crate::{error::CliError, remote::Remote, spec::os};
use bytes::Bytes;
use pvfs_client::{File as PvfsFile, OpenOptions};
use pvfs_types::{FileKind, LayoutHint, NewMode, SetAttr, SetTime, Timestamp};
use rustix::fs::{SeekFrom, Timespec, Timestamps};
use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
    sync::Arc,
};

/// One side.
#[derive(Clone)]
pub enum Tree {
    Local,
    Pvfs(Remote),
}

/// Which inode, on its side: (device, number).
pub type InodeId = (u64, u64);

/// What a copy keeps of a file, and what it needs to know of it.
#[derive(Clone, Debug)]
pub struct Facts {
    pub kind: FileKind,
    pub size: u64,
    mode: u32,
    atime: Timestamp,
    mtime: Timestamp,
    pub id: InodeId,
}

pub enum Reader {
    Local { file: Arc<File>, path: PathBuf },
    Pvfs { file: Arc<PvfsFile>, path: String },
}

pub enum Writer {
    Local { file: Arc<File>, path: PathBuf },
    Pvfs { file: Arc<PvfsFile>, path: String },
}

impl Tree {
    /// Whether inode ids of the two sides can be held against each other.
    pub fn same_file_system(&self, other: &Tree) -> bool {
        matches!((self, other), (Tree::Pvfs(_), Tree::Pvfs(_)))
    }

    pub async fn facts(&self, path: &[u8], follow: bool) -> Result<Facts, CliError> {
        match self {
            Tree::Local => {
                let at = PathBuf::from(os(path));
                let meta = if follow { fs::metadata(&at) } else { fs::symlink_metadata(&at) };
                Ok(local_facts(&meta.map_err(CliError::local(at))?))
            }
            Tree::Pvfs(remote) => {
                let attr = remote.attr(path, follow).await.map_err(CliError::remote(shown(path)))?;
                Ok(Facts {
                    kind: attr.kind,
                    size: attr.size,
                    mode: attr.mode,
                    atime: attr.atime,
                    mtime: attr.mtime,
                    id: (0, attr.ino.0),
                })
            }
        }
    }

    /// The names in a directory.
    pub async fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, CliError> {
        use std::os::unix::ffi::OsStringExt as _;
        match self {
            Tree::Local => {
                let at = PathBuf::from(os(path));
                let entries = fs::read_dir(&at).map_err(CliError::local(&at))?;
                let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_vec());
                entries.map(name).collect::<io::Result<_>>().map_err(CliError::local(at))
            }
            Tree::Pvfs(remote) => {
                let wrong = CliError::remote(shown(path));
                let names = async {
                    let dir = remote.attr(path, true).await?;
                    remote.client.readdir_all(&remote.cred, dir.ino, false).await
                };
                Ok(names
                    .await
                    .map_err(wrong)?
                    .into_iter()
                    .map(|item| item.name.as_bytes().to_vec())
                    .collect())
            }
        }
    }

    /// Makes the directory, or finds one there. Gives which it is. It can be written until [`Tree::keep_facts`].
    pub async fn make_dir(&self, path: &[u8]) -> Result<InodeId, CliError> {
        match self {
            Tree::Local => {
                let at = PathBuf::from(os(path));
                match fs::create_dir(&at) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(CliError::local(at)(error));
                    }
                    _ => {}
                }
            }
            Tree::Pvfs(remote) => {
                let made = async {
                    let (dir, name) = remote.parent(path).await?;
                    let NewMode { mode, unmasked } = remote.new_mode(0o777);
                    let mode = NewMode { mode: mode | 0o700, unmasked };
                    remote.client.mkdir(&remote.cred, dir, &name, mode).await
                };
                match made.await {
                    // The root has no parent to be made in: whatever the error, it counts only if nothing is there.
                    Err(error) if remote.find(path, true).await.ok().flatten().is_none() => {
                        return Err(CliError::remote(shown(path))(error));
                    }
                    _ => {}
                }
            }
        }
        let facts = self.facts(path, true).await?;
        if facts.kind == FileKind::Dir {
            Ok(facts.id)
        } else {
            Err(CliError::NotADir { path: os(path).into() })
        }
    }

    pub async fn link_target(&self, path: &[u8]) -> Result<Vec<u8>, CliError> {
        use std::os::unix::ffi::OsStringExt as _;
        match self {
            Tree::Local => {
                let at = PathBuf::from(os(path));
                Ok(fs::read_link(&at).map_err(CliError::local(at))?.into_os_string().into_vec())
            }
            Tree::Pvfs(remote) => {
                let target = async {
                    let link = remote.attr(path, false).await?;
                    remote.client.readlink(&remote.cred, link.ino).await
                };
                target.await.map_err(CliError::remote(shown(path)))
            }
        }
    }

    /// Makes a symbolic link in place of what is there, unless that is a directory.
    pub async fn make_link(&self, path: &[u8], target: &[u8]) -> Result<(), CliError> {
        match self {
            Tree::Local => {
                let at = PathBuf::from(os(path));
                fs::remove_file(&at).ok();
                std::os::unix::fs::symlink(os(target), &at).map_err(CliError::local(at))
            }
            Tree::Pvfs(remote) => {
                let made = async {
                    let (dir, name) = remote.parent(path).await?;
                    remote.client.unlink(&remote.cred, dir, &name).await.ok();
                    remote.client.symlink(&remote.cred, dir, &name, target).await
                };
                made.await.map(drop).map_err(CliError::remote(shown(path)))
            }
        }
    }

    pub async fn open(&self, path: &[u8]) -> Result<Reader, CliError> {
        match self {
            Tree::Local => {
                let path = PathBuf::from(os(path));
                let file = File::open(&path).map_err(CliError::local(&path))?;
                Ok(Reader::Local { file: Arc::new(file), path })
            }
            Tree::Pvfs(remote) => {
                let opened = remote.client.open_path(&remote.cred, path, OpenOptions::READ).await;
                let file = opened.map_err(CliError::remote(shown(path)))?;
                Ok(Reader::Pvfs { file: Arc::new(file), path: shown(path) })
            }
        }
    }

    /// Makes the file, or empties the one there; tells whether it is new. Until [`Tree::keep_facts`] only its owner
    /// can read it.
    pub async fn create(&self, path: &[u8], layout: LayoutHint) -> Result<(Writer, bool), CliError> {
        match self {
            Tree::Local => {
                use std::os::unix::fs::OpenOptionsExt as _;
                let path = PathBuf::from(os(path));
                let mut options = File::options();
                options.write(true).create(true).truncate(true).mode(0o600);
                let file = options.open(&path).map_err(CliError::local(&path))?;
                Ok((Writer::Local { file: Arc::new(file), path }, true))
            }
            Tree::Pvfs(remote) => {
                let created = remote.create(path, 0o600, layout).await;
                let (file, made) = created.map_err(CliError::remote(shown(path)))?;
                let file = Arc::new(file);
                Ok((Writer::Pvfs { file, path: shown(path) }, made))
            }
        }
    }

    /// Gives `path` the mode and times of `facts`.
    pub async fn keep_facts(&self, path: &[u8], facts: &Facts) -> Result<(), CliError> {
        match self {
            Tree::Local => {
                let at = PathBuf::from(os(path));
                let time = |time: Timestamp| Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() };
                let times =
                    Timestamps { last_access: time(facts.atime), last_modification: time(facts.mtime) };
                rustix::fs::utimensat(rustix::fs::CWD, &at, &times, rustix::fs::AtFlags::empty())
                    .map_err(|errno| CliError::local(&at)(errno.into()))?;
                fs::set_permissions(&at, fs::Permissions::from_mode(facts.mode)).map_err(CliError::local(at))
            }
            Tree::Pvfs(remote) => {
                let changes = SetAttr {
                    mode: Some(facts.mode),
                    atime: Some(SetTime::At(facts.atime)),
                    mtime: Some(SetTime::At(facts.mtime)),
                    ..SetAttr::default()
                };
                let kept = async {
                    let attr = remote.attr(path, true).await?;
                    remote.client.setattr(&remote.cred, attr.ino, changes, None).await
                };
                kept.await.map(drop).map_err(CliError::remote(shown(path)))
            }
        }
    }
}

impl Reader {
    /// Up to `len` bytes from `at`; fewer only at the end.
    pub async fn read(&self, at: u64, len: u64) -> Result<Bytes, CliError> {
        match self {
            Reader::Local { file, path } => {
                let file = Arc::clone(file);
                let read = blocking(move || read_full(&file, at, len)).await;
                read.map_err(CliError::local(path))
            }
            Reader::Pvfs { file, path } => file.read_at(at, len).await.map_err(CliError::remote(path)),
        }
    }

    /// Where the next bytes at or after `at` are that are not a hole; `size` where there are none.
    pub async fn next_data(&self, at: u64, size: u64) -> Result<u64, CliError> {
        let Reader::Local { file, .. } = self else { return Ok(at) };
        let file = Arc::clone(file);
        let found = blocking(move || Ok(rustix::fs::seek(&*file, SeekFrom::Data(at))?)).await;
        Ok(match found {
            Ok(data) => data.clamp(at, size),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => size,
            Err(_) => at, // a file that knows no holes
        })
    }
}

impl Writer {
    pub async fn write(&self, at: u64, bytes: Bytes) -> Result<(), CliError> {
        match self {
            Writer::Local { file, path } => {
                let file = Arc::clone(file);
                let written = blocking(move || file.write_all_at(&bytes, at)).await;
                written.map_err(CliError::local(path))
            }
            Writer::Pvfs { file, path } => file.write_at(at, bytes).await.map_err(CliError::remote(path)),
        }
    }

    /// Makes the file `end` bytes long (its last bytes may be a hole) and closes it.
    pub async fn finish(&self, end: u64) -> Result<(), CliError> {
        match self {
            Writer::Local { file, path } => {
                let file = Arc::clone(file);
                let grown =
                    blocking(move || if file.metadata()?.len() < end { file.set_len(end) } else { Ok(()) });
                grown.await.map_err(CliError::local(path))
            }
            Writer::Pvfs { file, path } => {
                let finish = async {
                    file.flush().await?;
                    if file.attr().await?.size < end {
                        file.truncate(end).await?;
                    }
                    file.close().await
                };
                finish.await.map_err(CliError::remote(path))
            }
        }
    }
}

fn local_facts(meta: &Metadata) -> Facts {
    let kind = meta.file_type();
    let kind = if kind.is_file() {
        FileKind::File
    } else if kind.is_dir() {
        FileKind::Dir
    } else if kind.is_symlink() {
        FileKind::Symlink
    } else if kind.is_fifo() {
        FileKind::Fifo
    } else if kind.is_socket() {
        FileKind::Socket
    } else if kind.is_char_device() {
        FileKind::CharDev
    } else {
        FileKind::BlockDev
    };
    let time = |secs, nanos| Timestamp { secs, nanos: u32::try_from(nanos).unwrap_or(0) };
    Facts {
        kind,
        size: meta.len(),
        mode: meta.mode() & 0o7777,
        atime: time(meta.atime(), meta.atime_nsec()),
        mtime: time(meta.mtime(), meta.mtime_nsec()),
        id: (meta.dev(), meta.ino()),
    }
}

fn read_full(file: &File, at: u64, len: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    let mut got = 0;
    while got < bytes.len() {
        match file.read_at(&mut bytes[got..], at + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(got);
    Ok(bytes.into())
}

/// Local disks block: their calls run beside the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn shown(path: &[u8]) -> String {
    os(path).to_string_lossy().into_owned()
}
