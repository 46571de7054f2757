//! One run: a cluster, programs that use it, and what is looked at in the end.

use crate::{
    actor::{Actor, Progress},
    check,
    client::ClientSeat,
    cluster::Cluster,
    faults::{self, Kinds},
    random::Random,
    trace::{Trace, event},
};
use std::{
    cell::RefCell,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How long programs work.
const WORK: Duration = Duration::from_secs(20);
/// When all is well again, every call must end within this.
const CALLS_END: Duration = Duration::from_mins(2);

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    /// How many events there were, and the hash over them: the same for the same seed.
    pub events: u64,
    pub hash: u64,
    /// Operations of all programs.
    pub ops: u64,
    /// Simulated time.
    pub took: Duration,
    /// What went wrong from outside.
    pub troubles: String,
    /// Promises that were broken.
    pub failures: Vec<String>,
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A panic of a task fails the run, though tokio catches it.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            before(info);
        }));
    });
    PANICS.take();
}

/// Runs `seed` to its end; with `print`, tells each event on standard error.
pub fn run(seed: u64, print: bool) -> Report {
    watch_panics();
    let random = Random::of(seed, "processes");
    pvfs_env::random::set_thread_source(Some(Box::new(move |bytes| random.fill(bytes))));
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // The order in which tokio wakes those who watch the same thing. Without this flag, runs differ.
    #[cfg(tokio_unstable)]
    runtime.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime without sockets");
    let mut report = runtime.block_on(simulate(seed, print));
    drop(runtime);
    pvfs_env::random::set_thread_source(None);
    report.failures.extend(PANICS.take());
    report
}

/// What some program has been doing for longer than any call may take; waits for that.
async fn stuck(progress: &[Arc<Progress>]) -> Vec<String> {
    let well_since = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let then = Instant::now() - CALLS_END;
        if then < well_since {
            continue;
        }
        let stuck: Vec<String> = progress.iter().filter_map(|progress| progress.since(then)).collect();
        if !stuck.is_empty() {
            return stuck;
        }
    }
}

async fn simulate(seed: u64, print: bool) -> Report {
    let trace = Trace::begin(print);
    let random = Random::of(seed, "run");
    let iods = usize::try_from(random.between(1..=3)).expect("small");
    let cluster = Cluster::start(seed, iods, &trace);
    let seats: Vec<Arc<ClientSeat>> = (0..2).map(|number| ClientSeat::new(&cluster, number, seed)).collect();
    let actors = [
        (1, "alone0", vec![Arc::clone(&seats[0])]),
        (2, "alone1", vec![Arc::clone(&seats[1])]),
        (3, "inturn", seats.clone()),
    ]
    .map(|(number, name, seats)| Actor::new(number, name, &cluster, seats, seed));
    let progress: Vec<Arc<Progress>> = actors.iter().map(Actor::progress).collect();

    let enough = Arc::new(AtomicBool::new(false));
    let mut working = tokio::task::JoinSet::new();
    for actor in actors {
        let enough = Arc::clone(&enough);
        working.spawn(actor.work(move || enough.load(Ordering::SeqCst)));
    }
    let kinds = Kinds::of(&random);
    event!(trace, "run", "{kinds}");
    cluster.disks_fail.store(kinds.disks_err(), Ordering::SeqCst);
    let troubles = faults::start(&kinds, &cluster, &seats, seed);
    tokio::time::sleep(WORK).await;
    drop(troubles);
    faults::heal(&cluster, &seats);
    enough.store(true, Ordering::SeqCst);

    let ended = async {
        while let Some(ended) = working.join_next().await {
            match ended {
                Ok(Ok(_)) => {}
                Ok(Err(broken)) => trace.fail(broken),
                Err(error) => trace.fail(format!("a program's task died: {error}")),
            }
        }
    };
    let stuck = tokio::select! {
        biased;
        () = ended => Vec::new(),
        stuck = stuck(&progress) => stuck,
    };
    if !stuck.is_empty() {
        for what in stuck {
            trace.fail(format!("has not ended after {CALLS_END:?}: {what}"));
        }
        for seat in &seats {
            event!(trace, seat.name, "{}", seat.waiting());
        }
    }
    if trace.failures().is_empty() {
        check::all(&cluster, &seats).await;
    }
    let (events, hash) = trace.digest();
    Report {
        seed,
        events,
        hash,
        ops: progress.iter().map(|progress| progress.ops.load(Ordering::Relaxed)).sum(),
        took: Duration::from_millis(u64::try_from(trace.now_ms()).unwrap_or(u64::MAX)),
        troubles: kinds.to_string(),
        failures: trace.failures(),
    }
}
