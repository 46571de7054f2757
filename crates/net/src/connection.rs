//! One live connection to a server: many calls at once, each with its own request id.

use crate::{
    NetError,
    counters::{Direction, MessageCounters},
    framing::{Frame, FrameReader, FrameWriter, Head},
};
use bytes::Bytes;
use pvfs_wire::{FrameKind, Op, msg::hello::Welcome};
use std::{
    collections::BTreeMap,
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
    writer: tokio::sync::Mutex<FrameWriter>,
    pending: Arc<Pending>,
    next_id: AtomicU64,
    counters: MessageCounters,
    reader: AbortHandle,
    /// Closes when the connection breaks.
    alive: watch::Receiver<()>,
}

/// Who waits for which answer; `None` once the connection is broken.
struct Pending(Mutex<Option<Waiters>>);

/// By request id: where the answer goes, and since when it is due; `None`: it is not due at any time.
type Waiters = BTreeMap<u64, (oneshot::Sender<Frame>, Option<Instant>)>;

impl Pending {
    fn with<T>(&self, act: impl FnOnce(&mut Option<Waiters>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Connection {
    /// `ended` is told why, once, when the connection breaks.
    pub fn start(
        (version, welcome): (u16, Welcome),
        reader: FrameReader,
        writer: FrameWriter,
        counters: MessageCounters,
        peer: String,
        ended: impl FnOnce(NetError) + Send + 'static,
    ) -> Connection {
        let pending = Arc::new(Pending(Mutex::new(Some(BTreeMap::new()))));
        let (living, alive) = watch::channel(());
        let reading = read_answers(reader, Arc::clone(&pending), counters.clone(), peer, ended);
        let task = pvfs_env::task::spawn(async move {
            reading.await;
            drop(living);
        });
        Connection {
            welcome,
            version,
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

    /// Waits until it is broken.
    pub async fn broken(&self) {
        let mut alive = self.alive.clone();
        // It says nothing, it closes.
        let _ = alive.changed().await;
    }

    /// Since when the longest of the calls in flight waits whose answer is due.
    pub fn oldest(&self) -> Option<Instant> {
        self.pending.with(|pending| pending.as_ref()?.values().filter_map(|(_, since)| *since).min())
    }

    /// Sends one request and waits for its answer. Dropped in the middle of sending, it breaks the connection (the
    /// others' requests are sent again on the next one); dropped while waiting, it leaves nothing behind, but where the
    /// request has a payload: that could still be written over something newer. So the connection is broken here too:
    /// before the server serves the next one, it has finished what it had of this one, or thrown it away.
    pub async fn exchange(&self, op: Op, body: &[u8], payload: &[Bytes]) -> Result<Frame, Lost> {
        let request_id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let registered = self.pending.with(|pending| match pending {
            Some(pending) => {
                let since = (!op.is_patient()).then(Instant::now);
                pending.insert(request_id, (answer, since));
                true
            }
            None => false,
        });
        if !registered {
            return Err(Lost);
        }
        let mut forget = Forget { connection: self, request_id, may_be_late: !payload.is_empty() };
        let head = Head::new(self.version, op.number(), request_id, FrameKind::Request, body, payload);
        {
            let mut guard = BreakIfTorn { connection: self, writer: self.writer.lock().await };
            if guard.writer.write(&head, payload).await.is_err() {
                return Err(Lost);
            }
        }
        self.counters.count(
            Direction::Sent,
            FrameKind::Request,
            op.number(),
            payload.iter().map(Bytes::len).sum(),
        );
        let frame = answered.await.map_err(|_| Lost);
        forget.may_be_late = false;
        frame
    }

    fn break_up(&self) {
        self.pending.with(Option::take);
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
    /// It must not be done after its caller has gone on.
    may_be_late: bool,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if self.may_be_late {
            return self.connection.break_up();
        }
        self.connection.pending.with(|pending| pending.as_mut().map(|p| p.remove(&self.request_id)));
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
                counters.count(Direction::Received, frame.header.kind, frame.header.op, frame.payload.len());
                let waiter = pending.with(|p| p.as_mut().and_then(|p| p.remove(&frame.header.request_id)));
                // Nobody waits: the caller gave up.
                if let Some((waiter, _)) = waiter {
                    let _ = waiter.send(frame);
                }
            }
            Err(e) => break e.for_peer(&peer),
        }
    };
    ended(error);
    // Only now do callers learn of it: whoever connects next finds the reason noted.
    pending.with(Option::take);
}
