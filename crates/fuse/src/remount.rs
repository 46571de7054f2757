//! `pvfs mount -o remount,…  DIR`: other flags for a mount that is there. Its daemon need not know: the kernel keeps them.

use crate::{MountOptions, UmountError, device, mountinfo, mountinfo::FSTYPE};
use std::path::Path;

/// Gives the mount on `dir` the flags that `options` says, a list as of `mount -o`; the others stay as they are.
///
/// # Errors
/// `dir` is no PVFS mount; somebody has a file open for writing that is to be read only; the caller is not root.
pub fn remount(dir: &Path, options: &str) -> Result<(), UmountError> {
    let resolved = |source| UmountError::Dir { dir: dir.to_owned(), source };
    let path = mountinfo::resolve(dir).map_err(resolved)?;
    let mount = mountinfo::find_mount(&path)
        .map_err(resolved)?
        .ok_or_else(|| UmountError::NotMounted { dir: dir.to_owned() })?;
    if mount.fstype != FSTYPE {
        return Err(UmountError::NotPvfs { dir: path, fstype: mount.fstype, from: mount.source });
    }
    let all = MountOptions::parse(&format!("{},remount,{options}", mount.options))
        .map_err(|why| UmountError::Remount { dir: path.clone(), why })?;
    device::remount(&path, &all).map_err(|source| UmountError::Kernel { dir: path, source })
}
