//! What programs may ask of a file system beyond names and bytes, on a mount: each as POSIX and Linux have it.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{TestCluster, can_mount, wait_until};
use rustix::fs::{Mode, OFlags};
use std::{
    fs::{self, File},
    io::{IoSlice, Read, Write},
    os::unix::{
        fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, symlink},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, SystemTime},
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");

fn mounted() -> Option<(TestCluster, PathBuf)> {
    if !can_mount() {
        return None;
    }
    let mut cluster = TestCluster::start(PVFS);
    let dir = cluster.mount(&[]);
    Some((cluster, dir))
}

#[test]
fn statx_tells_when_a_file_was_made() {
    let Some((_cluster, dir)) = mounted() else { return };
    let before = SystemTime::now() - Duration::from_secs(1);
    fs::write(dir.join("f"), b"x").unwrap();
    let made = fs::metadata(dir.join("f")).unwrap().created().expect("a birth time");
    assert!(made >= before && made <= SystemTime::now() + Duration::from_secs(1), "{made:?}");
    fs::write(dir.join("f"), b"more").unwrap();
    fs::rename(dir.join("f"), dir.join("g")).unwrap();
    let later = fs::metadata(dir.join("g")).unwrap();
    assert_eq!(later.created().unwrap(), made, "whatever befalls it");
    assert!(later.modified().unwrap() >= made && later.len() == 4);
}

/// One path of it is longer than a system call takes.
#[test]
fn directories_nest_4096_deep() {
    const DEEP: usize = 4096;
    let Some((_cluster, dir)) = mounted() else { return };
    let open = |at: &File| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        File::from(rustix::fs::openat(at, "d", flags, Mode::empty()).unwrap())
    };
    let mut at = File::open(&dir).unwrap();
    for _ in 0..DEEP {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = open(&at);
    }
    let made = rustix::fs::openat(&at, "f", OFlags::CREATE | OFlags::RDWR, Mode::RWXU).unwrap();
    File::from(made).write_all(b"at the bottom").unwrap();
    let depth = Command::new("find").arg(&dir).args(["-type", "d", "-printf", "x"]).output().unwrap();
    assert_eq!(depth.stdout.len(), DEEP + 1, "{}", String::from_utf8_lossy(&depth.stderr));
    let long = dir.join("d/".repeat(DEEP));
    assert_eq!(fs::metadata(&long).unwrap_err().raw_os_error(), Some(36), "ENAMETOOLONG");
    drop(at);
    fs::remove_dir_all(dir.join("d")).unwrap();
}

#[test]
fn a_thousand_symlinks_in_a_ring_are_too_many() {
    let Some((_cluster, dir)) = mounted() else { return };
    for n in 0..1000 {
        symlink(format!("link{}", (n + 1) % 1000), dir.join(format!("link{n}"))).unwrap();
    }
    let refused = fs::read(dir.join("link0")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(40), "ELOOP");
    assert_eq!(fs::read_link(dir.join("link999")).unwrap(), Path::new("link0"));
}

/// Objects are files of the targets' disks, which end earlier: those of ext4 at 16 TiB.
#[test]
fn a_file_has_any_size_up_to_the_largest_and_bytes_as_far_as_the_targets_disks_reach() {
    const LARGEST: u64 = i64::MAX.cast_unsigned();
    const FAR: u64 = 16 << 40;
    const EXT4: i64 = 0xef53;
    let Some((cluster, dir)) = mounted() else { return };
    let path = dir.join("f");
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"z", FAR).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), FAR + 1);
    file.set_len(LARGEST).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), LARGEST);
    let mut bytes = [1; 2];
    file.read_exact_at(&mut bytes, FAR).unwrap();
    assert_eq!(bytes, [b'z', 0]);
    file.read_exact_at(&mut bytes, LARGEST - 2).unwrap();
    assert_eq!(bytes, [0; 2], "a hole");
    assert_eq!(file.read_at(&mut bytes[..1], LARGEST - 1).unwrap(), 1);
    if rustix::fs::statfs(cluster.dir()).unwrap().f_type == EXT4 {
        let refused = file.write_at(b"z", LARGEST - 1).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(27), "EFBIG");
    }
    file.set_len(FAR + 1).unwrap();
    file.read_exact_at(&mut bytes[..1], FAR).unwrap();
    assert_eq!(bytes[0], b'z');
}

