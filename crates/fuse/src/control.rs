//! How whoever unmounts learns that the mount's daemon is done: a socket that lives exactly as long as it.
//!
//! The daemon listens on an abstract Unix socket named after the mount's device number, says nothing, and holds each
//! connection until all is flushed and its session is closed. An abstract name leaves no file behind, whatever dies.

use std::{
    io::{self, Read},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

/// The daemon's end. Dropped: the daemon is done.
#[derive(Debug)]
pub struct Control {
    accepting: JoinHandle<()>,
}

impl Control {
    /// Listens for the mount with device number `device` (`major:minor`). Needs a tokio runtime around.
    pub fn listen(device: &str) -> io::Result<Control> {
        let listener = UnixListener::bind_addr(&name(device)?)?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let accepting = tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => held.push(stream),
                    // No descriptor free: who waits is let go early, which costs it only the certainty.
                    Err(_) => held.clear(),
                }
            }
        });
        Ok(Control { accepting })
    }
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
        let control = Control::listen(&device).expect("the name is free");
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
