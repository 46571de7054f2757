//! The network as a seam: byte streams between named addresses. The real one is TCP.

use std::{future::Future, io, pin::Pin, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connected byte stream, in its two directions.
pub struct Stream {
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
    /// The other end's address, for people.
    pub peer: String,
}

/// Dials and listens.
pub trait Transport: Send + Sync + 'static {
    /// Connects to `addr` (`host:port`).
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Stream>>;

    /// Listens on `addr`; port 0 takes a free one.
    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}

pub trait Listener: Send + Sync {
    fn accept(&self) -> BoxFuture<'_, io::Result<Stream>>;

    /// The address that peers dial, with the real port.
    fn local_addr(&self) -> String;
}

/// TCP with Nagle's delay off. A peer whose machine vanished without a word is noticed after about 30 s.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpTransport;

impl Transport for TcpTransport {
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            // Two sockets of one machine that dial a free port at once can meet themselves; nobody listens there.
            if stream.local_addr()? == stream.peer_addr()? {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
            }
            into_stream(stream)
        })
    }

    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(TcpListener::bind(addr).await?) as Box<dyn Listener>) })
    }
}

impl Listener for TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async { into_stream(TcpListener::accept(self).await?.0) })
    }

    fn local_addr(&self) -> String {
        TcpListener::local_addr(self).map_or_else(|_| String::new(), |addr| addr.to_string())
    }
}

fn into_stream(stream: TcpStream) -> io::Result<Stream> {
    use rustix::net::sockopt;
    let peer = stream.peer_addr()?.to_string();
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(5))?;
    sockopt::set_tcp_keepcnt(&stream, 4)?;
    sockopt::set_tcp_user_timeout(&stream, 30_000)?;
    let (read, write) = stream.into_split();
    Ok(Stream { read: Box::new(read), write: Box::new(write), peer })
}
