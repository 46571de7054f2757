//! The one place where the metadata changes. Jobs run one after the other over (snapshot + the batch so far), their
//! write sets are merged, the batch is committed once, and only then do the answers go. So nothing conflicts, and
//! one sync serves many operations.
//!
//! [`run_batch`] is synchronous and knows no threads; [`Sequencer`] is the thread (or, in a simulation, the task) around
//! it. Knows no messages.

use crate::delegations::{Changing, Delegations, Given, Inos};
use pvfs_env::{Clock, Counter, Metrics};
use pvfs_kv::{Engine, KvError, Overlay, Read};
use pvfs_meta::{Inode, MetaError, OpEnv, Placement, inode, slot, touched};
use pvfs_types::{Errno, Ino, SessionId, Timestamp, limits::CHANGED_MAX};
use pvfs_wire::{
    Refusal, Status,
    msg::{namespace::Entry, session::Mutator},
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot, watch,
    },
};
use tracing::error;

/// Most jobs one commit serves.
const BATCH_JOBS_MAX: usize = 1024;

/// The longest wait for callers to come back; see [`gather`].
const GATHER_MAX: Duration = Duration::from_micros(500);

/// A store whose last batch took no longer than this is quicker than two changes of threads are: see [`Lane::try_here`].
const QUICK_MAX: Duration = Duration::from_micros(300);

/// A batch's changes over the snapshot that it began with.
pub type Batch<'a> = Overlay<'a, dyn Read + 'a>;
/// One job's changes over its batch.
pub type Txn<'a> = Overlay<'a, Batch<'a>>;

/// A piece of work for the sequencer.
pub trait Job: Send {
    /// Does the work over `batch` and keeps the result for [`Job::finish`]. Runs again, over a new batch, when the
    /// commit failed and the batch's jobs are tried one by one.
    fn run(&mut self, batch: &mut Batch<'_>, env: &OpEnv<'_>);

    /// Gives the result away: what [`Job::run`] kept, or the commit's error, after which nothing has changed.
    fn finish(self: Box<Self>, committed: Result<(), &KvError>);
}

/// Why a job gave no result.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error("the metadata store did not take the change, nothing has changed: {text}")]
    Commit { text: String, errno: Errno },
    #[error("the mgr is stopping")]
    Stopping,
}

impl JobError {
    fn commit(error: &KvError) -> JobError {
        JobError::Commit { text: error.to_string(), errno: commit_errno(error) }
    }
}

impl From<JobError> for Refusal {
    fn from(error: JobError) -> Refusal {
        match error {
            JobError::Meta(error) => error.refusal(),
            JobError::Commit { ref text, errno } => Refusal::new(Status::Errno(errno), text.clone()),
            JobError::Stopping => Refusal::new(Status::NotNow, "the mgr is stopping"),
        }
    }
}

/// What an application is told when the store failed.
fn commit_errno(error: &KvError) -> Errno {
    if matches!(error, KvError::Full { .. }) { Errno::ENOSPC } else { Errno::EIO }
}

/// What came of a client's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, now or when it was first asked.
    Reply(Replied),
    Refused(Refusal),
    /// A truncation of this inode must be carried out on the targets first. Then ask again.
    Pending(Ino),
}

/// The answer to a change that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replied {
    /// The encoded reply.
    pub body: Vec<u8>,
    /// How inodes are right after the change, for a session that takes delegations. Not recorded.
    pub changed: Vec<Entry>,
}

/// What a change gives, before it is recorded.
pub enum Answer {
    /// The encoded reply.
    Reply(Vec<u8>),
    Pending(Ino),
}

/// A change of the name space.
pub type Work<T> = Arc<dyn Fn(&mut Txn<'_>, &OpEnv<'_>) -> Result<T, MetaError> + Send + Sync>;

/// How a job went.
enum Ran<T> {
    Done(T),
    /// Other sessions go by what they know of these: nothing is changed before they have forgotten it.
    Delegated(Inos),
}

