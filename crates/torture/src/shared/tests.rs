//! On a local directory under two names nothing is wrong, and what is made wrong is found.

use super::*;
use crate::Process;
use std::{
    fs::File,
    io::{self, BufReader},
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::AtomicU32,
};

/// Says to the program of these tests that it is one of the processes.
const IS_PROCESS: &str = "PVFS_TORTURE_IS_PROCESS";

#[test]
#[ignore = "what other tests start as a process of its own"]
fn is_a_process() {
    if std::env::var_os(IS_PROCESS).is_some() {
        work(BufReader::new(io::stdin()), io::stdout()).expect("works");
    }
}

fn command() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("is running"));
    command.args(["shared::tests::is_a_process", "--exact", "--ignored", "--nocapture"]).env(IS_PROCESS, "1");
    command
}

/// A directory, and another way to it.
struct TwoWays {
    _temporary: tempfile::TempDir,
    dirs: Vec<PathBuf>,
}

impl TwoWays {
    fn new() -> TwoWays {
        let temporary = tempfile::tempdir().expect("a directory");
        let (one, two) = (temporary.path().join("one"), temporary.path().join("two"));
        std::fs::create_dir(&one).expect("makes");
        std::os::unix::fs::symlink(&one, &two).expect("makes");
        TwoWays { _temporary: temporary, dirs: vec![one, two] }
    }

    fn plan(&self, parts: &[Part], time: Duration) -> SharedPlan {
        SharedPlan {
            dirs: self.dirs.clone(),
            parts: parts.to_vec(),
            times: true,
            time,
            seed: 7,
            kill_every: Duration::from_millis(10),
        }
    }
}

#[test]
fn a_local_directory_under_two_names_has_no_faults_and_is_left_as_it_was() {
    let ways = TwoWays::new();
    let plan = ways.plan(&Part::ALL, Duration::from_secs(2));
    let report = run(&plan, None, &command, &AtomicBool::new(false)).expect("runs");
    assert!(report.passed, "{:#?}", report.faults);
    for row in &report.parts {
        assert!(row.steps > 10, "{row:?}");
    }
    assert_eq!(std::fs::read_dir(&ways.dirs[0]).expect("reads").count(), 0);
    serde_json::to_string(&report).expect("is JSON");
}

#[test]
fn directories_that_are_not_the_same_are_refused_and_left_as_they_were() {
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let dirs = vec![one.path().to_owned(), two.path().to_owned()];
    let plan = SharedPlan { dirs, ..TwoWays::new().plan(&Part::ALL, Duration::from_secs(1)) };
    let error = run(&plan, None, &command, &AtomicBool::new(false)).expect_err("is refused");
    assert!(matches!(error, TortureError::NotTheSame { .. }), "{error}");
    assert_eq!(std::fs::read_dir(one.path()).expect("reads").count(), 0);
}

/// Spoils what is shared, instead of killing anything, until that is enough; then stops the run.
struct Spoiler<'a> {
    part: Part,
    root: PathBuf,
    /// Given the directory in which the run works. Fails where there is nothing to spoil yet.
    spoil: fn(&Path) -> io::Result<()>,
    count: AtomicU32,
    stop: &'a AtomicBool,
}

/// So often, where all is looked at in the end.
const SPOILT: u32 = 40;

impl Spoiler<'_> {
    fn is_enough(&self, root: &Path, count: u32) -> bool {
        if self.part.is_at_once() {
            return count >= SPOILT;
        }
        // A model that has found a fault begins anew.
        root.join(format!("{}-1", self.part.name())).exists()
    }
}

impl Victims for Spoiler<'_> {
    fn find(&self) -> Vec<Process> {
        let Some(found) = std::fs::read_dir(&self.root).expect("reads").flatten().next() else {
            return Vec::new();
        };
        let spoilt = u32::from((self.spoil)(&found.path()).is_ok());
        let count = self.count.fetch_add(spoilt, Ordering::Relaxed) + spoilt;
        if self.is_enough(&found.path(), count) {
            self.stop.store(true, Ordering::Relaxed);
        }
        Vec::new()
    }
}

#[track_caller]
fn check_found(part: Part, spoil: fn(&Path) -> io::Result<()>, kinds: &[FaultKind]) {
    let (ways, stop) = (TwoWays::new(), AtomicBool::new(false));
    let spoiler = Spoiler { part, root: ways.dirs[0].clone(), spoil, count: AtomicU32::new(0), stop: &stop };
    let plan = ways.plan(&[part], Duration::from_secs(50));
    let report = run(&plan, Some(&spoiler), &command, &stop).expect("runs");
    assert!(spoiler.count.load(Ordering::Relaxed) > 0, "nothing was spoilt");
    assert!(!report.passed, "nothing was found");
    assert!(report.faults.iter().any(|fault| kinds.contains(&fault.kind)), "{:#?}", report.faults);
}

/// A file of the processes.
fn at_once(root: &Path, name: &str) -> io::Result<File> {
    File::options().read(true).write(true).open(process::place(root).join(name))
}

fn lose_update(root: &Path, name: &str) -> io::Result<()> {
    let file = at_once(root, name)?;
    let mut number = [0; 8];
    file.read_exact_at(&mut number, 0)?;
    file.write_all_at(&u64::from_le_bytes(number).saturating_sub(1).to_le_bytes(), 0)
}

