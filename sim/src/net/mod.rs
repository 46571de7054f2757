//! The network between machines: ordered byte streams, as TCP gives them, that are slow, break off anywhere, go on
//! delivering for a while what one end has given up, or fall silent in one or both directions.

mod stream;

use crate::{
    process::{MachineId, Process},
    random::Random,
    trace::{Trace, event},
};
use pvfs_env::{BoxFuture, Listener, Stream, Transport};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use stream::Conn;
use tokio::{sync::Notify, time::Instant};

/// How long a path may be silent before both ends of a connection give up, as the real transport's keep-alive does.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Between two tries to reach a machine that does not answer.
const CONNECT_AGAIN: Duration = Duration::from_secs(1);

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    random: Random,
    trace: Trace,
}

#[derive(Default)]
struct State {
    listeners: BTreeMap<String, Listening>,
    machines: BTreeMap<MachineId, bool>,
    /// Silent directions, since when.
    blocked: BTreeMap<(MachineId, MachineId), Instant>,
    /// The longest usual delay of a direction, in milliseconds, where it is slow.
    slow_ms: BTreeMap<(MachineId, MachineId), u64>,
    conns: BTreeMap<u64, Weak<Conn>>,
    next_conn: u64,
}

#[derive(Clone)]
struct Listening {
    process: Arc<Process>,
    queue: Arc<Mutex<VecDeque<Stream>>>,
    arrived: Arc<Notify>,
}

