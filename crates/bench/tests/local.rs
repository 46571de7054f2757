//! The benchmark on a local directory: every phase runs, counts what it did, and leaves nothing behind.

use pvfs_bench::{Files, Local, Spec, Verify, Workload};
use std::path::Path;

fn small(files: Files) -> Spec {
    Spec {
        ranks: 3,
        transfer_bytes: 64 << 10,
        rank_bytes: 640 << 10,
        pieces: 8,
        files,
        fsync: true,
        verify: Verify::Full,
        names: 100,
        name_bytes: if files == Files::Own { 0 } else { 3901 },
        own_dirs: files == Files::Own,
        secs_max: 0.0,
        ..Spec::default()
    }
}

fn run(spec: &Spec, dir: &Path, limits: Option<&Path>) -> pvfs_bench::Report {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let place = Local::new(dir, "path");
    runtime.block_on(pvfs_bench::run(spec, &place, limits, &[], |_| {})).expect("the benchmark runs")
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_phase_moves_what_was_asked_and_leaves_nothing_behind() {
    for files in [Files::Own, Files::Shared] {
        let (dir, limits) = (tempfile::tempdir().expect("a dir"), tempfile::tempdir().expect("a dir"));
        let report = run(&small(files), dir.path(), Some(limits.path()));
        for row in &report.rows {
            let what = format!("{} at {}", row.workload.name(), row.place);
            if row.workload == Workload::RandomRead {
                assert_eq!((row.bytes, row.calls), (3 * 10 * 4096, 30), "{what}: a sixteenth");
            } else if row.workload.moves_bytes() {
                assert_eq!(row.bytes, 3 * (640 << 10), "{what}");
                assert_eq!(row.calls, 30, "{what}");
            } else {
                assert_eq!(row.calls, 100, "{what}");
            }
            assert!(row.secs > 0.0 && row.calls_per_s > 0.0, "{what}");
        }
        let count = |place: &str| report.rows.iter().filter(|row| row.place == place).count();
        assert_eq!((count("path"), count("local dir"), count("bare TCP")), (9, 9, 2));
        assert_eq!(names_in(dir.path()), [""; 0]);
        assert_eq!(names_in(limits.path()), [""; 0]);
    }
}

#[test]
fn a_phase_ends_when_its_time_is_over_and_reads_only_what_was_written() {
    let dir = tempfile::tempdir().expect("a dir");
    let spec = Spec {
        workloads: vec![Workload::Write, Workload::Read, Workload::Create, Workload::Remove],
        // Far more than there is time for.
        rank_bytes: 1 << 40,
        names: 50_000_000,
        secs_max: 0.05,
        ..small(Files::Own)
    };
    let report = run(&spec, dir.path(), None);
    let [write, read, create, remove] = &report.rows[..] else { panic!("four rows") };
    assert!(write.bytes < 3 << 40 && create.calls < 50_000_000, "bounded by time");
    assert!(read.bytes <= write.bytes && remove.calls <= create.calls);
    assert_eq!(names_in(dir.path()), [""; 0], "what there was no time to remove is removed at the end");
}

#[test]
fn a_report_is_json_with_units_in_its_names() {
    let dir = tempfile::tempdir().expect("a dir");
    let spec = Spec { workloads: vec![Workload::Write], ..small(Files::Own) };
    let report = serde_json::to_value(run(&spec, dir.path(), None)).expect("JSON");
    assert_eq!(report["rows"][0]["workload"], "write");
    assert_eq!(report["rows"][0]["where"], "path");
    for field in ["mib_per_s", "secs", "cpu_own_secs", "cpu_secs_per_gib", "latency_us_p99"] {
        assert!(report["rows"][0][field].is_number(), "{field}");
    }
}
