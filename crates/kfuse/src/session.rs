//! A session with the kernel: the handshake, the threads that read requests, interrupts.

use crate::{
    abi::{self, init},
    buffer::{Buffer, Memory, Pool},
    device::{Device, Received},
    inflight::{Asked, Caller, InFlight, Reply},
    job::Job,
    notify::Notifier,
    request::{Init, Malformed, Op, Request},
    ring::{self, Ring, Take},
    signals::{self, Pending},
    way::Way,
};
use std::{
    future::Future,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::runtime::Handle;
use tracing::{debug, error, warn};
use zerocopy::IntoBytes;

/// How long an interrupted request may still be answered as if nothing had happened, whatever the signal.
pub const INTERRUPT_GRACE: Duration = Duration::from_millis(20);

/// At the latest how often to look whether a deadly signal came to who was sent another one: the kernel tells of the first.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// When to look again for a request that is interrupted before it was read (another thread may be about to note it).
const UNKNOWN_AGAIN: Duration = Duration::from_millis(1);

/// From which pause on such a request is taken to be answered.
const UNKNOWN_UNTIL: Duration = Duration::from_millis(200);

/// What serves requests.
pub trait Serve: Send + Sync + 'static {
    /// The work that answers `request`. Polled for the first time on the thread that read the request, in the context of the
    /// runtime: what it does before it first waits should be short. Dropped when the caller is interrupted.
    fn serve(self: &Arc<Self>, request: Request, reply: Reply) -> impl Future<Output = ()> + Send + 'static;

    /// Whether the request of the thread `pid` waits for what is not there, so that who asks its program to end need not wait too.
    fn waits_in_vain(self: &Arc<Self>, pid: u32) -> impl Future<Output = bool> + Send + 'static;

    /// The kernel holds the inode that many lookups less.
    fn forget(&self, node: u64, lookups: u64);

    /// Of the requests that a former process had, `requests` are all that came again and have no answer yet (new ones may be
    /// among them), by [`Request::number`]. Called once where a session is gone on with.
    fn all_came_again(self: &Arc<Self>, requests: Vec<u64>);
}

/// What a server wants of a session.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Of [`abi::init`]; those that the kernel does not offer are done without.
    pub flags: u64,
    /// The longest write and read of one request, in bytes.
    pub request_bytes_max: u32,
    pub read_ahead_bytes_max: u32,
    /// Requests of the kernel's own accord (read-ahead, releases) that may be under way.
    pub background_max: u16,
    pub background_congested: u16,
}

/// What was agreed on. Another process needs it to go on with the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub minor: u32,
    pub flags: u64,
    pub request_bytes_max: u32,
}

/// A session that is agreed on and not served yet.
#[derive(Debug)]
pub struct Session {
    device: Arc<Device>,
    agreed: Agreed,
    /// Another process began it.
    attached: bool,
    /// There may be requests that nobody has.
    lost: bool,
    /// What requests come over beside the device; none: all come by the device.
    rings: Vec<Ring>,
}

/// What the reading threads share.
struct Shared<S> {
    serve: Arc<S>,
    device: Arc<Device>,
    in_flight: Arc<InFlight>,
    draining: Arc<AtomicBool>,
    lost: bool,
    over_rings: bool,
    /// Sources of requests that come again which have not given all of them; none from the start: nothing comes again.
    sources: AtomicUsize,
    runtime: Handle,
}

/// What a session is doing, and how to end that.
#[derive(Clone)]
pub struct Control {
    in_flight: Arc<InFlight>,
    draining: Arc<AtomicBool>,
}

