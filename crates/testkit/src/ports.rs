//! Free ports that stay ours: drawn from below the range the kernel deals to outgoing connections, so that a daemon
//! killed and started again finds its port free, and held against other test processes by an abstract Unix socket.

use std::{
    net::TcpListener,
    os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr, unix::net::UnixListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// Where ports are drawn from. Linux deals outgoing connections from 32768 on.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Consecutive free ports of the loopback device, held as long as this lives.
#[derive(Debug)]
pub struct Ports {
    pub first: u16,
    _held: Vec<UnixListener>,
}

impl Ports {
    /// Holds `count` free ports in a row.
    pub fn hold(count: u16) -> Ports {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let span = RANGE.end - RANGE.start;
        let start = u16::try_from(std::process::id() * 61 % u32::from(span)).unwrap();
        for _ in 0..span {
            let step = NEXT.fetch_add(count, Ordering::Relaxed);
            let offset = (u32::from(start) + u32::from(step)) % u32::from(span - count);
            let first = RANGE.start + u16::try_from(offset).unwrap();
            if let Some(held) = (first..first + count).map(hold_one).collect() {
                return Ports { first, _held: held };
            }
        }
        panic!("no {count} free ports in a row in {RANGE:?}");
    }

    pub fn addr(&self, place: u16) -> String {
        format!("127.0.0.1:{}", self.first + place)
    }
}

fn hold_one(port: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("pvfs-testkit-port-{port}")).unwrap();
    let held = UnixListener::bind_addr(&name).ok()?;
    TcpListener::bind(("127.0.0.1", port)).ok()?; // free, also of programs that know nothing of us
    Some(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_ports_are_not_given_twice() {
        let (a, b) = (Ports::hold(5), Ports::hold(5));
        assert!(a.first + 5 <= b.first || b.first + 5 <= a.first, "{} and {}", a.first, b.first);
        assert!(hold_one(a.first).is_none(), "held");
        let first = a.first;
        drop(a);
        assert!(hold_one(first).is_some(), "given back");
    }
}
