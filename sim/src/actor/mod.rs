//! A program that uses the file system: random operations in a directory of its own, through one client or through
//! several in turn, each answer held against the model.

mod aftermath;
mod files;
mod names;

use crate::{
    client::{CallError, ClientSeat, Hands},
    cluster::Cluster,
    model::{Model, NodeId},
    random::Random,
    trace::event,
};
use aftermath::Change;
use pvfs_client::ClientError;
use pvfs_types::{Cred, Errno, Ino, Name};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::time::Instant;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const HANDLES_MAX: usize = 4;

/// Ends a run of operations early.
#[derive(Debug)]
pub enum Stop {
    /// The client that did it died.
    Died,
    /// A promise was broken.
    Broken(String),
}

impl From<String> for Stop {
    fn from(what: String) -> Stop {
        Stop::Broken(what)
    }
}

pub type Done = Result<(), Stop>;

struct Handle {
    node: NodeId,
    seat: usize,
    writes: bool,
}

/// See the module.
pub struct Actor {
    pub name: String,
    cluster: Arc<Cluster>,
    seats: Vec<Arc<ClientSeat>>,
    /// How often each client had been started when it was last used.
    runs: Vec<u64>,
    random: Random,
    makes_small_files: bool,
    model: Model,
    /// What the operation under way may have changed.
    under_way: Option<Change>,
    /// The handle that it may have closed.
    closing: Option<u64>,
    /// Calls are interrupted now and then.
    may_give_up: bool,
    /// The file whose bytes it may have changed.
    touched: Option<NodeId>,
    handles: BTreeMap<u64, Handle>,
    /// Who may still see a file as it was before another client truncated it: until opened again.
    stale: BTreeSet<(usize, NodeId)>,
    /// Which client changed a file last, and when.
    changed: BTreeMap<NodeId, (usize, Instant)>,
    next_handle: u64,
    /// Written bytes tell who wrote them when.
    stamp: u8,
    /// The bytes that each client had said to be lost when that was last looked at.
    declared: Vec<u64>,
    ops: u64,
    now: Arc<Progress>,
}

/// What an actor is doing, for those who wait for it.
#[derive(Default)]
pub struct Progress {
    doing: Mutex<Doing>,
    pub ops: AtomicU64,
}

#[derive(Default)]
struct Doing {
    what: String,
    /// `None`: nothing.
    since: Option<Instant>,
}

impl Progress {
    fn set(&self, what: &str) {
        *self.doing() = Doing { what: what.to_owned(), since: Some(Instant::now()) };
    }

    fn ended(&self) {
        self.doing().since = None;
    }

