//! Which `pvfs up` runs from a directory: a lock that the kernel gives back when its holder dies, so that no stale
//! file is ever believed and no stranger's process is signalled.

use rustix::{
    fs::{FlockOperation, flock},
    io::{FdFlags, fcntl_setfd},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
    time::{Duration, Instant},
};

const LOCK_FILE: &str = "up.lock";
const DAEMONS_LOCK_FILE: &str = "daemons.lock";
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Held by the `up` of a directory as long as it runs.
#[derive(Debug)]
pub struct UpLock {
    _held: File,
}

/// Held by the daemons of an `up`, which inherit it, and by itself.
#[derive(Debug)]
pub struct DaemonsLock {
    _held: File,
}

/// Waits until the daemons that a killed `up` of `dir` has left have ended: they still have their stores and ports. All
/// processes that this one starts from now on are waited for likewise. `None`: some are still there after `patience`.
pub async fn lock_daemons(dir: &Path, patience: Duration) -> io::Result<Option<DaemonsLock>> {
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(DAEMONS_LOCK_FILE))?;
    let begin = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) if begin.elapsed() < patience => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    // The lock is the open file's, and a child's copy of the descriptor keeps that open.
    fcntl_setfd(&file, FdFlags::empty())?;
    Ok(Some(DaemonsLock { _held: file }))
}

/// Takes the lock of `dir`; `Err(Ok(pid))` tells who has it (0: not known).
pub fn lock(dir: &Path) -> Result<UpLock, Result<u32, io::Error>> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(dir.join(LOCK_FILE))
        .map_err(Err)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(Ok(read_pid(&mut file))),
        Err(errno) => return Err(Err(errno.into())),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(Err)?;
    Ok(UpLock { _held: file })
}

/// The pid of the `up` that runs from `dir`, if one does.
pub fn find(dir: &Path) -> io::Result<Option<u32>> {
    let mut file = match File::open(dir.join(LOCK_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(read_pid(&mut file)).filter(|&pid| pid != 0)),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends SIGTERM to the `up` of `dir`, known by `pid`. The pid is pinned first and the lock looked at again after
/// that: a process that got the number meanwhile is not hit. False: it is gone already.
pub fn terminate(dir: &Path, pid: u32) -> io::Result<bool> {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
    let pinned = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pinned) => pinned,
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    if find(dir)? != Some(pid) {
        return Ok(false);
    }
    match pidfd_send_signal(&pinned, Signal::TERM) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn read_pid(file: &mut File) -> u32 {
    let mut text = String::new();
    file.read_to_string(&mut text).ok();
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_up_and_a_dead_one_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(dir.path()).unwrap(), None);
        let held = lock(dir.path()).unwrap();
        assert_eq!(find(dir.path()).unwrap(), Some(std::process::id()));
        assert_eq!(lock(dir.path()).unwrap_err().unwrap(), std::process::id());
        drop(held);
        assert_eq!(find(dir.path()).unwrap(), None, "the file is there, but nobody holds it");
        assert!(!terminate(dir.path(), std::process::id()).unwrap(), "this process must not be hit");
    }
    #[tokio::test]
    async fn daemons_that_outlive_their_up_are_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_daemons(dir.path(), Duration::ZERO).await.unwrap().expect("nobody is there");
        let mut daemon = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        drop(held);
        assert!(lock_daemons(dir.path(), Duration::from_millis(20)).await.unwrap().is_none());
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert!(lock_daemons(dir.path(), Duration::ZERO).await.unwrap().is_some());
    }
}
