//! Getting a connected `/dev/fuse` descriptor: by mount(2) as root, else through `fusermount3`.

use crate::{MountError, MountOptions, mountinfo, mountinfo::FSTYPE};
use rustix::{
    mount::{MountFlags, UnmountFlags},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags},
};
use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The setuid program of the package fuse3.
pub const HELPER: &str = "fusermount3";

/// Checks that `dir` can be mounted on, and gives its absolute path.
pub fn check_dir(dir: &Path) -> Result<PathBuf, MountError> {
    let wrong = |source: io::Error| {
        if source.raw_os_error() == Some(libc::ENOTCONN) {
            MountError::DeadMount { dir: dir.to_owned() }
        } else {
            MountError::Dir { dir: dir.to_owned(), source }
        }
    };
    if !fs::metadata(dir).map_err(wrong)?.is_dir() {
        return Err(MountError::NotADir { dir: dir.to_owned() });
    }
    let dir = dir.canonicalize().map_err(wrong)?;
    match mountinfo::find_mount(&dir).map_err(wrong)? {
        Some(mount) if mount.fstype == FSTYPE => Err(MountError::Mounted { dir, mounted: mount.source }),
        _ => Ok(dir),
    }
}

/// Mounts `source` on `dir` (from [`check_dir`]) and gives the descriptor to serve it by.
pub fn mount(source: &str, dir: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    if rustix::process::geteuid().is_root() {
        match mount_directly(source, dir, options) {
            // A root without CAP_SYS_ADMIN, in a container.
            Err(MountError::Kernel { source: e, .. }) if e.raw_os_error() == Some(libc::EPERM) => {}
            done => return done,
        }
    }
    mount_by_helper(source, dir, options)
}

fn mount_directly(source: &str, dir: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device = open_device()?;
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,allow_other",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let kernel = |source| MountError::Kernel { dir: dir.to_owned(), source };
    let data = CString::new(data).map_err(|e| kernel(e.into()))?;
    rustix::mount::mount(source, dir, FSTYPE, kernel_flags(options), data.as_c_str())
        .map_err(|errno| kernel(errno.into()))?;
    Ok(device)
}

fn open_device() -> Result<OwnedFd, MountError> {
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    opened.map(OwnedFd::from).map_err(|source| match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => MountError::NoDevice,
        _ => MountError::Device { source },
    })
}

fn kernel_flags(options: &MountOptions) -> MountFlags {
    let mut flags = MountFlags::empty();
    for (wanted, flag) in [
        (options.read_only, MountFlags::RDONLY),
        (!options.suid, MountFlags::NOSUID),
        (!options.dev, MountFlags::NODEV),
        (!options.exec, MountFlags::NOEXEC),
        (!options.atime, MountFlags::NOATIME),
        (options.sync, MountFlags::SYNCHRONOUS),
        (options.dirsync, MountFlags::DIRSYNC),
    ] {
        if wanted {
            flags |= flag;
        }
    }
    flags
}

/// Gives the mount at `dir` (an absolute path without links) the flags of `options`.
pub fn remount(dir: &Path, options: &MountOptions) -> io::Result<()> {
    // Without a flag about atime the kernel leaves that as it is.
    let atime = if options.atime { MountFlags::RELATIME } else { MountFlags::NOATIME };
    Ok(rustix::mount::mount_remount(dir, kernel_flags(options) | atime, c"")?)
}

fn mount_by_helper(source: &str, dir: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    if !Path::new("/dev/fuse").exists() {
        return Err(MountError::NoDevice);
    }
    let start = |source| MountError::Start { source };
    let (ours, theirs) = UnixStream::pair().map_err(start)?;
    // The helper sends the descriptor over the socket whose number it is told; it inherits it as its standard input.
    let child = Command::new(HELPER)
        .arg("-o")
        .arg(helper_options(source, options))
        .arg("--")
        .arg(dir)
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| if e.kind() == io::ErrorKind::NotFound { MountError::NoHelper } else { start(e) })?;
    let device = receive_device(&ours);
    let output = child.wait_with_output().map_err(start)?;
    device.ok_or_else(|| helper_failed(dir, options, &String::from_utf8_lossy(&output.stderr)))
}

fn helper_options(source: &str, options: &MountOptions) -> String {
    let source = source.replace('\\', "\\\\").replace(',', "\\,");
    let mut text = format!("fsname={source},subtype=pvfs,default_permissions");
    for (wanted, option) in [
        (options.allow_other, "allow_other"),
        (options.read_only, "ro"),
        (!options.exec, "noexec"),
        (!options.atime, "noatime"),
        (options.sync, "sync"),
        (options.dirsync, "dirsync"),
    ] {
        if wanted {
            text.push(',');
            text.push_str(option);
        }
    }
    text
}