    /// What it has been doing since `then` or before.
    pub fn since(&self, then: Instant) -> Option<String> {
        let doing = self.doing();
        doing.since.filter(|&since| since <= then).map(|_| doing.what.clone())
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn what(&self) -> String {
        self.doing().what.clone()
    }
}

fn root() -> Cred {
    Cred::root()
}

fn name(name: &str) -> Name {
    Name::new(name).expect("a good name")
}

impl Actor {
    /// The `number`th of a run; its handles are numbered apart from the others', with whom it may share a client.
    pub fn new(
        number: u64,
        name: &str,
        cluster: &Arc<Cluster>,
        seats: Vec<Arc<ClientSeat>>,
        seed: u64,
    ) -> Actor {
        let model = Model::new(Ino::ROOT);
        Actor {
            name: name.to_owned(),
            cluster: Arc::clone(cluster),
            runs: vec![0; seats.len()],
            declared: vec![0; seats.len()],
            seats,
            random: Random::of(seed, name),
            makes_small_files: files::makes_small_files(seed),
            under_way: None,
            touched: None,
            closing: None,
            may_give_up: false,
            model,
            handles: BTreeMap::new(),
            stale: BTreeSet::new(),
            changed: BTreeMap::new(),
            next_handle: number * 1000 + 1,
            stamp: 0,
            ops: 0,
            now: Arc::default(),
        }
    }

    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.now)
    }

    /// Works until `enough`, then closes everything and looks at all it has made.
    pub async fn work(mut self, enough: impl Fn() -> bool) -> Result<Actor, String> {
        self.make_own_dir().await?;
        while !enough() {
            self.random_step().await?;
            if self.random.one_in(3) {
                tokio::time::sleep(self.random.millis(0..=200)).await;
            }
        }
        while let Some(&handle) = self.handles.keys().next() {
            let done = self.close(handle).await;
            self.outcome(done).await?;
        }
        self.settle_all().await?;
        self.notice_new_clients().await;
        self.look_at_all().await?;
        self.now.ended();
        event!(self.cluster.trace, self.name, "ends after {} operations", self.ops);
        Ok(self)
    }

    async fn make_own_dir(&mut self) -> Result<(), String> {
        loop {
            self.notice_new_clients().await;
            let own = name(&self.name);
            let made = self
                .call(0, "makes its directory".into(), move |hands| async move {
                    match hands.client().mkdir(&root(), Ino::ROOT, &own, 0o755).await {
                        Err(error) if error.errno() == Errno::EEXIST => {
                            hands.client().lookup(&root(), Ino::ROOT, &own).await
                        }
                        made => made,
                    }
                })
                .await;
            match made {
                Ok(attr) => {
                    self.model = Model::new(attr.ino);
                    return Ok(());
                }
                Err(CallError::Died) => {}
                Err(CallError::Refused(error)) if self.may_fail(&error) => {}
                Err(CallError::Refused(error)) => return Err(format!("{} got {error}", self.name)),
            }
        }
    }

    /// Does `work` in one of its clients.
    async fn call<T, W>(
        &self,
        seat: usize,
        what: String,
        work: impl FnOnce(Hands) -> W,
    ) -> Result<T, CallError>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, ClientError>> + Send + 'static,
    {
        let (number, seat) = (seat, &self.seats[seat]);
        self.now.set(&format!("{} {what} by {}", self.name, seat.name));
        event!(self.cluster.trace, self.name, "{what} by {}", seat.name);
        let call = seat.call(self.runs[number], work);
        let done = if self.may_give_up && self.random.one_in(40) {
            let patience = self.random.millis(0..=100);
            tokio::time::timeout(patience, call).await.unwrap_or(Err(CallError::Died))
        } else {
            call.await
        };
        match &done {
            Ok(_) => event!(self.cluster.trace, self.name, "  ok"),
            Err(error) => event!(self.cluster.trace, self.name, "  {error}"),
        }
        done
    }

    /// Whether a daemon may answer so because its disk fails.
    fn may_fail(&self, error: &ClientError) -> bool {
        // What it could send no more it tells of.
        let is_told =
            matches!(error, ClientError::Lost { .. }) && self.seats.iter().any(|seat| seat.has_declared());
        is_told
            || self.cluster.disks_fail.load(Ordering::SeqCst)
                && matches!(error.errno(), Errno::EIO | Errno::ENOSPC | Errno::ESTALE)
    }

    /// One operation, and what follows from its end.
    async fn random_step(&mut self) -> Result<(), String> {
        self.notice_new_clients().await;
        self.note_losses();
        self.settle_all().await?;
        (self.under_way, self.touched, self.closing) = (None, None, None);
        self.may_give_up = true;
        self.ops += 1;
        self.now.ops.store(self.ops, Ordering::Relaxed);
        let done = self.random_op().await;
        self.may_give_up = false;
        self.outcome(done).await
    }

    async fn outcome(&mut self, done: Done) -> Result<(), String> {
        match done {
            Err(Stop::Broken(what)) => return Err(format!("{}: {what}", self.now.what())),
            Err(Stop::Died) => self.recover().await?,
            Ok(()) => {}
        }
        self.note_losses();
        self.settle_all().await
    }

    fn note_losses(&mut self) {
        let declared = self.newly_declared();
        for &seat in &declared {
            self.declared[seat] = self.seats[seat].declared_lost();
        }
        self.model.lost(self.cluster.losses(), &declared, self.seats.len());
    }

    /// The clients that have said bytes to be lost since that was last looked at.
    fn newly_declared(&self) -> BTreeSet<usize> {
        let declares = |&seat: &usize| {
            self.seats[seat].declared_lost() > self.declared[seat] || self.seats[seat].keeps_in_vain()
        };
        (0..self.seats.len()).filter(declares).collect()
    }

    /// Whether what the client `seat` finds in a file need not be what was written.
    fn may_lack(&self, seat: usize, node: NodeId) -> bool {
        let losses = self.cluster.losses();
        self.model.content(node).is_some_and(|content| content.may_lack(seat, losses))
            || !self.newly_declared().is_empty()
    }

    /// A client that is not the one it was has none of its files open any more.
    async fn notice_new_clients(&mut self) {
        for seat in 0..self.seats.len() {
            let runs = loop {
                if let Ok(run) = self.seats[seat].run().await {
                    break run;
                }
            };
            if self.runs[seat] != runs {
                self.runs[seat] = runs;
                self.model.abandoned(seat);
                let lost: Vec<u64> = self
                    .handles
                    .iter()
                    .filter(|(_, handle)| handle.seat == seat)
                    .map(|(id, _)| *id)
                    .collect();
                for id in lost {
                    self.forget_handle(id);
                }
            }
        }
    }

    fn forget_handle(&mut self, id: u64) {
        if let Some(handle) = self.handles.remove(&id) {
            self.model.closed(handle.node);
        }
    }

    async fn random_op(&mut self) -> Done {
        let handles: Vec<u64> = self.handles.keys().copied().collect();
        if !handles.is_empty() && !self.random.one_in(3) {
            return self.file_op(*self.random.pick(&handles)).await;
        }
        self.name_op().await
    }

    fn any_seat(&self) -> usize {
        self.random.below(self.seats.len())
    }

    fn any_place(&self) -> (NodeId, &'static str) {
        let dirs = self.model.dirs();
        (*self.random.pick(&dirs), *self.random.pick(&NAMES))
    }

    /// Holds an answer against what the model says; true: done.
    fn hold<T>(&self, got: Result<T, CallError>, wanted: Result<(), Errno>) -> Result<Option<T>, Stop> {
        match (got, wanted) {
            (Ok(value), Ok(())) => Ok(Some(value)),
            (Err(CallError::Died), _) => Err(Stop::Died),
            (Err(CallError::Refused(error)), Err(errno)) if error.errno() == errno => Ok(None),
            (Err(CallError::Refused(error)), _) if self.may_fail(&error) => Ok(None),
            (Err(CallError::Refused(error)), wanted) => {
                Err(Stop::Broken(format!("got {error}, {wanted:?} is right")))
            }
            (Ok(_), Err(errno)) => Err(Stop::Broken(format!("was done, {errno} is right"))),
        }
    }
}
