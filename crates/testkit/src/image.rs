//! Small file systems of their own for daemons: images on loop devices, which can lose power, and tmpfs, which can fill
//! up. Gone with the value that stands for them.
//!
//! The kernel takes a loop device away by itself when what is mounted on it is unmounted.

use std::{
    ffi::OsStr,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
};

/// What to make an image of, or in which memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsKind {
    Ext4,
    Xfs,
    Tmpfs,
}

/// A mounted small file system.
#[derive(Debug)]
pub struct Image {
    kind: FsKind,
    file: PathBuf,
    mount: PathBuf,
    bytes: u64,
}

impl Image {
    /// Why images of `kind` cannot be mounted here; `None`: they can.
    pub fn unavailable(kind: FsKind) -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("not root: cannot mount images".into());
        }
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("mount");
        std::fs::create_dir(&mount).unwrap();
        Image::try_new(kind, &dir.path().join("image"), &mount, kind.bytes_min()).err()
    }

    /// Makes a file system of `bytes` in `file` and mounts it on the directory `mount`.
    #[track_caller]
    pub fn new(kind: FsKind, file: &Path, mount: &Path, bytes: u64) -> Image {
        Image::try_new(kind, file, mount, bytes).unwrap()
    }

    fn try_new(kind: FsKind, file: &Path, mount: &Path, bytes: u64) -> Result<Image, String> {
        let image = Image { kind, file: file.to_owned(), mount: mount.to_owned(), bytes };
        if let Some((program, args)) = kind.maker() {
            let made = std::fs::File::create(file).and_then(|file| file.set_len(bytes));
            made.map_err(|error| error.to_string())?;
            run(program, args.iter().map(AsRef::as_ref).chain([file.as_os_str()]))?;
        }
        image.mount()?;
        Ok(image)
    }

    fn mount(&self) -> Result<(), String> {
        let size = format!("size={}", self.bytes);
        let args: [&OsStr; 5] = match self.kind {
            FsKind::Tmpfs => {
                ["-o".as_ref(), size.as_ref(), "-ttmpfs".as_ref(), "tmpfs".as_ref(), self.mount.as_os_str()]
            }
            FsKind::Ext4 => [
                "-t".as_ref(),
                "ext4".as_ref(),
                "-oloop".as_ref(),
                self.file.as_os_str(),
                self.mount.as_os_str(),
            ],
            FsKind::Xfs => [
                "-t".as_ref(),
                "xfs".as_ref(),
                "-oloop".as_ref(),
                self.file.as_os_str(),
                self.mount.as_os_str(),
            ],
        };
        run("mount", args)
    }

    pub fn dir(&self) -> &Path {
        &self.mount
    }

    /// What was not synced is lost, at once, and nothing can be read or written any more, as when the power fails.
    #[track_caller]
    pub fn cut_power(&self) {
        // `FS_IOC_SHUTDOWN`, `_IOR('X', 125, u32)`, and its flag `NOLOGFLUSH`.
        const SHUTDOWN: u64 = 0x8004_587d;
        const NO_LOG_FLUSH: u32 = 2;
        let dir = std::fs::File::open(&self.mount).unwrap();
        let flag = NO_LOG_FLUSH;
        // SAFETY: the request reads one u32, which lives through the call; the descriptor is open.
        #[expect(unsafe_code, reason = "there is no safe wrapper for this ioctl")]
        let done = unsafe { libc::ioctl(dir.as_raw_fd(), SHUTDOWN, &raw const flag) };
        assert_eq!(done, 0, "FS_IOC_SHUTDOWN: {}", std::io::Error::last_os_error());
    }

    /// The power is back: mounts anew what the disk holds. Nobody may use it.
    #[track_caller]
    pub fn remount(&self) {
        run("umount", [self.mount.as_os_str()]).unwrap();
        self.mount().unwrap();
    }

    /// Gives a tmpfs another size.
    #[track_caller]
    pub fn resize(&self, bytes: u64) {
        let option = format!("remount,size={bytes}");
        run("mount", ["-o".as_ref(), option.as_ref(), self.mount.as_os_str()]).unwrap();
    }
}

impl FsKind {
    /// The smallest that can be made.
    pub fn bytes_min(self) -> u64 {
        match self {
            FsKind::Xfs => 320 << 20,
            FsKind::Ext4 => 64 << 20,
            FsKind::Tmpfs => 1 << 20,
        }
    }

    fn maker(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            FsKind::Ext4 => Some(("mkfs.ext4", &["-q", "-m0"])),
            FsKind::Xfs => Some(("mkfs.xfs", &["-q"])),
            FsKind::Tmpfs => None,
        }
    }
}

fn run<'a>(program: &str, args: impl IntoIterator<Item = &'a OsStr>) -> Result<(), String> {
    let out = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&out.stderr).trim()))
}

impl Drop for Image {
    /// Also where a process still uses it: then it goes with that.
    fn drop(&mut self) {
        run("umount", ["-l".as_ref(), self.mount.as_os_str()]).ok();
    }
}
