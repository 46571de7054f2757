//! TCP.

use super::{BoxFuture, Listener, Memory, Stream, Transport};
use std::{io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// After this time a peer is given up whose machine vanished without a word.
const VANISHED_AFTER: Duration = Duration::from_secs(30);

/// When a dial that has no answer is made once more, beside the first.
const DIAL_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// TCP with Nagle's delay off. A peer whose machine vanished without a word is noticed after about 30 s, whether the
/// connection is idle or not.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpTransport;

impl TcpTransport {
    /// As it is, but notices after another time, of some seconds.
    pub fn noticing_after(vanished_after: Duration) -> Arc<dyn Transport> {
        Arc::new(Tcp { vanished_after })
    }
}

impl Transport for TcpTransport {
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move { Tcp { vanished_after: VANISHED_AFTER }.connect(addr).await })
    }

    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Tcp { vanished_after: VANISHED_AFTER }.listen(addr).await })
    }
}

#[derive(Clone, Copy)]
struct Tcp {
    vanished_after: Duration,
}

struct Accepting {
    listener: TcpListener,
    tcp: Tcp,
}

impl Transport for Tcp {
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            let stream = dial(addr).await?;
            // Two sockets of one machine that dial a free port at once can meet themselves; nobody listens there.
            if stream.local_addr()? == stream.peer_addr()? {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
            }
            self.stream(stream)
        })
    }

    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(addr).await?;
            Ok(Box::new(Accepting { listener, tcp: *self }) as Box<dyn Listener>)
        })
    }
}

/// Connects. A SYN that is lost the kernel sends again after a second; and it drops one that comes in the moment in which a
/// listener is being closed, as that of a daemon is that was killed. So another one goes out before, and again.
async fn dial(addr: &str) -> io::Result<TcpStream> {
    let mut first = pin!(TcpStream::connect(addr));
    let again = async {
        sleep(DIAL_AGAIN_AFTER).await;
        let mut patience = DIAL_AGAIN_AFTER;
        loop {
            if let Ok(dialled) = timeout(patience, TcpStream::connect(addr)).await {
                return dialled;
            }
            patience *= 2;
        }
    };
    tokio::select! {
        biased;
        dialled = &mut first => dialled,
        dialled = again => dialled,
    }
}

impl Listener for Accepting {
    fn accept(&self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async { self.tcp.stream(self.listener.accept().await?.0) })
    }

    fn local_addr(&self) -> String {
        self.listener.local_addr().map_or_else(|_| String::new(), |addr| addr.to_string())
    }
}

impl Tcp {
    fn stream(self, stream: TcpStream) -> io::Result<Stream> {
        let peer = stream.peer_addr()?.to_string();
        stream.set_nodelay(true)?;
        self.notice_vanished_peers(&stream)?;
        let (read, write) = stream.into_split();
        Ok(Stream { read: Box::new(read), write: Box::new(write), peer, memory: Memory::None })
    }

    /// An idle connection is asked for from a third of the time on, four times within the rest; bytes that are not
    /// acknowledged, or not taken, end it when the time is over.
    fn notice_vanished_peers(self, stream: &TcpStream) -> io::Result<()> {
        use rustix::net::sockopt;
        let seconds = |part: u32| (self.vanished_after / part).max(Duration::from_secs(1));
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, seconds(3))?;
        sockopt::set_tcp_keepintvl(stream, seconds(6))?;
        sockopt::set_tcp_keepcnt(stream, 4)?;
        let millis = u32::try_from(self.vanished_after.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(stream, millis)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dial_whose_first_packet_is_lost_does_not_wait_for_the_kernel_s_second_one() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        // The kernel drops what comes while more wait to be accepted than were asked for.
        let mut waiting = Vec::new();
        while let Ok(dialled) = timeout(Duration::from_millis(50), TcpStream::connect(&addr)).await {
            waiting.push(dialled.unwrap());
        }
        let (mut plain, mut insisting) = (Box::pin(TcpStream::connect(&addr)), Box::pin(dial(&addr)));
        tokio::select! {
            _ = &mut plain => panic!("nobody accepts it"),
            _ = &mut insisting => panic!("nobody accepts it"),
            () = sleep(Duration::from_millis(20)) => {}
        }
        let accepting = async { while listener.accept().await.is_ok() {} };
        tokio::select! {
            biased;
            _ = plain => panic!("the kernel's second packet came first"),
            dialled = insisting => drop(dialled.unwrap()),
            () = accepting => {}
        }
    }

    #[tokio::test]
    async fn both_ends_give_up_a_vanished_machine_within_half_a_minute() {
        use rustix::net::sockopt;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let dialled = TcpStream::connect(listener.local_addr().expect("an address"));
        let (dialled, accepted) =
            (dialled.await.expect("connects"), listener.accept().await.expect("accepts").0);
        for stream in [dialled, accepted] {
            Tcp { vanished_after: VANISHED_AFTER }.notice_vanished_peers(&stream).expect("is set");
            assert!(sockopt::socket_keepalive(&stream).expect("is told"));
            let idle = sockopt::tcp_keepidle(&stream).expect("is told");
            let between = sockopt::tcp_keepintvl(&stream).expect("is told");
            let times = sockopt::tcp_keepcnt(&stream).expect("is told");
            assert_eq!(idle + between * times, Duration::from_secs(30));
            assert_eq!(sockopt::tcp_user_timeout(&stream).expect("is told"), 30_000);
        }
    }
}
