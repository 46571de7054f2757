//! A proxy that understands frames: it stands between real clients and a real daemon and does to the N-th request or
//! reply of an operation what a bad network does. Owns connections and their pumps; knows headers, not what a message
//! means.
//!
//! ```no_run
//! use pvfs_testkit::{Fate, Proxy, Way};
//! use pvfs_wire::Op;
//!
//! let proxy = Proxy::start("127.0.0.1:7334");
//! let lost = proxy.plan(Way::Reply, Op::Create, 1, Fate::Lose);
//! // … a client that dials `proxy.addr()` creates a file …
//! lost.wait();
//! ```

mod frame;
mod plan;
mod weather;

pub use frame::RawFrame;
pub use plan::{Caught, Fate, Way};

use plan::Plans;
use pvfs_wire::{
    Op, decode,
    msg::hello::{Hello, Role},
};
use std::{
    collections::HashMap,
    io::Write as _,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use weather::Weather;

/// How long a copy sent by [`Proxy::replay`] may wait for its answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Request ids from here on are the proxy's own.
const OWN_IDS: u64 = 1 << 63;
/// How many frames of one way of a connection can be on their way.
const ON_THE_WAY_MAX: usize = 256;

/// Stands before one daemon. Dropping it cuts all its connections.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    addr: String,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    plans: Plans,
    weather: Weather,
    links: Mutex<Vec<Arc<Link>>>,
    /// Who waits for the answer to a request of the proxy's own.
    own: Mutex<HashMap<u64, mpsc::Sender<RawFrame>>>,
    next_own: AtomicU64,
    ended: AtomicBool,
}

/// A client's connection and the one to the daemon that goes with it.
#[derive(Debug)]
struct Link {
    client: TcpStream,
    server: TcpStream,
    /// Held while a frame is written to that side, so that frames do not mix.
    writing: [Mutex<()>; 2],
    /// Requests held back: the daemon's side stays open for them although the client's is gone.
    held: AtomicU64,
    /// Of the client's side, from its hello.
    role: Mutex<Option<Role>>,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Listens on a free port for clients of the daemon at `upstream`, which need not run yet.
    pub fn start(upstream: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            plans: Plans::default(),
            weather: Weather::default(),
            links: Mutex::default(),
            own: Mutex::default(),
            next_own: AtomicU64::new(OWN_IDS),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                // A daemon that is down: the client sees its connection end.
                let Ok(server) = TcpStream::connect(&accepting.upstream) else { continue };
                accepting.join(client, server);
            }
        });
        Proxy { shared, addr }
    }

    /// Where clients dial.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// From now on, the `nth` (from 1) frame of that way and operation meets `fate`; once.
    pub fn plan(&self, way: Way, op: Op, nth: usize, fate: Fate) -> Caught {
        self.shared.plans.add(way, op, nth, fate)
    }

    /// How many frames of that way and operation came so far.
    pub fn seen(&self, way: Way, op: Op) -> u64 {
        self.shared.plans.seen(way, op)
    }

    /// Ends all connections, on both sides.
    pub fn cut(&self) {
        for link in locked(&self.shared.links).drain(..) {
            link.end();
        }
    }

    /// Ends all connections on the clients' side only: to the daemon they stay open, and silent.
    pub fn cut_clients(&self) {
        for link in locked(&self.shared.links).iter() {
            // The pump would end the daemon's side too.
            link.held.fetch_add(1, Ordering::SeqCst);
            link.client.shutdown(Shutdown::Both).ok();
        }
    }

    /// Nothing of that way arrives any more, on any connection, nor does anybody hear that it does not: what a firewall
    /// that drops packets does, until TCP gives up. `Some(role)`: only peers of that role are cut off.
    pub fn silence(&self, way: Way, role: Option<Role>) {
        self.shared.weather.silence(way, role);
    }

    /// Each frame of that way takes so long; they do not hold each other up.
    pub fn delay(&self, way: Way, travel: Duration) {
        self.shared.weather.delay(way, travel);
    }

    /// Each way of each connection takes so many bytes a second.
    pub fn narrow(&self, bytes_per_second: u32) {
        self.shared.weather.narrow(bytes_per_second);
    }

    /// Ends silence, delay and narrowness. What was silenced arrives, in its order, where its connection still is.
    pub fn clear(&self) {
        self.shared.weather.clear();
    }

    /// How many connections it has.
    pub fn connections(&self) -> usize {
        locked(&self.shared.links).len()
    }

    /// Sends a copy of a caught request over the newest connection, under another request id, as a network that held
    /// it for long would; gives the answer, which the client does not see.
    #[track_caller]
    pub fn replay(&self, caught: &Caught) -> RawFrame {
        let id = self.shared.next_own.fetch_add(1, Ordering::SeqCst);
        let (tell, told) = mpsc::channel();
        locked(&self.shared.own).insert(id, tell);
        let link = locked(&self.shared.links).last().cloned().expect("a live connection");
        link.send(Way::Request, &caught.frame().with_request_id(id));
        told.recv_timeout(PATIENCE).expect("the daemon answers a late copy")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.weather.clear();
        TcpStream::connect(&self.addr).ok(); // wakes the accepting thread
        self.cut();
    }
}

