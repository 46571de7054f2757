//! The sequencer over stores in memory: exactly once, all or nothing, few commits.

use super::*;
use futures_util::FutureExt;
use pvfs_env::SystemClock;
use pvfs_kv::{MemEngine, MemStore, WriteSet};
use pvfs_meta::{ops, session, superblock};
use pvfs_types::{Cred, Distribution, FsId, IodtabGen, LayoutHint, Name};
use pvfs_wire::msg::{
    namespace::{Lookup, MkDir, Unlink},
    session::{Caller, OpenSession},
};
use std::sync::{
    Condvar, Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// A store whose commits can be held, counted and refused.
struct Watched {
    engine: MemEngine,
    commits: AtomicUsize,
    /// Sets of more keys than this are refused as too big for the store.
    keys_max: AtomicUsize,
    held: Mutex<bool>,
    released: Condvar,
}

impl Engine for Watched {
    fn snapshot(&self) -> Result<Box<dyn Read + Send + '_>, KvError> {
        self.engine.snapshot()
    }

    fn commit(&self, set: &WriteSet) -> Result<(), KvError> {
        drop(self.released.wait_while(self.held.lock().expect("no panic"), |held| *held).expect("no panic"));
        if set.len() > self.keys_max.load(Ordering::SeqCst) {
            return Err(KvError::Full { detail: "as the test wants it".into() });
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.engine.commit(set)
    }

    fn used_bytes(&self) -> Result<u64, KvError> {
        self.engine.used_bytes()
    }
}

impl Watched {
    fn over(engine: MemEngine) -> Arc<Watched> {
        Arc::new(Watched {
            engine,
            commits: AtomicUsize::new(0),
            keys_max: AtomicUsize::new(usize::MAX),
            held: Mutex::new(false),
            released: Condvar::new(),
        })
    }

    fn hold(&self, hold: bool) {
        *self.held.lock().expect("no panic") = hold;
        self.released.notify_all();
    }
}

struct Anywhere;

impl Placement for Anywhere {
    fn choose(&self, _: LayoutHint) -> pvfs_meta::Result<Distribution> {
        Ok(Distribution { iodtab: IodtabGen(1), base: 0, pcount: 1, ssize: 1 << 20 })
    }
}

/// A formatted store with one session.
fn formatted(engine: &MemEngine) -> SessionId {
    let snapshot = engine.snapshot().unwrap();
    let mut txn = Overlay::new(&*snapshot);
    superblock::init(&mut txn, FsId([1; 16]), &[], &Cred::root(), Timestamp::default()).unwrap();
    let req = OpenSession { client: [1; 16], incarnation: 1, label: "test".into(), delegations: None };
    let session = session::open(&mut txn, &req, Timestamp::default()).unwrap();
    engine.commit(&txn.into_set()).unwrap();
    session
}

fn start(engine: &Arc<Watched>) -> (Sequencer, watch::Receiver<()>, Metrics) {
    start_in(Home::Thread, engine)
}

fn start_in(home: Home, engine: &Arc<Watched>) -> (Sequencer, watch::Receiver<()>, Metrics) {
    let metrics = Metrics::new();
    let (sequencer, ended) = Sequencer::start(Parts {
        engine: engine.clone(),
        clock: Arc::new(SystemClock),
        placement: Arc::new(Anywhere),
        metrics: metrics.clone(),
        delegations: Delegations::new(1),
        home,
    })
    .unwrap();
    (sequencer, ended, metrics)
}

fn by(session: SessionId, slot: u16, seq: u64) -> Mutator {
    Mutator { session, slot, seq, cred: Cred::root() }
}

fn mkdir(by: &Mutator, name: &str) -> Work<Answer> {
    let name = Name::new(name).unwrap();
    let req = MkDir { by: by.clone(), dir: Ino::ROOT, name, mode: 0o755, unmasked: None };
    Arc::new(move |txn, env| {
        let entry: pvfs_wire::msg::namespace::Entry = ops::mkdir(txn, &req, env)?.into();
        Ok(Answer::Reply(pvfs_wire::encode(&entry)))
    })
}

fn exists(engine: &dyn Engine, name: &str) -> bool {
    let caller = Caller { session: SessionId(1), cred: Cred::root() };
    let req = Lookup { caller, dir: Ino::ROOT, name: Some(Name::new(name).unwrap()) };
    ops::lookup(&*engine.snapshot().unwrap(), &req).is_ok()
}

async fn make(sequencer: &Sequencer, by: &Mutator, name: &str) -> Outcome {
    sequencer.change(by, mkdir(by, name)).await.unwrap()
}

fn errno(outcome: &Outcome) -> Option<Errno> {
    match outcome {
        Outcome::Refused(Refusal { status: Status::Errno(errno), .. }) => Some(*errno),
        _ => None,
    }
}

#[tokio::test]
async fn a_repeated_request_is_done_once_and_answered_the_same_also_after_a_restart() {
    let store = MemStore::new(usize::MAX);
    let engine = Watched::over(store.open().unwrap());
    let session = formatted(&engine.engine);
    let (sequencer, mut ended, _) = start(&engine);
    let first = make(&sequencer, &by(session, 3, 1), "a").await;
    assert!(matches!(first, Outcome::Reply(_)));
    assert_eq!(make(&sequencer, &by(session, 3, 1), "a").await, first);
    sequencer.stop();
    ended.changed().await.unwrap_err();
    drop(engine);

    let engine = Watched::over(store.open().unwrap());
    let (sequencer, _, _) = start(&engine);
    assert_eq!(make(&sequencer, &by(session, 3, 1), "a").await, first, "after a restart");
    assert_eq!(engine.commits.load(Ordering::SeqCst), 0, "a repeat changes nothing");
    assert!(matches!(make(&sequencer, &by(session, 3, 2), "b").await, Outcome::Reply(_)));
    sequencer.stop();
}

#[tokio::test]
async fn an_error_is_an_answer_too_and_is_repeated() {
    let engine = Watched::over(MemEngine::new());
    let session = formatted(&engine.engine);
    let (sequencer, _, _) = start(&engine);
    make(&sequencer, &by(session, 0, 1), "a").await;
    let refused = make(&sequencer, &by(session, 1, 1), "a").await;
    assert_eq!(errno(&refused), Some(Errno::EEXIST));
    let unlink = Unlink { by: by(session, 0, 2), dir: Ino::ROOT, name: Name::new("a").unwrap() };
    let unlink: Work<Answer> = Arc::new(move |txn, env| match ops::unlink(txn, &unlink, env) {
        Ok(_) => Ok(Answer::Reply(Vec::new())),
        Err(error) => Err(error),
    });
    let is_dir = sequencer.change(&by(session, 0, 2), unlink).await.unwrap();
    assert_eq!(errno(&is_dir), Some(Errno::EISDIR));
    assert_eq!(make(&sequencer, &by(session, 1, 1), "b").await, refused, "whatever the copy would do now");
    assert!(!exists(&*engine, "b"));
    sequencer.stop();
}

#[tokio::test]
async fn late_copies_and_strangers_are_refused() {
    let engine = Watched::over(MemEngine::new());
    let session = formatted(&engine.engine);
    let (sequencer, _, _) = start(&engine);
    make(&sequencer, &by(session, 0, 7), "a").await;
    let status = |outcome| match outcome {
        Outcome::Refused(refusal) => refusal.status,
        other => panic!("{other:?} is no refusal"),
    };
    assert_eq!(status(make(&sequencer, &by(session, 0, 6), "b").await), Status::SlotStale);
    assert_eq!(status(make(&sequencer, &by(SessionId(99), 0, 1), "b").await), Status::SessionUnknown);
    assert_eq!(status(make(&sequencer, &by(session, 64, 1), "b").await), Status::BadRequest);
    assert!(!exists(&*engine, "b"));
    sequencer.stop();
}

#[tokio::test]
async fn a_failed_commit_leaves_nothing_and_the_request_can_be_sent_again() {
    let engine = Watched::over(MemEngine::new());
    let session = formatted(&engine.engine);
    let (sequencer, _, _) = start(&engine);
    engine.keys_max.store(0, Ordering::SeqCst);
    let one = by(session, 0, 1);
    let failed = sequencer.change(&one, mkdir(&one, "a")).await;
    assert!(matches!(failed, Err(JobError::Commit { errno: Errno::ENOSPC, .. })), "{failed:?}");
    assert!(!exists(&*engine, "a"));
    engine.keys_max.store(usize::MAX, Ordering::SeqCst);
    assert!(matches!(make(&sequencer, &one, "a").await, Outcome::Reply(_)), "nothing was recorded");
    sequencer.stop();
}

/// Has `count` requests queued while the first one's commit is held, then lets go. Gives all outcomes.
async fn burst(engine: &Arc<Watched>, sequencer: &Sequencer, session: SessionId, count: u16) -> Vec<bool> {
    engine.hold(true);
    let requests: Vec<_> = (0..count)
        .map(|slot| {
            let (sequencer, by) = (sequencer.clone(), by(session, slot, 1));
            tokio::spawn(async move { sequencer.change(&by, mkdir(&by, &format!("d{slot}"))).await.is_ok() })
        })
        .collect();
    // On one thread each spawned task runs up to its wait before this one goes on.
    tokio::task::yield_now().await;
    engine.hold(false);
    let mut done = Vec::new();
    for request in requests {
        done.push(request.await.expect("no panic"));
    }
    done
}

#[tokio::test]
async fn what_comes_during_a_commit_shares_the_next_one() {
    let engine = Watched::over(MemEngine::new());
    let session = formatted(&engine.engine);
    let (sequencer, _, metrics) = start(&engine);
    assert_eq!(burst(&engine, &sequencer, session, 64).await, [true; 64]);
    let commits = engine.commits.load(Ordering::SeqCst);
    assert!(commits <= 3, "{commits} commits for 64 requests");
    assert_eq!(metrics.counter("pvfs_sequencer_jobs_total", &[]).get(), 64);
    sequencer.stop();
}

#[tokio::test]
async fn where_a_batch_does_not_fit_each_request_that_fits_alone_is_done() {
    let engine = Watched::over(MemEngine::new());
    let session = formatted(&engine.engine);
    let (sequencer, _, _) = start(&engine);
    // A mkdir changes its inode, its parent, its entry, the inode counter and the slot.
    engine.keys_max.store(5, Ordering::SeqCst);
    assert_eq!(burst(&engine, &sequencer, session, 8).await, [true; 8]);
    assert_eq!((0..8).filter(|slot| exists(&*engine, &format!("d{slot}"))).count(), 8);
    sequencer.stop();
}

#[tokio::test]
async fn a_pending_request_commits_its_intent_and_records_no_answer() {
    let engine = Watched::over(MemEngine::new());
    let session = formatted(&engine.engine);
    let (sequencer, _, _) = start(&engine);
    let one = by(session, 0, 1);
    let put = |answer: fn() -> Answer| -> Work<Answer> {
        Arc::new(move |txn, _| {
            pvfs_kv::WriteTxn::put(txn, b"zzz", b"noted".to_vec());
            Ok(answer())
        })
    };
    let pending = sequencer.change(&one, put(|| Answer::Pending(Ino(5)))).await.unwrap();
    assert_eq!(pending, Outcome::Pending(Ino(5)));
    assert!(engine.snapshot().unwrap().get(b"zzz").unwrap().is_some());
    let done = sequencer.change(&one, put(|| Answer::Reply(vec![7]))).await.unwrap();
    assert!(matches!(done, Outcome::Reply(reply) if reply.body == [7]));
    sequencer.stop();
}

#[tokio::test]
async fn in_a_task_what_is_queued_together_shares_a_commit_and_it_ends_when_told() {
    let engine = Watched::over(MemEngine::new());
    let session = formatted(&engine.engine);
    let (sequencer, mut ended, metrics) = start_in(Home::Task, &engine);
    let request = |slot: u16| {
        let (sequencer, by) = (sequencer.clone(), by(session, slot, 1));
        async move { sequencer.change(&by, mkdir(&by, &format!("d{slot}"))).await.is_ok() }
    };
    assert_eq!(tokio::join!(request(0), request(1), request(2)), (true, true, true));
    assert_eq!(metrics.counter("pvfs_sequencer_batches_total", &[]).get(), 1);
    sequencer.stop();
    assert!(ended.changed().await.is_err(), "it has let go of the engine");
    assert!(matches!(sequencer.run(|_, _| Ok(())).await, Err(JobError::Stopping)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_change_is_made_where_it_was_asked_and_shares_commits_with_those_that_come_meanwhile() {
    let engine = Watched::over(MemEngine::new());
    let session = formatted(&engine.engine);
    let (sequencer, _, metrics) = start(&engine);
    // Off the test's own thread, which is none of the runtime's workers.
    let alone = tokio::spawn({
        let (sequencer, by) = (sequencer.clone(), by(session, 0, 1));
        async move { sequencer.change(&by, mkdir(&by, "alone")).now_or_never().is_some() }
    });
    assert!(alone.await.unwrap(), "it had to wait for no other thread");
    engine.hold(true);
    let change = |slot: u16| {
        let (sequencer, by) = (sequencer.clone(), by(session, slot, 2));
        tokio::spawn(async move { sequencer.change(&by, mkdir(&by, &format!("d{slot}"))).await.is_ok() })
    };
    let requests: Vec<_> = (0..32).map(change).collect();
    let Queue::Thread(_, lane) = &sequencer.queue else { panic!("it has a thread") };
    while lane.queued.load(Ordering::SeqCst) < 31 {
        tokio::task::yield_now().await;
    }
    engine.hold(false);
    for request in requests {
        assert!(request.await.unwrap());
    }
    let commits = engine.commits.load(Ordering::SeqCst);
    assert!(commits <= 4, "{commits} commits for 33 requests");
    assert_eq!(metrics.counter("pvfs_sequencer_jobs_total", &[]).get(), 33);
    sequencer.stop();
}
