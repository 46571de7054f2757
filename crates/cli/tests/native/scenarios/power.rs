//! Group B, beside `power_loss.rs`: an I/O daemon's machine and the writer's die together after a file was replaced as
//! editors and databases do, and after writes with `O_SYNC`.

use super::native::{PVFS, ROOT, bytes, connect, create, name, read, run};
use pvfs_client::RenameMode;
use pvfs_testkit::{FsKind, Image, TestCluster, can_mount};
use pvfs_types::Ino;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
};

/// Two iods that commit nothing by themselves within a test, the first of them on a disk that can lose its power.
fn cluster() -> Option<TestCluster> {
    if let Some(why) = Image::unavailable(FsKind::Ext4) {
        eprintln!("skipped: {why}");
        return None;
    }
    let builder = TestCluster::builder(PVFS).iods(2).iod_args(&["--commit-seconds", "3600"]);
    Some(builder.image("iod0", FsKind::Ext4, FsKind::Ext4.bytes_min()).start())
}

#[test]
fn a_file_that_was_synced_and_renamed_over_another_is_whole_when_all_machines_died() {
    let Some(mut cluster) = cluster() else { return };
    let writer = tokio::runtime::Runtime::new().unwrap();
    let held = writer.block_on(async {
        let client = connect(&cluster).await;
        for n in 0..20 {
            let (from, to) = (format!("new-{n}"), format!("file-{}", n % 4));
            let file = create(&client, &from, None, 2).await;
            file.write_at(0, bytes(200_000, n).into()).await.unwrap();
            // The last of them is in place and was not called synced: each byte is its own or none.
            if n < 19 {
                file.sync().await.unwrap();
            }
            file.close().await.unwrap();
            let (from, to) = (name(&from), name(&to));
            let (from, to) = ((Ino::ROOT, &from), (Ino::ROOT, &to));
            client.rename(&ROOT, from, to, RenameMode::Replace).await.unwrap();
        }
        client
    });
    writer.shutdown_background();
    std::mem::forget(held);
    cluster.lose_power("iod0");
    cluster.restart("iod0");
    run(async {
        let client = connect(&cluster).await;
        for n in 16..19 {
            assert!(
                read(&client, &format!("file-{}", n % 4)).await == bytes(200_000, n),
                "file {n} is not the last"
            );
        }
        let unsynced = read(&client, "file-3").await;
        assert_eq!(unsynced.len(), 200_000);
        let own = |(found, written): (&u8, &u8)| *found == 0 || found == written;
        assert!(
            unsynced.iter().zip(&bytes(200_000, 19)).all(own),
            "neither another file's bytes nor garbage"
        );
    });
}

#[test]
fn what_o_sync_acknowledged_is_there_without_its_mount() {
    if !can_mount() {
        return;
    }
    let Some(mut cluster) = cluster() else { return };
    let mount = cluster.mount(&[]);
    let data = bytes(400_000, 1);
    for (path, flag) in [("sync", libc::O_SYNC), ("dsync", libc::O_DSYNC), ("plain", 0)] {
        let mut options = fs::File::options();
        let file = options.create_new(true).write(true).custom_flags(flag).open(mount.join(path)).unwrap();
        for (n, part) in data.chunks(10_000).enumerate() {
            file.write_all_at(part, n as u64 * 10_000).unwrap();
        }
    }
    // Its keeper first: nothing is started again, nothing sent again.
    let workers = cluster.process("mount0").children();
    cluster.kill9("mount0");
    for worker in workers {
        kill_process(Pid::from_raw(i32::try_from(worker).unwrap()).unwrap(), Signal::KILL).ok();
    }
    cluster.lose_power("iod0");
    cluster.restart("iod0");
    run(async {
        let client = connect(&cluster).await;
        assert!(read(&client, "plain").await != data, "the test is worth nothing if nothing is lost");
        for path in ["sync", "dsync"] {
            assert!(read(&client, path).await == data, "{path} has other bytes");
        }
    });
}