/// A client's change: done once, however often it is sent, and always answered the same.
struct SlotJob {
    session: SessionId,
    slot: u16,
    seq: u64,
    work: Work<Answer>,
    delegations: Arc<Delegations>,
    /// Until the commit is seen by who reads.
    changing: Option<Changing>,
    /// New inodes, which are delegated to the session.
    made: Inos,
    outcome: Option<Ran<Outcome>>,
    answer: oneshot::Sender<Result<Ran<Outcome>, JobError>>,
}

impl Job for SlotJob {
    fn run(&mut self, batch: &mut Batch<'_>, env: &OpEnv<'_>) {
        self.changing = None;
        self.take_back_made();
        let ran = self.run_once(batch, env);
        self.outcome = Some(ran.unwrap_or_else(|error| Ran::Done(Outcome::Refused(error.refusal()))));
    }

    fn finish(mut self: Box<Self>, committed: Result<(), &KvError>) {
        self.changing = None;
        if committed.is_err() {
            self.take_back_made();
        }
        let outcome = self.outcome.unwrap_or_else(|| Ran::Done(Outcome::Refused(Errno::EIO.into())));
        // Nobody waits any more: the client is gone, or will ask again and find the recorded answer.
        let _ = self.answer.send(committed.map(|()| outcome).map_err(JobError::commit));
    }
}

impl SlotJob {
    /// Nobody was told of the inodes that it has made: it makes others, or none.
    fn take_back_made(&mut self) {
        for ino in std::mem::take(&mut self.made) {
            self.delegations.take_back(self.session, ino);
        }
    }

    /// An error is one of the store, or says that the session or the slot is not there: not recorded.
    fn run_once(&mut self, batch: &mut Batch<'_>, env: &OpEnv<'_>) -> Result<Ran<Outcome>, MetaError> {
        match slot::check(batch, self.session, self.slot, self.seq)? {
            slot::Check::New => {}
            slot::Check::Repeat(recorded) => return Ok(Ran::Done(read_record(&recorded))),
            slot::Check::Stale => {
                let text = format!("slot {} of {} is past number {}", self.slot, self.session, self.seq);
                return Ok(Ran::Done(Outcome::Refused(Refusal::new(Status::SlotStale, text))));
            }
        }
        let mut txn = Txn::new(batch);
        let outcome = match (self.work)(&mut txn, env) {
            Ok(answer) => {
                let changes = txn.into_set();
                let mut inos = touched(&changes);
                if let Answer::Pending(ino) = answer {
                    // What others have gathered of it is to be cut, too, not to come behind.
                    inos.insert(ino);
                }
                self.changing = self.delegations.change(&inos, Some(self.session));
                if self.changing.is_none() {
                    // The numbers of what is new may be others' by the time it is made.
                    return Ok(Ran::Delegated(&inos - &absent(batch, &inos)?));
                }
                let body = match answer {
                    Answer::Pending(ino) => {
                        batch.merge(changes);
                        return Ok(Ran::Done(Outcome::Pending(ino)));
                    }
                    Answer::Reply(body) => body,
                };
                let tells = self.delegations.are_taken_by(self.session) && inos.len() <= CHANGED_MAX;
                let absent = if tells { absent(batch, &inos)? } else { Inos::new() };
                batch.merge(changes);
                // From here on it is made: that it cannot be told of is no error.
                let mut changed = if tells { entries(batch, &inos).unwrap_or_default() } else { Vec::new() };
                // Before anybody else can see what is new.
                for entry in changed.iter_mut().filter(|entry| absent.contains(&entry.attr.ino)) {
                    if self.delegations.delegate_new(self.session, entry.attr.ino) == Given::Now {
                        self.made.insert(entry.attr.ino);
                        entry.delegated = Some(true);
                    }
                }
                Outcome::Reply(Replied { body, changed })
            }
            Err(error) if is_an_answer(&error) => Outcome::Refused(error.refusal()),
            Err(error) => return Err(error),
        };
        slot::record(batch, self.session, self.slot, self.seq, write_record(&outcome));
        Ok(Ran::Done(outcome))
    }
}

