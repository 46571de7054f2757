//! One connection: two directions, each a queue of bytes with the times of their arrival, and how each end learns that
//! it is over.

use super::Net;
use crate::{
    process::{MachineId, Process},
    random::Random,
    trace::event,
};
use bytes::{Buf, Bytes};
use pvfs_env::{Memory, Stream};
use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// Bytes on their way before the sender has to wait.
const WINDOW_BYTES: usize = 128 << 10;

/// A connection between two processes: side 0 dialled, side 1 accepted.
pub struct Conn {
    pub name: String,
    net: Net,
    processes: [Arc<Process>; 2],
    state: Mutex<State>,
}

struct State {
    /// What side `n` has written.
    ways: [Way; 2],
    sides: [Side; 2],
}

#[derive(Default)]
struct Way {
    chunks: VecDeque<(Instant, Bytes)>,
    buffered: usize,
    /// The last byte or the end arrives no earlier than what was sent before it.
    last: Option<Instant>,
    /// The writer closed it: the reader reads to the end, at that time.
    closed: Option<Instant>,
}

#[derive(Default)]
struct Side {
    /// How many of its two halves its process holds.
    halves: u8,
    /// From then on its calls fail with this.
    broken: Option<(Instant, io::ErrorKind)>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Side {
    fn error(&self) -> Option<io::Error> {
        self.broken.filter(|(at, _)| *at <= Instant::now()).map(|(_, kind)| kind.into())
    }

    /// Breaks it at `at`, unless it breaks before.
    fn break_at(&mut self, at: Instant, kind: io::ErrorKind) {
        if self.broken.is_none_or(|(before, _)| at < before) {
            self.broken = Some((at, kind));
        }
        self.wake();
    }

    fn wake(&mut self) {
        [self.reader.take(), self.writer.take()].into_iter().flatten().for_each(Waker::wake);
    }
}

impl Way {
    fn arrives(&mut self, at: Instant) -> Instant {
        let at = self.last.map_or(at, |last| last.max(at));
        self.last = Some(at);
        at
    }

    /// Loses what is on its way behind `keep` bytes.
    fn tear(&mut self, mut keep: usize) {
        for (_, chunk) in &mut self.chunks {
            chunk.truncate(keep);
            keep -= chunk.len();
        }
        self.chunks.retain(|(_, chunk)| !chunk.is_empty());
        self.buffered = self.chunks.iter().map(|(_, chunk)| chunk.len()).sum();
    }
}

impl Conn {
    pub fn new(net: &Net, name: String, processes: [Arc<Process>; 2]) -> Arc<Conn> {
        let side = || Side { halves: 2, ..Side::default() };
        let state = State { ways: [Way::default(), Way::default()], sides: [side(), side()] };
        Arc::new(Conn { name, net: net.clone(), processes, state: Mutex::new(state) })
    }

