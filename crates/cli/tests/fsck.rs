//! `pvfs fsck` on real stores that were damaged by hand, while the cluster is in use.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_kv::{Durability, Engine as _, LmdbEngine, Overlay, WriteTxn as _};
use pvfs_meta::{
    keys,
    record::{Inode, MgrTime, Record},
};
use pvfs_testkit::{TestCluster, wait_until};
use pvfs_types::Ino;
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const LIMIT: Duration = Duration::from_secs(20);
const MAP_BYTES: usize = 1 << 30;

/// A cluster with a directory and some files of several strips on both targets.
fn used() -> TestCluster {
    let cluster = TestCluster::builder(PVFS).iods(2).start();
    let source = cluster.dir().join("source");
    fs::write(&source, vec![0xa5; 3 << 20]).unwrap();
    cluster.run_ok("mkdir", ["/d"]);
    for name in ["/a", "/b", "/d/c"] {
        cluster.run_ok("put", [source.to_str().unwrap(), name]);
    }
    cluster.run_ok("ln", ["/a", "/d/a-too"]);
    cluster
}

/// What `pvfs fsck --json` says, and its exit status.
#[track_caller]
fn fsck(cluster: &TestCluster, repair: bool) -> (Value, i32) {
    let out = cluster.run("fsck", ["--json"].into_iter().chain(repair.then_some("--repair")));
    let text = String::from_utf8_lossy(&out.stdout);
    let told = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&out.stderr)));
    (told, out.status.code().unwrap())
}

#[track_caller]
fn assert_clean(cluster: &TestCluster) {
    let (told, status) = fsck(cluster, false);
    assert!(status == 0 && told["clean"] == true && told["findings"] == serde_json::json!([]), "{told:#}");
}

/// The only finding, which must be of that kind; and the exit status.
#[track_caller]
fn only(cluster: &TestCluster, kind: &str) -> (Value, i32) {
    let (told, status) = fsck(cluster, false);
    let findings = told["findings"].as_array().unwrap();
    assert!(findings.len() == 1 && findings[0]["kind"] == kind, "{told:#}");
    (findings[0].clone(), status)
}

/// All object files of a target.
fn objects(cluster: &TestCluster, iod: &str) -> Vec<PathBuf> {
    let shards = fs::read_dir(cluster.data_dir().join(iod).join("objects")).unwrap();
    let mut files: Vec<PathBuf> = shards
        .flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().map(|file| file.unwrap().path()))
        .collect();
    files.sort();
    files
}

/// Changes the mgr's store behind its back.
fn change_store(dir: &Path, change: impl FnOnce(&mut Overlay<'_, dyn pvfs_kv::Read + '_>)) {
    let engine = LmdbEngine::open(dir, MAP_BYTES, Durability::Sync).unwrap();
    let snapshot = engine.snapshot().unwrap();
    let view: &dyn pvfs_kv::Read = &*snapshot;
    let mut txn = Overlay::new(view);
    change(&mut txn);
    let changes = txn.into_set();
    drop(snapshot);
    engine.commit(&changes).unwrap();
}

fn find_inode(txn: &impl pvfs_kv::Read, ino: u64) -> Inode {
    Inode::from_bytes(&txn.get(&keys::inode(Ino(ino))).unwrap().unwrap()).unwrap()
}

#[test]
fn a_file_system_in_use_is_clean_also_after_daemons_were_killed() {
    let mut cluster = used();
    assert_clean(&cluster);
    cluster.run_ok("rm", ["/b"]);
    cluster.kill9("mgr");
    cluster.restart("mgr");
    cluster.kill9("iod1");
    cluster.restart("iod1");
    cluster.run_ok("mv", ["/d/c", "/c"]);
    cluster.wait_targets_up();
    assert_clean(&cluster);
    let text = cluster.run_ok("fsck", [] as [&str; 0]);
    assert!(text.contains("Clean"), "{text}");
}