/// Those of `inos` that are not there.
fn absent(batch: &Batch<'_>, inos: &Inos) -> Result<Inos, MetaError> {
    let mut absent = inos.clone();
    for ino in inos {
        if inode::find(batch, *ino)?.is_some() {
            absent.remove(ino);
        }
    }
    Ok(absent)
}

/// Those of `inos` that are there.
fn entries(batch: &Batch<'_>, inos: &Inos) -> Result<Vec<Entry>, MetaError> {
    let entry = |inode: Inode| Entry { attr: inode.attr(), has_writers: false, delegated: None };
    inos.iter().filter_map(|ino| inode::find(batch, *ino).transpose()).map(|found| found.map(entry)).collect()
}

/// Whether `error` is the name space's own answer, and not a failure to find one.
fn is_an_answer(error: &MetaError) -> bool {
    !matches!(error, MetaError::Kv(_) | MetaError::Corrupt { .. } | MetaError::SessionUnknown { .. })
}

const RECORD_REPLY: u8 = 0;
const RECORD_REFUSAL: u8 = 1;

/// A recorded answer: one byte that tells which, then the body as it went over the wire.
fn write_record(outcome: &Outcome) -> Vec<u8> {
    let (kind, body) = match outcome {
        Outcome::Reply(reply) => (RECORD_REPLY, reply.body.clone()),
        Outcome::Refused(refusal) => (RECORD_REFUSAL, pvfs_wire::encode(refusal)),
        Outcome::Pending(ino) => unreachable!("a pending truncation of {ino} is no answer yet"),
    };
    let mut record = Vec::with_capacity(body.len() + 1);
    record.push(kind);
    record.extend(body);
    record
}

fn read_record(record: &[u8]) -> Outcome {
    match record.split_first() {
        Some((&RECORD_REPLY, body)) => Outcome::Reply(Replied { body: body.to_vec(), changed: Vec::new() }),
        Some((&RECORD_REFUSAL, body)) => {
            Outcome::Refused(pvfs_wire::decode(body).unwrap_or_else(|_| Errno::EIO.into()))
        }
        _ => {
            Outcome::Refused(Refusal::new(Status::Errno(Errno::EIO), "the slot's recorded answer is damaged"))
        }
    }
}

/// The mgr's own change, with a typed result.
struct OwnJob<T> {
    work: Work<T>,
    /// `None`: what it changes makes nothing untrue that a session goes by.
    delegations: Option<Arc<Delegations>>,
    changing: Option<Changing>,
    result: Option<Result<Ran<T>, MetaError>>,
    answer: oneshot::Sender<Result<Ran<T>, JobError>>,
}

impl<T: Send> Job for OwnJob<T> {
    fn run(&mut self, batch: &mut Batch<'_>, env: &OpEnv<'_>) {
        self.changing = None;
        let mut txn = Txn::new(batch);
        let result = (self.work)(&mut txn, env);
        let changes = txn.into_set();
        self.result = Some(result.map(|result| {
            if let Some(delegations) = &self.delegations {
                let inos = touched(&changes);
                self.changing = delegations.change(&inos, None);
                if self.changing.is_none() {
                    return Ran::Delegated(inos);
                }
            }
            batch.merge(changes);
            Ran::Done(result)
        }));
    }

    fn finish(self: Box<Self>, committed: Result<(), &KvError>) {
        drop(self.changing);
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result.map_err(JobError::Meta),
            (Err(error), _) => Err(JobError::commit(error)),
            (Ok(()), None) => Err(JobError::Stopping),
        };
        let _ = self.answer.send(result);
    }
}

