//! Into the background: `pvfs mount` starts itself again as a daemon, and returns when that says that the mount is live.
//!
//! The child finds a socket as its standard input and an environment variable that says so. It answers one line on the
//! socket: `live`, or what went wrong.

use crate::MountError;
use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Command, Stdio},
};

/// Says that standard input is the socket to answer on.
const CHILD: &str = "PVFS_MOUNT_DAEMON";
const LIVE: &str = "live\n";

/// Starts this program again with `args` (without its name) as a daemon, and returns when the mount is live. `log` gets
/// what it writes to its standard error; without one it is lost.
pub fn launch(
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    log: Option<&Path>,
) -> Result<(), MountError> {
    let start = |source| MountError::Start { source };
    let log = match log {
        Some(path) => fs::OpenOptions::new().create(true).append(true).open(path).map_err(|e| {
            start(io::Error::new(e.kind(), format!("cannot write the log {}: {e}", path.display())))
        })?,
        None => fs::OpenOptions::new().write(true).open("/dev/null").map_err(start)?,
    };
    let (ours, theirs) = UnixStream::pair().map_err(start)?;
    Command::new(env::current_exe().map_err(start)?)
        .args(args)
        .env(CHILD, "1")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(start)?;
    heard(ours)
}

/// What the child answered.
fn heard(mut child: UnixStream) -> Result<(), MountError> {
    let mut said = String::new();
    child.read_to_string(&mut said).map_err(|source| MountError::Start { source })?;
    match said.as_str() {
        LIVE => Ok(()),
        "" => Err(MountError::DaemonDied),
        _ => Err(MountError::Daemon { said: said.trim_end().to_owned() }),
    }
}

/// The daemon's line to the one who started it.
#[derive(Debug)]
pub struct Parent(UnixStream);

impl Parent {
    /// In a process that [`launch`] started: becomes a daemon (a session of its own, no terminal) and gives the line to
    /// answer on. `None` in any other process.
    pub fn find() -> io::Result<Option<Parent>> {
        if env::var_os(CHILD) != Some(OsString::from("1")) {
            return Ok(None);
        }
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
        // Fails only where this process leads a group already, and then it has no terminal to lose.
        let _ = rustix::process::setsid();
        Ok(Some(Parent(stream)))
    }

    /// The mount is live. From now on this process holds no directory but the root.
    pub fn live(mut self) {
        let _ = env::set_current_dir("/");
        let _ = self.0.write_all(LIVE.as_bytes());
    }

    /// It will not be: why, in one or more lines.
    pub fn failed(mut self, why: &str) {
        let _ = self.0.write_all(why.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(say: impl FnOnce(Parent)) -> Result<(), String> {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        say(Parent(theirs));
        heard(ours).map_err(|e| e.to_string())
    }

    #[test]
    fn the_parent_hears_live_failure_and_death() {
        assert_eq!(check(Parent::live), Ok(()));
        assert_eq!(check(|p| p.failed("/mnt/x: no such")), Err("/mnt/x: no such".to_owned()));
        assert!(check(drop).expect_err("died").contains("died"));
    }
}
