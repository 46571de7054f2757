//! Making a target of an empty directory.

use crate::{
    Identity, State, StoreError,
    objects::OBJECTS_DIR,
    small_files::{self, LOCK_FILE, load_identity, open_dir, take_lock},
};
use pvfs_env::disk::Disk;
use pvfs_types::{FsId, TargetUuid};
use std::{io, path::Path};

/// What may be in a directory that is to be formatted: what an interrupted format leaves, and what mkfs makes.
const LEFTOVERS: [&str; 6] = [LOCK_FILE, State::FILE, "state.new", "identity.new", OBJECTS_DIR, "lost+found"];

/// The store generation of a target that never lost anything.
pub(crate) const FIRST_GENERATION: u64 = 1;

/// Makes `dir` a target of the file system `fs`, durably; makes the directory where it is missing. A directory that is
/// a target of `fs` already stays as it is.
///
/// # Errors
/// A directory with anything else in it, or a target of another file system, is refused and left alone.
pub fn format_target(dir: &Path, fs: FsId) -> Result<TargetUuid, StoreError> {
    make_dirs(dir).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            StoreError::NotADir { dir: dir.to_owned() }
        }
        _ => StoreError::Io { dir: dir.to_owned(), what: "make the target directory", source },
    })?;
    format_disk(&open_dir(dir)?, fs)
}

/// As [`format_target`], on a directory that is there.
pub fn format_disk(disk: &impl Disk, fs: FsId) -> Result<TargetUuid, StoreError> {
    if let Some(target) = formatted(disk, fs)? {
        return Ok(target);
    }
    check_empty(disk)?;
    let _lock = take_lock(disk)?;
    if let Some(target) = formatted(disk, fs)? {
        return Ok(target);
    }
    let io = |what| move |source| StoreError::Io { dir: disk.place().to_owned(), what, source };
    disk.make_dir(OBJECTS_DIR).map_err(io("make the objects' directory"))?;
    let boot = disk.boot().map_err(io("read the machine's boot id"))?;
    let state = State { generation: FIRST_GENERATION, boot, clean: true, run: 0 };
    small_files::store(disk, State::FILE, &state.encode())?;
    // Last: a directory with an identity is a whole target.
    let identity = Identity { fs, target: TargetUuid::from_random(pvfs_env::random::bytes()) };
    small_files::store(disk, Identity::FILE, &identity.encode())?;
    Ok(identity.target)
}

fn formatted(disk: &impl Disk, fs: FsId) -> Result<Option<TargetUuid>, StoreError> {
    match load_identity(disk, fs) {
        Ok(identity) => Ok(Some(identity.target)),
        Err(StoreError::NoIdentity { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

fn check_empty(disk: &impl Disk) -> Result<(), StoreError> {
    let dir = disk.place().to_owned();
    let list = |name| {
        disk.list(name).map_err(|source| StoreError::Io {
            dir: dir.clone(),
            what: "list the directory",
            source,
        })
    };
    let names = list("")?;
    if let Some(found) = names.iter().find(|name| !LEFTOVERS.contains(&name.as_str())) {
        return Err(StoreError::NotEmpty { dir, found: found.clone() });
    }
    if names.iter().any(|name| name == OBJECTS_DIR) && !list(OBJECTS_DIR)?.is_empty() {
        return Err(StoreError::NotEmpty { dir, found: OBJECTS_DIR.to_owned() });
    }
    Ok(())
}

/// Makes `dir` and what is missing above it, durably.
fn make_dirs(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
    std::fs::create_dir_all(dir)?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}