/// Runs `jobs` in order over one snapshot of `engine`, commits what they changed at once, and gives the answers.
///
/// Where the commit fails, the jobs are tried one by one, so that what still fits (an unlink in a full store) is
/// done; a job whose own commit fails gets the error and has changed nothing.
pub fn run_batch(engine: &dyn Engine, mut jobs: Vec<Box<dyn Job>>, env: &OpEnv<'_>) {
    match attempt(engine, &mut jobs, env) {
        Ok(()) => jobs.into_iter().for_each(|job| job.finish(Ok(()))),
        Err(_) if jobs.len() > 1 => jobs.into_iter().for_each(|job| run_batch(engine, vec![job], env)),
        Err(error) => {
            error!(%error, "commit failed");
            for job in jobs {
                job.finish(Err(&error));
            }
        }
    }
}

fn attempt(engine: &dyn Engine, jobs: &mut [Box<dyn Job>], env: &OpEnv<'_>) -> Result<(), KvError> {
    let snapshot = engine.snapshot()?;
    let mut batch = Batch::new(&*snapshot);
    for job in jobs {
        job.run(&mut batch, env);
    }
    let changes = batch.into_set();
    drop(snapshot);
    if changes.is_empty() { Ok(()) } else { engine.commit(&changes) }
}

enum Message {
    Job(Box<dyn Job>),
    Stop,
}

/// Where the sequencer works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// In a thread of its own: commits wait for a disk.
    #[default]
    Thread,
    /// In a task of the runtime: for an engine that never blocks, a simulator's.
    Task,
}

/// The way to the sequencer.
#[derive(Clone)]
pub struct Sequencer {
    queue: Queue,
    delegations: Arc<Delegations>,
}

#[derive(Clone)]
enum Queue {
    Thread(mpsc::Sender<Message>, Arc<Lane>),
    Task(UnboundedSender<Message>),
}

/// What the sequencer's thread works with, and who may do so in its place.
struct Lane {
    /// Jobs that are sent to the thread and not done.
    queued: AtomicUsize,
    /// Whoever holds it runs a batch. `None`: it has stopped.
    worker: Mutex<Option<Worker>>,
}

struct Worker {
    parts: Parts,
    counters: Counters,
    pace: Pace,
}

/// What the sequencer works with.
pub struct Parts {
    pub engine: Arc<dyn Engine>,
    pub clock: Arc<dyn Clock>,
    pub placement: Arc<dyn Placement + Send + Sync>,
    pub metrics: Metrics,
    pub delegations: Arc<Delegations>,
    pub home: Home,
}

impl Sequencer {
    /// Starts to work. It ends after [`Sequencer::stop`]; once it has let go of the engine, the receiver closes.
    pub fn start(parts: Parts) -> std::io::Result<(Sequencer, watch::Receiver<()>)> {
        let (running, ended) = watch::channel(());
        let delegations = Arc::clone(&parts.delegations);
        let queue = match parts.home {
            Home::Thread => {
                let (queue, jobs) = mpsc::channel();
                let lane = Arc::new(Lane::new(parts));
                let work = Arc::clone(&lane);
                thread::Builder::new().name("sequencer".into()).spawn(move || {
                    work.work_off(&jobs);
                    drop((jobs, work));
                    drop(running);
                })?;
                Queue::Thread(queue, lane)
            }
            Home::Task => {
                let (queue, jobs) = unbounded_channel();
                pvfs_env::task::spawn(async move {
                    work_off_in_task(jobs, parts).await;
                    drop(running);
                });
                Queue::Task(queue)
            }
        };
        Ok((Sequencer { queue, delegations }, ended))
    }

    /// Lets what is queued before it be done, and ends.
    pub fn stop(&self) {
        self.send(Message::Stop);
    }

    /// Does a client's change once and gives the same outcome as often as it is asked. Waits for other sessions to forget what
    /// it makes untrue.
    pub async fn change(&self, by: &Mutator, work: Work<Answer>) -> Result<Outcome, JobError> {
        let (session, slot, seq) = (by.session, by.slot, by.seq);
        self.repeat(Some(session), |answer| {
            let (work, delegations) = (Arc::clone(&work), Arc::clone(&self.delegations));
            Box::new(SlotJob {
                session,
                slot,
                seq,
                work,
                delegations,
                changing: None,
                made: Inos::new(),
                outcome: None,
                answer,
            })
        })
        .await
    }

