//! A local cluster for a chore, started by `pvfs up` in a directory of its own.

use crate::run::{self, Outcome};
use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A file system of its own, started by `pvfs up`.
pub struct Cluster {
    pvfs: PathBuf,
    dir: PathBuf,
    port: u16,
}

impl Cluster {
    /// Of the binary `pvfs`, with all that is its own below `dir`.
    pub fn new(pvfs: &Path, dir: PathBuf) -> Result<Cluster, String> {
        for name in ["mnt", "other", "data", "run", "local"] {
            std::fs::create_dir_all(dir.join(name)).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        Ok(Cluster { pvfs: pvfs.to_path_buf(), dir, port: free_ports(5)? })
    }

    pub fn pvfs(&self) -> &Path {
        &self.pvfs
    }

    pub fn mnt(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    /// Where the same file system is mounted once more.
    pub fn other(&self) -> PathBuf {
        self.dir.join("other")
    }

    pub fn local(&self) -> PathBuf {
        self.dir.join("local")
    }

    /// Any program, with the cluster's context and not the user's own.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = run::program(program);
        command.env("XDG_RUNTIME_DIR", self.dir.join("run"));
        command
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts the daemons and mounts.
    pub fn up(&self) -> Outcome {
        let mut up = self.command(&self.pvfs);
        up.arg("up").arg(self.mnt()).arg("--detach").arg("--dir").arg(self.dir.join("data"));
        up.args(["--port", &self.port.to_string()]);
        run::run_within(&mut up, Duration::from_mins(1))
    }

    /// Mounts it once more: `pvfs` with `args`, and where.
    pub fn mount_other(&self, args: &[&str]) -> Outcome {
        let mut mount = self.command(&self.pvfs);
        run::run_within(mount.args(args).arg(self.other()), Duration::from_mins(1))
    }

    pub fn umount_other(&self) -> Outcome {
        let mut umount = self.command(&self.pvfs);
        run::run_within(umount.arg("umount").arg(self.other()), Duration::from_mins(1))
    }

    pub fn down(&self) -> Outcome {
        let mut down = self.command(&self.pvfs);
        run::run_within(down.arg("down").arg("--dir").arg(self.dir.join("data")), Duration::from_mins(1))
    }

    /// `word` with `@` for the mount, `&` for the other mount, `%` for the local directory beside them.
    pub fn placed(&self, word: &str) -> String {
        let [mnt, other, local] =
            [self.mnt(), self.other(), self.local()].map(|dir| dir.display().to_string());
        word.replace('@', &mnt).replace('&', &other).replace('%', &local)
    }
}

/// The first of `count` ports in a row that nobody has now.
fn free_ports(count: u16) -> Result<u16, String> {
    let from = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    (from..40_000)
        .step_by(usize::from(count))
        .find(|&first| {
            (first..first + count).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        })
        .ok_or_else(|| "no free ports".to_string())
}