#[test]
fn a_lost_object_is_told_and_not_made_up() {
    let cluster = used();
    fs::remove_file(&objects(&cluster, "iod1")[0]).unwrap();
    let (finding, status) = only(&cluster, "missing");
    assert_eq!(status, 1);
    assert!(finding["text"].as_str().unwrap().contains("slot"), "{finding}");
    let (told, status) = fsck(&cluster, true);
    assert!(status == 1 && told["errors_left"] == 1, "nothing can mend it: {told:#}");
}

/// Also bytes that are lost in such a file are told.
#[test]
fn files_made_with_holes_are_clean_and_what_they_lose_is_told() {
    let mut cluster = used();
    let dir = cluster.mount(&[]);
    fs::File::create(dir.join("empty")).unwrap().set_len(1 << 30).unwrap();
    let before = objects(&cluster, "iod0").len() + objects(&cluster, "iod1").len();
    let file = fs::File::create(dir.join("image")).unwrap();
    for at in [20 << 20, 40 << 20] {
        file.write_all_at(&[7; 1000], at).unwrap();
    }
    drop(file);
    cluster.unmount(&dir);
    assert_clean(&cluster);
    let now = objects(&cluster, "iod0").into_iter().chain(objects(&cluster, "iod1"));
    let made: Vec<PathBuf> = now.filter(|path| fs::metadata(path).unwrap().len() > 4 << 20).collect();
    assert!(
        made.len() == 1 && before == 6,
        "one target has both pieces, of the other there is nothing: {made:?}"
    );
    fs::remove_file(&made[0]).unwrap();
    assert_eq!(only(&cluster, "missing").1, 1);
}

#[test]
fn an_object_that_is_nobodys_is_removed_and_no_other() {
    let cluster = used();
    let before = (objects(&cluster, "iod0"), objects(&cluster, "iod1"));
    // As a late write past all memory of its removal leaves it: a number that was dealt out, and no file.
    let model = before.0[0].clone();
    let name = model.file_name().unwrap().to_str().unwrap().to_owned();
    let next_generation = name.replacen(".00000001.", ".00000000.", 1);
    assert_ne!(name, next_generation);
    fs::copy(&model, model.with_file_name(next_generation)).unwrap();
    fs::write(model.with_file_name("notes.txt"), "by hand").unwrap();
    let (told, status) = fsck(&cluster, false);
    let kinds: Vec<&Value> = told["findings"].as_array().unwrap().iter().map(|f| &f["kind"]).collect();
    assert!(status == 1 && kinds == ["stranger", "orphan object"], "{told:#}");
    let (told, status) = fsck(&cluster, true);
    assert!(status == 0 && told["errors_left"] == 0, "a stranger is a doubt: {told:#}");
    fs::remove_file(model.with_file_name("notes.txt")).unwrap();
    wait_until("the object is gone", LIMIT, || objects(&cluster, "iod0") == before.0);
    assert_eq!(objects(&cluster, "iod1"), before.1);
    assert_clean(&cluster);
}

#[test]
fn bytes_behind_a_files_end_make_it_longer_again() {
    let mut cluster = used();
    cluster.terminate("mgr");
    change_store(&cluster.data_dir().join("mgr"), |txn| {
        for ino in 2..20 {
            let Some(bytes) = txn.get_inode(ino) else { continue };
            let mut inode = Inode::from_bytes(&bytes).unwrap();
            if inode.size == 3 << 20 {
                inode.size -= 1000;
                txn.put(&keys::inode(Ino(ino)), inode.to_bytes());
                break;
            }
        }
    });
    cluster.restart("mgr");
    cluster.wait_targets_up();
    assert_eq!(only(&cluster, "size").1, 1);
    assert_eq!(fsck(&cluster, true).1, 0);
    assert_clean(&cluster);
}

/// An inode's record, if there is one.
trait GetInode {
    fn get_inode(&self, ino: u64) -> Option<Vec<u8>>;
}

