//! Phases that move names: small files in one directory or in one for each rank, by concurrent callers.

use crate::{
    BenchError, Place, ReadBack, Runs, Spec, Workload,
    ranks::{self, Outcome, Rank},
    stamp::Content,
};
use bytes::{Bytes, BytesMut};

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
    if workload == Workload::Create {
        make_dirs(spec, place, base).await?;
    }
    let (outcome, counts) = ranks::run(spec, place, |place, rank| {
        let base = base.to_owned();
        // All but creates are of another rank's files.
        let owner = (rank.number + u64::from(workload != Workload::Create)) % ranks;
        let count = match workload {
            Workload::Create => spec.names / ranks + u64::from(rank.number < spec.names % ranks),
            _ => made.made.get(usize::try_from(owner).unwrap_or(0)).copied().unwrap_or(0),
        };
        work(spec.clone(), place, rank, base, workload, (owner, count))
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
    remove_files(spec, place, base, made).await?;
    if spec.own_dirs && !made.made.is_empty() {
        for rank in 0..u64::from(spec.ranks) {
            let dir = dir_name(base, rank);
            place.rmdir(&dir).await.map_err(BenchError::at("rmdir", &dir))?;
        }
    }
    Ok(())
}

async fn make_dirs<P: Place>(spec: &Spec, place: &P, base: &str) -> Result<(), BenchError> {
    if spec.own_dirs {
        for rank in 0..u64::from(spec.ranks) {
            let dir = dir_name(base, rank);
            place.mkdir(&dir).await.map_err(BenchError::at("mkdir", &dir))?;
        }
    }
    Ok(())
}

async fn remove_files<P: Place>(
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
        let (spec, base, made) = (spec.clone(), base.to_owned(), made.clone());
        async move {
            rank.ready().await;
            let owner = usize::try_from(rank.number).unwrap_or(0);
            let (from, to) = (made.removed.get(owner), made.made.get(owner));
            for n in from.copied().unwrap_or(0)..to.copied().unwrap_or(0) {
                let name = file_name(&spec, &base, rank.number, n);
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
    spec: Spec,
    place: P,
    mut rank: Rank,
    base: String,
    workload: Workload,
    (owner, count): (u64, u64),
) -> Result<(Rank, u64), BenchError> {
    let runs = Runs::one(0, spec.name_bytes);
    let mut scratch = Vec::new();
    rank.ready().await;
    let mut done = 0;
    while done < count && !rank.is_over() {
        let name = file_name(&spec, &base, owner, done);
        let content = Content { seed: 1 << 62 | owner << 40 | done, verify: spec.verify };
        let (call, outcome) = match workload {
            Workload::Create => {
                let mut bytes = BytesMut::zeroed(usize::try_from(spec.name_bytes).unwrap_or(0));
                content.put(runs, &mut bytes);
                ("create", rank.timed(place.create(&name, &bytes.freeze())).await)
            }
            Workload::OpenRead => {
                let found = rank.timed(read_whole(&place, &name, runs, &mut scratch)).await;
                if let Ok(found) = &found {
                    content.check(&name, runs, found)?;
                }
                ("open and read", found.map(drop))
            }
            Workload::Remove => ("unlink", rank.timed(place.remove(&name)).await),
            _ => ("stat", rank.timed(place.stat(&name)).await),
        };
        outcome.map_err(BenchError::at(call, &name))?;
        done += 1;
    }
    Ok((rank, done))
}

/// Opens, reads and closes.
async fn read_whole<P: Place>(
    place: &P,
    name: &str,
    runs: Runs,
    scratch: &mut Vec<u8>,
) -> std::io::Result<Bytes> {
    let file = place.open_reading(name).await?;
    let found = if runs.len == 0 {
        Bytes::new()
    } else {
        match place.read(&file, runs, scratch).await? {
            ReadBack::Scratch(bytes) => Bytes::copy_from_slice(bytes),
            ReadBack::Own(bytes) => bytes,
        }
    };
    place.close(file).await?;
    Ok(found)
}

fn dir_name(base: &str, rank: u64) -> String {
    format!("{base}/rank{rank}")
}

fn file_name(spec: &Spec, base: &str, rank: u64, n: u64) -> String {
    if spec.own_dirs {
        format!("{}/file.{n}", dir_name(base, rank))
    } else {
        format!("{base}/file.{rank}.{n}")
    }
}
