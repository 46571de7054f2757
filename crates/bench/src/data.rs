//! Phases that move bytes.

use crate::{
    BenchError, Files, Place, Runs, Spec, Verify, Workload,
    ranks::{self, Outcome, Rank},
    stamp::Content,
};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;

/// How many transfers each rank wrote: all there is to read. By whether they were strided.
#[derive(Debug, Default)]
pub(crate) struct Written(HashMap<bool, Vec<u64>>);

pub(crate) async fn run<P: Place>(
    spec: &Spec,
    place: &P,
    base: &str,
    workload: Workload,
    written: &mut Written,
) -> Result<Outcome, BenchError> {
    let plan = Plan { spec: spec.clone(), base: base.to_owned(), strided: workload.is_strided() };
    if workload.writes() {
        let (outcome, transfers) =
            ranks::run(spec, place, |place, rank| write(plan.clone(), place, rank)).await?;
        written.0.insert(plan.strided, transfers);
        return Ok(outcome);
    }
    let transfers = written.0.get(&plan.strided).cloned().unwrap_or_default();
    if spec.drop_caches {
        forget(&plan, place).await?;
    }
    let is_random = workload == Workload::RandomRead;
    let (outcome, _) = ranks::run(spec, place, |place, rank| {
        // What another rank wrote.
        let writer = (rank.number + 1) % u64::from(spec.ranks);
        let transfers = transfers.get(usize::try_from(writer).unwrap_or(0)).copied().unwrap_or(0);
        let runs: Box<dyn Iterator<Item = Runs> + Send> = if is_random {
            Box::new(plan.clone().anywhere(writer, transfers, rank.number))
        } else {
            Box::new(plan.clone().in_order(writer, transfers))
        };
        read(plan.clone(), place, rank, writer, is_random, runs)
    })
    .await?;
    Ok(outcome)
}

/// Removes the files.
pub(crate) async fn clean<P: Place>(place: &P, base: &str, written: &Written) -> Result<(), BenchError> {
    for (&strided, transfers) in &written.0 {
        let mut names: Vec<String> =
            (0..transfers.len() as u64).map(|rank| own_name(base, strided, rank)).collect();
        names.push(shared_name(base, strided));
        for name in names {
            match place.remove(&name).await {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                done => done.map_err(BenchError::at("unlink", &name))?,
            }
        }
    }
    Ok(())
}

/// Which bytes of which file each rank moves.
#[derive(Clone)]
struct Plan {
    spec: Spec,
    base: String,
    strided: bool,
}

impl Plan {
    fn name(&self, rank: u64) -> String {
        match self.spec.files {
            Files::Own => own_name(&self.base, self.strided, rank),
            Files::Shared => shared_name(&self.base, self.strided),
        }
    }

    fn content(&self, rank: u64) -> Content {
        let file = if self.spec.files == Files::Own { rank + 1 } else { 0 };
        Content { seed: file << 48 | u64::from(self.strided) << 40, verify: self.spec.verify }
    }

    /// The bytes of transfer number `n` of `rank`.
    fn runs(&self, rank: u64, n: u64) -> Runs {
        let (spec, shared) = (&self.spec, self.spec.files == Files::Shared);
        if !self.strided {
            let part = if shared { rank * spec.transfers() * spec.transfer_bytes } else { 0 };
            return Runs::one(part + n * spec.transfer_bytes, spec.transfer_bytes);
        }
        // Ranks take turns piece by piece; who is alone leaves every other piece out.
        let turns = if shared { u64::from(spec.ranks).max(2) } else { 2 };
        let turn = if shared { rank } else { 0 };
        let len = spec.transfer_bytes / spec.pieces;
        let start = (n * spec.pieces * turns + turn) * len;
        Runs { start, len, stride: turns * len, count: spec.pieces }
    }

    /// All transfers of `rank`.
    fn in_order(self, rank: u64, transfers: u64) -> impl Iterator<Item = Runs> + Send {
        (0..transfers).map(move |n| self.runs(rank, n))
    }

    /// As many pieces as it takes to read a sixteenth of what `rank` wrote, in no order.
    fn anywhere(self, rank: u64, transfers: u64, seed: u64) -> impl Iterator<Item = Runs> + Send {
        let (begin, piece) = (self.runs(rank, 0).start, self.spec.random_bytes);
        let pieces = transfers * self.spec.transfer_bytes / piece;
        let mut random = 0x9e37_79b9_7f4a_7c15 ^ seed;
        (0..pieces.div_ceil(16)).map(move |_| {
            // Xorshift.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            Runs::one(begin + random % pieces * piece, piece)
        })
    }
}