/// `None`: the helper closed the socket without sending one.
fn receive_device(socket: &UnixStream) -> Option<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    let mut bufs = [io::IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut bufs, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })
    .ok()?;
    ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

fn helper_failed(dir: &Path, options: &MountOptions, said: &str) -> MountError {
    if options.allow_other && said.contains("user_allow_other") {
        return MountError::AllowOther;
    }
    if said.contains("fuse device not found") {
        return MountError::NoDevice;
    }
    if said.contains("open /dev/fuse") && said.contains("ermission denied") {
        return MountError::DeviceClosed;
    }
    let said = said.trim().replace("fusermount3: ", "");
    let said = if said.is_empty() { "it ended without a word".to_owned() } else { said };
    MountError::Helper { dir: dir.to_owned(), said }
}

/// How thoroughly to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Only if nobody uses it.
    Idle,
    /// Away from the tree now; the session goes on until the last user is done.
    Detach,
    /// Away now, and the session too: whoever still uses it gets ENOTCONN.
    Abort,
}

/// Why an unmount did not happen.
#[derive(Debug)]
pub enum Refused {
    Busy,
    NotMounted,
    NotOurs,
    NoHelper,
    Said(String),
    Error(io::Error),
}

/// Unmounts `dir`. May wait for the mount's daemon, so it must not run on a thread that the daemon needs.
pub fn unmount(dir: &Path, how: Unmount) -> Result<(), Refused> {
    let flags = UnmountFlags::NOFOLLOW
        | match how {
            Unmount::Idle => UnmountFlags::empty(),
            Unmount::Detach => UnmountFlags::DETACH,
            Unmount::Abort => UnmountFlags::DETACH | UnmountFlags::FORCE,
        };
    match rustix::mount::unmount(dir, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM) => unmount_by_helper(dir, how),
        Err(rustix::io::Errno::BUSY) => Err(Refused::Busy),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Err(Refused::NotMounted),
        Err(errno) => Err(Refused::Error(errno.into())),
    }
}

fn unmount_by_helper(dir: &Path, how: Unmount) -> Result<(), Refused> {
    let mut command = Command::new(HELPER);
    command.arg("-u");
    if how != Unmount::Idle {
        command.arg("-z");
    }
    let output = command.arg("--").arg(dir).stdin(Stdio::null()).output().map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound { Refused::NoHelper } else { Refused::Error(e) }
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace("fusermount3: ", "");
    Err(if said.contains("busy") {
        Refused::Busy
    } else if said.contains("not found in /etc/mtab") || said.contains("not mounted") {
        Refused::NotMounted
    } else if said.contains("permitted") || said.contains("permission") {
        Refused::NotOurs
    } else {
        Refused::Said(said)
    })
}

/// Lets the kernel read ahead this much on the mount with that device number (`major:minor`). Root only; without it
/// the kernel's default stays, which only costs speed.
pub fn set_read_ahead(device: &str, kib: u32) -> io::Result<()> {
    fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), kib.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_mounted_on_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().expect("a directory");
        let missing = check_dir(&dir.path().join("missing")).expect_err("is not there");
        assert!(missing.to_string().contains("No such file"), "{missing}");
        let file = dir.path().join("file");
        fs::write(&file, b"").expect("written");
        assert!(check_dir(&file).expect_err("is a file").to_string().contains("not a directory"));
        assert!(check_dir(dir.path()).expect("is one").is_absolute());
    }

    #[test]
    fn the_helper_is_told_all_options_and_commas_are_escaped() {
        let mut options = MountOptions::parse("ro,noexec,noatime,allow_other").expect("options");
        assert_eq!(
            helper_options("pvfs://a:1,b:2/x", &options),
            "fsname=pvfs://a:1\\,b:2/x,subtype=pvfs,default_permissions,allow_other,ro,noexec,noatime"
        );
        options = MountOptions::default();
        assert_eq!(helper_options("s", &options), "fsname=s,subtype=pvfs,default_permissions");
    }

    #[test]
    fn the_helpers_refusal_says_what_to_do() {
        let options = MountOptions::parse("allow_other").expect("options");
        let said =
            "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf";
        let error = helper_failed(Path::new("/m"), &options, said).to_string();
        assert!(error.contains("/etc/fuse.conf") && error.contains("root"), "{error}");
        let said = "fusermount3: failed to open /dev/fuse: Permission denied\n";
        let error = helper_failed(Path::new("/m"), &options, said).to_string();
        assert!(error.contains("chmod 666 /dev/fuse"), "{error}");
        let error = helper_failed(Path::new("/m"), &options, "fusermount3: mountpoint is not writable\n");
        assert_eq!(error.to_string(), "fusermount3 did not mount /m: mountpoint is not writable");
    }
}
