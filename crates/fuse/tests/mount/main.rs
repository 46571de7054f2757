//! Programs on a real mount of a real file system, mgr and iods in this process. Needs root; else skipped.

mod world;

use pvfs_client::OpenOptions;
use pvfs_fuse::{Umounted, umount};
use pvfs_types::Cred;
use rustix::fs::{FallocateFlags, SeekFrom};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{ErrorKind, Read, Seek, Write},
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};
use world::{World, blocking};

/// Bytes that differ from place to place.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 251 + at * 7 + seed) % 256).expect("below 256")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn programs_find_files_as_they_left_them() {
    let Some(world) = World::start().await else { return };
    let mount = world.mount("m", "/", "").await;
    let dir = mount.dir.clone();
    blocking(move || {
        let strip = 1 << 20;
        for len in [0, 1, 4095, strip - 1, strip, strip + 1, 4 * strip, 9 * strip + 1] {
            let path = dir.join(format!("f{len}"));
            fs::write(&path, pattern(len, len)).expect("writes");
            assert!(fs::read(&path).expect("reads") == pattern(len, len), "{len} bytes");
            assert_eq!(fs::metadata(&path).expect("stats").len(), len as u64);
        }
        names(&dir);
        sizes(&dir);
        open_and_gone(&dir);
        metadata(&dir);
    })
    .await;
    mount.stop().await.expect("stops");

    // A second mount, another client: the bytes are there.
    let again = world.mount("again", "/", "ro").await;
    let dir = again.dir.clone();
    blocking(move || {
        let strip = 1 << 20;
        assert!(fs::read(dir.join("f9437185")).expect("reads") == pattern(9 * strip + 1, 9 * strip + 1));
        let refused = fs::write(dir.join("new"), b"x").expect_err("mounted read-only");
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    })
    .await;
    again.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn programs_make_and_find_holes_and_take_room_beforehand() {
    let Some(world) = World::start().await else { return };
    let mount = world.mount("m", "/", "").await;
    let dir = mount.dir.clone();
    blocking(move || {
        let strip: u64 = 1 << 20;
        let mut model = pattern(4 << 20, 1);
        let path = dir.join("holes");
        fs::write(&path, &model).expect("writes");
        let file = File::options().read(true).write(true).open(&path).expect("opens");
        // In the page cache too.
        assert!(fs::read(&path).expect("reads") == model);
        let fill = |flags, offset, len| rustix::fs::fallocate(&file, flags, offset, len);
        fill(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, strip, 2 * strip).expect("punches");
        model[1 << 20..3 << 20].fill(0);
        assert!(fs::read(&path).expect("reads") == model, "what was punched is zeros");
        let seek = |from| rustix::fs::seek(&file, from);
        assert_eq!(seek(SeekFrom::Hole(0)), Ok(strip));
        assert_eq!(seek(SeekFrom::Data(strip)), Ok(3 * strip));
        assert_eq!(seek(SeekFrom::Hole(3 * strip)), Ok(4 * strip));
        assert_eq!(seek(SeekFrom::Data(4 * strip)), Err(rustix::io::Errno::NXIO));
        fill(FallocateFlags::ZERO_RANGE, 4 * strip - 10, 30).expect("zeroes");
        model.resize((4 << 20) + 20, 0);
        model[(4 << 20) - 10..].fill(0);
        assert!(fs::read(&path).expect("reads") == model, "it grew");
        fill(FallocateFlags::empty(), 0, 5 * strip).expect("takes room");
        fill(FallocateFlags::KEEP_SIZE, 0, 6 * strip).expect("takes room");
        model.resize(5 << 20, 0);
        assert!(fs::read(&path).expect("reads") == model, "room changes no byte");
        let refused = fill(FallocateFlags::COLLAPSE_RANGE, 0, strip);
        assert_eq!(refused, Err(rustix::io::Errno::OPNOTSUPP));
        // cp looks for the holes.
        let copied = Command::new("cp").arg("--sparse=auto").arg(&path).arg(dir.join("copy")).status();
        assert!(copied.expect("cp runs").success());
        assert!(fs::read(dir.join("copy")).expect("reads") == model);
    })
    .await;
    mount.stop().await.expect("stops");
}

