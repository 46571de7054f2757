//! One live connection to a server: many calls at once, each with its own request id.

use crate::{
    NetError,
    counters::{Direction, MessageCounters},
    framing::{Frame, FrameReader, FrameWriter, Head, ReadError},
    lent::{AnswerRoom, Kept, Lent, Limbo, Load, PLACES_MAX},
};
use bytes::Bytes;
use pvfs_env::{Line, Memory, memory::Arena};
use pvfs_wire::{FrameError, FrameKind, Op, msg::hello::Welcome};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    sync::{oneshot, watch},
    task::AbortHandle,
    time::Instant,
};

/// The connection is gone; the request may have been done or not.
#[derive(Debug)]
pub struct Lost;

/// Ends with its last handle; calls in flight then get [`Lost`].
pub struct Connection {
    pub welcome: Welcome,
    version: u16,
    /// The memory that the server has too.
    arena: Option<Arc<Arena>>,
    /// Over which the server passes descriptors.
    line: Option<Arc<Line>>,
    writer: tokio::sync::Mutex<FrameWriter>,
    pending: Arc<Pending>,
    next_id: AtomicU64,
    counters: MessageCounters,
    reader: AbortHandle,
    /// Closes when the connection breaks.
    alive: watch::Receiver<()>,
}

/// Who waits for which answer; `None` once the connection is broken.
struct Pending {
    waiters: Mutex<Option<Waiters>>,
    limbo: Limbo,
}

/// By request id.
type Waiters = BTreeMap<u64, Waiter>;

struct Waiter {
    /// Where the answer goes; `None`: its caller has gone, but the server may still write where it was to go.
    answer: Option<oneshot::Sender<Frame>>,
    /// `None`: the answer is not due at any time.
    since: Option<Instant>,
    kept: Kept,
}

