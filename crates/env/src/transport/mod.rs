//! The network as a seam: byte streams between named addresses. The real ones are TCP and, within a machine, sockets of its own.

mod host;
mod line;
mod tcp;
mod unix;

pub use host::HostTransport;
pub use line::{Line, LineEnd};
pub use tcp::TcpTransport;

use crate::memory::{Arena, Theirs};
use std::{
    future::Future,
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::{Arc, OnceLock},
};
use tokio::io::{AsyncRead, AsyncWrite};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connected byte stream, in its two directions.
pub struct Stream {
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
    /// The other end's address, for people.
    pub peer: String,
    pub memory: Memory,
}

/// What memory both ends of a stream have.
#[derive(Clone)]
pub enum Memory {
    None,
    /// This end's own; with what the other end passes descriptors over.
    Own(Arc<Arena>, Option<Arc<Line>>),
    /// The other end's, if it sends one: known when its first bytes have come.
    Sent(Arc<OnceLock<Greeting>>),
}

/// What a client of this machine sends with its first byte.
pub struct Greeting {
    memory: OwnedFd,
    line: Option<Arc<LineEnd>>,
}

impl Memory {
    /// This end's own memory, which the other end has too.
    pub fn own(&self) -> Option<&Arc<Arena>> {
        match self {
            Memory::Own(arena, _) => Some(arena),
            Memory::None | Memory::Sent(_) => None,
        }
    }

    /// The line over which the other end passes descriptors.
    pub fn line(&self) -> Option<&Arc<Line>> {
        match self {
            Memory::Own(_, line) => line.as_ref(),
            Memory::None | Memory::Sent(_) => None,
        }
    }

    /// The line over which this end may pass some.
    pub fn line_end(&self) -> Option<Arc<LineEnd>> {
        match self {
            Memory::Sent(sent) => sent.get()?.line.clone(),
            Memory::None | Memory::Own(..) => None,
        }
    }

    /// The other end's memory.
    ///
    /// # Errors
    /// What it has sent is none that can be used.
    pub fn theirs(&self) -> io::Result<Option<Theirs>> {
        match self {
            Memory::Sent(sent) => sent.get().map(|sent| Theirs::map(&sent.memory)).transpose(),
            Memory::None | Memory::Own(..) => Ok(None),
        }
    }
}

/// Dials and listens.
pub trait Transport: Send + Sync + 'static {
    /// Connects to `addr` (`host:port`).
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Stream>>;

    /// Listens on `addr`; port 0 takes a free one.
    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;

    /// The memory that it shares with daemons of this machine: bytes that lie there go to them without a copy.
    fn memory(&self) -> Option<&Arc<Arena>> {
        None
    }
}

pub trait Listener: Send + Sync {
    fn accept(&self) -> BoxFuture<'_, io::Result<Stream>>;

    /// The address that peers dial, with the real port.
    fn local_addr(&self) -> String;
}