    /// Does a change of the mgr's own. Waits as [`Sequencer::change`].
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Txn<'_>, &OpEnv<'_>) -> Result<T, MetaError> + Send + Sync + 'static,
    ) -> Result<T, JobError> {
        self.run_own(Some(&self.delegations), Arc::new(work)).await
    }

    /// As [`Sequencer::run`], where the change makes nothing untrue that a session goes by: nothing is recalled.
    pub async fn run_unseen<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Txn<'_>, &OpEnv<'_>) -> Result<T, MetaError> + Send + Sync + 'static,
    ) -> Result<T, JobError> {
        self.run_own(None, Arc::new(work)).await
    }

    async fn run_own<T: Send + 'static>(
        &self,
        delegations: Option<&Arc<Delegations>>,
        work: Work<T>,
    ) -> Result<T, JobError> {
        self.repeat(None, |answer| {
            let (work, delegations) = (Arc::clone(&work), delegations.cloned());
            Box::new(OwnJob { work, delegations, changing: None, result: None, answer })
        })
        .await
    }

    /// Runs a job as often as it finds delegations in its way, which are recalled each time.
    async fn repeat<T>(
        &self,
        by: Option<SessionId>,
        make: impl Fn(oneshot::Sender<Result<Ran<T>, JobError>>) -> Box<dyn Job>,
    ) -> Result<T, JobError> {
        // Kept until it is done, so that nobody is given one of these meanwhile.
        let mut changing = Vec::new();
        loop {
            let (answer, answered) = oneshot::channel();
            self.submit(make(answer));
            match answered.await.unwrap_or(Err(JobError::Stopping))? {
                Ran::Done(done) => return Ok(done),
                Ran::Delegated(inos) => {
                    let recalled = self.delegations.recall(&inos, by).await;
                    changing.push(recalled.map_err(|_| JobError::Stopping)?);
                }
            }
        }
    }

    fn submit(&self, job: Box<dyn Job>) {
        let job = match &self.queue {
            Queue::Thread(_, lane) => match lane.try_here(job) {
                None => return,
                Some(job) => job,
            },
            Queue::Task(_) => job,
        };
        self.send(Message::Job(job));
    }

    /// A job that finds the sequencer gone is dropped, and with it the channel its asker waits on.
    fn send(&self, message: Message) {
        let _dropped = match &self.queue {
            Queue::Thread(queue, lane) => {
                lane.queued.fetch_add(1, Ordering::SeqCst);
                queue.send(message).err().map(|lost| lost.0)
            }
            Queue::Task(queue) => queue.send(message).err().map(|lost| lost.0),
        };
    }
}

impl Lane {
    fn new(parts: Parts) -> Lane {
        let worker = Worker { counters: Counters::new(&parts.metrics), parts, pace: Pace::default() };
        Lane { queued: AtomicUsize::new(0), worker: Mutex::new(Some(worker)) }
    }

    fn worker(&self) -> MutexGuard<'_, Option<Worker>> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `job` here and now, if it is the only one, the store is quick, and this is not the runtime's only thread. Else gives
    /// it back. To wake a thread, and to be woken by it, takes longer than such a commit.
    fn try_here(&self, job: Box<dyn Job>) -> Option<Box<dyn Job>> {
        let is_one_of_many =
            Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
        if !is_one_of_many || self.queued.load(Ordering::SeqCst) > 0 {
            return Some(job);
        }
        let Ok(mut worker) = self.worker.try_lock() else { return Some(job) };
        match &mut *worker {
            Some(worker) if worker.pace.took <= QUICK_MAX => {
                worker.run(vec![job]);
                None
            }
            _ => Some(job),
        }
    }

    fn work_off(&self, queue: &mpsc::Receiver<Message>) {
        let mut stopping = false;
        while !stopping {
            let mut jobs = Vec::new();
            let pace = self.worker().as_ref().map(|worker| worker.pace).unwrap_or_default();
            stopping = gather(queue, &mut jobs, &pace);
            let messages = jobs.len() + usize::from(stopping);
            if let Some(worker) = &mut *self.worker() {
                worker.run(jobs);
            }
            self.queued.fetch_sub(messages, Ordering::SeqCst);
        }
        *self.worker() = None;
    }
}

