//! TCP between machines; within a machine a socket of its own, over which a client hands daemons its memory.
//!
//! A daemon that listens on a TCP address listens on a Unix socket too, whose name in the abstract name space is made of that
//! address: it goes with the daemon, and is seen in the daemon's network name space only. Who dials an address of this machine
//! looks for that socket first. So whoever dials something else, a forwarded port say, gets TCP.
//!
//! The dialler's first byte tells whether memory comes with it, and with that a line on which it is passed descriptors.

use super::{
    BoxFuture, Greeting, Line, LineEnd, Listener, Memory, Stream, TcpTransport, Transport, line::line, unix,
};
use crate::memory::Arena;
use rustix::{
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg, sockopt::socket_peercred,
    },
    process::geteuid,
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, Interest, ReadBuf},
    net::{UnixListener, UnixStream},
};
use tracing::{debug, warn};

const NO_MEMORY: u8 = 0;
const WITH_MEMORY: u8 = 1;

/// TCP, or what is faster within a machine.
#[derive(Clone, Default)]
pub struct HostTransport {
    memory: Option<Arc<Arena>>,
}

impl HostTransport {
    /// For a client: with memory to share, where the system gives some.
    pub fn sharing() -> HostTransport {
        let memory = Arena::new();
        let memory =
            memory.inspect_err(|error| warn!(%error, "no memory to share with daemons of this machine"));
        HostTransport { memory: memory.ok() }
    }
}

impl Transport for HostTransport {
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            for at in tokio::net::lookup_host(addr).await? {
                match self.connect_here(at).await {
                    Ok(Some(stream)) => return Ok(stream),
                    Ok(None) => {}
                    Err(error) => debug!(addr, %error, "not reached within the machine"),
                }
            }
            TcpTransport.connect(addr).await
        })
    }

    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let tcp = TcpTransport.listen(addr).await?;
            let here = tcp
                .local_addr()
                .parse()
                .map_err(io::Error::other)
                .and_then(|at| UnixListener::bind(name(at)));
            let here = here.inspect_err(|error| warn!(addr, %error, "clients of this machine come over TCP"));
            Ok(Box::new(Accepting { tcp, here: here.ok() }) as Box<dyn Listener>)
        })
    }

    fn memory(&self) -> Option<&Arc<Arena>> {
        self.memory.as_ref()
    }
}

impl HostTransport {
    /// `None`: nobody listens there in this machine.
    async fn connect_here(&self, at: SocketAddr) -> io::Result<Option<Stream>> {
        if !is_here(at.ip()) {
            return Ok(None);
        }
        let any: IpAddr =
            if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        for at in [at, SocketAddr::new(any, at.port())] {
            match UnixStream::connect(name(at)).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
                Ok(stream) => return self.begin(stream, at).await.map(Some),
            }
        }
        Ok(None)
    }

    async fn begin(&self, stream: UnixStream, at: SocketAddr) -> io::Result<Stream> {
        // Anybody may have taken the name while the daemon was away, and could listen in on what goes by.
        let owner = socket_peercred(&stream)?.uid;
        if !owner.is_root() && owner != geteuid() {
            let text = format!("its socket belongs to user {}", owner.as_raw());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let (ours, theirs) = match &self.memory {
            Some(_) => line().map(|(line, end): (Line, OwnedFd)| (Some(Arc::new(line)), Some(end)))?,
            None => (None, None),
        };
        loop {
            stream.writable().await?;
            let greeting = || greet(&stream, self.memory.as_deref(), theirs.as_ref());
            match stream.try_io(Interest::WRITABLE, greeting) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                greeted => break greeted?,
            }
        }
        let (read, write) = unix::split(stream)?;
        let memory = self.memory.clone().map_or(Memory::None, |memory| Memory::Own(memory, ours));
        Ok(Stream { read: Box::new(read), write: Box::new(write), peer: peer(&at.to_string()), memory })
    }
}

struct Accepting {
    tcp: Box<dyn Listener>,
    here: Option<UnixListener>,
}

impl Listener for Accepting {
    fn accept(&self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async {
            let Some(here) = &self.here else { return self.tcp.accept().await };
            tokio::select! {
                stream = self.tcp.accept() => stream,
                stream = here.accept() => {
                    let (read, write) = unix::split(stream?.0)?;
                    let sent = Arc::new(OnceLock::new());
                    let read = Greeted { read, is_begun: false, sent: Arc::clone(&sent) };
                    let peer = peer(&self.local_addr());
                    Ok(Stream { read: Box::new(read), write: Box::new(write), peer, memory: Memory::Sent(sent) })
                }
            }
        })
    }

    fn local_addr(&self) -> String {
        self.tcp.local_addr()
    }
}

fn peer(addr: &str) -> String {
    format!("{addr} within the machine")
}

/// A path that begins with a zero byte is a name of no file.
fn name(at: SocketAddr) -> String {
    format!("\0pvfs/{at}")
}

/// Whether what is sent to `ip` comes from there: so this machine has it.
fn is_here(ip: IpAddr) -> bool {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // No packet is sent for this.
    let from = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((ip, 9))?;
        socket.local_addr()
    };
    ip.is_loopback() || from().is_ok_and(|from: SocketAddr| from.ip() == ip)
}

