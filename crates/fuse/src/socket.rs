//! Sockets that are named after a mount's device number. The kernel gives the number of a mount that is gone to the next one
//! while the daemon of the first may still be at its end: then the name is waited for.

use std::{
    io,
    os::unix::net::{SocketAddr, UnixListener},
    time::Duration,
};
use tracing::info;

const LOOK: Duration = Duration::from_millis(10);

/// A socket that has its name, or will have it once that is free.
#[derive(Debug)]
pub enum Socket {
    Bound(tokio::net::UnixListener),
    Waiting(SocketAddr),
}

impl Socket {
    /// # Errors
    /// Whatever but that another has the name.
    pub fn bind(name: SocketAddr) -> io::Result<Socket> {
        match UnixListener::bind_addr(&name) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Socket::Bound(tokio::net::UnixListener::from_std(listener)?))
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(Socket::Waiting(name)),
            Err(error) => Err(error),
        }
    }

    /// Waits for the name, if need be.
    pub async fn bound(mut self) -> io::Result<tokio::net::UnixListener> {
        loop {
            match self {
                Socket::Bound(listener) => return Ok(listener),
                Socket::Waiting(name) => {
                    tokio::time::sleep(LOOK).await;
                    self = Socket::bind(name)?;
                    if let Socket::Bound(_) = self {
                        info!("the daemon of an earlier mount with this one's device number has ended");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::{linux::net::SocketAddrExt, unix::net::UnixStream};

    #[tokio::test]
    async fn a_name_that_an_ending_daemon_still_has_is_taken_when_it_is_free() {
        let name =
            || SocketAddr::from_abstract_name(format!("pvfs-test-{}", std::process::id())).expect("a name");
        let ending = Socket::bind(name()).expect("binds");
        let next = tokio::spawn(Socket::bind(name()).expect("waits").bound());
        tokio::time::sleep(3 * LOOK).await;
        assert!(!next.is_finished());
        drop(ending);
        let _listener = next.await.expect("no panic").expect("binds");
        UnixStream::connect_addr(&name()).expect("somebody listens");
    }
}