#[test]
fn pipes_sockets_and_devices_have_names_in_it() {
    let Some((mut cluster, dir)) = mounted() else { return };
    let run = |line: &str| {
        let words: Vec<String> = line.split(' ').map(|w| w.replace('@', dir.to_str().unwrap())).collect();
        assert!(Command::new(&words[0]).args(&words[1..]).status().unwrap().success(), "{line}");
    };
    run("mkfifo @/pipe");
    let pipe = dir.join("pipe");
    let writer = thread::spawn({
        let pipe = pipe.clone();
        move || fs::write(pipe, b"through the pipe").unwrap()
    });
    assert_eq!(fs::read(&pipe).unwrap(), b"through the pipe");
    writer.join().unwrap();

    let socket = dir.join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let caller = thread::spawn({
        let socket = socket.clone();
        move || UnixStream::connect(socket).unwrap().write_all(b"hello").unwrap()
    });
    let mut heard = String::new();
    listener.accept().unwrap().0.read_to_string(&mut heard).unwrap();
    caller.join().unwrap();
    assert_eq!(heard, "hello");
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());

    if !rustix::process::geteuid().is_root() {
        return;
    }
    run("mknod @/zero c 1 5");
    let mut zeros = [1; 8];
    File::open(dir.join("zero")).unwrap().read_exact(&mut zeros).unwrap();
    assert_eq!((zeros, fs::metadata(dir.join("zero")).unwrap().rdev()), ([0; 8], 0x105));
    run("mknod @/block b 4095 1048575");
    let block = fs::metadata(dir.join("block")).unwrap();
    assert!(block.file_type().is_block_device());
    assert_eq!((rustix::fs::major(block.rdev()), rustix::fs::minor(block.rdev())), (4095, 1_048_575));
    let strict = cluster.mount(&["-o", "nodev"]);
    assert_eq!(File::open(strict.join("zero")).unwrap_err().raw_os_error(), Some(13), "EACCES");
}

/// An fsync is a request to every target of the file; without one a write is a write.
#[test]
fn a_write_that_shall_be_durable_is_synced_before_it_returns() {
    let Some((mut cluster, dir)) = mounted() else { return };
    let other = cluster.mount(&[]);
    let syncs = || cluster.client_requests("iod0").get("sync").copied().unwrap_or(0);
    let write = |flags: i32, each: rustix::io::ReadWriteFlags, name: &str| {
        let options = File::options().create(true).write(true).custom_flags(flags).to_owned();
        let file = options.open(dir.join(name)).unwrap();
        let page = Page([7; 4096]);
        let before = syncs();
        // Both targets, whichever is the first.
        for at in [0, 1 << 20] {
            rustix::io::pwritev2(&file, &[IoSlice::new(&page.0)], at, each).unwrap();
        }
        syncs() - before
    };
    let (none, dsync) = (rustix::io::ReadWriteFlags::empty(), rustix::io::ReadWriteFlags::DSYNC);
    let bits = |flags: OFlags| i32::try_from(flags.bits()).unwrap();
    let direct = OFlags::DIRECT;
    assert_eq!(write(0, none, "plain"), 0);
    assert_eq!(write(bits(direct), none, "direct"), 0);
    assert!(write(bits(OFlags::SYNC), none, "o_sync") >= 1);
    assert!(write(bits(OFlags::DSYNC), none, "o_dsync") >= 1);
    assert!(write(bits(direct | OFlags::SYNC), none, "direct o_sync") >= 1);
    assert!(write(bits(direct | OFlags::DSYNC), none, "direct o_dsync") >= 1);
    assert!(write(0, dsync, "rwf_dsync") >= 1);
    assert!(write(0, rustix::io::ReadWriteFlags::SYNC, "rwf_sync") >= 1);
    assert!(write(bits(direct), dsync, "direct rwf_dsync") >= 1);
    // What others write as well goes past the page cache.
    let _others = File::create(other.join("shared")).unwrap();
    assert_eq!(write(0, none, "shared"), 0);
    assert!(write(bits(OFlags::DSYNC), none, "shared") >= 1);
    assert!(write(0, dsync, "shared") >= 1);
}

/// As direct I/O wants its memory.
#[repr(align(4096))]
struct Page([u8; 4096]);

#[test]
fn statfs_counts_inodes() {
    let Some((_cluster, dir)) = mounted() else { return };
    let used = || {
        let fs = rustix::fs::statvfs(&dir).unwrap();
        assert!(fs.f_bavail > 0 && fs.f_namemax == 255);
        fs.f_files - fs.f_ffree
    };
    let before = used();
    for n in 0..10 {
        fs::write(dir.join(format!("f{n}")), b"").unwrap();
    }
    assert_eq!(used() - before, 10);
}

/// As `du` counts.
fn blocks(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks()
}

