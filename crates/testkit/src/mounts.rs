//! What the machine says of mounts.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

/// Whether `dir` is a mount point now. Asks the kernel's list, never the file system (which may hang or be dead).
pub fn is_mounted(dir: &Path) -> bool {
    let list = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.to_string_lossy();
    list.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| unescape(at) == *dir))
}

fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

/// Takes the mount away from the name space whatever state it is in.
pub fn unmount_lazily(dir: &Path) {
    let done = rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH);
    if done.is_err() {
        std::process::Command::new("fusermount3").args(["-u", "-z"]).arg(dir).output().ok();
    }
}

/// Whether this process can mount FUSE file systems: `/dev/fuse` opens, and it is root or `fusermount3` is there.
/// Prints why not.
pub fn can_mount() -> bool {
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/fuse") {
        eprintln!("no FUSE mount here: /dev/fuse: {error}");
        return false;
    }
    let helper = std::process::Command::new("fusermount3").arg("--version").output().is_ok();
    if !rustix::process::geteuid().is_root() && !helper {
        eprintln!("no FUSE mount here: not root, and no fusermount3");
        return false;
    }
    true
}

const ENABLE_IO_URING: &str = "/sys/module/fuse/parameters/enable_uring";

/// While it lives, the kernel offers new mounts to go over `io_uring`; whoever wants that too waits for its end.
pub struct IoUringOffered {
    parameter: File,
    former: String,
}

/// Has the kernel offer that. `None`, and why is printed: it cannot, or not for this user.
pub fn offer_io_uring() -> Option<IoUringOffered> {
    let open = || {
        let mut parameter = File::options().read(true).write(true).open(ENABLE_IO_URING)?;
        // Several tests would put back what others have set.
        parameter.lock()?;
        let mut former = String::new();
        parameter.read_to_string(&mut former)?;
        parameter.write_all(b"Y")?;
        Ok::<_, io::Error>(IoUringOffered { parameter, former })
    };
    open().inspect_err(|error| eprintln!("no FUSE over io_uring here: {ENABLE_IO_URING}: {error}")).ok()
}

impl Drop for IoUringOffered {
    fn drop(&mut self) {
        if let Err(error) = self.parameter.write_all(self.former.trim().as_bytes()) {
            eprintln!("{ENABLE_IO_URING} stays as it is: {error}");
        }
    }
}
