//! The accept loop: who may come in, what of a client's older connections must end first, and how much may be asked
//! at once.

use crate::{
    Identity, NetError,
    counters::{Direction, MessageCounters},
    framing::{FrameReader, FrameWriter, Head, ReadError},
    handshake::{self, Proven},
    lent::Lent,
};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use pvfs_env::{
    LineEnd, Metrics, Stream, Transport,
    memory::{Place, SharedSlice, Theirs},
    task,
};
use pvfs_types::FsId;
use pvfs_wire::{
    FrameKind, Header, Op, Refusal, Status, decode, encode,
    msg::{
        hello::{Hello, Role},
        session::Done,
    },
};
use std::{
    collections::BTreeMap,
    future::Future,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{debug, warn};

/// Payload bytes that may be in memory at once for all connections together (KiB permits).
const PAYLOAD_KIB_MAX: usize = 256 << 10;
/// Requests of one connection that may be in work at once.
const REQUESTS_MAX: usize = 1024;
/// Connections at once; more are closed as they come.
const CONNECTIONS_MAX: usize = 65_536;
/// How long a stranger may take to prove itself.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests in work may take to end at a shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Who sent a request.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    pub role: Role,
    pub client: [u8; 16],
    pub label: String,
    pub addr: String,
}

/// A request, checked as far as a frame can be.
pub struct Incoming {
    pub op: Op,
    pub body: Bytes,
    pub payload: Bytes,
    pub shared: Shared,
    pub peer: Arc<PeerInfo>,
}

/// What a client of this machine lends with a request, until it is answered.
#[derive(Clone)]
pub enum Shared {
    Nothing,
    /// The payload.
    Payload(Vec<SharedSlice>),
    /// Where the answer's payload may go: see [`Replier::ok_in_room`].
    Room(Vec<SharedSlice>),
}

impl Incoming {
    pub fn decode<T: for<'b> Decode<'b, ()>>(&self) -> Result<T, Refusal> {
        decode(&self.body).map_err(|e| Refusal::new(Status::BadRequest, format!("{}: {e}", self.op.name())))
    }
}

/// Does what requests ask.
pub trait Service: Send + Sync + 'static {
    /// Serves one request. The connection's next frame is read when this returns, so what may take long is spawned,
    /// with `reply` moved along.
    fn serve(self: Arc<Self>, request: Incoming, reply: Replier) -> impl Future<Output = ()> + Send;

    /// Whether a late effect of `op` could harm what the same client does on a newer connection. Such requests end
    /// before a newer connection of their client is welcomed.
    fn fences(&self, op: Op) -> bool;

    /// Whether it knows what to do with what a client lends for `op`.
    fn takes_shared(&self, op: Op) -> bool {
        let _ = op;
        false
    }
}

/// A listening daemon.
pub struct Server {
    listener: Box<dyn pvfs_env::Listener>,
    shared: Arc<Common>,
}

struct Common {
    identity: Identity,
    fs: FsId,
    process: u64,
    metrics: Metrics,
    /// By role of the other side.
    counters: [MessageCounters; 3],
    payload: Arc<Semaphore>,
    clients: Mutex<BTreeMap<Who, Newest>>,
}

/// Held by whatever a shutdown waits for.
type Alive = tokio::sync::mpsc::Sender<()>;

/// A client's newest connection.
struct Newest {
    number: u64,
    /// Set: end, unread bytes and all.
    stop: watch::Sender<bool>,
    /// Its reader and its fencing requests each hold a receiver's clone; all gone means ended.
    work: Arc<watch::Sender<()>>,
}