impl Session {
    /// Agrees with the kernel on `fd`, fresh from a mount, about how to talk. Waits for the kernel's first request.
    /// Rings lie in `memory`, an empty file in memory; without it there are none.
    ///
    /// # Errors
    /// A kernel whose FUSE is older than 7.31, or another major version.
    pub fn handshake(fd: OwnedFd, wanted: &Wanted, memory: Option<&OwnedFd>) -> io::Result<Session> {
        let device = Arc::new(Device::new(fd));
        let mut buffer = Pool::new(request_bytes(wanted.request_bytes_max), None).take();
        loop {
            let Received::Request(len) = device.receive(&mut buffer)? else {
                return Err(io::Error::new(io::ErrorKind::NotConnected, "it was unmounted at once"));
            };
            let Ok(Request { unique, op: Op::Init(offer), .. }) = Request::decode(&mut buffer, len) else {
                return Err(invalid("its first request is no INIT".to_owned()));
            };
            if offer.major > abi::MAJOR {
                // It asks again in the version it is told.
                let ours = abi::InitOut { major: abi::MAJOR, minor: abi::MINOR, ..abi::InitOut::default() };
                device.answer(unique, Ok(&[ours.as_bytes()]))?;
                continue;
            }
            if (offer.major, offer.minor) < (abi::MAJOR, abi::MINOR_MIN) {
                device.answer(unique, Err(rustix::io::Errno::PROTO.raw_os_error()))?;
                let text = format!("FUSE {}.{} is too old: {} is needed", offer.major, offer.minor, oldest());
                return Err(invalid(text));
            }
            let (wanted, rings) = try_rings(&device, memory, &offer, wanted);
            let (agreed, out) = agree(&offer, &wanted);
            device.answer(unique, Ok(&[out.as_bytes()]))?;
            debug!(offer.minor, flags = format!("{:#x}", agreed.flags), "FUSE session agreed on");
            return Ok(Session { device, agreed, attached: false, lost: false, rings });
        }
    }

    /// Goes on with a session that another process began: `agreed` is what it was told by [`Session::agreed`]. The
    /// requests that were in its hands come again ([`Request::is_resent`]), if the kernel can do that.
    ///
    /// `memory` is what that process had. What came to it over rings is found there and comes again too.
    ///
    /// Before Linux 6.9 it cannot: then their callers wait until they are sent a signal.
    ///
    /// # Errors
    /// The session is over.
    pub fn attach(fd: OwnedFd, agreed: Agreed, memory: Option<&OwnedFd>) -> io::Result<Session> {
        let device = Arc::new(Device::new(fd));
        let rings = if agreed.flags & init::OVER_IO_URING == 0 {
            Vec::new()
        } else {
            let memory = memory.ok_or(io::ErrorKind::InvalidInput)?;
            ring::prepare(&device, memory, agreed.request_bytes_max).map_err(|error| {
                let text = format!("io_uring, over which its requests come, is not to be had: {error}");
                io::Error::new(error.kind(), text)
            })?
        };
        let mut session = Session { device, agreed, attached: true, lost: false, rings };
        if agreed.flags & init::HAS_RESEND == 0 {
            warn!(
                "this kernel sends no request twice: calls that were under way hang until they are interrupted"
            );
            session.lost = true;
        } else {
            session.notifier().resend()?;
        }
        Ok(session)
    }

    /// Whether requests come over rings, and not all by the device.
    pub fn is_over_rings(&self) -> bool {
        !self.rings.is_empty()
    }

    pub fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// Says where it is mounted: rings need that.
    pub fn mounted_on(&mut self, dir: &Path) {
        let dir: Arc<Path> = dir.into();
        self.rings.iter_mut().for_each(|ring| ring.set_dir(Arc::clone(&dir)));
    }

