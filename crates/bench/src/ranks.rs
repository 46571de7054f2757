//! Ranks: the same work many times at once, started together, each call's time kept.

use crate::{BenchError, Place, Spec};
use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::sync::Barrier;

/// What a phase gives, over all ranks.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub bytes: u64,
    pub calls: u64,
    /// From the common start to the end of the last rank.
    pub secs: f64,
    /// Of every call, in microseconds, in no order.
    pub latencies_us: Vec<u32>,
}

/// One rank's part of a phase.
pub(crate) struct Rank {
    pub number: u64,
    start: Arc<Start>,
    secs_max: f64,
    pub bytes: u64,
    latencies_us: Vec<u32>,
}

/// All ranks meet here before the clock runs.
struct Start {
    barrier: Barrier,
    at: OnceLock<Instant>,
}

impl Rank {
    /// Waits for the others; the phase's time starts. Every rank must come here, also one whose preparation failed:
    /// the others wait for it.
    pub async fn ready(&self) {
        self.start.barrier.wait().await;
        self.start.at.get_or_init(Instant::now);
    }

    /// Whether the phase has had its time.
    pub fn is_over(&self) -> bool {
        let since = self.start.at.get().map_or(Duration::ZERO, Instant::elapsed);
        self.secs_max > 0.0 && since.as_secs_f64() >= self.secs_max
    }

    /// Waits for one call and keeps its time.
    pub async fn timed<T>(&mut self, call: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let done = call.await;
        self.latencies_us.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
        done
    }
}

/// Runs `work` in every rank at once. It gets its rank, must call [`Rank::ready`], and gives the rank back with its
/// own result.
pub(crate) async fn run<P, T, W, F>(spec: &Spec, place: &P, work: W) -> Result<(Outcome, Vec<T>), BenchError>
where
    P: Place,
    T: Send + 'static,
    W: Fn(P, Rank) -> F,
    F: Future<Output = Result<(Rank, T), BenchError>> + Send + 'static,
{
    let ranks = usize::try_from(spec.ranks).unwrap_or(1);
    let start = Arc::new(Start { barrier: Barrier::new(ranks), at: OnceLock::new() });
    let running: Vec<_> = (0..u64::from(spec.ranks))
        .map(|number| {
            let rank = Rank {
                number,
                start: Arc::clone(&start),
                secs_max: spec.secs_max,
                bytes: 0,
                latencies_us: Vec::new(),
            };
            let work = work(place.clone(), rank);
            place.spawn(async move {
                let done = work.await;
                (done, Instant::now())
            })
        })
        .collect();
    let (mut outcome, mut results) = (Outcome::default(), Vec::new());
    for rank in running {
        let (done, ended) = rank.await.map_err(|_| BenchError::RankLost)?;
        let (rank, result) = done?;
        let since = start.at.get().map_or(Duration::ZERO, |at| ended.saturating_duration_since(*at));
        outcome.secs = outcome.secs.max(since.as_secs_f64());
        outcome.bytes += rank.bytes;
        outcome.calls += rank.latencies_us.len() as u64;
        outcome.latencies_us.extend(rank.latencies_us);
        results.push(result);
    }
    Ok((outcome, results))
}