    /// The streams of the two sides.
    pub fn ends(conn: &Arc<Conn>) -> [Stream; 2] {
        [0, 1].map(|side| Stream {
            read: Box::new(ReadHalf { end: End { conn: Arc::clone(conn), side }, timer: None }),
            write: Box::new(WriteHalf { end: End { conn: Arc::clone(conn), side }, timer: None }),
            peer: conn.processes[1 - side].name.clone(),
            memory: Memory::None,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn machine(&self, side: usize) -> MachineId {
        self.processes[side].machine
    }

    pub fn is_between(&self, a: MachineId, b: MachineId) -> bool {
        [(a, b), (b, a)].contains(&(self.machine(0), self.machine(1)))
    }

    pub fn wake(&self) {
        self.state().sides.iter_mut().for_each(Side::wake);
    }

    pub fn time_out(&self) {
        for side in &mut self.state().sides {
            side.break_at(Instant::now(), io::ErrorKind::TimedOut);
        }
    }

    /// Each end notices in its own time; until then what is on its way to it arrives, all or a part.
    pub fn cut(&self, random: &Random) {
        let mut state = self.state();
        for side in 0..2 {
            let after = if random.one_in(2) { Duration::ZERO } else { random.millis(0..=3000) };
            state.sides[side].break_at(Instant::now() + after, io::ErrorKind::ConnectionReset);
            if random.one_in(2) {
                let way = &mut state.ways[1 - side];
                let keep = random.below(way.buffered + 1);
                way.tear(keep);
            }
        }
    }

    pub fn process_died(&self, process: &Arc<Process>, random: &Random) {
        for side in 0..2 {
            if !Arc::ptr_eq(&self.processes[side], process) {
                continue;
            }
            let delay = self.net.delay(self.machine(side), self.machine(1 - side));
            let mut state = self.state();
            if random.one_in(4) {
                let way = &mut state.ways[side];
                let keep = random.below(way.buffered + 1);
                way.tear(keep);
            }
            let way = &mut state.ways[side];
            let at = way.arrives(Instant::now() + delay);
            way.closed.get_or_insert(at);
            // Whatever the other end still writes is answered by a reset, on its way no faster than the bytes before.
            state.ways[1 - side].tear(0);
            let other = &mut state.sides[1 - side];
            other.break_at(at + delay + Duration::from_millis(1), io::ErrorKind::ConnectionReset);
        }
    }

    pub fn machine_down(&self, machine: MachineId, silent_until: Instant) {
        for side in (0..2).filter(|&side| self.machine(side) == machine) {
            let mut state = self.state();
            state.ways[side].tear(0);
            state.sides[1 - side].break_at(silent_until, io::ErrorKind::TimedOut);
        }
    }

    pub fn machine_up(&self, machine: MachineId, noticed: Instant) {
        for side in (0..2).filter(|&side| self.machine(side) == machine && !self.processes[side].is_alive()) {
            self.state().sides[1 - side].break_at(noticed, io::ErrorKind::ConnectionReset);
        }
    }
}

/// One half of one side.
struct End {
    conn: Arc<Conn>,
    side: usize,
}

impl End {
    fn process(&self) -> &Arc<Process> {
        &self.conn.processes[self.side]
    }

    /// The machines that this side's bytes go between.
    fn way_out(&self) -> (MachineId, MachineId) {
        (self.conn.machine(self.side), self.conn.machine(1 - self.side))
    }

    /// Also tells the other side when the last half is gone.
    fn drop_half(&self, is_writer: bool) {
        // A dead process closes nothing itself; its kernel did.
        if !self.process().is_alive() {
            return;
        }
        let (from, to) = self.way_out();
        let at = Instant::now() + self.conn.net.delay(from, to);
        let mut state = self.conn.state();
        state.sides[self.side].halves -= 1;
        if is_writer {
            let at = state.ways[self.side].arrives(at);
            state.ways[self.side].closed.get_or_insert(at);
        }
        if state.sides[self.side].halves == 0 {
            state.ways[1 - self.side].tear(0);
            state.sides[1 - self.side]
                .break_at(at + Duration::from_millis(1), io::ErrorKind::ConnectionReset);
        }
        state.sides[1 - self.side].wake();
    }
}

struct ReadHalf {
    end: End,
    timer: Option<Pin<Box<Sleep>>>,
}

struct WriteHalf {
    end: End,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Has the task woken at `at`.
fn wake_at(timer: &mut Option<Pin<Box<Sleep>>>, at: Instant, cx: &mut Context<'_>) {
    let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
    timer.as_mut().reset(at);
    // Ready at once: the next turn finds what is due.
    if timer.as_mut().poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ReadHalf { end, timer } = self.get_mut();
        if !end.process().is_alive() {
            return Poll::Pending;
        }
        let now = Instant::now();
        let (to, from) = end.way_out();
        let silent = end.conn.net.is_blocked(from, to);
        let mut state = end.conn.state();
        let State { ways, sides } = &mut *state;
        let (way, side) = (&mut ways[1 - end.side], &mut sides[end.side]);
        if let Some((at, chunk)) = way.chunks.front_mut().filter(|_| !silent)
            && *at <= now
        {
            let len = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk.split_to(len));
            if !chunk.has_remaining() {
                way.chunks.pop_front();
            }
            way.buffered -= len;
            sides[1 - end.side].writer.take().into_iter().for_each(Waker::wake);
            event!(end.conn.net.inner.trace, end.process().name, "reads {len} of {}", end.conn.name);
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = side.error() {
            return Poll::Ready(Err(error));
        }
        if way.chunks.is_empty() && !silent && way.closed.is_some_and(|at| at <= now) {
            return Poll::Ready(Ok(()));
        }
        side.reader = Some(cx.waker().clone());
        let arrival = way.chunks.front().map(|(at, _)| *at).or(way.closed).filter(|_| !silent);
        let next = [arrival, side.broken.map(|(at, _)| at)].into_iter().flatten().min();
        drop(state);
        if let Some(at) = next {
            wake_at(timer, at, cx);
        }
        Poll::Pending
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let WriteHalf { end, timer } = self.get_mut();
        if !end.process().effect() {
            return Poll::Pending;
        }
        let (from, to) = end.way_out();
        let at = Instant::now() + end.conn.net.delay(from, to);
        let random = &end.conn.net.inner.random;
        let mut state = end.conn.state();
        if let Some(error) = state.sides[end.side].error() {
            return Poll::Ready(Err(error));
        }
        let way = &mut state.ways[end.side];
        if way.closed.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW_BYTES - way.buffered.min(WINDOW_BYTES);
        if room == 0 {
            let side = &mut state.sides[end.side];
            side.writer = Some(cx.waker().clone());
            let broken = side.broken;
            drop(state);
            if let Some((at, _)) = broken {
                wake_at(timer, at, cx);
            }
            return Poll::Pending;
        }
        let mut len = bytes.len().min(room);
        if len > 1 && random.one_in(8) {
            len = 1 + random.below(len);
        }
        let at = way.arrives(at);
        way.chunks.push_back((at, Bytes::copy_from_slice(&bytes[..len])));
        way.buffered += len;
        state.sides[1 - end.side].reader.take().into_iter().for_each(Waker::wake);
        event!(end.conn.net.inner.trace, end.process().name, "writes {len} to {}", end.conn.name);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let end = &self.end;
        let (from, to) = end.way_out();
        let at = Instant::now() + end.conn.net.delay(from, to);
        let mut state = end.conn.state();
        let at = state.ways[end.side].arrives(at);
        state.ways[end.side].closed.get_or_insert(at);
        state.sides[1 - end.side].wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        self.end.drop_half(false);
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        self.end.drop_half(true);
    }
}
