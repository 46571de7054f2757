//! Names that come and go under open files, over restarts of the mgr and aborted calls: each file is whole until its last
//! close, and nothing of it is left afterwards.

use super::native::{LIMIT, PVFS, ROOT, connect, name, run};
use pvfs_client::{Client, CreateOptions, File, OpenOptions, RenameMode};
use pvfs_testkit::{TestCluster, can_mount, wait_until};
use pvfs_types::{Errno, Ino, LayoutHint};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    process::{Command, Stdio},
    sync::Arc,
};

fn gauge(cluster: &TestCluster, name: &str) -> u64 {
    cluster.counters("mgr").get(name).copied().unwrap_or_else(|| panic!("no {name}"))
}

/// A new file over both targets with `text` at both ends of 100 KB: two objects.
async fn make(client: &Client, path: &str, text: &str) -> File {
    let layout = LayoutHint { base: None, pcount: Some(2), ssize: Some(64 << 10) };
    let options = CreateOptions { layout, exclusive: true, ..CreateOptions::default() };
    let file = client.create_path(&ROOT, path, options).await.unwrap().file;
    file.write_at(0, text.to_owned().into()).await.unwrap();
    file.write_at(100_000, text.to_owned().into()).await.unwrap();
    file
}

async fn holds(file: &File, text: &str, when: &str) {
    for at in [0, 100_000] {
        let read = file.read_at(at, text.len() as u64).await.unwrap();
        assert!(read == text.as_bytes(), "{when}: {read:?} for {text}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    Unlink,
    Anew,
    Close,
}

#[test]
fn open_unlink_create_anew_and_close_in_any_order_around_a_restart_of_the_mgr_keep_the_files_apart() {
    use Step::{Anew, Close, Open, Unlink};
    let orders = [
        [Open, Unlink, Anew, Close],
        [Open, Unlink, Close, Anew],
        [Open, Close, Unlink, Anew],
        [Unlink, Anew, Open, Close],
    ];
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    run(async {
        // Who unlinks is not who has it open, and both are.
        let (client, other) = (connect(&cluster).await, connect(&cluster).await);
        let mut made = 0;
        for order in orders {
            for restart_before in 0..=order.len() {
                let when = format!("{order:?} with a restart before step {restart_before}");
                let path = format!("f-{made}");
                make(&client, &path, "old").await.close().await.unwrap();
                let unlinker = if made % 2 == 0 { &client } else { &other };
                let (mut open, mut is_new, mut held) = (None::<File>, false, false);
                for step in 0..=order.len() {
                    if step == restart_before {
                        cluster.kill9("mgr");
                        cluster.restart("mgr");
                    }
                    match order.get(step) {
                        Some(Open) => {
                            let file = client.open_path(&ROOT, &path, OpenOptions::READ_WRITE).await.unwrap();
                            (open, held) = (Some(file), is_new);
                        }
                        Some(Unlink) => unlinker.unlink(&ROOT, Ino::ROOT, &name(&path)).await.unwrap(),
                        Some(Anew) => {
                            make(&client, &path, "new").await.close().await.unwrap();
                            is_new = true;
                        }
                        Some(Close) => open.take().unwrap().close().await.unwrap(),
                        None => {}
                    }
                    if let Some(file) = &open {
                        holds(file, if held { "new" } else { "old" }, &when).await;
                        file.write_at(50_000, "more".into()).await.unwrap();
                        assert_eq!(file.read_at(50_000, 4).await.unwrap(), "more", "{when}");
                    }
                }
                let file = other.open_path(&ROOT, &path, OpenOptions::READ).await.unwrap();
                holds(&file, "new", &when).await;
                file.close().await.unwrap();
                made += 1;
            }
        }
        cluster.wait_targets_up();
        cluster.wait_objects(2 * made);
        client.shutdown().await.unwrap();
        other.shutdown().await.unwrap();
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn a_file_that_a_rename_replaced_is_read_by_who_has_it_open_over_restarts_and_then_goes() {
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    run(async {
        let (client, other) = (connect(&cluster).await, connect(&cluster).await);
        make(&client, "old", "old").await.close().await.unwrap();
        make(&client, "new", "new").await.close().await.unwrap();
        let held = client.open_path(&ROOT, "old", OpenOptions::READ).await.unwrap();
        other
            .rename(&ROOT, (Ino::ROOT, &name("new")), (Ino::ROOT, &name("old")), RenameMode::Replace)
            .await
            .unwrap();
        for daemon in ["mgr", "iod0", "mgr", "iod1"] {
            cluster.kill9(daemon);
            cluster.restart(daemon);
            holds(&held, "old", daemon).await;
            let now = other.open_path(&ROOT, "old", OpenOptions::READ).await.unwrap();
            holds(&now, "new", daemon).await;
            now.close().await.unwrap();
        }
        cluster.wait_targets_up();
        assert_eq!(cluster.count_objects(), 4, "it is open");
        held.close().await.unwrap();
        cluster.wait_objects(2);
        client.shutdown().await.unwrap();
        other.shutdown().await.unwrap();
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn a_directory_that_another_client_works_in_is_removed_or_filled_and_never_both() {
    let cluster = TestCluster::builder(PVFS).iods(2).start();
    run(async {
        let (one, two) = (connect(&cluster).await, connect(&cluster).await);
        let (mut filled, mut too_late) = (0, 0);
        for round in 0..200 {
            let dir = one.mkdir(&ROOT, Ino::ROOT, &name("d"), 0o755).await.unwrap().ino;
            // As a program does whose working directory it is.
            let filling = tokio::spawn({
                let two = Arc::clone(&two);
                async move {
                    let mut made = Vec::new();
                    for n in 0.. {
                        let new = name(&format!("f{n}"));
                        let file = match two.create(&ROOT, dir, &new, CreateOptions::default()).await {
                            Ok(created) => created.file,
                            Err(error) => return (made, error.errno()),
                        };
                        file.write_at(0, "bytes".into()).await.unwrap();
                        file.close().await.unwrap();
                        made.push(new);
                    }
                    unreachable!("it ends by an error")
                }
            });
            let mut removed = 0;
            loop {
                match one.rmdir(&ROOT, Ino::ROOT, &name("d")).await {
                    Ok(()) => break,
                    Err(error) => assert_eq!(error.errno(), Errno::ENOTEMPTY, "round {round}"),
                }
                filled += 1;
                for item in one.readdir_all(&ROOT, dir, false).await.unwrap() {
                    one.unlink(&ROOT, dir, &item.name).await.unwrap();
                    removed += 1;
                }
            }
            let (made, error) = filling.await.unwrap();
            too_late += 1;
            assert_eq!(error, Errno::ESTALE, "round {round}: the directory that it works in is gone");
            assert_eq!(made.len(), removed, "round {round}: every file that was made was in the directory");
            let gone = two.lookup(&ROOT, dir, &name("f0")).await.unwrap_err().errno();
            assert_eq!(gone, Errno::ESTALE, "round {round}");
        }
        println!("{filled} times filled, {too_late} times removed");
        assert!(one.readdir_all(&ROOT, Ino::ROOT, false).await.unwrap().is_empty());
        cluster.wait_objects(0);
        one.shutdown().await.unwrap();
        two.shutdown().await.unwrap();
    });
    cluster.fsck_finds_nothing();
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn opens_and_creates_that_a_signal_ends_leave_no_descriptor_no_writer_and_no_object() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    // Else the mgr is not asked by who opens for reading.
    let mount = cluster.mount(&["-o", "cache=open"]);
    let there = mount.join("there");
    fs::write(&there, vec![1; 100_000]).unwrap();
    let worker = cluster.process("mount0").children()[0];
    let daemons: Vec<u32> = cluster.status().json["daemons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|daemon| u32::try_from(daemon["pid"].as_u64().unwrap()).unwrap())
        .collect();
    let count = || -> Vec<usize> { daemons.iter().chain([&worker]).map(|&pid| descriptors(pid)).collect() };
    wait_until("nobody writes any more", LIMIT, || gauge(&cluster, "pvfs_orphans") == 0);
    let before = count();
    let (read, new) = (there.display().to_string(), mount.join("new").display().to_string());
    for round in 0..10 {
        cluster.stop("mgr");
        let opens = [
            format!("cat {read}"),
            format!("dd of={read} oflag=append conv=notrunc"),
            format!("touch {new}-{round}"),
            format!("dd of={new}-excl-{round} conv=excl"),
        ];
        // One after the other: a create holds its directory's lock in the kernel.
        for (at, line) in opens.iter().enumerate() {
            let mut words = line.split(' ');
            let mut program = Command::new(words.next().unwrap());
            let program =
                program.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut program = program.spawn().unwrap();
            let waits = || {
                let chan = fs::read_to_string(format!("/proc/{}/wchan", program.id())).unwrap_or_default();
                ["fuse", "request_wait"].iter().any(|name| chan.contains(name))
            };
            wait_until("the program waits in its open", LIMIT, waits);
            let signal = if (at + round) % 2 == 0 { Signal::INT } else { Signal::KILL };
            kill_process(Pid::from_child(&program), signal).unwrap();
            assert!(!program.wait().unwrap().success(), "it is ended in its open");
        }
        cluster.signal("mgr", Signal::CONT);
        assert_eq!(fs::metadata(&there).unwrap().len(), 100_000);
    }
    // What was under way was done once or not at all; what was made is empty.
    for entry in fs::read_dir(&mount).unwrap() {
        let path = entry.unwrap().path();
        if path != there {
            assert_eq!(fs::metadata(&path).unwrap().len(), 0, "{}", path.display());
            fs::remove_file(&path).unwrap();
        }
    }
    cluster.wait_objects(1);
    wait_until("descriptors are as before", LIMIT, || {
        count().iter().zip(&before).all(|(now, then)| now <= then)
    });
    // Not busy: the mount believes nothing open.
    cluster.unmount(&mount);
    wait_until("no session is left but that of the look", LIMIT, || gauge(&cluster, "pvfs_sessions") <= 1);
    cluster.fsck_finds_nothing();
}
