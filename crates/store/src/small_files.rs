//! A target's small files: read whole, written durably, locked.

use crate::{Identity, RecordError, StoreError, text::RECORD_BYTES_MAX};
use bytes::{Bytes, BytesMut};
use pvfs_env::disk::{Disk, DiskLock, RealDisk};
use pvfs_types::FsId;
use std::{io, path::Path};

pub(crate) const LOCK_FILE: &str = "lock";

/// Opens the directory of a target.
pub(crate) fn open_dir(dir: &Path) -> Result<RealDisk, StoreError> {
    RealDisk::open(dir).map_err(|source| {
        let dir = dir.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => StoreError::MissingDir { dir },
            io::ErrorKind::NotADirectory => StoreError::NotADir { dir },
            _ => cannot_write(&dir, "open the target directory", source),
        }
    })
}

/// The target's identity, which must be of the file system `fs`.
pub(crate) fn load_identity(disk: &dyn Disk, fs: FsId) -> Result<Identity, StoreError> {
    let dir = || disk.place().to_owned();
    let bytes = load(disk, Identity::FILE)?.ok_or_else(|| StoreError::NoIdentity { dir: dir() })?;
    let identity = Identity::decode(&bytes).map_err(|source| match source {
        RecordError::Version { found, known } => StoreError::FormatVersion { dir: dir(), found, known },
        source => StoreError::Damaged { dir: dir(), file: Identity::FILE, source },
    })?;
    if identity.fs != fs {
        return Err(StoreError::OtherFs { dir: dir(), found: identity.fs, wanted: fs });
    }
    Ok(identity)
}

/// The content of a small file, cut a little past the longest record; `None` where there is none.
pub(crate) fn load(disk: &dyn Disk, name: &'static str) -> Result<Option<Bytes>, StoreError> {
    let read = || {
        let file = disk.open(name)?;
        let mut bytes = BytesMut::new();
        file.read_at(&mut bytes, RECORD_BYTES_MAX + 1, 0)?;
        io::Result::Ok(bytes.freeze())
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(cannot_write(disk.place(), "open the target's records", source)),
    }
}

/// Puts `text` in the place of the file's content, durably: after a crash it is the old or the new one, whole.
pub(crate) fn store(disk: &dyn Disk, name: &'static str, text: &str) -> Result<(), StoreError> {
    let write = || {
        let new = format!("{name}.new");
        let file = disk.create(&new)?;
        file.truncate(0)?;
        file.write_at(text.as_bytes(), 0)?;
        file.sync()?;
        disk.rename(&new, name)?;
        disk.sync_dir("")
    };
    write().map_err(|source| cannot_write(disk.place(), "write the target's records", source))
}

/// Takes the lock that keeps a second process off the target.
pub(crate) fn take_lock(disk: &dyn Disk) -> Result<Box<dyn DiskLock>, StoreError> {
    disk.lock(LOCK_FILE).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => StoreError::InUse { dir: disk.place().to_owned() },
        _ => cannot_write(disk.place(), "lock the target", source),
    })
}

fn cannot_write(dir: &Path, what: &'static str, source: io::Error) -> StoreError {
    let dir = dir.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::NotWritable { dir, source }
        }
        _ => StoreError::Io { dir, what, source },
    }
}
