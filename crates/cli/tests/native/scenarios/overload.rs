//! Slow daemons, daemons without descriptors, strangers that say half a word, a whole cluster that stands still: who can be
//! served is served, nobody counts as dead who is not, and all goes on.

use super::native::{LIMIT, PVFS, ROOT, connect, create_on, run};
use pvfs_client::File;
use pvfs_testkit::{TestCluster, wait_until};
use pvfs_types::{Ino, Name};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

fn pid(cluster: &TestCluster, name: &str) -> u32 {
    let (status, addr) = (cluster.status(), cluster.addr(name));
    let daemons = status.json["daemons"].as_array().unwrap();
    let daemon = daemons.iter().find(|daemon| daemon["addr"] == addr).unwrap();
    u32::try_from(daemon["pid"].as_u64().unwrap()).unwrap()
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Gives a process a tenth of the time, as long as it lives.
struct Slow {
    pid: u32,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Slow {
    fn start(pid: u32) -> Slow {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                signal(pid, Signal::STOP);
                std::thread::sleep(Duration::from_millis(90));
                signal(pid, Signal::CONT);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Slow { pid, stop, thread: Some(thread) }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().ok();
        signal(self.pid, Signal::CONT);
    }
}

/// Writes and reads back `rounds` times 64 KiB.
async fn work(file: &File, rounds: u64) {
    for n in 0..rounds {
        let data = vec![u8::try_from(n % 251).unwrap(); 64 << 10];
        file.write_at(n << 16, data.clone().into()).await.unwrap();
        assert!(file.read_at(n << 16, 64 << 10).await.unwrap() == data);
    }
    file.sync().await.unwrap();
}

fn up_targets(cluster: &TestCluster) -> usize {
    let status = cluster.status();
    let targets = status.json["targets"].as_array().cloned().unwrap_or_default();
    targets.iter().filter(|target| target["up"] == true).count()
}

#[test]
fn an_iod_that_runs_a_tenth_of_the_time_slows_its_own_files_only_and_is_not_taken_for_dead() {
    let cluster = TestCluster::builder(PVFS).iods(3).start();
    run(async {
        let client = connect(&cluster).await;
        let (slow, one, two) = (
            create_on(&client, "slow", 0).await,
            create_on(&client, "one", 1).await,
            create_on(&client, "two", 2).await,
        );
        let duty = Slow::start(pid(&cluster, "iod0"));
        let slow_end = Arc::new(AtomicBool::new(false));
        let slow_work = tokio::spawn({
            let end = Arc::clone(&slow_end);
            async move {
                work(&slow, 400).await;
                end.store(true, Ordering::Relaxed);
                slow.close().await.unwrap();
            }
        });
        let begin = Instant::now();
        tokio::join!(work(&one, 200), work(&two, 200));
        println!("the others took {:?}", begin.elapsed());
        assert!(!slow_end.load(Ordering::Relaxed), "the slow one holds nobody else up");
        slow_work.await.unwrap();
        println!("the slow one took {:?}", begin.elapsed());
        assert_eq!(up_targets(&cluster), 3, "nobody counts as dead");
        drop(duty);
        one.close().await.unwrap();
        two.close().await.unwrap();
        client.shutdown().await.unwrap();
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn a_mgr_that_runs_a_tenth_of_the_time_throws_no_session_out_and_takes_no_iod_for_dead() {
    let mut cluster = TestCluster::builder(PVFS).iods(2).mgr_args(&["--lease-seconds", "2"]).start();
    run(async {
        let mut clients = Vec::new();
        for n in 0..4_u16 {
            let client = connect(&cluster).await;
            let file = create_on(&client, &format!("f{n}"), n % 2).await;
            // What would be thrown out with its session.
            let gone = create_on(&client, &format!("gone{n}"), n % 2).await;
            gone.write_at(0, vec![5; 10_000].into()).await.unwrap();
            client.unlink(&ROOT, Ino::ROOT, &Name::new(format!("gone{n}")).unwrap()).await.unwrap();
            clients.push((client, file, gone));
        }
        let duty = Slow::start(pid(&cluster, "mgr"));
        let begin = Instant::now();
        let all = clients.iter().enumerate().map(|(n, (client, file, gone))| async move {
            for round in 0..30 {
                let name = Name::new(format!("d{n}-{round}")).unwrap();
                client.mkdir(&ROOT, Ino::ROOT, &name, 0o755).await.unwrap();
                client.rmdir(&ROOT, Ino::ROOT, &name).await.unwrap();
                work(file, 4).await;
            }
            assert!(gone.read_at(0, 10_000).await.unwrap() == vec![5; 10_000]);
        });
        all_of(all).await;
        println!("{:?}", begin.elapsed());
        assert_eq!(up_targets(&cluster), 2);
        drop(duty);
        assert!(!cluster.process("mgr").log_tail().contains("expelled"), "nobody was silent");
        for (client, file, gone) in clients {
            file.close().await.unwrap();
            gone.close().await.unwrap();
            client.shutdown().await.unwrap();
        }
    });
    cluster.fsck_finds_nothing();
}

/// All of them, side by side.
async fn all_of(all: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        all.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[test]
fn a_cluster_that_stands_still_for_longer_than_its_leases_goes_on() {
    let cluster = TestCluster::builder(PVFS).iods(2).mgr_args(&["--lease-seconds", "1"]).start();
    run(async {
        let client = connect(&cluster).await;
        let file = Arc::new(create_on(&client, "f", 0).await);
        work(&file, 3).await;
        let unlinked = create_on(&client, "u", 1).await;
        unlinked.write_at(0, vec![5; 100_000].into()).await.unwrap();
        client.unlink(&ROOT, Ino::ROOT, &Name::new("u").unwrap()).await.unwrap();
        let pids: Vec<u32> = ["iod0", "mgr", "iod1"].iter().map(|name| pid(&cluster, name)).collect();
        for order in [[0, 1, 2], [1, 0, 2], [2, 0, 1]] {
            for &pid in &pids {
                signal(pid, Signal::STOP);
            }
            let working = tokio::spawn({
                let (client, file) = (Arc::clone(&client), Arc::clone(&file));
                async move {
                    work(&file, 10).await;
                    client.mkdir(&ROOT, Ino::ROOT, &Name::new("d").unwrap(), 0o755).await.unwrap();
                    client.rmdir(&ROOT, Ino::ROOT, &Name::new("d").unwrap()).await.unwrap();
                }
            });
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(1500) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(!working.is_finished());
            for at in order {
                signal(pids[at], Signal::CONT);
            }
            working.await.unwrap();
            assert!(unlinked.read_at(0, 200_000).await.unwrap() == vec![5; 100_000], "still open");
        }
        unlinked.close().await.unwrap();
        file.close().await.unwrap();
        client.shutdown().await.unwrap();
        cluster.wait_targets_up();
    });
    cluster.fsck_finds_nothing();
}

/// Resident memory in KiB.
fn memory_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn hundreds_of_strangers_that_say_half_a_word_keep_nobody_out_and_are_shown_the_door() {
    let cluster = TestCluster::builder(PVFS).iods(1).start();
    let names = ["mgr", "iod0"];
    let pids = names.map(|name| pid(&cluster, name));
    let before: Vec<_> = pids.iter().map(|&pid| (memory_kib(pid), descriptors(pid))).collect();
    let mut strangers = Vec::new();
    for n in 0..800_usize {
        let mut stranger = TcpStream::connect(cluster.addr(names[n % 2])).unwrap();
        // The beginning of a frame, or what claims to be a long one, or nothing.
        match n / 2 % 3 {
            0 => stranger.write_all(b"PV").unwrap(),
            1 => stranger.write_all(&[0xff; 17]).unwrap(),
            _ => {}
        }
        strangers.push(stranger);
    }
    run(async {
        let begin = Instant::now();
        let client = connect(&cluster).await;
        let file = create_on(&client, "f", 0).await;
        work(&file, 20).await;
        file.close().await.unwrap();
        client.shutdown().await.unwrap();
        println!("an honest client took {:?}", begin.elapsed());
        assert!(
            begin.elapsed() < Duration::from_secs(8),
            "it waits for no stranger's end: {:?}",
            begin.elapsed()
        );
    });
    for (pid, (memory, _)) in pids.iter().zip(&before) {
        assert!(memory_kib(*pid) < memory + (48 << 10), "{} KiB, before {memory}", memory_kib(*pid));
    }
    for mut stranger in strangers {
        stranger.set_read_timeout(Some(LIMIT)).unwrap();
        let ended = stranger.read(&mut [0; 64]);
        assert!(!matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{ended:?}");
    }
    for (pid, (_, open)) in pids.iter().zip(&before) {
        wait_until("their descriptors are closed", LIMIT, || descriptors(*pid) <= open + 4);
    }
    cluster.fsck_finds_nothing();
}

/// Seconds of the processor that a process has used, in hundredths.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// A process, killed at the end.
struct Daemon(std::process::Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn an_iod_without_descriptors_neither_dies_nor_spins_and_serves_again_when_there_are_some() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        eprintln!("skipped: no prlimit");
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    cluster.terminate("iod0");
    let iod = cluster.command("iod", ["--name", "iod0"]);
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=64:64").arg(iod.get_program()).args(iod.get_args());
    limited.envs(iod.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let mut iod = Daemon(limited.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_until("it serves", LIMIT, || {
        cluster.status().at(cluster.addr("iod0")).up && up_targets(&cluster) == 1
    });
    run(async {
        let client = connect(&cluster).await;
        // More objects than descriptors.
        for n in 0..100 {
            let file = create_on(&client, &format!("f{n}"), 0).await;
            file.write_at(0, vec![n; 5000].into()).await.unwrap();
            file.close().await.unwrap();
        }
        let file = create_on(&client, "open", 0).await;
        work(&file, 2).await;
        let strangers: Vec<TcpStream> =
            (0..100).map(|_| TcpStream::connect(cluster.addr("iod0")).unwrap()).collect();
        wait_until("it has no descriptor left", LIMIT, || descriptors(iod.0.id()) >= 60);
        let (begin, ticks) = (Instant::now(), cpu_ticks(iod.0.id()));
        while begin.elapsed() < Duration::from_secs(2) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let used = cpu_ticks(iod.0.id()) - ticks;
        assert!(used < 100, "{used} hundredths of a second of the processor within two seconds");
        assert!(iod.0.try_wait().unwrap().is_none(), "it lives");
        let waiting = tokio::spawn({
            let other = connect(&cluster).await;
            async move {
                let file = other.open_path(&ROOT, "open", pvfs_client::OpenOptions::READ).await.unwrap();
                let read = file.read_at(0, 128 << 10).await.unwrap();
                file.close().await.unwrap();
                other.shutdown().await.unwrap();
                read.len()
            }
        });
        drop(strangers);
        assert_eq!(waiting.await.unwrap(), 128 << 10);
        work(&file, 3).await;
        for n in 0..100 {
            let file =
                client.open_path(&ROOT, &format!("f{n}"), pvfs_client::OpenOptions::READ).await.unwrap();
            assert!(file.read_at(0, 10_000).await.unwrap() == vec![n; 5000], "file {n}");
            file.close().await.unwrap();
        }
        file.close().await.unwrap();
        client.shutdown().await.unwrap();
    });
    cluster.fsck_finds_nothing();
}
