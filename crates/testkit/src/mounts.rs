//! What the machine says of mounts.

use std::path::Path;

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
