//! Benchmarks: what a file system does, and beside it, in the same run, what the machine could do.
//!
//! A [`Spec`] says what to run; a [`Place`] is where: a PVFS directory through the client core ([`Native`]) or any
//! directory through the kernel ([`Local`]). Each phase gives one [`Row`]. Owns workloads, clocks and CPU accounts;
//! knows nothing of how the client core works.

mod cpu;
mod data;
mod error;
mod limits;
mod local;
mod names;
mod native;
mod place;
mod ranks;
mod report;
mod spec;
mod stamp;

pub use cpu::own_program_pids;
pub use error::BenchError;
pub use local::Local;
pub use native::Native;
pub use place::{Place, ReadBack, Runs};
pub use report::{Report, Row};
pub use spec::{Files, Spec, Verify, Workload, Writer};

use cpu::Meter;
use std::path::Path;

/// Runs all of `spec` at `place`, then, where `limits_dir` is given, the same bytes over bare TCP and the same calls on
/// that local directory. `pids` are the processes whose CPU seconds count besides this one's.
///
/// `place`'s directory gets files named `pvfs-bench-…`, which are removed again.
///
/// # Errors
/// The first call that failed, or the first wrong byte. Files may be left behind then.
pub async fn run<P: Place>(
    spec: &Spec,
    place: &P,
    limits_dir: Option<&Path>,
    pids: &[u32],
    mut done: impl FnMut(&Row),
) -> Result<Report, BenchError> {
    spec.check()?;
    let mut rows = Vec::new();
    run_at(spec, place, pids, &mut |row| {
        done(&row);
        rows.push(row);
    })
    .await?;
    if let Some(dir) = limits_dir {
        let mut tell = |row: Row| {
            done(&row);
            rows.push(row);
        };
        limits::run(spec, dir, &mut tell).await?;
        // What the kernel already holds stays: the iods' files are in its cache as well.
        run_at(&Spec { drop_caches: false, ..spec.clone() }, &Local::new(dir, "local dir"), &[], &mut tell)
            .await?;
    }
    Ok(Report { spec: spec.clone(), rows })
}

/// One place, all workloads, in the order asked.
async fn run_at<P: Place>(
    spec: &Spec,
    place: &P,
    pids: &[u32],
    tell: &mut impl FnMut(Row),
) -> Result<(), BenchError> {
    let base = format!("pvfs-bench-{}", std::process::id());
    place.mkdir(&base).await.map_err(BenchError::at("mkdir", &base))?;
    let mut files = data::Written::default();
    let mut made = names::Made::default();
    for &workload in &spec.workloads {
        let meter = Meter::start(pids);
        let outcome = match workload {
            _ if workload.is_of_names() => names::run(spec, place, &base, workload, &mut made).await?,
            _ => data::run(spec, place, &base, workload, &mut files).await?,
        };
        tell(Row::new(spec, workload, place.name(), outcome, meter.stop()));
    }
    data::clean(place, &base, &files).await?;
    names::clean(spec, place, &base, &mut made).await?;
    place.rmdir(&base).await.map_err(BenchError::at("rmdir", &base))
}
