//! What can go wrong around a mount: each says what, where and what to do.

use crate::OptionError;
use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("cannot mount on {}: {source}", dir.display())]
    Dir { dir: PathBuf, source: io::Error },
    #[error("cannot mount on {}: it is not a directory", dir.display())]
    NotADir { dir: PathBuf },
    #[error("{} is mounted already ({mounted}); `pvfs umount {}` ends that", dir.display(), dir.display())]
    Mounted { dir: PathBuf, mounted: String },
    #[error(
        "{} is a mount whose daemon is gone; `pvfs umount {}` clears it away", dir.display(), dir.display()
    )]
    DeadMount { dir: PathBuf },
    #[error(
        "/dev/fuse is missing: load the kernel's module (`modprobe fuse`), or give the container the device \
         (`--device /dev/fuse --cap-add SYS_ADMIN`)"
    )]
    NoDevice,
    #[error(
        "/dev/fuse is closed to this user: mount as root, or let root open it to all as usual (`chmod 666 /dev/fuse`)"
    )]
    DeviceClosed,
    #[error("cannot open /dev/fuse: {source}")]
    Device { source: io::Error },
    #[error(
        "only root can mount by itself, and `fusermount3` is not installed: install the package fuse3, or mount as root"
    )]
    NoHelper,
    #[error(
        "the option allow_other needs the line `user_allow_other` in /etc/fuse.conf (root writes it there), or root \
         to mount; without the option only you can enter the mount"
    )]
    AllowOther,
    #[error("fusermount3 did not mount {}: {said}", dir.display())]
    Helper { dir: PathBuf, said: String },
    #[error("the kernel did not mount {}: {source}", dir.display())]
    Kernel { dir: PathBuf, source: io::Error },
    #[error("the kernel's FUSE did not accept the session for {}: {source}", dir.display())]
    Handshake { dir: PathBuf, source: io::Error },
    #[error("the path `{path}` of the file system cannot be mounted: {source}")]
    Root { path: String, source: pvfs_types::Errno },
    #[error("the session of {} ended with an error: {source}", dir.display())]
    Session { dir: PathBuf, source: io::Error },
    #[error("cannot start the mount's daemon: {source}")]
    Start { source: io::Error },
    /// The daemon's own words.
    #[error("{said}")]
    Daemon { said: String },
    #[error("the mount's daemon died while it started; see its log")]
    DaemonDied,
}

#[derive(Debug, thiserror::Error)]
pub enum UmountError {
    #[error("{} is not a mount point", dir.display())]
    NotMounted { dir: PathBuf },
    #[error("{} is not a pvfs mount but {fstype} ({from})", dir.display())]
    NotPvfs { dir: PathBuf, fstype: String, from: String },
    #[error(
        "{} is busy{}; end them, or detach it with `pvfs umount --lazy {}`", dir.display(), held_by(holders),
        dir.display()
    )]
    Busy { dir: PathBuf, holders: Vec<String> },
    #[error("no right to unmount {}: it was mounted by another user", dir.display())]
    NotOurs { dir: PathBuf },
    #[error("cannot unmount {}: `fusermount3` is not installed (package fuse3)", dir.display())]
    NoHelper { dir: PathBuf },
    #[error("cannot unmount {}: {said}", dir.display())]
    Helper { dir: PathBuf, said: String },
    #[error("{} stays as it is: {why}", dir.display())]
    Remount { dir: PathBuf, why: OptionError },
    #[error("the kernel refused it for {}: {source}", dir.display())]
    Kernel { dir: PathBuf, source: io::Error },
    #[error("the daemon of {} is gone, or runs in another container", dir.display())]
    NoDaemon { dir: PathBuf },
    #[error("{} goes on as it was: {why}", dir.display())]
    Upgrade { dir: PathBuf, why: String },
    #[error("{} cannot be resolved: {source}", dir.display())]
    Dir { dir: PathBuf, source: io::Error },
    #[error(
        "{} is unmounted, but its daemon has not ended after {seconds} s: it waits for a server; `pvfs status` \
         shows for which", dir.display()
    )]
    DaemonLingers { dir: PathBuf, seconds: u64 },
}

fn held_by(holders: &[String]) -> String {
    if holders.is_empty() {
        " (by a process that /proc does not show to you)".to_owned()
    } else {
        format!(": used by {}", holders.join(", "))
    }
}
