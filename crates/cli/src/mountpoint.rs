//! Makes sure, before anything is started, that a mount can succeed: at this place, by this user.

use crate::out;
use std::{
    io,
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum MountPointError {
    #[error("cannot mount at {}: the directory {} does not exist: make it first", dir.display(), parent.display())]
    NoParent { dir: PathBuf, parent: PathBuf },
    #[error("cannot mount at {}: it is not a directory: name one", dir.display())]
    NotDir { dir: PathBuf },
    #[error("cannot mount at {}: the directory is not empty: name an empty one", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error("cannot mount at {}: {what} is mounted there: unmount it with `umount {}`, or name another directory", dir.display(), dir.display())]
    Mounted { dir: PathBuf, what: String },
    #[error("{}: {source}", dir.display())]
    Io { dir: PathBuf, source: io::Error },
    #[error(
        "{}: a dead mount is there and could not be taken away: {why}: try `umount -l {}` as root", dir.display(), dir.display()
    )]
    Dead { dir: PathBuf, why: String },
    #[error(
        "cannot mount here: {missing}\nTo go without a mount (for `pvfs put`, `get`, `ls` and the like): pvfs up --no-mount"
    )]
    Unable { missing: &'static str },
}

/// Checks `dir`, makes it if only it itself is missing, takes a dead mount away. Says what it did. Gives its absolute
/// path without symbolic links.
pub fn prepare(dir: &Path) -> Result<PathBuf, MountPointError> {
    check_able()?;
    let wrong = |source| MountPointError::Io { dir: dir.to_owned(), source };
    let dir = std::path::absolute(dir).map_err(wrong)?;
    let wrong = |source| MountPointError::Io { dir: dir.clone(), source };
    if clear_dead(&dir)? {
        out::tell(format_args!("Took away a dead mount at {}.", dir.display()));
    }
    match std::fs::metadata(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = dir.parent().unwrap_or(Path::new("/"));
            if !parent.is_dir() {
                return Err(MountPointError::NoParent { dir: dir.clone(), parent: parent.to_owned() });
            }
            std::fs::create_dir(&dir).map_err(wrong)?;
            out::tell(format_args!("Made the mount point {}.", dir.display()));
        }
        Err(source) => return Err(wrong(source)),
        Ok(meta) if !meta.is_dir() => return Err(MountPointError::NotDir { dir }),
        Ok(_) => {}
    }
    let dir = dir.canonicalize().map_err(wrong)?;
    if let Some(what) = mounted_at(&dir) {
        return Err(MountPointError::Mounted { dir, what });
    }
    match std::fs::read_dir(&dir).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(dir),
        Ok(true) => Err(MountPointError::NotEmpty { dir }),
        Err(source) => Err(MountPointError::Io { dir, source }),
    }
}

/// Takes away the mount at `dir` if its daemon is dead. False: there was none.
pub fn clear_dead(dir: &Path) -> Result<bool, MountPointError> {
    let dead = std::fs::metadata(dir).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN));
    if !dead {
        return Ok(false);
    }
    let Err(errno) = rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH) else {
        return Ok(true);
    };
    let helper = std::process::Command::new("fusermount3").args(["-u", "-z"]).arg(dir).output();
    match helper {
        Ok(out) if out.status.success() => Ok(true),
        Ok(out) => {
            let why = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            Err(MountPointError::Dead { dir: dir.to_owned(), why })
        }
        Err(_) => Err(MountPointError::Dead { dir: dir.to_owned(), why: errno.to_string() }),
    }
}

/// Whether this user can mount FUSE file systems at all.
fn check_able() -> Result<(), MountPointError> {
    if !Path::new("/dev/fuse").exists() {
        return Err(MountPointError::Unable {
            missing: "there is no /dev/fuse: load the kernel module (modprobe fuse), or, in a container, pass the device in (--device /dev/fuse --cap-add SYS_ADMIN)",
        });
    }
    if !rustix::process::geteuid().is_root() && !in_path("fusermount3") {
        return Err(MountPointError::Unable {
            missing: "this user is not root, and the program fusermount3 is not installed (Debian: apt install fuse3)",
        });
    }
    Ok(())
}

fn in_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// `SOURCE (TYPE)` of the mount at `dir`, from the kernel's list.
fn mounted_at(dir: &Path) -> Option<String> {
    let list = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let dir = dir.to_string_lossy();
    list.lines().rev().find_map(|line| {
        let mut fields = line.split(' ');
        let (source, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (at.replace("\\040", " ") == *dir).then(|| format!("{source} ({kind})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_where_nothing_can_be_mounted_are_refused_by_name() {
        if check_able().is_err() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| prepare(&dir.path().join(name)).map_err(|error| error.to_string());
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(at("file").unwrap_err().contains("not a directory"));
        assert!(at("no/where").unwrap_err().contains("does not exist: make it first"));
        assert!(at("").unwrap_err().contains("not empty"));
        assert!(at("new").is_ok() && dir.path().join("new").is_dir(), "only the last is missing: made");
        assert!(
            prepare(Path::new("/proc")).unwrap_err().to_string().contains("proc (proc) is mounted there")
        );
    }
}
