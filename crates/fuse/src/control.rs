//! How whoever unmounts learns that the mount's daemon is done: a socket that lives exactly as long as it. And how a mount is
//! told to go on with another program.
//!
//! The daemon listens on an abstract Unix socket named after the mount's device number, says nothing unasked, and holds each
//! connection until all is flushed and its session is closed. An abstract name leaves no file behind, whatever dies.
//! A line `upgrade PATH` by the mount's owner or root is answered by `done` or why not.

use crate::socket::Socket;
use std::{
    io::{self, Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::ffi::OsStrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tracing::warn;

/// The longest line that is listened to, in bytes.
const LINE_BYTES_MAX: u64 = 8192;

/// The daemon's end. Dropped: the daemon is done.
#[derive(Debug)]
pub struct Control {
    accepting: JoinHandle<()>,
}

impl Control {
    /// Listens for the mount with device number `device` (`major:minor`). Upgrades go to `upgrades`, where they can be made.
    /// Needs a tokio runtime around.
    pub fn listen(device: &str, upgrades: Option<mpsc::Sender<Upgrade>>) -> io::Result<Control> {
        let socket = Socket::bind(name(device)?)?;
        let accepting = tokio::spawn(async move {
            let listener = match socket.bound().await {
                Ok(listener) => listener,
                Err(error) => return warn!(%error, "no control socket: umount will not wait"),
            };
            let mut held = tokio::task::JoinSet::new();
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        held.spawn(hold(stream, upgrades.clone()));
                        while held.try_join_next().is_some() {}
                    }
                    // No descriptor free: who waits is let go early, which costs it only the certainty.
                    Err(_) => held.abort_all(),
                }
            }
        });
        Ok(Control { accepting })
    }
}

/// A wish to go on with another program.
#[derive(Debug)]
pub struct Upgrade {
    pub program: PathBuf,
    answer: oneshot::Sender<Result<(), String>>,
}

impl Upgrade {
    pub fn done(self) {
        let _ = self.answer.send(Ok(()));
    }

    pub fn failed(self, why: &str) {
        let _ = self.answer.send(Err(why.to_owned()));
    }
}

/// Serves one connection until the other end closes it, or the daemon ends.
async fn hold(stream: tokio::net::UnixStream, upgrades: Option<mpsc::Sender<Upgrade>>) {
    let by_owner = stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw());
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(LINE_BYTES_MAX)).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let Some(program) =
            line.strip_prefix(b"upgrade ").map(|path| Path::new(std::ffi::OsStr::from_bytes(path)))
        else {
            continue;
        };
        let answer = match &upgrades {
            _ if !by_owner => Err("only the mount's owner and root may upgrade it".to_owned()),
            None => Err("this mount has no keeper: unmount it and mount it again".to_owned()),
            Some(upgrades) => upgraded(upgrades, program).await,
        };
        let line = answer.map_or_else(|why| format!("{}\n", why.replace('\n', "; ")), |()| DONE.to_owned());
        if write.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

const DONE: &str = "done\n";

async fn upgraded(upgrades: &mpsc::Sender<Upgrade>, program: &Path) -> Result<(), String> {
    let (answer, answered) = oneshot::channel();
    let gone = || "the mount is ending".to_owned();
    upgrades.send(Upgrade { program: program.to_owned(), answer }).await.map_err(|_| gone())?;
    answered.await.unwrap_or_else(|_| Err(gone()))
}

impl Drop for Control {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A connection to the daemon of a mount.
#[derive(Debug)]
pub struct Daemon {
    stream: UnixStream,
}

/// Whether a daemon ended within the time given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Gone,
    StillThere,
}

impl Daemon {
    /// The daemon of the mount with that device number; `None`: it is gone, or in another network name space.
    pub fn find(device: &str) -> io::Result<Option<Daemon>> {
        match UnixStream::connect_addr(&name(device)?) {
            Ok(stream) => Ok(Some(Daemon { stream })),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the mount go on with `program`, and waits until it does.
    pub fn upgrade(mut self, program: &Path) -> io::Result<Result<(), String>> {
        let line = [b"upgrade ", program.as_os_str().as_bytes(), b"\n"].concat();
        self.stream.write_all(&line)?;
        let mut said = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(&self.stream), &mut said)?;
        Ok(if said == DONE { Ok(()) } else { Err(said.trim_end().to_owned()) })
    }

    /// Waits until the daemon is done.
    pub fn wait(mut self, at_most: Duration) -> io::Result<End> {
        self.stream.set_read_timeout(Some(at_most))?;
        // The daemon never says a word: what comes is the end of the stream.
        match self.stream.read_to_end(&mut Vec::new()) {
            Ok(_said) => Ok(End::Gone),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(End::StillThere),
                io::ErrorKind::ConnectionReset => Ok(End::Gone),
                _ => Err(error),
            },
        }
    }
}

fn name(device: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("pvfs-mount-{device}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device number of no mount, of this test alone.
    fn device(test: &str) -> String {
        format!("test-{test}-{}", std::process::id())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn waiting_ends_with_the_daemon_and_not_before() {
        let device = device("wait");
        let control = Control::listen(&device, None).expect("the name is free");
        let early = Daemon::find(&device).expect("connects").expect("is there");
        let wait = |daemon: Daemon, ms| {
            tokio::task::spawn_blocking(move || daemon.wait(Duration::from_millis(ms)).expect("waits"))
        };
        assert_eq!(wait(early, 20).await.expect("joins"), End::StillThere);
        let daemon = Daemon::find(&device).expect("connects").expect("is there");
        let waiting = wait(daemon, 60_000);
        drop(control);
        assert_eq!(waiting.await.expect("joins"), End::Gone);
    }

    #[test]
    fn a_daemon_that_is_gone_is_not_found() {
        assert!(Daemon::find(&device("gone")).expect("asked").is_none());
    }
}