    /// The descriptor, for whoever is to keep the session alive. It holds no thread's request.
    ///
    /// # Errors
    /// No more descriptors are to be had.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.device.descriptor()
    }

    pub fn notifier(&self) -> Notifier {
        Notifier::new(Arc::clone(&self.device))
    }

    /// Serves requests until the file system is unmounted or [`Control::drain`] is called, reading with `threads` threads,
    /// this one among them, into `memory`. Jobs may outlive it.
    pub fn run<S: Serve>(
        self,
        serve: Arc<S>,
        runtime: Handle,
        threads: usize,
        memory: Option<Arc<dyn Memory>>,
        ready: impl FnOnce(Control),
    ) -> io::Result<()> {
        let control = Control { in_flight: Arc::default(), draining: Arc::default() };
        let shared = Shared {
            serve,
            device: self.device,
            in_flight: Arc::clone(&control.in_flight),
            draining: Arc::clone(&control.draining),
            lost: self.lost,
            over_rings: !self.rings.is_empty(),
            sources: AtomicUsize::new(if self.attached { 1 + self.rings.len() } else { 0 }),
            runtime,
        };
        let shared = &shared;
        let pool = Pool::new(request_bytes(self.agreed.request_bytes_max), memory);
        ready(control);
        thread::scope(|scope| {
            for (n, ring) in self.rings.into_iter().enumerate() {
                let buffer = pool.take();
                thread::Builder::new().name(format!("fuse-ring-{n}")).spawn_scoped(scope, move || {
                    let _context = shared.runtime.enter();
                    if let Err(error) = ring.run(shared, buffer, &shared.draining) {
                        // Half a server is none: the next process goes on with all of it.
                        error!(%error, "a ring cannot be served");
                        std::process::abort();
                    }
                })?;
            }
            let mut buffer = pool.take();
            if self.attached {
                shared.read_what_comes_again(&mut buffer)?;
            }
            for n in 1..threads {
                let reader = || shared.read_all(pool.take());
                thread::Builder::new().name(format!("fuse-{n}")).spawn_scoped(scope, reader)?;
            }
            shared.read_all(buffer)
        })
    }
}

impl Control {
    /// Requests that have no answer yet and wait for something.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes no more requests: those that come are left to whoever attaches next.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Gives all work up: for a session that is over.
    pub fn give_up(&self) {
        for job in self.in_flight.take_all() {
            job.give_up();
        }
    }
}

impl<S: Serve> Shared<S> {
    fn read_all(&self, mut buffer: Buffer) -> io::Result<()> {
        let _context = self.runtime.enter();
        while self.read_one(&mut buffer)? {}
        Ok(())
    }

    /// Whether to go on.
    fn read_one(&self, buffer: &mut Buffer) -> io::Result<bool> {
        let Received::Request(len) = self.device.receive(buffer)? else { return Ok(false) };
        if self.draining.load(Ordering::SeqCst) {
            return Ok(false);
        }
        match Request::decode(buffer, len) {
            Ok(request) => self.take(request, self.by_device()),
            Err(malformed) => self.refuse(malformed, self.by_device()),
        }
        Ok(true)
    }

    /// What the kernel was asked to send again waits in its queue by now: once that was empty, all of it was read. (To be called
    /// while no other thread reads.)
    fn read_what_comes_again(&self, buffer: &mut Buffer) -> io::Result<()> {
        let _context = self.runtime.enter();
        while self.device.has_more()? {
            if !self.read_one(buffer)? {
                return Ok(());
            }
        }
        self.gave_all();
        Ok(())
    }

    fn by_device(&self) -> Way {
        Way::Device(Arc::clone(&self.device))
    }

    /// The caller of `target` was sent a signal. If it still waits a little later, it is told so, where the signal ends a wait.
    fn interrupted(&self, unique: u64, target: u64) {
        let (device, in_flight) = (Arc::clone(&self.device), Arc::clone(&self.in_flight));
        let serve = Arc::clone(&self.serve);
        let (lost, over_rings) = (self.lost, self.over_rings);
        self.runtime.spawn(async move {
            if !is_known(&in_flight, target, over_rings).await {
                if lost {
                    let _ = device.answer(target, Err(rustix::io::Errno::INTR.raw_os_error()));
                    return;
                }
                let _ = device.answer(unique, Err(rustix::io::Errno::AGAIN.raw_os_error()));
                return;
            }
            let mut pause = INTERRUPT_GRACE;
            loop {
                tokio::time::sleep(pause).await;
                let Some(asked) = in_flight.find(target) else { return };
                if gives_up(&serve, asked.caller).await {
                    break;
                }
                pause = LOOK_AGAIN.min(pause * 3 / 2);
            }
            end(&in_flight, target);
        });
    }

    /// The former process may have been told of a signal to the caller of `unique`, and the kernel tells of it once.
    fn look_after(&self, unique: u64) {
        let in_flight = Arc::clone(&self.in_flight);
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(LOOK_AGAIN).await;
                let Some(asked) = in_flight.find(unique) else { return };
                if signals::pending(asked.caller.pid) == Some(Pending::Deadly) {
                    return end(&in_flight, unique);
                }
            }
        });
    }

    fn answer(unique: u64, answer: Result<&[&[u8]], i32>, way: Way) {
        if let Err(error) = way.answer(unique, answer) {
            debug!(unique, %error, "the kernel did not take an answer");
        }
    }
}