impl Worker {
    fn run(&mut self, jobs: Vec<Box<dyn Job>>) {
        let (started, answered) = (Instant::now(), jobs.len());
        run_counted(jobs, &self.parts, &self.counters);
        self.pace = Pace { answered, took: started.elapsed() };
        self.counters.microseconds.add(u64::try_from(self.pace.took.as_micros()).unwrap_or(u64::MAX));
    }
}

/// A batch is what is queued when the task gets its turn.
async fn work_off_in_task(mut queue: UnboundedReceiver<Message>, parts: Parts) {
    let counters = Counters::new(&parts.metrics);
    let mut stopping = false;
    while !stopping {
        let mut next = queue.recv().await;
        let mut jobs = Vec::new();
        while let Some(message) = next {
            match message {
                Message::Job(job) => jobs.push(job),
                Message::Stop => stopping = true,
            }
            next = if stopping || jobs.len() == BATCH_JOBS_MAX { None } else { queue.try_recv().ok() };
        }
        // Nobody is left to ask.
        stopping |= jobs.is_empty();
        run_counted(jobs, &parts, &counters);
    }
}

fn run_counted(jobs: Vec<Box<dyn Job>>, parts: &Parts, counters: &Counters) {
    let env = OpEnv {
        now: Timestamp::from_system(parts.clock.wall()),
        is_short: parts.engine.is_short(),
        placement: &*parts.placement,
    };
    // Before the answers go: who has one finds itself counted.
    counters.batches.inc();
    counters.jobs.add(jobs.len() as u64);
    run_batch(&*parts.engine, jobs, &env);
}

/// How the last batch went.
#[derive(Clone, Copy, Default)]
struct Pace {
    answered: usize,
    took: Duration,
}

/// Takes the next batch's jobs off the queue. Gives whether to stop after them.
///
/// What came during the last commit would go alone, and those who have just been answered would miss it: callers
/// would fall into two groups, and each commit would serve one of them. So where some wait already, the answered
/// ones get a moment to come back, a fraction of what a commit takes. A lone caller never waits.
fn gather(queue: &mpsc::Receiver<Message>, jobs: &mut Vec<Box<dyn Job>>, pace: &Pace) -> bool {
    let Ok(first) = queue.try_recv() else { return queue.recv().is_ok_and(|first| take(queue, jobs, first)) };
    if take(queue, jobs, first) {
        return true;
    }
    let expected = (jobs.len() + pace.answered).min(BATCH_JOBS_MAX);
    let deadline = Instant::now() + (pace.took / 4).min(GATHER_MAX);
    while jobs.len() < expected {
        let Ok(next) = queue.recv_timeout(deadline.saturating_duration_since(Instant::now())) else { break };
        if take(queue, jobs, next) {
            return true;
        }
    }
    false
}

/// Takes `first` and what is queued behind it. Gives whether it is to stop after them.
fn take(queue: &mpsc::Receiver<Message>, jobs: &mut Vec<Box<dyn Job>>, first: Message) -> bool {
    let mut next = Some(first);
    while let Some(message) = next {
        match message {
            Message::Job(job) => jobs.push(job),
            Message::Stop => return true,
        }
        next = if jobs.len() < BATCH_JOBS_MAX { queue.try_recv().ok() } else { None };
    }
    false
}

struct Counters {
    batches: Counter,
    jobs: Counter,
    microseconds: Counter,
}

impl Counters {
    fn new(metrics: &Metrics) -> Counters {
        Counters {
            batches: metrics.counter("pvfs_sequencer_batches_total", &[]),
            jobs: metrics.counter("pvfs_sequencer_jobs_total", &[]),
            microseconds: metrics.counter("pvfs_sequencer_busy_microseconds_total", &[]),
        }
    }
}

#[cfg(test)]
mod tests;