fn own_name(base: &str, strided: bool, rank: u64) -> String {
    format!("{base}/{}-rank{rank}", kind(strided))
}

fn shared_name(base: &str, strided: bool) -> String {
    format!("{base}/{}-shared", kind(strided))
}

fn kind(strided: bool) -> &'static str {
    if strided { "strided" } else { "sequential" }
}

/// Returns how many transfers there was time for.
async fn write<P: Place>(plan: Plan, place: P, mut rank: Rank) -> Result<(Rank, u64), BenchError> {
    let (name, content) = (plan.name(rank.number), plan.content(rank.number));
    let opened = place.open_writing(&name, plan.spec.writer).await;
    let mut data = BytesMut::zeroed(usize::try_from(plan.runs(0, 0).bytes()).unwrap_or(0));
    // Whatever is verified later, nothing here is all zeros, which somebody on the way might treat apart.
    Content { verify: Verify::Full, ..content }.put(plan.runs(rank.number, 0), &mut data);
    rank.ready().await;
    let file = opened.map_err(BenchError::at("open", &name))?;
    let mut transfers = 0;
    while transfers < plan.spec.transfers() && !rank.is_over() {
        let runs = plan.runs(rank.number, transfers);
        content.put(runs, &mut data);
        let sent: Bytes = data.freeze();
        rank.timed(place.write(&file, runs, &sent)).await.map_err(BenchError::at("write", &name))?;
        // The place may still hold on to the bytes: then the next ones need a buffer of their own.
        data = sent.try_into_mut().unwrap_or_else(|held| BytesMut::from(&held[..]));
        rank.bytes += runs.bytes();
        transfers += 1;
    }
    if plan.spec.fsync {
        place.sync(&file).await.map_err(BenchError::at("fsync", &name))?;
    }
    place.close(file).await.map_err(BenchError::at("close", &name))?;
    Ok((rank, transfers))
}

/// Reads `runs` of what `writer` wrote; past the kernel's cache where that is asked.
async fn read<P: Place>(
    plan: Plan,
    place: P,
    mut rank: Rank,
    writer: u64,
    direct: bool,
    runs: impl Iterator<Item = Runs> + Send,
) -> Result<(Rank, ()), BenchError> {
    let (name, content) = (plan.name(writer), plan.content(writer));
    let opened = if direct { place.open_direct(&name).await } else { place.open_reading(&name).await };
    let mut scratch = Vec::new();
    rank.ready().await;
    let file = opened.map_err(BenchError::at("open", &name))?;
    for runs in runs {
        if rank.is_over() {
            break;
        }
        let found =
            rank.timed(place.read(&file, runs, &mut scratch)).await.map_err(BenchError::at("read", &name))?;
        content.check(&name, runs, &found)?;
        rank.bytes += runs.bytes();
    }
    place.close(file).await.map_err(BenchError::at("close", &name))?;
    Ok((rank, ()))
}

/// Lets the kernel forget all files of a phase.
async fn forget<P: Place>(plan: &Plan, place: &P) -> Result<(), BenchError> {
    let ranks = if plan.spec.files == Files::Own { u64::from(plan.spec.ranks) } else { 1 };
    for rank in 0..ranks {
        let name = plan.name(rank);
        let file = place.open_reading(&name).await.map_err(BenchError::at("open", &name))?;
        place.forget(&file).map_err(BenchError::at("fadvise", &name))?;
        place.close(file).await.map_err(BenchError::at("close", &name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The runs of all ranks and transfers of one file, held against each other.
    fn check(files: Files, strided: bool) {
        let spec = Spec { ranks: 3, transfer_bytes: 12, rank_bytes: 48, pieces: 4, files, ..Spec::default() };
        let plan = Plan { spec: spec.clone(), base: "b".into(), strided };
        let mut bytes: BTreeSet<(String, u64)> = BTreeSet::new();
        for rank in 0..3 {
            for n in 0..spec.transfers() {
                let runs = plan.runs(rank, n);
                for run in 0..runs.count {
                    for at in 0..runs.len {
                        let offset = runs.start + run * runs.stride + at;
                        assert!(bytes.insert((plan.name(rank), offset)), "byte {offset} twice");
                    }
                }
            }
        }
        assert_eq!(bytes.len(), 3 * 48, "{files:?} strided={strided}");
        if files == Files::Shared {
            assert_eq!(bytes.last().expect("bytes").1, 3 * 48 - 1, "no holes in a shared file");
        }
    }

    #[test]
    fn ranks_move_each_byte_once() {
        for files in [Files::Own, Files::Shared] {
            check(files, false);
            check(files, true);
        }
    }
}
