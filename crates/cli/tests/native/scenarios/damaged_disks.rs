//! Disks that turn read-only or flip bits: what cannot be right is an error that is said, never silent, and all is there when
//! the disk is whole again.

use super::native::{LIMIT, PVFS, ROOT, connect, create_on, run};
use pvfs_client::OpenOptions;
use pvfs_kv::{Durability, Engine as _, LmdbEngine, WriteSet};
use pvfs_meta::{
    keys,
    record::{Record as _, Superblock},
};
use pvfs_testkit::{FsKind, Image, TestCluster, wait_until};
use pvfs_types::Errno;
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

#[test]
fn a_target_whose_disk_turned_read_only_errs_loses_nothing_and_holds_up_no_other() {
    if let Some(why) = Image::unavailable(FsKind::Ext4) {
        eprintln!("skipped: {why}");
        return;
    }
    let builder = TestCluster::builder(PVFS).iods(2);
    let mut cluster = builder.image("iod0", FsKind::Ext4, FsKind::Ext4.bytes_min()).start();
    run(async {
        let client = connect(&cluster).await;
        let (bad, good) = (create_on(&client, "bad", 0).await, create_on(&client, "good", 1).await);
        bad.write_at(0, vec![1; 300_000].into()).await.unwrap();
        bad.sync().await.unwrap();
        // As ext4 does when it finds an error.
        let dir = cluster.image("iod0").dir().to_owned();
        let turned = Command::new("mount").args(["-o", "remount,abort"]).arg(&dir).output().unwrap();
        println!("remount,abort: {turned:?}");
        wait_until("the disk is read-only", LIMIT, || fs::write(dir.join("x"), "x").is_err());

        let written = bad.write_at(300_000, vec![2; 300_000].into()).await;
        println!("the write: {written:?}");
        let error = match written {
            Err(error) => error,
            Ok(()) => bad.sync().await.expect_err("an fsync that takes what is not on the disk"),
        };
        assert!([Errno::EIO, Errno::EROFS].contains(&error.errno()), "{error}");
        assert!(bad.read_at(0, 300_000).await.unwrap() == vec![1; 300_000], "what is there is read");
        good.write_at(0, vec![3; 300_000].into()).await.unwrap();
        good.sync().await.unwrap();
        assert!(cluster.status().at(cluster.addr("iod0")).up);

        cluster.kill9("iod0");
        cluster.image("iod0").remount();
        cluster.restart("iod0");
        // The error may be told once more, to whoever had it open; then all goes on.
        let mut tries = 0;
        while let Err(error) = bad.write_at(300_000, vec![4; 300_000].into()).await {
            println!("again: {error}");
            tries += 1;
            assert!(tries < 100, "{error}");
        }
        while let Err(error) = bad.sync().await {
            println!("sync: {error}");
            tries += 1;
            assert!(tries < 100, "{error}");
        }
        let other = connect(&cluster).await;
        let file = other.open_path(&ROOT, "bad", OpenOptions::READ).await.unwrap();
        let expect = [vec![1; 300_000], vec![4; 300_000]].concat();
        assert!(file.read_at(0, 1 << 20).await.unwrap() == expect);
        file.close().await.unwrap();
        bad.close().await.ok();
        good.close().await.unwrap();
        cluster.wait_targets_up();
    });
    cluster.fsck_finds_nothing();
}

/// Starts a mgr that shall refuse.
fn refused_mgr(cluster: &TestCluster) -> Output {
    let mut mgr =
        cluster.command("mgr", [] as [&str; 0]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the mgr refuses to start", LIMIT, || {
        mgr.try_wait().unwrap().is_some() || {
            let started = TcpUp(cluster.addr("mgr")).is();
            if started {
                mgr.kill().unwrap();
            }
            started
        }
    });
    mgr.wait_with_output().unwrap()
}

/// Whether somebody listens there.
struct TcpUp<'a>(&'a str);

impl TcpUp<'_> {
    fn is(&self) -> bool {
        std::net::TcpStream::connect(self.0).is_ok()
    }
}

#[test]
fn a_mgr_store_of_a_newer_format_is_refused_and_left_alone() {
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    cluster.run_ok("mkdir", ["/d"]);
    cluster.terminate("mgr");
    let set_format = |to: u16| {
        let store = cluster.data_dir().join("mgr");
        let engine = LmdbEngine::open(&store, 1 << 30, Durability::Sync).unwrap();
        let key = keys::superblock();
        let bytes = engine.snapshot().unwrap().get(&key).unwrap().unwrap();
        let mut superblock = Superblock::from_bytes(&bytes).unwrap();
        let was = std::mem::replace(&mut superblock.format, to);
        let mut set = WriteSet::new();
        set.put(&key, superblock.to_bytes());
        engine.commit(&set).unwrap();
        was
    };
    let ours = set_format(99);
    let out = refused_mgr(&cluster);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && said.contains("format 99"), "{}: {said}", out.status);
    assert_eq!(set_format(ours), 99, "it is what it was");
    cluster.restart("mgr");
    cluster.wait_targets_up();
    assert_eq!(cluster.run_ok("ls", ["/"]).trim(), "d");
    cluster.fsck_finds_nothing();
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_mgr_whose_store_is_damaged_refuses_to_start_says_so_and_changes_nothing() {
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    for n in 0..20 {
        cluster.run_ok("mkdir", [format!("/d{n}")]);
    }
    cluster.kill9("mgr");
    let store = cluster.data_dir().join("mgr");
    let journals = ["journal.0", "journal.1"].map(|name| store.join(name));
    let head = |file: &Path| fs::read(file).unwrap().starts_with(b"PVj1");
    let journal = journals.iter().find(|file| head(file)).expect("a journal with records").clone();
    // The head's magic, length, number, checksum; the changes of the first record; what follows them.
    let length = u32::from_be_bytes(fs::read(&journal).unwrap()[4..8].try_into().unwrap()) as usize;
    let data = store.join("data.mdb");
    let mut damages: Vec<(&Path, usize)> = [1, 6, 15, 18, 20 + length / 2, 20 + length + 3]
        .into_iter()
        .map(|at| (journal.as_path(), at))
        .collect();
    // LMDB's own head: magic and version of its first page.
    damages.extend([(data.as_path(), 16), (data.as_path(), 20)]);
    for (file, at) in damages {
        let before = fs::read(file).unwrap();
        flip(file, at);
        let damaged = fs::read(file).unwrap();
        let out = refused_mgr(&cluster);
        let said = String::from_utf8_lossy(&out.stderr);
        let about = format!("{} at {at}: {}: {said}", file.display(), out.status);
        assert_eq!(out.status.code(), Some(1), "{about}");
        assert!(said.contains("pvfs mgr: ") && said.contains(store.to_str().unwrap()), "{about}");
        assert!(fs::read(file).unwrap() == damaged, "{about}: it is left as it was found");
        fs::write(file, before).unwrap();
    }
    cluster.restart("mgr");
    cluster.wait_targets_up();
    assert_eq!(cluster.run_ok("ls", ["/"]).lines().count(), 20);
    cluster.fsck_finds_nothing();
}
