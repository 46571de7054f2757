//! Which directories are opened and formatted, and which are refused with what words.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use pvfs_store::{RecordError, Store, StoreError, StoreOptions, format_target};
use pvfs_types::{FsId, TargetId};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};
use support::{FS, TempTarget, tree};

fn open(dir: &Path) -> Result<Store, StoreError> {
    Store::open(dir, FS, &StoreOptions::default())
}

/// Opening `dir` gives `expect`, in words that name the directory and what to do; and nothing in it changes.
#[track_caller]
fn check_refused(dir: &Path, expect: impl Fn(&StoreError) -> bool, advice: &str) {
    let before = dir.is_dir().then(|| tree(dir));
    let error = open(dir).err().expect("refused");
    assert!(expect(&error), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(dir.to_str().unwrap()) && text.contains(advice), "{text}");
    assert_eq!(dir.is_dir().then(|| tree(dir)), before, "nothing was made or removed");
}

#[test]
fn a_formatted_target_opens_and_keeps_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let target_dir = dir.path().join("new/target");
    let uuid = format_target(&target_dir, FS).unwrap();
    let store = open(&target_dir).unwrap();
    assert_eq!((store.uuid(), store.target_id(), store.generation()), (uuid, None, 1));
    drop(store);
    assert_eq!(format_target(&target_dir, FS).unwrap(), uuid, "formatted already");
}

#[test]
fn a_missing_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nowhere");
    check_refused(&missing, |e| matches!(e, StoreError::MissingDir { .. }), "is its file system mounted?");
}

#[test]
fn a_file_in_the_place_of_a_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    check_refused(&file, |e| matches!(e, StoreError::NotADir { .. }), "name a directory");
    assert!(matches!(format_target(&file, FS), Err(StoreError::NotADir { .. })));
}

#[test]
fn a_directory_without_identity_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    check_refused(dir.path(), |e| matches!(e, StoreError::NoIdentity { .. }), "pvfs format");
}

#[test]
fn an_empty_identity_is_refused() {
    let target = TempTarget::new();
    fs::write(target.path().join("identity"), "").unwrap();
    check_refused(
        target.path(),
        |e| matches!(e, StoreError::Damaged { file: "identity", source: RecordError::Empty, .. }),
        "Restore that file",
    );
}

#[test]
fn every_damaged_bit_of_an_identity_is_refused() {
    let target = TempTarget::new();
    let path = target.path().join("identity");
    let good = fs::read(&path).unwrap();
    for bit in 0..good.len() * 8 {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, damaged).unwrap();
        assert!(matches!(open(target.path()), Err(StoreError::Damaged { .. })), "bit {bit}");
    }
    fs::write(&path, good).unwrap();
    open(target.path()).unwrap();
}

#[test]
fn a_damaged_or_missing_state_is_refused() {
    let target = TempTarget::new();
    let path = target.path().join("state");
    let is_damaged = |e: &StoreError| matches!(e, StoreError::Damaged { file: "state", .. });
    // The lock is taken before the state is read.
    fs::write(target.path().join("lock"), "").unwrap();
    fs::write(&path, "pvfs state 1\ngeneration 5\n").unwrap();
    check_refused(target.path(), is_damaged, "Restore that file");
    fs::remove_file(&path).unwrap();
    check_refused(target.path(), is_damaged, "Restore that file");
}

#[test]
fn a_target_of_another_file_system_is_refused() {
    let target = TempTarget::new();
    let other = FsId([8; 16]);
    let error = Store::open(target.path(), other, &StoreOptions::default()).err().unwrap();
    assert!(matches!(error, StoreError::OtherFs { found: FS, wanted, .. } if wanted == other));
    let text = error.to_string();
    assert!(text.contains(&FS.to_string()) && text.contains(&other.to_string()), "{text}");
    assert!(
        matches!(format_target(target.path(), other), Err(StoreError::OtherFs { .. })),
        "nor formatted over"
    );
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let target = TempTarget::new();
    let content = "pvfs identity 2\nwhatever it says\n";
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, content.as_bytes());
    fs::write(target.path().join("identity"), format!("{content}crc32c {crc:08x}\n")).unwrap();
    check_refused(
        target.path(),
        |e| matches!(e, StoreError::FormatVersion { found: 2, known: 1, .. }),
        "run the version of pvfs that wrote it",
    );
}