impl Server {
    /// Listens on `addr` (`host:port`; port 0 takes a free one). `identity.fs` must be known.
    pub async fn bind(
        transport: Arc<dyn Transport>,
        addr: &str,
        identity: Identity,
        metrics: Metrics,
    ) -> Result<Server, NetError> {
        let listener = transport.listen(addr).await;
        let listener = listener.map_err(|source| NetError::Listen { addr: addr.to_owned(), source })?;
        let fs = identity.fs.ok_or(NetError::NoSecret { hint: "a daemon must know its file system" })?;
        let counters = [Role::Client, Role::Mgr, Role::Iod].map(|role| MessageCounters::new(&metrics, role));
        let shared = Common {
            identity,
            fs,
            process: pvfs_env::random::number(),
            metrics,
            counters,
            payload: Arc::new(Semaphore::new(PAYLOAD_KIB_MAX)),
            clients: Mutex::default(),
        };
        Ok(Server { listener, shared: Arc::new(shared) })
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> String {
        self.listener.local_addr()
    }

    /// The random number of this process, as told in every welcome.
    pub fn process(&self) -> u64 {
        self.shared.process
    }

    /// Serves until `shutdown`, then lets requests in work end.
    pub async fn run<S: Service>(self, service: Arc<S>, shutdown: impl Future<Output = ()> + Send) {
        let (stop, stopped) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        let accepting = async {
            loop {
                match self.listener.accept().await {
                    Ok(stream) => {
                        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
                            warn!(
                                peer = stream.peer,
                                max = CONNECTIONS_MAX,
                                "too many connections, one closed"
                            );
                            continue;
                        };
                        let (shared, service) = (Arc::clone(&self.shared), Arc::clone(&service));
                        let (stopped, alive) = (stopped.clone(), alive.clone());
                        task::spawn(async move {
                            serve_connection(shared, service, stream, stopped, alive).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        // Out of descriptors, say: pause instead of spinning; those who are in go on.
                        warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = shutdown => {}
            () = accepting => {}
        }
        let _ = stop.send(true);
        drop(alive);
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, ended.recv()).await;
    }
}

async fn serve_connection<S: Service>(
    shared: Arc<Common>,
    service: Arc<S>,
    stream: Stream,
    stopped: watch::Receiver<bool>,
    alive: Alive,
) {
    let addr = stream.peer;
    let (mut reader, mut writer) = (FrameReader::new(stream.read), FrameWriter::new(stream.write));
    let hello = handshake::accept(&mut reader, &mut writer, &shared.identity, &addr);
    let proven = match tokio::time::timeout(HELLO_TIMEOUT, hello).await {
        Ok(Ok(proven)) => proven,
        Ok(Err(error)) => {
            shared.metrics.counter("pvfs_hello_refused_total", &[]).inc();
            return debug!(peer = addr, %error, "stranger turned away");
        }
        Err(_) => return debug!(peer = addr, "stranger said nothing"),
    };
    let turn = match take_over(&shared, &proven).await {
        Ok(turn) => turn,
        Err(refusal) => {
            proven.refuse(&mut writer, refusal, &addr).await;
            return;
        }
    };
    let theirs = match stream.memory.theirs() {
        Ok(theirs) => theirs,
        Err(error) => return debug!(peer = addr, %error, "a client's memory is refused"),
    };
    if proven.welcome(&mut writer, &shared.identity, shared.fs, shared.process, &addr).await.is_err() {
        return;
    }
    reader.lends(theirs.is_some());
    debug!(peer = addr, label = proven.hello.label, number = proven.hello.connection, "connection opened");
    let connection = Connection {
        version: proven.version,
        theirs: theirs.map(Arc::new),
        line: stream.memory.line_end(),
        writer: Arc::new(tokio::sync::Mutex::new(writer)),
        counters: shared.counters[match proven.hello.role {
            Role::Client => 0,
            Role::Mgr => 1,
            Role::Iod => 2,
        }]
        .clone(),
        peer: Arc::new(PeerInfo {
            role: proven.hello.role,
            client: proven.hello.client,
            label: proven.hello.label.clone(),
            addr: addr.clone(),
        }),
        fenced: turn.stop.clone(),
    };
    let why = connection.read_requests(&shared, &service, reader, &turn, stopped, &alive).await;
    debug!(peer = addr, why, "connection closed");
    forget(&shared, &proven, turn).await;
}

/// Takes a closed connection off the list, once what of it fences has ended: the client's next one waits for that.
async fn forget(shared: &Common, proven: &Proven, turn: Turn) {
    drop(turn);
    let (client, number) = (who(&proven.hello), proven.hello.connection);
    let is_ours = |newest: &&Newest| newest.number == number;
    let work =
        shared.with_clients(|clients| clients.get(&client).filter(is_ours).map(|n| Arc::clone(&n.work)));
    let Some(work) = work else { return };
    work.closed().await;
    shared.with_clients(|clients| {
        if clients.get(&client).as_ref().is_some_and(is_ours) {
            clients.remove(&client);
        }
    });
}

/// Whose connections follow each other. The role is proven: so no client can claim to be a daemon's next connection.
type Who = (Role, [u8; 16]);

fn who(hello: &Hello) -> Who {
    (hello.role, hello.client)
}

/// What a connection holds while it is its client's newest.
struct Turn {
    stop: watch::Receiver<bool>,
    work: watch::Receiver<()>,
}

/// Makes this the client's newest connection: older ones are stopped, what of them was running has ended.
async fn take_over(shared: &Common, proven: &Proven) -> Result<Turn, Refusal> {
    let (client, number) = (who(&proven.hello), proven.hello.connection);
    let (stop, stop_seen) = watch::channel(false);
    let (work, work_held) = watch::channel(());
    let older = shared.with_clients(|clients| {
        if clients.get(&client).is_some_and(|newest| newest.number >= number) {
            return Err(Refusal::new(Status::Unauthorized, "a newer connection of this client is open"));
        }
        Ok(clients.insert(client, Newest { number, stop, work: Arc::new(work) }))
    })?;
    if let Some(older) = older {
        shared.metrics.counter("pvfs_takeovers_total", &[]).inc();
        let _ = older.stop.send(true);
        older.work.closed().await;
    }
    Ok(Turn { stop: stop_seen, work: work_held })
}

impl Common {
    fn with_clients<T>(&self, act: impl FnOnce(&mut BTreeMap<Who, Newest>) -> T) -> T {
        act(&mut self.clients.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The server's end of a connection.
#[derive(Clone)]
struct Connection {
    version: u16,
    /// The client's memory.
    theirs: Option<Arc<Theirs>>,
    /// Over which it is passed descriptors.
    line: Option<Arc<LineEnd>>,
    writer: Arc<tokio::sync::Mutex<FrameWriter>>,
    counters: MessageCounters,
    peer: Arc<PeerInfo>,
    /// Set: a newer connection of the client took over.
    fenced: watch::Receiver<bool>,
}

impl Connection {
    async fn read_requests<S: Service>(
        &self,
        shared: &Common,
        service: &Arc<S>,
        mut reader: FrameReader,
        turn: &Turn,
        mut stopped: watch::Receiver<bool>,
        alive: &Alive,
    ) -> String {
        let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
        let mut fenced = turn.stop.clone();
        let why = loop {
            let next = async {
                let header = reader.header().await?;
                let permits = Permits::acquire(shared, &requests, &header).await;
                let frame = reader.rest(header).await?;
                Ok::<_, ReadError>((frame, permits))
            };
            let (frame, permits) = tokio::select! {
                biased;
                _ = fenced.wait_for(|stop| *stop) => break "a newer connection took over".to_owned(),
                _ = stopped.wait_for(|stop| *stop) => break "the daemon stops".to_owned(),
                next = next => match next {
                    Ok(next) => next,
                    Err(ReadError::Closed) => break "the peer closed it".to_owned(),
                    Err(error) => break error.for_peer(&self.peer.addr).to_string(),
                },
            };
            let payload_bytes = usize::try_from(frame.header.payload_bytes).unwrap_or(usize::MAX);
            self.counters.count(Direction::Received, frame.header.kind, frame.header.op, payload_bytes);
            let mut reply = Replier {
                connection: self.clone(),
                header: frame.header,
                answered: false,
                permits,
                work: None,
                alive: alive.clone(),
            };
            if frame.header.kind != FrameKind::Request {
                reply.answered = true;
                break "the peer sent an answer where a request was due".to_owned();
            }
            let Some(op) = Op::from_number(frame.header.op) else {
                let text = format!("operation {:#06x} is unknown to this version", frame.header.op);
                reply.refuse(Refusal::new(Status::UnknownOp, text)).await;
                continue;
            };
            if frame.payload_damaged {
                let text = "the payload's checksum does not fit: it was damaged on its way";
                reply.refuse(Refusal::new(Status::PayloadDamaged, text)).await;
                continue;
            }
            match op {
                Op::Ping => reply.ok(&Done {}).await,
                Op::Hello | Op::Prove => {
                    reply.refuse(Refusal::new(Status::BadRequest, "the hello is over")).await;
                }
                _ => {
                    let Some(lent) = self.shared(&frame.lent).filter(|shared| match shared {
                        Shared::Nothing => true,
                        Shared::Payload(_) | Shared::Room(_) => service.takes_shared(op),
                    }) else {
                        let text = format!("what is lent with `{}` is not there, or of no use", op.name());
                        reply.refuse(Refusal::new(Status::BadRequest, text)).await;
                        continue;
                    };
                    // Neither must be written to or read from when the client has it for something else.
                    let fences = service.fences(op) || !matches!(lent, Shared::Nothing);
                    reply.work = fences.then(|| turn.work.clone());
                    let request = Incoming {
                        op,
                        body: frame.body,
                        payload: frame.payload,
                        shared: lent,
                        peer: Arc::clone(&self.peer),
                    };
                    Arc::clone(service).serve(request, reply).await;
                }
            }
        };
        // The peer must not wait for more on this stream.
        drop(reader);
        why
    }

    /// What the client lends; `None`: there is no such place.
    fn shared(&self, lent: &Lent) -> Option<Shared> {
        let slices = |places: &[Place]| -> Option<Vec<SharedSlice>> {
            let theirs = self.theirs.as_ref()?;
            places.iter().map(|place| theirs.slice(*place)).collect()
        };
        match lent {
            Lent::Nothing => Some(Shared::Nothing),
            Lent::Payload(places) => slices(places).map(Shared::Payload),
            Lent::Room(places) => slices(places).map(Shared::Room),
            Lent::InRoom => None,
        }
    }

    /// With `in_room` bytes of payload in the room that the client has lent for it, or with `payload`.
    async fn send(&self, to: &Header, kind: FrameKind, body: &[u8], payload: &[Bytes], in_room: Option<u32>) {
        let lent = in_room.map_or((Lent::Nothing, 0), |bytes| (Lent::InRoom, bytes));
        let lent = self.theirs.is_some().then_some((&lent.0, lent.1));
        let head = Head::lending(self.version, to.op, to.request_id, kind, body, payload, lent);
        let in_room = in_room.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let payload_bytes = payload.iter().map(Bytes::len).sum::<usize>() + in_room;
        self.counters.count(Direction::Sent, kind, to.op, payload_bytes);
        let mut fenced = self.fenced.clone();
        let sent = tokio::select! {
            biased;
            // The newer connection must not wait for a peer that takes nothing from this one any more.
            _ = fenced.wait_for(|stop| *stop) => Err(std::io::ErrorKind::ConnectionAborted.into()),
            sent = async { self.writer.lock().await.write(&head, payload).await } => sent,
        };
        // A peer that is gone learns the answer when it asks again.
        if let Err(error) = sent {
            debug!(peer = self.peer.addr, %error, "an answer could not be sent");
        }
    }
}

/// What a request in work holds of its daemon's bounds.
#[expect(dead_code, reason = "held, not read")]
struct Permits {
    request: Option<OwnedSemaphorePermit>,
    payload: Option<OwnedSemaphorePermit>,
}

impl Permits {
    /// Waits for room, before memory is given to the payload.
    async fn acquire(shared: &Common, requests: &Arc<Semaphore>, header: &Header) -> Permits {
        let request = Arc::clone(requests).acquire_owned().await.ok();
        let kib = header.payload_bytes.div_ceil(1024);
        let payload =
            if kib == 0 { None } else { Arc::clone(&shared.payload).acquire_many_owned(kib).await.ok() };
        Permits { request, payload }
    }
}

/// Answers one request, once. Dropped without an answer, it tells the peer to ask again.
pub struct Replier {
    connection: Connection,
    header: Header,
    answered: bool,
    #[expect(dead_code, reason = "held until the request is answered")]
    permits: Permits,
    work: Option<watch::Receiver<()>>,
    #[expect(dead_code, reason = "held until the request is answered")]
    alive: Alive,
}

impl Replier {
    pub async fn ok<T: Encode<()>>(self, reply: &T) {
        self.ok_payload(reply, &[]).await;
    }

    pub async fn ok_payload<T: Encode<()>>(self, reply: &T, payload: &[Bytes]) {
        self.ok_encoded(&encode(reply), payload).await;
    }

    /// With a body that is encoded already.
    pub async fn ok_encoded(mut self, body: &[u8], payload: &[Bytes]) {
        self.answered = true;
        self.connection.send(&self.header, FrameKind::Reply, body, payload, None).await;
    }

    /// Passes the client two descriptors under `number`, which it finds there when it has the answer.
    ///
    /// # Errors
    /// [`std::io::ErrorKind::Unsupported`]: it is of another machine.
    pub fn pass(&self, number: u64, fds: [BorrowedFd<'_>; 2]) -> std::io::Result<()> {
        let unsupported = std::io::Error::from(std::io::ErrorKind::Unsupported);
        self.connection.line.as_ref().ok_or(unsupported)?.pass(number, fds)
    }

    /// With a payload of `bytes`, which are in the room that the request has lent for it.
    pub async fn ok_in_room<T: Encode<()>>(mut self, reply: &T, bytes: u32) {
        self.answered = true;
        self.connection.send(&self.header, FrameKind::Reply, &encode(reply), &[], Some(bytes)).await;
    }

    pub async fn refuse(mut self, refusal: Refusal) {
        self.answered = true;
        self.connection.send(&self.header, FrameKind::Refusal, &encode(&refusal), &[], None).await;
    }

    /// Either of them.
    pub async fn answer<T: Encode<()>>(self, answer: Result<T, Refusal>) {
        match answer {
            Ok(reply) => self.ok(&reply).await,
            Err(refusal) => self.refuse(refusal).await,
        }
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let (connection, header) = (self.connection.clone(), self.header);
        if tokio::runtime::Handle::try_current().is_ok() {
            task::spawn(async move {
                let refusal = Refusal::new(Status::NotNow, "the request was dropped unanswered");
                connection.send(&header, FrameKind::Refusal, &encode(&refusal), &[], None).await;
            });
        }
    }
}