fn names(root: &Path) {
    let dir = root.join("names");
    fs::create_dir(&dir).expect("mkdir");
    fs::write(dir.join("a"), b"a").expect("writes");
    fs::hard_link(dir.join("a"), dir.join("b")).expect("links");
    assert_eq!(fs::metadata(dir.join("b")).expect("stats").nlink(), 2);
    fs::rename(dir.join("b"), dir.join("c")).expect("renames");
    symlink("c", dir.join("s")).expect("symlinks");
    assert_eq!(fs::read_link(dir.join("s")).expect("reads"), Path::new("c"));
    assert_eq!(fs::read(dir.join("s")).expect("reads"), b"a");
    assert_eq!(fs::create_dir(dir.join("a")).expect_err("is there").kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::remove_dir(&dir).expect_err("not empty").kind(), ErrorKind::DirectoryNotEmpty);
    assert_eq!(fs::read(dir.join("none")).expect_err("not there").kind(), ErrorKind::NotFound);
    assert_eq!(fs::read_dir(dir.join("a")).expect_err("a file").kind(), ErrorKind::NotADirectory);
    let long = "n".repeat(256);
    assert_eq!(
        fs::write(dir.join(long), b"").expect_err("too long").raw_os_error(),
        Some(libc::ENAMETOOLONG)
    );
    let exchanged = rustix::fs::renameat_with(
        rustix::fs::CWD,
        dir.join("a"),
        rustix::fs::CWD,
        dir.join("s"),
        rustix::fs::RenameFlags::EXCHANGE,
    );
    exchanged.expect("exchanges");
    assert!(fs::symlink_metadata(dir.join("a")).expect("stats").is_symlink());
    let kept = rustix::fs::renameat_with(
        rustix::fs::CWD,
        dir.join("a"),
        rustix::fs::CWD,
        dir.join("c"),
        rustix::fs::RenameFlags::NOREPLACE,
    );
    assert_eq!(kept, Err(rustix::io::Errno::EXIST));
    let mode = rustix::fs::Mode::from(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("fifo"), rustix::fs::FileType::Fifo, mode, 0)
        .expect("a fifo");
    assert!(fs::metadata(dir.join("fifo")).expect("stats").file_type().is_fifo());
    let parent = fs::metadata(dir.join("..")).expect("stats");
    assert_eq!(parent.ino(), fs::metadata(root).expect("stats").ino());
    fs::remove_dir_all(&dir).expect("removes all");
    assert!(!dir.exists());
}

fn sizes(root: &Path) {
    let path = root.join("sizes");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("opens");
    file.write_all_at(b"end", 5_000_000).expect("writes");
    assert_eq!(file.metadata().expect("stats").len(), 5_000_003);
    let mut hole = [1; 1000];
    file.read_exact_at(&mut hole, 3_000_000).expect("reads");
    assert_eq!(hole, [0; 1000], "a hole is zeros");
    file.set_len(10).expect("shrinks");
    file.set_len(20).expect("grows");
    assert_eq!(fs::read(&path).expect("reads"), [0; 20]);
    let mut append = File::options().append(true).open(&path).expect("opens");
    append.write_all(b"tail").expect("appends");
    assert_eq!(fs::read(&path).expect("reads")[16..], *b"\0\0\0\0tail");
    File::options().write(true).truncate(true).open(&path).expect("O_TRUNC");
    assert_eq!(file.metadata().expect("stats").len(), 0);
}

fn open_and_gone(root: &Path) {
    let path = root.join("gone");
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).expect("creates");
    fs::remove_file(&path).expect("unlinks");
    file.write_all(b"still here").expect("writes");
    file.rewind().expect("rewinds");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("reads");
    assert_eq!(text, "still here");
    let meta = file.metadata().expect("stats");
    assert_eq!((meta.nlink(), meta.len()), (0, 10));
    assert!(!path.exists());
}