impl Net {
    pub fn new(random: Random, trace: &Trace) -> Net {
        Net { inner: Arc::new(Inner { state: Mutex::default(), random, trace: trace.clone() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `process` dials and listens with.
    pub fn transport(&self, process: &Arc<Process>) -> Arc<dyn Transport> {
        Arc::new(SimTransport { net: self.clone(), process: Arc::clone(process) })
    }

    fn delay(&self, from: MachineId, to: MachineId) -> Duration {
        let random = &self.inner.random;
        match self.state().slow_ms.get(&(from, to)) {
            Some(&most) => random.millis(most / 2..=most),
            None if from == to || random.one_in(3) => Duration::ZERO,
            None if random.one_in(40) => random.millis(5..=60),
            None => random.millis(0..=2),
        }
    }

    fn is_blocked(&self, from: MachineId, to: MachineId) -> bool {
        let state = self.state();
        state.blocked.contains_key(&(from, to)) || state.machines.get(&to) == Some(&false)
    }

    fn conns(&self) -> Vec<Arc<Conn>> {
        let mut state = self.state();
        state.conns.retain(|_, conn| conn.strong_count() > 0);
        state.conns.values().filter_map(Weak::upgrade).collect()
    }

    /// The connections any end of which is held by a process.
    pub fn open_connections(&self) -> Vec<String> {
        self.conns().iter().map(|conn| conn.name.clone()).collect()
    }

    /// Nothing comes from `from` to `to` any more; after 30 s their connections time out.
    pub fn block(&self, from: MachineId, to: MachineId) {
        event!(self.inner.trace, "net", "silent from {from} to {to}");
        let since = Instant::now();
        self.state().blocked.insert((from, to), since);
        let net = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(SILENCE_MAX).await;
            if net.state().blocked.get(&(from, to)) == Some(&since) {
                net.conns().iter().filter(|conn| conn.is_between(from, to)).for_each(|conn| conn.time_out());
            }
        });
    }

    pub fn unblock(&self, from: MachineId, to: MachineId) {
        event!(self.inner.trace, "net", "heard again from {from} to {to}");
        self.state().blocked.remove(&(from, to));
        self.conns().iter().for_each(|conn| conn.wake());
    }

    /// A direction takes up to `most_ms` from now on; 0: it is as fast as usual.
    pub fn slow(&self, from: MachineId, to: MachineId, most_ms: u64) {
        event!(self.inner.trace, "net", "from {from} to {to} takes up to {most_ms} ms");
        let slow_ms = &mut self.state().slow_ms;
        if most_ms == 0 {
            slow_ms.remove(&(from, to))
        } else {
            slow_ms.insert((from, to), most_ms)
        };
    }

    /// The direction is as it was in the beginning.
    pub fn heal(&self, from: MachineId, to: MachineId) {
        self.state().slow_ms.remove(&(from, to));
        let was_blocked = self.state().blocked.remove(&(from, to)).is_some();
        if was_blocked {
            self.conns().iter().for_each(|conn| conn.wake());
        }
    }

    /// Breaks one connection: the ends notice at different times, and what was on its way may still arrive.
    pub fn cut_one(&self) {
        let conns = self.conns();
        if let Some(conn) = conns.get(self.inner.random.below(conns.len().max(1))) {
            event!(self.inner.trace, "net", "cuts {}", conn.name);
            conn.cut(&self.inner.random);
        }
    }

    /// The process is dead: its sockets are closed by its kernel. What it had written is still delivered, unless its
    /// end is reset.
    pub fn process_died(&self, process: &Arc<Process>) {
        self.state().listeners.retain(|_, listening| !Arc::ptr_eq(&listening.process, process));
        self.conns().iter().for_each(|conn| conn.process_died(process, &self.inner.random));
    }

    /// The machine lost its power: nobody hears of it from itself.
    pub fn machine_down(&self, machine: MachineId) {
        self.state().machines.insert(machine, false);
        self.state().listeners.retain(|_, listening| listening.process.machine != machine);
        for conn in self.conns() {
            conn.machine_down(machine, Instant::now() + SILENCE_MAX);
        }
    }

    /// The machine is back, and resets connections it knows nothing of.
    pub fn machine_up(&self, machine: MachineId) {
        self.state().machines.insert(machine, true);
        for conn in self.conns() {
            conn.machine_up(machine, Instant::now() + self.inner.random.millis(0..=10_000));
        }
    }
}

struct SimTransport {
    net: Net,
    process: Arc<Process>,
}

impl SimTransport {
    async fn dial(&self, addr: &str) -> io::Result<Stream> {
        let from = self.process.machine;
        loop {
            if !self.process.effect() {
                std::future::pending::<()>().await;
            }
            let to = machine_of(addr);
            tokio::time::sleep(self.net.delay(from, to)).await;
            if self.net.is_blocked(from, to) || self.net.is_blocked(to, from) {
                tokio::time::sleep(CONNECT_AGAIN).await;
                continue;
            }
            let Some(listening) = self.net.state().listeners.get(addr).cloned() else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let number = {
                let mut state = self.net.state();
                state.next_conn += 1;
                state.next_conn
            };
            let name = format!("{}>{}#{number}", self.process.name, listening.process.name);
            event!(self.net.inner.trace, self.process.name, "connects {name}");
            let conn =
                Conn::new(&self.net, name, [Arc::clone(&self.process), Arc::clone(&listening.process)]);
            self.net.state().conns.insert(number, Arc::downgrade(&conn));
            let [mine, other] = Conn::ends(&conn);
            listening.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(other);
            listening.arrived.notify_one();
            return Ok(mine);
        }
    }
}

/// Addresses are `m<machine>:<port>`.
fn machine_of(addr: &str) -> MachineId {
    let machine = addr.trim_start_matches('m').split(':').next();
    machine.and_then(|number| number.parse().ok()).expect("an address of this network")
}

impl Transport for SimTransport {
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(self.dial(addr))
    }

    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        let mut state = self.net.state();
        let taken = state.listeners.contains_key(addr);
        let listening =
            Listening { process: Arc::clone(&self.process), queue: Arc::default(), arrived: Arc::default() };
        if !taken {
            state.listeners.insert(addr.to_owned(), listening.clone());
        }
        drop(state);
        let listener = SimListener { net: self.net.clone(), addr: addr.to_owned(), listening };
        Box::pin(async move {
            if taken {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

struct SimListener {
    net: Net,
    addr: String,
    listening: Listening,
}

impl Listener for SimListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async {
            loop {
                let next = self.listening.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                if let Some(stream) = next {
                    return Ok(stream);
                }
                self.listening.arrived.notified().await;
            }
        })
    }

    fn local_addr(&self) -> String {
        self.addr.clone()
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut state = self.net.state();
        let ours = |now: &Listening| Arc::ptr_eq(&now.process, &self.listening.process);
        if state.listeners.get(&self.addr).is_some_and(ours) {
            state.listeners.remove(&self.addr);
        }
    }
}