impl<T: pvfs_kv::Read> GetInode for T {
    fn get_inode(&self, ino: u64) -> Option<Vec<u8>> {
        self.get(&keys::inode(Ino(ino))).unwrap()
    }
}

#[test]
fn link_counts_become_what_the_names_say() {
    let mut cluster = used();
    cluster.terminate("mgr");
    change_store(&cluster.data_dir().join("mgr"), |txn| {
        let mut root = find_inode(txn, 1);
        root.nlink = 9;
        txn.put(&keys::inode(Ino::ROOT), root.to_bytes());
    });
    cluster.restart("mgr");
    cluster.wait_targets_up();
    let (finding, status) = only(&cluster, "record");
    assert!(status == 1 && finding["text"] == "counts 9 links, has 3", "{finding}");
    assert_eq!(fsck(&cluster, true).1, 0);
    assert_clean(&cluster);
}

#[test]
fn a_check_that_cannot_run_says_so_by_its_status() {
    let mut cluster = used();
    cluster.kill9("iod0");
    let (told, status) = fsck(&cluster, false);
    assert!(status == 1 && told["silent_targets"][0]["id"] == 1 && told["errors_left"] == 0, "{told:#}");
    cluster.kill9("mgr");
    let out = cluster.run("fsck", ["--json"]);
    assert_eq!(out.status.code(), Some(2), "{}", String::from_utf8_lossy(&out.stderr));
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_mgr_store_put_back_from_a_backup_is_noticed_and_changes_nothing_until_it_is_settled() {
    let mut cluster = used();
    let (store, backup) = (cluster.data_dir().join("mgr"), cluster.dir().join("backup"));
    cluster.terminate("mgr");
    copy_dir(&store, &backup);
    // A backup is older than the minute that the stored time runs ahead.
    change_store(&backup, |txn| {
        txn.put(&keys::mgr_time(), MgrTime { high_water_ms: 1_000_000 }.to_bytes());
    });
    cluster.restart("mgr");
    cluster.wait_targets_up();
    let source = cluster.dir().join("source");
    for number in 0..5 {
        cluster.run_ok("put", [source.to_str().unwrap(), &format!("/later-{number}")]);
    }
    cluster.kill9("mgr");
    fs::remove_dir_all(&store).unwrap();
    copy_dir(&backup, &store);
    cluster.restart("mgr");
    cluster.wait_targets_up();

    let refused = cluster.run("mkdir", ["/new"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("fsck --repair"), "{text}");
    let back = cluster.dir().join("back");
    cluster.run_ok("get", ["/a", back.to_str().unwrap()]);
    assert!(fs::read(&back).unwrap() == fs::read(&source).unwrap(), "it is served read-only");
    // The next mgr on that store knows it too.
    cluster.kill9("mgr");
    cluster.restart("mgr");
    assert!(!cluster.run("mkdir", ["/new"]).status.success());
    cluster.wait_targets_up();

    let (told, status) = fsck(&cluster, false);
    let kinds: Vec<&str> =
        told["findings"].as_array().unwrap().iter().map(|f| f["kind"].as_str().unwrap()).collect();
    assert!(status == 1 && told["old_store"] == true, "{told:#}");
    assert!(kinds.contains(&"old store") && kinds.contains(&"newer object"), "{told:#}");
    let before = objects(&cluster, "iod0").len();

    assert_eq!(fsck(&cluster, true).1, 0);
    assert_eq!(objects(&cluster, "iod0").len(), before, "what may be somebody's stays for now");
    cluster.run_ok("put", [source.to_str().unwrap(), "/new"]);
    assert_eq!(fsck(&cluster, false).1, 1, "now the objects of the lost names are nobody's");
    assert_eq!(fsck(&cluster, true).1, 0);
    wait_until("they are gone", LIMIT, || fsck(&cluster, false).0["garbage_seen"] == 0);
    assert_clean(&cluster);
    cluster.run_ok("get", ["/new", back.to_str().unwrap()]);
    assert!(fs::read(&back).unwrap() == fs::read(&source).unwrap(), "no old object stands in its way");
}