#[test]
fn a_target_that_is_not_writable_is_refused() {
    if !rustix::process::geteuid().is_root() {
        let target = TempTarget::new();
        let mut mode = fs::metadata(target.path().join("identity")).unwrap().permissions();
        mode.set_readonly(true);
        fs::set_permissions(target.path().join("identity"), mode).unwrap();
        check_refused(target.path(), |e| matches!(e, StoreError::NotWritable { .. }), "mount it read-write");
        return;
    }
    // Root may write everything but a read-only mount.
    let Some(mount) = Mount::tmpfs(1 << 20) else { return };
    format_target(&mount.path().join("target"), FS).unwrap();
    mount.remount_read_only();
    let dir = mount.path().join("target");
    check_refused(&dir, |e| matches!(e, StoreError::NotWritable { .. }), "mount it read-write");
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_gone() {
    let target = TempTarget::new();
    let first = target.open();
    check_refused(target.path(), |e| matches!(e, StoreError::InUse { .. }), "stop that iod first");
    drop(first);
    target.open();
}

#[test]
fn a_lock_held_by_another_process_is_seen() {
    if Command::new("flock").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: the program flock is not installed");
        return;
    }
    let target = TempTarget::new();
    // Says that it has the lock, then holds it until its input ends.
    let mut holder = Command::new("flock")
        .arg(target.path().join("lock"))
        .args(["sh", "-c", "echo locked; cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 7];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut line).unwrap();
    check_refused(target.path(), |e| matches!(e, StoreError::InUse { .. }), "stop that iod first");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    target.open();
}

#[test]
fn a_directory_with_something_in_it_is_not_formatted() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    let error = format_target(dir.path(), FS).err().unwrap();
    assert!(matches!(&error, StoreError::NotEmpty { found, .. } if found == "thesis.tex"), "{error}");
    assert_eq!(tree(dir.path()), [dir.path().join("thesis.tex")], "left alone");
}

#[test]
fn a_target_that_lost_its_identity_is_not_formatted_over_its_objects() {
    let target = TempTarget::new();
    target.open().write(support::id(5), &support::writes(&[support::run(0, 1)]), b"x").unwrap();
    fs::remove_file(target.path().join("identity")).unwrap();
    assert!(matches!(format_target(target.path(), FS), Err(StoreError::NotEmpty { .. })));
}

#[test]
fn an_interrupted_format_can_be_repeated() {
    let target = TempTarget::new();
    fs::remove_file(target.path().join("identity")).unwrap();
    fs::write(target.path().join("identity.new"), "pvfs id").unwrap();
    let uuid = format_target(target.path(), FS).unwrap();
    assert_eq!(target.open().uuid(), uuid);
}

#[test]
fn the_number_a_target_was_given_stays() {
    let target = TempTarget::new();
    let store = target.open();
    store.join(TargetId(4)).unwrap();
    store.join(TargetId(4)).expect("told again");
    let is_other =
        |e: StoreError| matches!(e, StoreError::OtherTargetId { found: TargetId(4), told: TargetId(5), .. });
    assert!(store.join(TargetId(5)).is_err_and(is_other));
    drop(store);
    let store = target.open();
    assert_eq!(store.target_id(), Some(TargetId(4)));
    assert!(store.join(TargetId(5)).is_err_and(is_other));
}

#[test]
fn a_number_copied_from_another_target_is_refused() {
    let (target, other) = (TempTarget::new(), TempTarget::new());
    other.open().join(TargetId(4)).unwrap();
    fs::copy(other.path().join("target-id"), target.path().join("target-id")).unwrap();
    assert!(matches!(open(target.path()), Err(StoreError::OtherTarget { .. })));
}

/// A small tmpfs, unmounted when dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    /// `None`, with the reason said, where mounting is not possible.
    fn tmpfs(bytes: u64) -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap();
        let data = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        match rustix::mount::mount(
            "tmpfs",
            dir.path(),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            Some(data.as_c_str()),
        ) {
            Ok(()) => Some(Mount(dir)),
            Err(error) => {
                eprintln!("skipped: cannot mount a tmpfs: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount_read_only(&self) {
        use rustix::mount::{MountFlags, mount_remount};
        mount_remount(self.path(), MountFlags::RDONLY, "").unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_is_enospc_and_leaves_what_was_acknowledged() {
    let Some(mount) = Mount::tmpfs(4 << 20) else { return };
    let dir = mount.path().join("target");
    format_target(&dir, FS).unwrap();
    let store = open(&dir).unwrap();
    let data = vec![7u8; 1 << 20];
    let mut acknowledged = 0;
    let error = loop {
        let run = support::run(acknowledged * data.len() as u64, data.len());
        match store.write(support::id(1), &support::writes(&[run]), &data) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 10, "4 MiB are full by now");
    };
    assert_eq!(error.errno(), pvfs_types::Errno::ENOSPC);
    assert!(acknowledged > 0);
    let read = store.read(support::id(1), &[support::run(0, 16 << 20)]).unwrap();
    let kept = usize::try_from(acknowledged).unwrap() * data.len();
    assert!(read.bytes.len() >= kept && read.bytes[..kept].iter().all(|&b| b == 7));
    store
        .write(support::id(1), &support::writes(&[support::run(0, 4)]), b"over")
        .expect("what is there can be written over");
    store.sync(support::id(1), 1).unwrap();
    store.remove(&[support::id(1)]).unwrap();
    store
        .write(support::id(2), &support::writes(&[support::run(0, data.len())]), &data)
        .expect("there is room again");
}
