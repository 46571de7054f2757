//! The workload on a local directory: nothing is wrong there, and what is made wrong is found.

use super::*;
use std::sync::atomic::AtomicU32;

fn plan(dir: &Path) -> Plan {
    Plan {
        dir: dir.to_owned(),
        workers: 2,
        time: Duration::from_millis(600),
        seed: 7,
        kill_every: Duration::from_millis(50),
    }
}

#[test]
fn a_local_directory_has_no_faults_and_is_left_as_it_was() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let report = run(&plan(dir.path()), None, &AtomicBool::new(false)).expect("runs");
    assert!(report.passed, "{:?}", report.faults);
    let did = |op: OpKind| report.ops.iter().find(|row| row.op == op).map_or(0, |row| row.count);
    for op in OpKind::ALL.into_iter().filter(|&op| op != OpKind::Remove) {
        assert!(did(op) > 0, "{op:?} was never tried");
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 0);
    let svg = draw(&report);
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    serde_json::to_string(&report).expect("is JSON");
}

/// So often a file is spoiled: what is spoiled may be written over or removed before anybody looks, but not every time.
const SPOILT: u32 = 40;

/// Spoils files of the workload instead of killing anything, then stops it.
struct Spoiler<'a> {
    dir: PathBuf,
    /// Fails where the file has just gone.
    spoil: fn(&Path) -> std::io::Result<()>,
    count: AtomicU32,
    stop: &'a AtomicBool,
}

impl Victims for Spoiler<'_> {
    fn find(&self) -> Vec<Process> {
        let worker = std::fs::read_dir(&self.dir).expect("reads").flatten().next().map(|entry| entry.path());
        let files = worker.and_then(|dir| std::fs::read_dir(dir.join("worker0")).ok());
        let file =
            files.into_iter().flatten().flatten().map(|entry| entry.path()).find(|path| path.is_file());
        if file.is_some_and(|file| (self.spoil)(&file).is_ok())
            && self.count.fetch_add(1, Ordering::Relaxed) + 1 == SPOILT
        {
            self.stop.store(true, Ordering::Relaxed);
        }
        Vec::new()
    }
}

#[track_caller]
fn check_found(spoil: fn(&Path) -> std::io::Result<()>, expected: fn(&Report) -> bool) {
    let dir = tempfile::TempDir::new().expect("a directory");
    let stop = AtomicBool::new(false);
    let spoiler = Spoiler { dir: dir.path().to_owned(), spoil, count: AtomicU32::new(0), stop: &stop };
    let time = Duration::from_secs(50);
    let plan = Plan { time, kill_every: Duration::from_millis(10), ..plan(dir.path()) };
    let report = run(&plan, Some(&spoiler), &stop).expect("runs");
    assert!(spoiler.count.load(Ordering::Relaxed) >= SPOILT);
    assert!(!report.passed && expected(&report), "{:?}", report.faults);
}

#[test]
fn bytes_changed_behind_its_back_are_found() {
    check_found(
        |file| {
            use std::os::unix::fs::FileExt as _;
            std::fs::File::options().write(true).open(file)?.write_all_at(&[0x77; 100], 30)
        },
        |report| report.wrong > 0,
    );
}

#[test]
fn a_name_taken_away_is_found() {
    check_found(|file| std::fs::remove_file(file), |report| report.lost > 0);
}

#[test]
fn a_file_made_shorter_is_found() {
    check_found(
        |file| {
            let file = std::fs::File::options().write(true).open(file)?;
            file.set_len(file.metadata()?.len() / 2)
        },
        |report| report.lost > 0 || report.wrong > 0,
    );
}
