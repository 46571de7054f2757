//! `pvfs mount --upgrade DIR`: the mount goes on with another program, under running applications.

use crate::{UmountError, control::Daemon, mountinfo, mountinfo::FSTYPE};
use std::path::Path;

/// Has the mount on `dir` go on with the program in the file `program`.
pub fn upgrade(dir: &Path, program: &Path) -> Result<(), UmountError> {
    let resolved = |source| UmountError::Dir { dir: dir.to_owned(), source };
    let path = mountinfo::resolve(dir).map_err(resolved)?;
    let mount = mountinfo::find_mount(&path)
        .map_err(resolved)?
        .ok_or_else(|| UmountError::NotMounted { dir: dir.to_owned() })?;
    if mount.fstype != FSTYPE {
        return Err(UmountError::NotPvfs { dir: path, fstype: mount.fstype, from: mount.source });
    }
    let daemon = Daemon::find(&mount.device).map_err(resolved)?;
    let daemon = daemon.ok_or_else(|| UmountError::NoDaemon { dir: path.clone() })?;
    daemon.upgrade(program).map_err(resolved)?.map_err(|why| UmountError::Upgrade { dir: path, why })
}