fn greet(stream: &UnixStream, memory: Option<&Arena>, line: Option<&OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // A daemon of an earlier version takes the first of them.
    let fds: Vec<_> = memory.map(Arena::descriptor).into_iter().chain(line).map(AsFd::as_fd).collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let byte = [if memory.is_some() { WITH_MEMORY } else { NO_MEMORY }];
    sendmsg(stream, &[IoSlice::new(&byte)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The listener's reading half: takes the memory that comes with the first byte.
struct Greeted {
    read: unix::Reader,
    is_begun: bool,
    sent: Arc<OnceLock<Greeting>>,
}

impl Greeted {
    /// False: the stream has ended before.
    fn take_greeting(&self, socket: &std::os::unix::net::UnixStream) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let came = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let (memory, line) = control
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => Some((fds.next(), fds.next())),
                _ => None,
            })
            .unwrap_or_default();
        match (came.bytes, byte[0], memory) {
            (0, ..) => Ok(false),
            (_, NO_MEMORY, None) => Ok(true),
            (_, WITH_MEMORY, Some(memory)) => {
                let line = line.map(|line| Arc::new(LineEnd::new(line)));
                let _ = self.sent.set(Greeting { memory, line });
                Ok(true)
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no greeting of this version")),
        }
    }
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_begun {
            if !ready!(self.read.poll_receive(cx, |socket| self.take_greeting(socket)))? {
                return Poll::Ready(Ok(()));
            }
            self.is_begun = true;
        }
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Place;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What dials, what was accepted.
    async fn pair(listener: &dyn Listener, dialler: &HostTransport) -> (Stream, Stream) {
        let addr = listener.local_addr();
        let (dialled, accepted) = tokio::join!(dialler.connect(&addr), listener.accept());
        (dialled.expect("connects"), accepted.expect("accepts"))
    }

    #[tokio::test]
    async fn a_client_of_this_machine_hands_over_its_memory_with_its_first_byte() {
        let listener = HostTransport::default().listen("127.0.0.1:0").await.expect("listens");
        let client = HostTransport::sharing();
        let (mut dialled, mut accepted) = pair(&*listener, &client).await;
        dialled.write.write_all(b"hello").await.unwrap();
        let mut bytes = [0; 5];
        accepted.read.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
        accepted.write.write_all(b"welcome").await.unwrap();
        assert_eq!(dialled.read.read_u8().await.unwrap(), b'w');
        let mut block = client.memory().expect("it has some").take(100).unwrap();
        block[..3].copy_from_slice(b"abc");
        let place = dialled.memory.own().expect("the same").place(&block[..3]).unwrap();
        let mut found = [0; 3];
        let theirs = accepted.memory.theirs().unwrap().expect("it came");
        theirs.slice(place).unwrap().copy_to(&mut found);
        assert_eq!(&found, b"abc");
        assert!(theirs.slice(Place { at: 1 << 50, len: 1 }).is_none());
        let (line, end) = (dialled.memory.line().unwrap(), accepted.memory.line_end().unwrap());
        let memory = client.memory().unwrap().descriptor();
        end.pass(5, [memory.as_fd(), memory.as_fd()]).unwrap();
        assert!(line.take(5).is_some());
        drop((accepted, end));
        assert!(line.is_broken());
    }

    #[tokio::test]
    async fn who_has_no_memory_comes_without() {
        let listener = HostTransport::default().listen("127.0.0.1:0").await.expect("listens");
        let (mut dialled, mut accepted) = pair(&*listener, &HostTransport::default()).await;
        dialled.write.write_all(b"h").await.unwrap();
        assert_eq!(accepted.read.read_u8().await.unwrap(), b'h');
        assert!(accepted.memory.theirs().unwrap().is_none());
        assert!(
            dialled.peer.ends_with("within the machine") && accepted.peer.ends_with("within the machine")
        );
    }

    #[tokio::test]
    async fn an_address_of_all_interfaces_is_reached_by_each_of_them() {
        let listener = HostTransport::default().listen("0.0.0.0:0").await.expect("listens");
        let addr = listener.local_addr().replace("0.0.0.0", "127.0.0.1");
        let dialled = HostTransport::default().connect(&addr).await.expect("connects");
        assert!(dialled.peer.ends_with("within the machine"));
    }

    #[tokio::test]
    async fn who_listens_on_tcp_alone_is_reached_so() {
        let listener = TcpTransport.listen("127.0.0.1:0").await.expect("listens");
        let (dialled, _accepted) = pair(&*listener, &HostTransport::sharing()).await;
        assert!(dialled.memory.own().is_none(), "nothing is shared");
        assert_eq!(dialled.peer, listener.local_addr());
    }

    #[tokio::test]
    async fn what_is_no_greeting_ends_the_connection() {
        let listener = HostTransport::default().listen("127.0.0.1:0").await.expect("listens");
        let at: SocketAddr = listener.local_addr().parse().unwrap();
        for greeting in [WITH_MEMORY, b'P'] {
            let mut dialled = UnixStream::connect(name(at)).await.unwrap();
            dialled.write_all(&[greeting]).await.unwrap();
            let mut accepted = listener.accept().await.unwrap();
            assert!(accepted.read.read_u8().await.is_err(), "no memory came, or it is another version");
        }
    }

    #[test]
    fn other_machines_are_elsewhere() {
        assert!(is_here("127.0.0.1".parse().unwrap()) && is_here("127.9.9.9".parse().unwrap()));
        assert!(!is_here("192.0.2.1".parse().unwrap()), "an address that nobody has");
    }
}