#[test]
fn blocks_of_sparse_files_are_what_the_disks_hold_and_dense_files_cost_no_question() {
    const MIB: u64 = 1 << 20;
    let Some((mut cluster, dir)) = mounted() else { return };
    let other = cluster.mount(&[]);
    let asked = |cluster: &TestCluster| {
        let asked = |iod| cluster.client_requests(iod).get("stat_objects").copied().unwrap_or(0);
        cluster.iods().map(asked).sum::<u64>()
    };
    let before = asked(&cluster);
    let data = vec![7; 5 << 20];
    fs::write(dir.join("dense"), &data).unwrap();
    assert_eq!((blocks(&dir.join("dense")), blocks(&other.join("dense"))), (5 * MIB / 512, 5 * MIB / 512));
    assert_eq!(asked(&cluster), before, "no iod was asked");

    let file = File::create(dir.join("sparse")).unwrap();
    file.write_all_at(&data[..4096], 100 * MIB).unwrap();
    file.write_all_at(&data[..4096], 900 * MIB).unwrap();
    drop(file);
    let small = 8..=2 * MIB / 512;
    for mount in [&dir, &other] {
        assert!(small.contains(&blocks(&mount.join("sparse"))), "{}", blocks(&mount.join("sparse")));
    }
    let grown = File::create(dir.join("grown")).unwrap();
    grown.set_len(1 << 40).unwrap();
    drop(grown);
    assert_eq!(blocks(&other.join("grown")), 0);
    for name in ["sparse", "grown"] {
        let copied =
            Command::new("cp").args(["--sparse=auto", name, "copy"]).current_dir(&dir).status().unwrap();
        assert!(copied.success());
        assert_eq!(
            fs::metadata(dir.join("copy")).unwrap().len(),
            fs::metadata(dir.join(name)).unwrap().len()
        );
        assert!(blocks(&other.join("copy")) < 4 * MIB / 512, "{name}: {}", blocks(&other.join("copy")));
    }

    let file = File::options().write(true).open(dir.join("dense")).unwrap();
    rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
        MIB,
        3 * MIB,
    )
    .unwrap();
    drop(file);
    // Another mount's kernel goes by what it knows for up to a second.
    let told = |what: &str, range: std::ops::RangeInclusive<u64>| {
        wait_until(what, Duration::from_secs(20), || range.contains(&blocks(&other.join("dense"))));
    };
    told("holes were punched", MIB / 512..=3 * MIB / 512);
    fs::write(dir.join("dense"), &data).unwrap();
    told("written anew", 5 * MIB / 512..=5 * MIB / 512);
}

#[test]
fn times_of_access_move_as_the_mount_option_says() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::start(PVFS);
    let mut mount = |options: &str| cluster.mount(&["-o", options]);
    let (none, relative) = (mount("rw"), mount("relatime"));
    let (strict, plain) = (mount("strictatime,nodiratime"), mount("noatime"));
    let atime = |name: &str| {
        let told = fs::metadata(plain.join(name)).unwrap();
        (told.atime(), told.atime_nsec())
    };
    let moves = |what: &str, name: &str, before| {
        wait_until(what, Duration::from_secs(20), || atime(name) > before);
        atime(name)
    };
    fs::create_dir(plain.join("d")).unwrap();
    for name in ["d/f", "d/marker"] {
        fs::write(plain.join(name), b"bytes").unwrap();
    }
    let made = atime("d/f");
    assert_eq!(fs::read(none.join("d/f")).unwrap(), b"bytes");
    assert_eq!(fs::read(relative.join("d/f")).unwrap(), b"bytes");
    let first = moves("the first read after a write counts", "d/f", made);
    // What is told of later has moved: so what went with it or before was told too, and left this where it is.
    assert_eq!(fs::read(relative.join("d/f")).unwrap(), b"bytes");
    assert_eq!(fs::read_dir(relative.join("d")).unwrap().count(), 2);
    let before = atime("d/marker");
    fs::read(relative.join("d/marker")).unwrap();
    moves("the marker", "d/marker", before);
    assert_eq!(atime("d/f"), first, "it has not changed since");
    assert!(atime("d") > made, "the listing counts");

    let (listed, before) = (atime("d"), atime("d/marker"));
    assert_eq!(fs::read_dir(strict.join("d")).unwrap().count(), 2);
    assert_eq!(fs::read(strict.join("d/f")).unwrap(), b"bytes");
    moves("each read counts", "d/f", first);
    fs::read(strict.join("d/marker")).unwrap();
    moves("the marker again", "d/marker", before);
    assert_eq!(atime("d"), listed, "nodiratime");
    let quiet = File::options().read(true).custom_flags(0o1_000_000).open(strict.join("d/f")).unwrap();
    let (before, at) = (atime("d/f"), atime("d/marker"));
    let mut back = [0; 5];
    quiet.read_exact_at(&mut back, 0).unwrap();
    fs::read(strict.join("d/marker")).unwrap();
    moves("the marker once more", "d/marker", at);
    assert_eq!(atime("d/f"), before, "O_NOATIME");
}