fn metadata(root: &Path) {
    let path = root.join("meta");
    let mut create = File::options();
    drop(create.write(true).create_new(true).mode(0o4751).open(&path).expect("creates"));
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(umask);
    let mode = fs::metadata(&path).expect("stats").mode();
    assert_eq!(mode & 0o7777, 0o4751 & !umask.bits());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o1640)).expect("chmod");
    std::os::unix::fs::chown(&path, Some(12), Some(34)).expect("chown");
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::new(1_000, 250_000_000);
    let times = fs::FileTimes::new().set_modified(before_1970).set_accessed(SystemTime::UNIX_EPOCH);
    File::options().write(true).open(&path).expect("opens").set_times(times).expect("utimens");
    let meta = fs::metadata(&path).expect("stats");
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o1640, 12, 34));
    assert_eq!(meta.modified().expect("a time"), before_1970);
    assert_eq!(meta.accessed().expect("a time"), SystemTime::UNIX_EPOCH);
    let statfs = rustix::fs::statvfs(root).expect("statfs");
    assert!(statfs.f_blocks > 0 && statfs.f_namemax == 255);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_directory_is_listed_whole_and_once() {
    let Some(world) = World::start().await else { return };
    let mount = world.mount("m", "/", "").await;
    let dir = mount.dir.join("many");
    blocking(move || {
        fs::create_dir(&dir).expect("mkdir");
        let names: BTreeSet<String> =
            (0..2500).map(|n| format!("name-{n:0width$}", width = n % 100 + 4)).collect();
        for name in &names {
            File::create(dir.join(name)).expect("creates");
        }
        let listed = |_round| {
            let mut seen = BTreeSet::new();
            for entry in fs::read_dir(&dir).expect("opens") {
                let entry = entry.expect("lists");
                assert!(entry.metadata().expect("stats").is_file());
                assert!(seen.insert(entry.file_name().into_string().expect("ASCII")), "{entry:?} twice");
            }
            seen
        };
        for round in 0..2 {
            assert_eq!(listed(round), names);
        }
        // Entries go while the listing runs; the others are all shown.
        let mut left = 0;
        for entry in fs::read_dir(&dir).expect("opens") {
            fs::remove_file(entry.expect("lists").path()).expect("removes");
            left += 1;
        }
        assert_eq!(left, names.len());
        fs::remove_dir(&dir).expect("is empty");
    })
    .await;
    mount.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_another_mount_wrote_and_closed_is_seen_by_the_next_open() {
    let Some(world) = World::start().await else { return };
    let (a, b) = (world.mount("a", "/", "").await, world.mount("b", "/", "").await);
    let (in_a, in_b) = (a.dir.clone(), b.dir.clone());
    blocking(move || {
        let (here, there) = (in_a.join("f"), in_b.join("f"));
        for round in 0_usize..20 {
            // The other kernel has attributes and pages from just now, and would go by them for a second.
            fs::write(&here, pattern(100 * (20 - round), round)).expect("writes");
            assert!(fs::read(&there).expect("reads") == pattern(100 * (20 - round), round), "round {round}");
            fs::write(&there, pattern(150, round)).expect("writes");
            assert!(fs::read(&here).expect("reads") == pattern(150, round), "round {round}");
        }
        // Removed there, made again there: the name leads to the new file at once.
        fs::read(&here).expect("reads");
        fs::remove_file(&there).expect("removes");
        fs::write(&there, b"new").expect("writes");
        assert_eq!(fs::read(&here).expect("reads"), b"new");
    })
    .await;
    a.stop().await.expect("stops");
    b.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn files_are_made_with_the_callers_ids_and_groups_count() {
    let Some(world) = World::start().await else { return };
    let mount = world.mount("m", "/", "").await;
    let dir = mount.dir.clone();
    blocking(move || {
        let shared = dir.join("shared");
        fs::create_dir(&shared).expect("mkdir");
        std::os::unix::fs::chown(&shared, Some(0), Some(4321)).expect("chown");
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o2770)).expect("chmod");
        let as_user = |groups: &str, script: &str| {
            let ids = ["--reuid=1234", "--regid=1234", groups, "--", "sh", "-c", script];
            let done = Command::new("setpriv").args(ids).current_dir("/").output().expect("setpriv runs");
            (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
        };
        let file = shared.join("file");
        let write = format!("echo hello > {0} && cat {0} && ls {1}", file.display(), shared.display());
        let (refused, _) = as_user("--clear-groups", &write);
        assert!(!refused, "not in the group");
        let (done, said) = as_user("--groups=99,4321", &write);
        assert!(done, "{said}");
        let meta = fs::metadata(&file).expect("stats");
        assert_eq!((meta.uid(), meta.gid()), (1234, 4321), "the directory hands on its group");
        let (done, said) = as_user("--clear-groups", &format!("chown 0 {}", file.display()));
        assert!(!done, "{said}");
        // A program may be run by those who may not read it.
        let program = dir.join("program");
        fs::copy("/bin/true", &program).expect("copies");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o711)).expect("chmod");
        let (done, said) = as_user("--clear-groups", &program.display().to_string());
        assert!(done, "{said}");
        let (done, _) = as_user("--clear-groups", &format!("cat {}", program.display()));
        assert!(!done, "no right to read");
    })
    .await;
    mount.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_subdirectory_can_be_the_root_of_a_mount() {
    let Some(world) = World::start().await else { return };
    let whole = world.mount("whole", "/", "").await;
    let dir = whole.dir.clone();
    blocking(move || {
        fs::create_dir_all(dir.join("x/y")).expect("mkdir");
        fs::write(dir.join("x/y/f"), b"f").expect("writes");
    })
    .await;
    let part = world.mount("part", "/x/y", "nosuid").await;
    let (dir, whole_dir) = (part.dir.clone(), whole.dir.clone());
    blocking(move || {
        assert_eq!(fs::read(dir.join("f")).expect("reads"), b"f");
        fs::create_dir(dir.join("d")).expect("mkdir");
        fs::write(dir.join("d/g"), b"g").expect("writes");
        assert_eq!(fs::read(whole_dir.join("x/y/d/g")).expect("reads"), b"g");
        let (root, same) = (fs::metadata(&dir), fs::metadata(whole_dir.join("x/y")));
        assert_eq!(root.expect("stats").ino(), same.expect("stats").ino());
        let names: BTreeSet<_> =
            fs::read_dir(&dir).expect("lists").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(names, ["d".into(), "f".into()].into());
    })
    .await;
    part.stop().await.expect("stops");
    whole.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_unmount_loses_nothing_and_waits_for_the_daemon() {
    let Some(world) = World::start().await else { return };
    let mount = world.mount("m", "/", "").await;
    let dir = mount.dir.clone();
    let umounted = blocking(move || {
        let mut file = File::create(dir.join("f")).expect("creates");
        for at in 0..50 {
            file.write_all(&pattern(10_000, at)).expect("writes");
        }
        drop(file);
        umount(&dir, false)
    });
    assert_eq!(umounted.await.expect("unmounts"), Umounted::Done);
    let writes = mount.client.metrics().counter("pvfs_fuse_requests_total", &[("op", "write")]).get();
    // The kernel makes two requests of a write that begins amid a page.
    assert!((50..=100).contains(&writes), "each request is counted: {writes}");
    // All told, though its task may still have to return.
    let status = mount.client.status();
    let left = (status.open_files, status.unreported_files, status.changes_in_flight);
    assert_eq!(left, (0, 0, 0), "`pvfs umount` returned before the daemon was done");
    mount.ended().await.expect("ends well");
    let client = world.client().await;
    let root = Cred::root();
    let file = client.open_path(&root, "/f", OpenOptions::READ).await.expect("opens");
    let bytes = file.read_at(0, 1 << 20).await.expect("reads");
    let expected: Vec<u8> = (0..50).flat_map(|at| pattern(10_000, at)).collect();
    assert!(bytes == expected);
    assert!(!file.at_open().has_writers, "the session ended cleanly");
    client.shutdown().await.expect("ends");
}
