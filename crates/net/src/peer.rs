//! One server as its user sees it: connected when needed, connected again when it broke, every request sent again
//! until it is answered.

use crate::{
    Backoff, CallError, Identity, NetError,
    connection::Connection,
    counters::MessageCounters,
    framing::{Frame, FrameReader, FrameWriter},
    handshake,
    lent::{Lent, Limbo, Load},
};
use bytes::Bytes;
use pvfs_env::{BoxFuture, Counter, Line, Metrics, Transport};
use pvfs_types::Errno;
use pvfs_wire::{FrameError, FrameKind, Op, Refusal, Request, Status, decode, encode, msg::hello::Role};
use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tracing::{debug, info, warn};

/// How long one try to connect and say hello may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// An answer that takes longer counts as being waited for.
const SLOW_AFTER: Duration = Duration::from_secs(1);

/// An answer that takes longer is said in the log.
const SILENT_AFTER: Duration = Duration::from_secs(5);

/// Reads the body of a reply.
pub type ReadBody<'a> = &'a mut (dyn FnMut(&[u8]) -> Result<(), FrameError> + Send);

/// A [`ReadBody`] that leaves the reply in `slot`, to be taken by [`read`].
pub fn read_into<T: for<'b> minicbor::Decode<'b, ()>>(
    slot: &mut Option<T>,
) -> impl FnMut(&[u8]) -> Result<(), FrameError> {
    |body| {
        *slot = Some(decode(body)?);
        Ok(())
    }
}

/// The reply that [`read_into`] has left, after a call that did not fail.
///
/// # Panics
/// There was no such call.
pub fn read<T>(slot: Option<T>) -> T {
    slot.expect("a call that did not fail has read its reply")
}

/// Makes [`Peer`]s that share an identity and count their connections together.
pub struct Dialer {
    transport: Arc<dyn Transport>,
    identity: Identity,
    metrics: Metrics,
    /// The number of the next connection; rises over all servers, so for each of them too.
    next_connection: AtomicU64,
}

/// A server that is being waited for.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub since: Instant,
    pub tries: u32,
    /// Why the last try failed.
    pub error: String,
}

/// One server. Make one `Peer` per server and process: a second one under the same identity would fence the first.
pub struct Peer {
    dialer: Arc<Dialer>,
    kind: Role,
    counters: MessageCounters,
    connects: Counter,
    shared: Arc<Shared>,
    /// Held by whoever is connecting; the others wait for it.
    connecting: tokio::sync::Mutex<Backoff>,
    failures: watch::Sender<u64>,
    limbo: Limbo,
}