impl<S: Serve> Take for Shared<S> {
    fn gave_all(&self) {
        let decrement = |left: usize| left.checked_sub(1);
        if self.sources.fetch_update(Ordering::SeqCst, Ordering::SeqCst, decrement) == Ok(1) {
            self.serve.all_came_again(self.in_flight.numbers());
        }
    }

    fn take(&self, request: Request, way: Way) {
        let Request { unique, node, pid, ref op, .. } = request;
        match *op {
            Op::Forget { lookups } => {
                self.serve.forget(node, lookups);
                way.release();
            }
            Op::BatchForget(ref nodes) => {
                for one in nodes {
                    self.serve.forget(one.nodeid, one.nlookup);
                }
                way.release();
            }
            Op::Interrupt { unique: target } => {
                self.interrupted(unique, target);
                way.release();
            }
            Op::NotifyReply => way.release(),
            // The unmount that sends it waits for nothing else.
            Op::Destroy => Self::answer(unique, Ok(&[]), way),
            Op::Init(_) => Self::answer(unique, Err(rustix::io::Errno::IO.raw_os_error()), way),
            Op::Other(opcode) => {
                debug!(opcode, "not served");
                Self::answer(unique, Err(rustix::io::Errno::NOSYS.raw_os_error()), way);
            }
            _ => {
                let job = Job::new(self.runtime.clone());
                let caller = Caller { pid, wants_lock: matches!(op, Op::SetLock { wait: true, .. }) };
                let look_after = way.is_ring() && request.is_resent();
                let asked = Asked::new(unique, caller, job, way);
                let reply = Reply::new(Arc::clone(&asked), &self.in_flight);
                asked.job.begin(self.serve.serve(request, reply), || self.in_flight.add(&asked));
                if look_after {
                    self.look_after(unique);
                }
            }
        }
    }

    fn refuse(&self, malformed: Malformed, way: Way) {
        warn!(?malformed, "the kernel sent what is no request");
        if let Some(unique) = malformed.unique {
            Self::answer(unique, Err(rustix::io::Errno::IO.raw_os_error()), way);
        }
    }
}

