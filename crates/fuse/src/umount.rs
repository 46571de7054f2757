//! `pvfs umount`: away from the tree, and the daemon done with all it had to tell the servers.

use crate::{
    UmountError,
    control::{Daemon, End},
    device::{Refused, Unmount, unmount},
    mountinfo::{self, FSTYPE},
};
use std::{path::Path, time::Duration};

/// How long to wait for the daemon's end after the unmount.
const DAEMON_WAIT: Duration = Duration::from_mins(1);

/// How long to look for who holds a busy mount.
const LOOK: Duration = Duration::from_secs(5);

/// What became of the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Umounted {
    /// Unmounted, the daemon done: nothing is lost.
    Done,
    /// Unmounted; the daemon had been gone before.
    DaemonWasGone,
    /// Out of the tree; the daemon goes on until the last user of the mount is done.
    Detached,
}

/// Unmounts `dir` and waits until its daemon is done. `lazy`: detaches it now, whoever uses it, and waits for nothing.
pub fn umount(dir: &Path, lazy: bool) -> Result<Umounted, UmountError> {
    let resolved = |source| UmountError::Dir { dir: dir.to_owned(), source };
    let path = mountinfo::resolve(dir).map_err(resolved)?;
    let mount = mountinfo::find_mount(&path)
        .map_err(resolved)?
        .ok_or_else(|| UmountError::NotMounted { dir: dir.to_owned() })?;
    if mount.fstype != FSTYPE {
        let (fstype, from) = (mount.fstype, mount.source);
        return Err(UmountError::NotPvfs { dir: path, fstype, from });
    }
    // Connected before the unmount: after it the daemon may be gone before we ask.
    let daemon = Daemon::find(&mount.device).ok().flatten();
    let how = if lazy { Unmount::Detach } else { Unmount::Idle };
    unmount(&path, how).map_err(|refused| explain(&path, refused))?;
    if lazy {
        return Ok(Umounted::Detached);
    }
    let Some(daemon) = daemon else { return Ok(Umounted::DaemonWasGone) };
    match daemon.wait(DAEMON_WAIT) {
        Ok(End::Gone) => Ok(Umounted::Done),
        Ok(End::StillThere) => Err(UmountError::DaemonLingers { dir: path, seconds: DAEMON_WAIT.as_secs() }),
        Err(source) => Err(UmountError::Kernel { dir: path, source }),
    }
}

fn explain(path: &Path, refused: Refused) -> UmountError {
    let dir = path.to_owned();
    match refused {
        Refused::Busy => UmountError::Busy { holders: mountinfo::holders(path, LOOK), dir },
        Refused::NotMounted => UmountError::NotMounted { dir },
        Refused::NotOurs => UmountError::NotOurs { dir },
        Refused::NoHelper => UmountError::NoHelper { dir },
        Refused::Said(said) => UmountError::Helper { dir, said },
        Refused::Error(source) => UmountError::Kernel { dir, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mounted_or_not_ours_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(umount(dir.path(), false), Err(UmountError::NotMounted { .. })));
        assert!(matches!(umount(&dir.path().join("x"), false), Err(UmountError::Dir { .. })));
        let error = umount(Path::new("/proc"), false).expect_err("not ours").to_string();
        assert!(error.contains("/proc is not a pvfs mount but proc"), "{error}");
    }
}