/// What the connections' tasks share with the peer.
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    addrs: Vec<String>,
    connection: Option<Arc<Connection>>,
    waiting: Option<Waiting>,
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Dialer {
    pub fn new(transport: Arc<dyn Transport>, identity: Identity, metrics: Metrics) -> Arc<Dialer> {
        Dialer::numbered(transport, identity, metrics, 1)
    }

    /// As [`Dialer::new`], with connections numbered from `first` on: for a process that goes on as the client that another
    /// one was. Above all numbers of that one, so that they fence its connections.
    pub fn numbered(
        transport: Arc<dyn Transport>,
        identity: Identity,
        metrics: Metrics,
        first: u64,
    ) -> Arc<Dialer> {
        Arc::new(Dialer { transport, identity, metrics, next_connection: AtomicU64::new(first) })
    }

    /// A server of role `kind`, at the first of `addrs` (`host:port`) that answers. Connects at the first call.
    pub fn peer(self: &Arc<Self>, kind: Role, addrs: Vec<String>) -> Arc<Peer> {
        let counters = MessageCounters::new(&self.metrics, kind);
        let peer_name = crate::counters::role_name(kind);
        Arc::new(Peer {
            dialer: Arc::clone(self),
            kind,
            counters,
            connects: self.metrics.counter("pvfs_connects_total", &[("peer", peer_name)]),
            shared: Arc::new(Shared(Mutex::new(State { addrs, ..State::default() }))),
            connecting: tokio::sync::Mutex::new(Backoff::default()),
            failures: watch::channel(0).0,
            limbo: Limbo::default(),
        })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl Peer {
    /// The next connection goes to one of these.
    pub fn set_addrs(&self, addrs: Vec<String>) {
        self.shared.with(|state| state.addrs = addrs);
    }

    pub fn addrs(&self) -> Vec<String> {
        self.shared.with(|state| state.addrs.clone())
    }

    /// Counts failed tries to connect: watch it to look for the server's new address.
    pub fn unreachable(&self) -> watch::Receiver<u64> {
        self.failures.subscribe()
    }

    /// Since when and why this server is being waited for, if it is.
    pub fn waiting(&self) -> Option<Waiting> {
        let silent = |connection: Arc<Connection>| {
            let since = connection.oldest()?;
            let error = "connected, but a request has no answer yet".to_owned();
            (since.elapsed() >= SLOW_AFTER).then_some(Waiting { since, tries: 1, error })
        };
        self.shared.with(|state| state.waiting.clone()).or_else(|| self.live().and_then(silent))
    }

    /// Asks until answered, for ever; to give up, drop the future. A connection that breaks, [`Status::NotNow`] and
    /// [`Status::PayloadDamaged`] lead to another try; every other refusal is returned.
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Reply, Refusal> {
        Ok(self.call_payload(request, &[]).await?.0)
    }

    /// As [`Peer::call`], with payloads both ways.
    pub async fn call_payload<R: Request>(
        &self,
        request: &R,
        payload: &[Bytes],
    ) -> Result<(R::Reply, Bytes), Refusal> {
        let mut reply = None;
        let load = Load::from(payload);
        let payload = self.call_encoded(R::OP, encode(request), load, &mut read_into(&mut reply)).await?;
        Ok((read(reply), payload))
    }

    /// The server that is connected now has this client's memory: what lies there goes to it without a copy.
    pub fn lends(&self) -> bool {
        self.live().is_some_and(|connection| connection.lends())
    }

    /// What the server has passed under `number`, and the line it came over, which breaks when the server dies. `None`: nothing
    /// came, or the connection was another one.
    pub fn passed(&self, number: u64) -> Option<(Arc<Line>, [OwnedFd; 2])> {
        let connection = self.live()?;
        let line = connection.line()?;
        Some((Arc::clone(line), line.take(number)?))
    }

    /// As [`Peer::call_payload`], of a request that is encoded already; `read` is given the reply's body. Gives its payload, or
    /// leaves it in the room that `load` has for it.
    ///
    /// Boxed and of no request's type, so that it is compiled here, once, and not for each request and by all who ask.
    pub fn call_encoded<'a>(
        &'a self,
        op: Op,
        body: Vec<u8>,
        load: Load<'a>,
        read: ReadBody<'a>,
    ) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        Box::pin(self.call_till_answered(op, body, load, read))
    }

    async fn call_till_answered(
        &self,
        op: Op,
        body: Vec<u8>,
        load: Load<'_>,
        read: ReadBody<'_>,
    ) -> Result<Bytes, Refusal> {
        let mut backoff = Backoff::default();
        loop {
            let connection = self.connected().await;
            let exchange = connection.exchange(op, &body, load);
            let Ok(frame) = self.noting_silence(op, exchange).await else {
                self.lost(&connection);
                // The first loss is acted on at once; a server that takes the request and breaks again is given time.
                if backoff.tries() > 0 {
                    tokio::time::sleep(backoff.fail(pvfs_env::random::number())).await;
                } else {
                    backoff.fail(0);
                }
                continue;
            };
            let in_room = (frame.lent == Lent::InRoom).then_some(frame.header.payload_bytes);
            match self.read_answer(op, frame, read) {
                Ok(answer) => {
                    if let (Some(bytes), Some(room)) = (in_room, load.room) {
                        room.is_filled(bytes);
                    }
                    return Ok(answer);
                }
                Err(Refusal { status: Status::NotNow | Status::PayloadDamaged, text }) => {
                    let pause = backoff.fail(pvfs_env::random::number());
                    self.note_waiting(&text);
                    debug!(op = op.name(), text, ?pause, "asked to come again");
                    tokio::time::sleep(pause).await;
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Says so, once, where an answer takes so long that people ask why.
    async fn noting_silence<T>(&self, op: Op, exchange: impl Future<Output = T>) -> T {
        if op.is_patient() {
            return exchange.await;
        }
        let mut exchange = std::pin::pin!(exchange);
        if let Ok(done) = tokio::time::timeout(SILENT_AFTER, &mut exchange).await {
            return done;
        }
        if self.note_waiting("connected, but a request has no answer yet") {
            warn!(server = self.name(), op = op.name(), after = ?SILENT_AFTER, "server does not answer, waiting on");
        }
        exchange.await
    }

    /// Asks once, connecting where needed, within `deadline`.
    pub async fn call_once<R: Request>(
        &self,
        request: &R,
        deadline: Duration,
    ) -> Result<R::Reply, CallError> {
        let attempt = async {
            let mut reply = None;
            self.ask_once(R::OP, encode(request), &mut read_into(&mut reply)).await?;
            Ok(read(reply))
        };
        tokio::time::timeout(deadline, attempt).await.unwrap_or(Err(CallError::TimedOut { after: deadline }))
    }

    fn ask_once<'a>(
        &'a self,
        op: Op,
        body: Vec<u8>,
        read: ReadBody<'a>,
    ) -> BoxFuture<'a, Result<Bytes, CallError>> {
        Box::pin(async move {
            let connection = self.connected_once().await?;
            let Ok(frame) = connection.exchange(op, &body, Load::default()).await else {
                self.lost(&connection);
                let peer = self.name();
                let source = std::io::ErrorKind::ConnectionReset.into();
                return Err(NetError::Broken { peer, source }.into());
            };
            self.read_answer(op, frame, read).map_err(CallError::Refused)
        })
    }

    /// The time from sending a ping to its answer, within `deadline`.
    pub async fn ping(&self, deadline: Duration) -> Result<Duration, CallError> {
        let begin = Instant::now();
        self.call_once(&pvfs_wire::msg::admin::Ping {}, deadline).await?;
        Ok(begin.elapsed())
    }

    /// What the server told of itself in the hello, while connected.
    pub fn welcome(&self) -> Option<pvfs_wire::msg::hello::Welcome> {
        self.live().map(|connection| connection.welcome.clone())
    }

    /// Waits until the connection that is open now breaks; returns at once where there is none.
    pub async fn broken(&self) {
        if let Some(connection) = self.live() {
            connection.broken().await;
        }
    }

    /// Has `reader` read `frame`, if it is a reply. Gives its payload.
    fn read_answer(&self, op: Op, frame: Frame, reader: ReadBody<'_>) -> Result<Bytes, Refusal> {
        let wrongly = |error: FrameError| {
            let text = format!("{} answered {} wrongly: {error}", self.name(), op.name());
            Refusal::new(Status::Errno(Errno::EIO), text)
        };
        let answer = match frame.header.kind {
            _ if frame.payload_damaged => {
                Err(Refusal::new(Status::PayloadDamaged, "the answer's payload was damaged"))
            }
            FrameKind::Reply => reader(&frame.body).map(|()| frame.payload).map_err(wrongly),
            FrameKind::Refusal => Err(decode(&frame.body).unwrap_or_else(wrongly)),
            FrameKind::Request => {
                Err(wrongly(FrameError::Body { text: "a request where a reply was due".into() }))
            }
        };
        if !matches!(&answer, Err(Refusal { status: Status::NotNow | Status::PayloadDamaged, .. })) {
            self.note_answer();
        }
        answer
    }

    fn live(&self) -> Option<Arc<Connection>> {
        self.shared.with(|state| state.connection.clone()).filter(|connection| !connection.is_broken())
    }

    fn lost(&self, connection: &Arc<Connection>) {
        self.shared.with(|state| {
            if state.connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
                state.connection = None;
            }
        });
    }

    /// A live connection; tries once.
    async fn connected_once(&self) -> Result<Arc<Connection>, NetError> {
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        let _turn = self.connecting.lock().await;
        if let Some(connection) = self.live() { Ok(connection) } else { self.connect().await }
    }

    /// A live connection; tries for ever.
    async fn connected(&self) -> Arc<Connection> {
        loop {
            if let Some(connection) = self.live() {
                return connection;
            }
            let mut backoff = self.connecting.lock().await;
            if let Some(connection) = self.live() {
                return connection;
            }
            match self.connect().await {
                Ok(connection) => {
                    backoff.reset();
                    return connection;
                }
                Err(error) => {
                    let tries = backoff.tries() + 1;
                    let pause = backoff.fail(pvfs_env::random::number());
                    if self.note_waiting(&error.to_string()) {
                        warn!(server = self.name(), %error, "server does not answer, trying on");
                    } else {
                        debug!(server = self.name(), tries, %error, ?pause, "server does not answer yet");
                    }
                    self.failures.send_modify(|n| *n += 1);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// One try over all addresses. The caller holds `connecting`.
    async fn connect(&self) -> Result<Arc<Connection>, NetError> {
        let mut result = Err(NetError::NoAddress);
        for addr in self.addrs() {
            let attempt = tokio::time::timeout(CONNECT_TIMEOUT, self.connect_to(&addr)).await;
            result = attempt.unwrap_or(Err(NetError::TimedOut { addr, after: CONNECT_TIMEOUT }));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn connect_to(&self, addr: &str) -> Result<Arc<Connection>, NetError> {
        let stream = self.dialer.transport.connect(addr).await;
        let stream = stream.map_err(|source| NetError::Connect { addr: addr.to_owned(), source })?;
        let (mut reader, mut writer) = (FrameReader::new(stream.read), FrameWriter::new(stream.write));
        let number = self.dialer.next_connection.fetch_add(1, Ordering::Relaxed);
        let agreed = handshake::dial(&mut reader, &mut writer, &self.dialer.identity, number, addr).await?;
        let ended = {
            let addr = addr.to_owned();
            move |error: NetError| debug!(server = addr, %error, "connection ended")
        };
        // It has ended what it did for the connections before.
        self.limbo.clear();
        let (counters, memory) = (self.counters.clone(), (&stream.memory, self.limbo.clone()));
        let stream = (reader, writer);
        let connection =
            Arc::new(Connection::start(agreed, stream, memory, counters, addr.to_owned(), ended));
        self.connects.inc();
        debug!(server = addr, number, "connected");
        self.shared.with(|state| state.connection = Some(Arc::clone(&connection)));
        self.note_answer();
        Ok(connection)
    }

    /// True at the first note since the last answer.
    fn note_waiting(&self, error: &str) -> bool {
        self.shared.with(|state| {
            let first = state.waiting.is_none();
            let waiting = state.waiting.get_or_insert_with(|| Waiting {
                since: Instant::now(),
                tries: 0,
                error: String::new(),
            });
            waiting.tries = waiting.tries.saturating_add(1);
            error.clone_into(&mut waiting.error);
            first
        })
    }

    fn note_answer(&self) {
        if let Some(waiting) = self.shared.with(|state| state.waiting.take()) {
            info!(server = self.name(), tries = waiting.tries, after = ?waiting.since.elapsed(), "server answers again");
        }
    }

    /// For people: role and addresses.
    pub fn name(&self) -> String {
        format!("{} {}", crate::counters::role_name(self.kind), self.addrs().join(","))
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("name", &self.name()).finish_non_exhaustive()
    }
}