impl Pending {
    fn with<T>(&self, act: impl FnOnce(&mut Option<Waiters>) -> T) -> T {
        act(&mut self.waiters.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The connection is broken. What was lent over it stays lent.
    fn close(&self) {
        self.with(|waiters| {
            self.limbo.add(waiters.take().into_iter().flatten().map(|(_, waiter)| waiter.kept));
        });
    }
}

impl Connection {
    /// `ended` is told why, once, when the connection breaks.
    pub fn start(
        (version, welcome): (u16, Welcome),
        (mut reader, writer): (FrameReader, FrameWriter),
        (memory, limbo): (&Memory, Limbo),
        counters: MessageCounters,
        peer: String,
        ended: impl FnOnce(NetError) + Send + 'static,
    ) -> Connection {
        let pending = Arc::new(Pending { waiters: Mutex::new(Some(BTreeMap::new())), limbo });
        reader.lends(memory.own().is_some());
        let (living, alive) = watch::channel(());
        let reading = read_answers(reader, Arc::clone(&pending), counters.clone(), peer, ended);
        let task = pvfs_env::task::spawn(async move {
            reading.await;
            drop(living);
        });
        Connection {
            welcome,
            version,
            arena: memory.own().cloned(),
            line: memory.line().cloned(),
            writer: tokio::sync::Mutex::new(writer),
            pending,
            // The handshake used 0 and 1.
            next_id: AtomicU64::new(2),
            counters,
            reader: task.abort_handle(),
            alive,
        }
    }

    pub fn is_broken(&self) -> bool {
        self.pending.with(|pending| pending.is_none())
    }

    /// The server has this client's memory.
    pub fn lends(&self) -> bool {
        self.arena.is_some()
    }

    /// Where the server passes descriptors, if it can.
    pub fn line(&self) -> Option<&Arc<Line>> {
        self.line.as_ref()
    }

    /// Waits until it is broken.
    pub async fn broken(&self) {
        let mut alive = self.alive.clone();
        // It says nothing, it closes.
        let _ = alive.changed().await;
    }

    /// Since when the longest of the calls in flight waits whose answer is due.
    pub fn oldest(&self) -> Option<Instant> {
        self.pending.with(|pending| pending.as_ref()?.values().filter_map(|waiter| waiter.since).min())
    }

    /// Sends one request and waits for its answer. Dropped in the middle of sending, it breaks the connection (the
    /// others' requests are sent again on the next one); dropped while waiting, it leaves nothing behind, but where the
    /// request has a payload: that could still be written over something newer. So the connection is broken here too:
    /// before the server serves the next one, it has finished what it had of this one, or thrown it away.
    pub async fn exchange(&self, op: Op, body: &[u8], load: Load<'_>) -> Result<Frame, Lost> {
        let (lent, kept) = self.lend(op, load);
        let payload = if lent.has_payload() { &[] } else { load.payload };
        let payload_bytes = load.payload.iter().map(Bytes::len).sum();
        let request_id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let registered = self.pending.with(|pending| match pending {
            Some(pending) => {
                let since = (!op.is_patient()).then(Instant::now);
                pending.insert(request_id, Waiter { answer: Some(answer), since, kept });
                true
            }
            None => false,
        });
        if !registered {
            return Err(Lost);
        }
        let may_be_late = !load.payload.is_empty();
        let mut forget = Forget { connection: self, request_id, is_sent: false, may_be_late };
        let lends =
            self.lends().then(|| (&lent, u32::try_from(payload_bytes).expect("a payload within the limits")));
        let (kind, op) = (FrameKind::Request, op.number());
        let head = Head::lending(self.version, op, request_id, kind, body, payload, lends);
        {
            let mut guard = BreakIfTorn { connection: self, writer: self.writer.lock().await };
            if guard.writer.write(&head, payload).await.is_err() {
                return Err(Lost);
            }
        }
        forget.is_sent = true;
        self.counters.count(Direction::Sent, kind, op, payload_bytes);
        let frame = answered.await.map_err(|_| Lost);
        forget.may_be_late = false;
        frame
    }

    /// What of `load` need not be sent, because the server has it in memory.
    fn lend(&self, op: Op, load: Load<'_>) -> (Lent, Kept) {
        let Some(arena) = &self.arena else { return (Lent::Nothing, Kept::Nothing) };
        let (payload, room) = (load.payload, load.room);
        if op == Op::Write && (1..=PLACES_MAX).contains(&payload.len()) {
            let places: Option<Vec<_>> = payload.iter().map(|part| arena.place(part)).collect();
            if let Some(places) = places {
                return (Lent::Payload(places), Kept::Payload(payload.to_vec()));
            }
        }
        room.map_or((Lent::Nothing, Kept::Nothing), AnswerRoom::lend)
    }

    fn break_up(&self) {
        self.pending.close();
        self.reader.abort();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.break_up();
    }
}

/// Takes a request that nobody waits for any more off the list.
struct Forget<'a> {
    connection: &'a Connection,
    request_id: u64,
    /// The server has it, or will.
    is_sent: bool,
    /// It must not be done after its caller has gone on.
    may_be_late: bool,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if self.may_be_late {
            return self.connection.break_up();
        }
        self.connection.pending.with(|pending| {
            let Entry::Occupied(mut waiter) = pending.as_mut()?.entry(self.request_id) else { return None };
            if !self.is_sent || matches!(waiter.get().kept, Kept::Nothing) {
                return Some(waiter.remove());
            }
            (waiter.get_mut().answer, waiter.get_mut().since) = (None, None);
            None
        });
    }
}

/// A frame that was begun and not ended leaves the stream without framing.
struct BreakIfTorn<'a> {
    connection: &'a Connection,
    writer: tokio::sync::MutexGuard<'a, FrameWriter>,
}

impl Drop for BreakIfTorn<'_> {
    fn drop(&mut self) {
        if self.writer.is_torn() {
            self.connection.break_up();
        }
    }
}

async fn read_answers(
    mut reader: FrameReader,
    pending: Arc<Pending>,
    counters: MessageCounters,
    peer: String,
    ended: impl FnOnce(NetError),
) {
    let error = loop {
        let frame = match reader.header().await {
            Ok(header) => reader.rest(header).await,
            Err(e) => Err(e),
        };
        match frame {
            Ok(frame) => {
                let payload_bytes = usize::try_from(frame.header.payload_bytes).unwrap_or(usize::MAX);
                counters.count(Direction::Received, frame.header.kind, frame.header.op, payload_bytes);
                let waiter = pending.with(|p| p.as_mut().and_then(|p| p.remove(&frame.header.request_id)));
                let has_room = waiter.as_ref().is_some_and(|waiter| matches!(waiter.kept, Kept::Room(_)));
                if frame.lent != Lent::Nothing && !(frame.lent == Lent::InRoom && has_room) {
                    let text = "an answer for which there is no room";
                    break ReadError::from(FrameError::Lent { text }).for_peer(&peer);
                }
                // Nobody waits: the caller gave up.
                if let Some(answer) = waiter.and_then(|waiter| waiter.answer) {
                    let _ = answer.send(frame);
                }
            }
            Err(e) => break e.for_peer(&peer),
        }
    };
    ended(error);
    // Only now do callers learn of it: whoever connects next finds the reason noted.
    pending.close();
}