#[test]
fn a_lost_update_of_a_counter_is_found() {
    check_found(Part::Fcntl, |root| lose_update(root, "fcntl"), &[FaultKind::Lost, FaultKind::Wrong]);
    check_found(Part::Flock, |root| lose_update(root, "flock"), &[FaultKind::Lost, FaultKind::Wrong]);
}

#[test]
fn a_torn_append_is_found() {
    let tear = |root: &Path| {
        let log = at_once(root, "log")?;
        let len = log.metadata()?.len();
        if len < 1000 {
            return Err(io::ErrorKind::NotFound.into());
        }
        log.write_all_at(b"torn", len / 2)
    };
    check_found(Part::Append, tear, &[FaultKind::Wrong, FaultKind::Lost]);
}

#[test]
fn two_inside_a_mutex_are_found() {
    let enter = |root: &Path| at_once(root, "mutex-create.inside")?.write_all_at(&99_u64.to_le_bytes(), 0);
    check_found(Part::Mutex, enter, &[FaultKind::Doubled, FaultKind::Error, FaultKind::Lost]);
}

#[test]
fn an_old_version_under_a_published_name_is_found() {
    let old = |root: &Path| {
        let dir = process::place(root);
        let stamp = stamp::Stamp { process: 0, seq: 1, len: 500 };
        std::fs::write(dir.join("old"), stamp.bytes())?;
        std::fs::rename(dir.join("old"), dir.join("published"))
    };
    check_found(Part::Replace, old, &[FaultKind::Lost]);
}

#[test]
fn a_version_that_is_written_into_while_it_is_open_is_found() {
    let change = |root: &Path| {
        let file = at_once(root, "published")?;
        let len = file.metadata()?.len();
        file.write_all_at(&[0x55], len - 1)
    };
    check_found(Part::Replace, change, &[FaultKind::Wrong]);
}

#[test]
fn a_write_into_a_neighbours_stripe_is_found() {
    check_found(
        Part::Stripes,
        |root| {
            let file = at_once(root, "stripes")?;
            if file.metadata()?.len() == 0 {
                return Err(io::ErrorKind::NotFound.into());
            }
            file.write_all_at(&[0; 3000], file.metadata()?.len() / 2)
        },
        &[FaultKind::Lost, FaultKind::Wrong],
    );
}

#[test]
fn a_file_that_is_gone_without_anybodys_doing_is_found() {
    check_found(
        Part::Unlink,
        |root| {
            let dir = process::place(root).join("unlinked");
            let entries = std::fs::read_dir(dir)?.flatten();
            let mut whole = entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
            let entry = whole.next().ok_or(io::ErrorKind::NotFound)?;
            std::fs::remove_file(entry.path())
        },
        &[FaultKind::Lost],
    );
}

/// The newest directory of a model.
fn beginning(root: &Path, part: Part) -> io::Result<PathBuf> {
    let dirs = std::fs::read_dir(root)?.flatten().map(|entry| entry.path());
    let of_part =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(part.name()));
    dirs.filter(of_part).max().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The file of the file's model.
fn open_model(root: &Path) -> io::Result<File> {
    let dir = beginning(root, Part::File)?;
    let entry = std::fs::read_dir(dir)?.next().ok_or(io::ErrorKind::NotFound)??;
    File::options().read(true).write(true).open(entry.path())
}

/// That file, where its middle is large enough to be spoilt, and where that is.
fn middle(root: &Path) -> io::Result<(File, u64)> {
    let file = open_model(root)?;
    let at = file.metadata()?.len() / 2;
    if at < 600 { Err(io::ErrorKind::NotFound.into()) } else { Ok((file, at)) }
}

#[test]
fn stale_bytes_and_a_stale_size_are_found() {
    check_found(
        Part::File,
        |root| {
            let (file, at) = middle(root)?;
            let mut bytes = [0; 600];
            file.read_exact_at(&mut bytes, at)?;
            // Not back to what it was, when it is spoilt again before the model has come to it.
            file.write_all_at(&bytes.map(|byte| byte.wrapping_add(1)), at)
        },
        &[FaultKind::Lost, FaultKind::Wrong],
    );
    check_found(
        Part::File,
        |root| {
            let (file, at) = middle(root)?;
            file.set_len(at)
        },
        &[FaultKind::Lost, FaultKind::Wrong],
    );
}

#[test]
fn a_name_too_many_and_a_name_too_few_are_found() {
    check_found(
        Part::Names,
        |root| {
            let dir = beginning(root, Part::Names)?;
            std::fs::write(dir.join("b"), "made by nobody")
        },
        &[FaultKind::Doubled, FaultKind::Wrong],
    );
    check_found(
        Part::Names,
        |root| {
            let dir = beginning(root, Part::Names)?;
            let mut names = std::fs::read_dir(dir)?.flatten().map(|entry| entry.path());
            let file = names.find(|path| path.is_file()).ok_or(io::ErrorKind::NotFound)?;
            std::fs::remove_file(file)
        },
        &[FaultKind::Lost, FaultKind::Wrong],
    );
}