impl Shared {
    fn join(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        client.set_nodelay(true).ok();
        server.set_nodelay(true).ok();
        let link = Arc::new(Link {
            client,
            server,
            writing: Default::default(),
            held: AtomicU64::new(0),
            role: Mutex::default(),
        });
        locked(&self.links).push(Arc::clone(&link));
        for way in [Way::Request, Way::Reply] {
            let (arriving, arrived) = mpsc::sync_channel(ON_THE_WAY_MAX);
            let (shared, from) = (Arc::clone(self), Arc::clone(&link));
            std::thread::spawn(move || shared.read(way, &from, &arriving));
            let (shared, link) = (Arc::clone(self), Arc::clone(&link));
            std::thread::spawn(move || {
                shared.pump(way, &link, &arrived);
                if way == Way::Reply || link.held.load(Ordering::SeqCst) == 0 {
                    link.end();
                }
                locked(&shared.links).retain(|other| !Arc::ptr_eq(other, &link));
            });
        }
    }

    /// Reads frames until a side ends, as fast as the weather lets them through.
    fn read(&self, way: Way, link: &Link, arriving: &mpsc::SyncSender<(RawFrame, Instant)>) {
        let mut from = match way {
            Way::Request => &link.client,
            Way::Reply => &link.server,
        };
        while let Some(frame) = RawFrame::read(&mut from) {
            if way == Way::Request && frame.header().op == Op::Hello.number() {
                *locked(&link.role) = decode::<Hello>(frame.body()).ok().map(|hello| hello.role);
            }
            let role = *locked(&link.role);
            self.weather.pass(way, role, frame.bytes().len());
            if arriving.send((frame, Instant::now())).is_err() {
                return;
            }
        }
    }

    /// Moves frames until a side ends or a fate cuts the connection.
    fn pump(&self, way: Way, link: &Arc<Link>, arriving: &mpsc::Receiver<(RawFrame, Instant)>) {
        while let Ok((frame, read_at)) = arriving.recv() {
            self.weather.travel(way, read_at);
            if way == Way::Reply && frame.header().request_id >= OWN_IDS {
                if let Some(asker) = locked(&self.own).remove(&frame.header().request_id) {
                    asker.send(frame).ok();
                }
                continue;
            }
            let Some(caught) = self.plans.catch(way, &frame) else {
                link.send(way, &frame);
                continue;
            };
            // Told last: who waits for it finds it done.
            let goes_on = match caught.fate() {
                Fate::Lose => false,
                Fate::Pass => link.send(way, &frame),
                Fate::CutAfter => {
                    link.send(way, &frame);
                    false
                }
                Fate::Double => link.send(way, &frame) && link.send(way, &frame),
                Fate::Flip => link.send(way, &frame.with_a_flipped_payload_bit()),
                Fate::Tear => {
                    link.send_half(way, &frame);
                    false
                }
                Fate::Reset => {
                    link.send_half(way, &frame);
                    link.reset();
                    false
                }
                Fate::Hold => {
                    link.held.fetch_add(1, Ordering::SeqCst);
                    let link = Arc::clone(link);
                    let late = frame.clone();
                    caught.on_release(move || {
                        link.send(way, &late);
                    });
                    true
                }
            };
            if !goes_on {
                link.end();
            }
            caught.happened(frame);
            if !goes_on {
                return;
            }
        }
    }
}

impl Link {
    fn side(&self, way: Way) -> (&TcpStream, &Mutex<()>) {
        match way {
            Way::Request => (&self.server, &self.writing[0]),
            Way::Reply => (&self.client, &self.writing[1]),
        }
    }

    /// False: that side is gone.
    fn send(&self, way: Way, frame: &RawFrame) -> bool {
        let (mut to, writing) = self.side(way);
        let _turn = locked(writing);
        to.write_all(frame.bytes()).is_ok()
    }

    fn send_half(&self, way: Way, frame: &RawFrame) {
        let (mut to, writing) = self.side(way);
        let _turn = locked(writing);
        to.write_all(&frame.bytes()[..frame.bytes().len() / 2]).ok();
    }

    /// Both sides find that the other one does not know the connection any more.
    fn reset(&self) {
        for side in [&self.client, &self.server] {
            rustix::net::connect_unspec(side).ok();
        }
    }

    fn end(&self) {
        self.client.shutdown(Shutdown::Both).ok();
        self.server.shutdown(Shutdown::Both).ok();
    }
}
