//! Phases that move names: empty files in one directory, by concurrent callers.

use crate::{
    BenchError, Place, Spec, Workload,
    ranks::{self, Outcome, Rank},
};

/// How many files each rank made, and how many of those are removed again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Made {
    made: Vec<u64>,
    removed: Vec<u64>,
}

pub(crate) async fn run<P: Place>(
    spec: &Spec,
    place: &P,
    base: &str,
    workload: Workload,
    made: &mut Made,
) -> Result<Outcome, BenchError> {
    let ranks = u64::from(spec.ranks);
    let (outcome, counts) = ranks::run(spec, place, |place, rank| {
        let base = base.to_owned();
        // Stats and removes are of another rank's files.
        let owner = (rank.number + u64::from(workload != Workload::Create)) % ranks;
        let count = match workload {
            Workload::Create => spec.names / ranks + u64::from(rank.number < spec.names % ranks),
            _ => made.made.get(usize::try_from(owner).unwrap_or(0)).copied().unwrap_or(0),
        };
        work(place, rank, base, workload, owner, count)
    })
    .await?;
    match workload {
        Workload::Create => {
            made.removed = vec![0; counts.len()];
            made.made = counts;
        }
        // Rank r removed what rank r + 1 had made.
        Workload::Remove => {
            made.removed = counts;
            made.removed.rotate_right(1);
        }
        _ => {}
    }
    Ok(outcome)
}

/// Removes what is left.
pub(crate) async fn clean<P: Place>(
    spec: &Spec,
    place: &P,
    base: &str,
    made: &mut Made,
) -> Result<(), BenchError> {
    if made.made == made.removed {
        return Ok(());
    }
    let unbounded = Spec { secs_max: 0.0, ..spec.clone() };
    ranks::run(&unbounded, place, |place, rank| {
        let (base, made) = (base.to_owned(), made.clone());
        async move {
            rank.ready().await;
            let owner = usize::try_from(rank.number).unwrap_or(0);
            let (from, to) = (made.removed.get(owner), made.made.get(owner));
            for n in from.copied().unwrap_or(0)..to.copied().unwrap_or(0) {
                let name = file_name(&base, rank.number, n);
                place.remove(&name).await.map_err(BenchError::at("unlink", &name))?;
            }
            Ok((rank, ()))
        }
    })
    .await?;
    made.removed.clone_from(&made.made);
    Ok(())
}

/// Returns how many files there was time for.
async fn work<P: Place>(
    place: P,
    mut rank: Rank,
    base: String,
    workload: Workload,
    owner: u64,
    count: u64,
) -> Result<(Rank, u64), BenchError> {
    rank.ready().await;
    let mut done = 0;
    while done < count && !rank.is_over() {
        let name = file_name(&base, owner, done);
        let (call, outcome) = match workload {
            Workload::Create => ("create", rank.timed(place.create(&name)).await),
            Workload::Remove => ("unlink", rank.timed(place.remove(&name)).await),
            _ => ("stat", rank.timed(place.stat(&name)).await),
        };
        outcome.map_err(BenchError::at(call, &name))?;
        done += 1;
    }
    Ok((rank, done))
}

fn file_name(base: &str, rank: u64, n: u64) -> String {
    format!("{base}/file.{rank}.{n}")
}