/// Whether the request `target`, which an interrupt names, is noted: if it is not, it may be answered already, or another
/// thread may be about to note it. One that came by the device is interrupted again then, if the kernel is told so. Of
/// those of rings the device knows nothing, so that is waited for here.
async fn is_known(in_flight: &InFlight, target: u64, over_rings: bool) -> bool {
    let mut pause = UNKNOWN_AGAIN;
    loop {
        if in_flight.find(target).is_some() {
            return true;
        }
        if pause > UNKNOWN_AGAIN && !over_rings || pause > UNKNOWN_UNTIL {
            return false;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// Gives the request `target` up, and tells its caller so.
fn end(in_flight: &InFlight, target: u64) {
    let Some(asked) = in_flight.find(target) else { return };
    if let Some(way) = in_flight.take(&asked) {
        // What it leaves to be taken back comes before what the caller does next.
        asked.job.give_up();
        let _ = way.answer(target, Err(rustix::io::Errno::INTR.raw_os_error()));
    }
}

/// Whether `caller`, which was sent a signal, shall wait no longer.
async fn gives_up<S: Serve>(serve: &Arc<S>, caller: Caller) -> bool {
    match signals::pending(caller.pid) {
        None | Some(Pending::Deadly) => true,
        Some(_) if caller.wants_lock => true,
        Some(Pending::Asking) => serve.waits_in_vain(caller.pid).await,
        Some(Pending::Other) => false,
    }
}

/// Room for the longest request: a write.
fn request_bytes(write_bytes_max: u32) -> usize {
    let write = usize::try_from(write_bytes_max).unwrap_or(usize::MAX);
    abi::WRITE_HEAD_BYTES.saturating_add(write).max(abi::MIN_READ_BUFFER)
}

fn oldest() -> String {
    format!("{}.{}", abi::MAJOR, abi::MINOR_MIN)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Rings, where they are wanted and to be had; and what is left to be wanted else.
fn try_rings(
    device: &Arc<Device>,
    memory: Option<&OwnedFd>,
    offer: &Init,
    wanted: &Wanted,
) -> (Wanted, Vec<Ring>) {
    let without = Wanted { flags: wanted.flags & !init::OVER_IO_URING, ..*wanted };
    let Some(memory) = memory.filter(|_| wanted.flags & init::OVER_IO_URING != 0) else {
        return (without, Vec::new());
    };
    if offer.flags & init::OVER_IO_URING == 0 {
        debug!("this kernel does not offer FUSE over io_uring: requests are read from the device");
        return (without, Vec::new());
    }
    match ring::prepare(device, memory, agree(offer, wanted).0.request_bytes_max) {
        Ok(rings) => (*wanted, rings),
        Err(error) => {
            warn!(%error, "io_uring is not to be had: requests are read from the device");
            (without, Vec::new())
        }
    }
}

/// What to make of an offer, and how to say so.
fn agree(offer: &Init, wanted: &Wanted) -> (Agreed, abi::InitOut) {
    const PAGE: u32 = 4096;
    let always = init::ASYNC_READ | init::BIG_WRITES | init::MAX_PAGES | init::INIT_EXT | init::HAS_RESEND;
    let flags = offer.flags & (wanted.flags | always);
    // Without MAX_PAGES the kernel splits at 32 pages.
    let pages = if flags & init::MAX_PAGES == 0 { 32 } else { wanted.request_bytes_max.div_ceil(PAGE) };
    let max_pages = u16::try_from(pages).unwrap_or(u16::MAX);
    let request_bytes_max = wanted.request_bytes_max.min(u32::from(max_pages) * PAGE);
    let minor = offer.minor.min(abi::MINOR);
    let half = |flags: u64| u32::try_from(flags & u64::from(u32::MAX)).unwrap_or_default();
    let out = abi::InitOut {
        major: abi::MAJOR,
        minor: abi::MINOR,
        max_readahead: offer.max_readahead.min(wanted.read_ahead_bytes_max),
        flags: half(flags),
        flags2: half(flags >> 32),
        max_background: wanted.background_max,
        congestion_threshold: wanted.background_congested,
        max_write: request_bytes_max,
        time_gran: 1,
        max_pages,
        ..abi::InitOut::default()
    };
    (Agreed { minor, flags, request_bytes_max }, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted {
        flags: init::PARALLEL_DIROPS | init::DIRECT_IO_ALLOW_MMAP,
        request_bytes_max: 1 << 20,
        read_ahead_bytes_max: 1 << 20,
        background_max: 64,
        background_congested: 48,
    };

    fn offer(minor: u32, flags: u64) -> Init {
        Init { major: 7, minor, max_readahead: 128 << 10, flags }
    }

    #[test]
    fn only_what_is_offered_is_taken() {
        let all = offer(99, u64::MAX);
        let (agreed, out) = agree(&all, &WANTED);
        assert_eq!((agreed.minor, agreed.request_bytes_max), (abi::MINOR, 1 << 20));
        assert_eq!((out.max_write, out.max_pages, out.max_readahead), (1 << 20, 256, 128 << 10));
        assert_ne!(agreed.flags & init::PARALLEL_DIROPS, 0);
        assert_eq!(agreed.flags & (init::POSIX_ACL | init::WRITEBACK_CACHE), 0, "not wanted");
        assert_eq!(out.flags2, half_of(init::DIRECT_IO_ALLOW_MMAP | init::HAS_RESEND));
        let (agreed, out) = agree(&offer(31, init::ASYNC_READ), &WANTED);
        assert_eq!((agreed.minor, agreed.flags), (31, init::ASYNC_READ));
        assert_eq!((out.max_write, out.flags2), (128 << 10, 0), "a kernel that splits at 32 pages");
    }

    fn half_of(flags: u64) -> u32 {
        u32::try_from(flags >> 32).expect("32 bits")
    }
}
