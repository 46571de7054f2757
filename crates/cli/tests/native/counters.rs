//! What an operation may cost, proved by the counters of every daemon: DESIGN §5.1, §5.2 and the table of §11.

use bytes::Bytes;
use pvfs_client::{Client, ClientConfig, CreateOptions, File, OpenOptions};
use pvfs_testkit::{Child, Half, TestCluster, can_mount, requests_received, wait_until};
use pvfs_types::{Cred, Ino, LayoutHint, Name, SetAttr};
use pvfs_wire::msg::hello::Secret;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::Command,
    sync::Arc,
    time::Duration,
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const IODS: u16 = 4;
const LIMIT: Duration = Duration::from_secs(20);

/// Requests from clients by operation: at the mgr, and at all iods together.
type Requests = (BTreeMap<String, u64>, BTreeMap<String, u64>);

fn requests(cluster: &TestCluster) -> Requests {
    let mut iods = BTreeMap::new();
    for name in cluster.iods() {
        for (op, count) in cluster.client_requests(name) {
            *iods.entry(op).or_insert(0) += count;
        }
    }
    (cluster.client_requests("mgr"), iods)
}

fn rise(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> String {
    let rose = after.iter().filter_map(|(op, count)| {
        let rise = count - before.get(op).unwrap_or(&0);
        (rise > 0).then(|| format!("{op} {rise}"))
    });
    rose.collect::<Vec<_>>().join(", ")
}

/// A client of the cluster in this process.
struct World {
    cluster: TestCluster,
    client: Arc<Client>,
    cred: Cred,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> World {
        let cluster = TestCluster::builder(PVFS).iods(IODS).start();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let client = runtime.block_on(connect(&cluster));
        let cred = Cred { uid: rustix::process::geteuid().as_raw(), ..Cred::default() };
        World { cluster, client, cred, runtime }
    }

    /// A file over all iods with `len` bytes in it, closed.
    fn file(&self, name: &str, len: usize) -> Ino {
        let file = self.create(name);
        self.runtime.block_on(async {
            file.write_at(0, Bytes::from(vec![7; len])).await.unwrap();
            file.close().await.unwrap();
        });
        file.ino()
    }

    fn create(&self, name: &str) -> File {
        let layout = LayoutHint { pcount: Some(IODS), ssize: Some(4096), base: Some(0) };
        let options = CreateOptions { layout, ..CreateOptions::default() };
        let name = Name::new(name).unwrap();
        self.runtime.block_on(self.client.create(&self.cred, Ino::ROOT, &name, options)).unwrap().file
    }

    fn open(&self, ino: Ino, options: OpenOptions) -> File {
        self.runtime.block_on(self.client.open(&self.cred, ino, options)).unwrap()
    }

    /// What `work` costs: `mgr` and `iods` say which requests come to them.
    #[track_caller]
    fn cost<T>(&self, mgr: &str, iods: &str, work: impl AsyncFnOnce() -> T) -> T {
        let before = requests(&self.cluster);
        let done = self.runtime.block_on(work());
        let after = requests(&self.cluster);
        let seen = (rise(&before.0, &after.0), rise(&before.1, &after.1));
        assert_eq!((seen.0.as_str(), seen.1.as_str()), (mgr, iods), "requests to (mgr, iods)");
        done
    }
}

async fn connect(cluster: &TestCluster) -> Arc<Client> {
    let secret = Secret(cluster.cluster_secret());
    Client::connect(ClientConfig::new(vec![cluster.addr("mgr").into()], secret)).await.unwrap()
}

#[test]
fn open_create_stat_and_close_of_a_reader_ask_no_iod() {
    let world = World::new();
    let ino = world.file("there", 100_000);
    let name = Name::new("new").unwrap();
    let file = world
        .cost("open 1", "", async || world.client.open(&world.cred, ino, OpenOptions::READ).await.unwrap());
    world.cost("", "", async || file.close().await.unwrap());
    world.cost("getattr 1", "", async || world.client.getattr(&world.cred, ino).await.unwrap());
    let created = world.cost("create 1", "", async || {
        world.client.create(&world.cred, Ino::ROOT, &name, CreateOptions::default()).await.unwrap()
    });
    drop(created);
}

#[test]
fn reads_and_writes_of_an_open_file_ask_no_mgr() {
    let world = World::new();
    let ino = world.file("f", 4 * 4096);
    let file = world.open(ino, OpenOptions::READ_WRITE);
    world.cost("", "write 4", async || file.write_at(0, Bytes::from(vec![1; 4 * 4096])).await.unwrap());
    world.cost("", "read 4", async || {
        assert_eq!(file.read_at(0, 4 * 4096).await.unwrap(), vec![1; 4 * 4096]);
    });
}

#[test]
fn close_after_writing_is_one_message_to_the_mgr_and_none_to_iods() {
    let world = World::new();
    let file = world.create("f");
    world.runtime.block_on(file.write_at(0, Bytes::from(vec![1; 100_000]))).unwrap();
    world.cost("report_size 1", "", async || file.close().await.unwrap());
}

#[test]
fn files_created_and_closed_unwritten_share_a_message_that_nobody_waits_for() {
    let world = World::new();
    let before = world.cluster.client_requests("mgr");
    for n in 0..50 {
        let file = world.create(&format!("f{n}"));
        world.runtime.block_on(file.close()).unwrap();
    }
    let told = || world.cluster.client_requests("mgr").get("end_writes").copied().unwrap_or(0);
    wait_until("the mgr hears of the closes", LIMIT, || told() > 0);
    let after = world.cluster.client_requests("mgr");
    let rise = |op: &str| after.get(op).unwrap_or(&0) - before.get(op).unwrap_or(&0);
    assert_eq!((rise("create"), rise("report_size")), (50, 0));
    assert!(rise("end_writes") < 50, "{} messages for 50 files", rise("end_writes"));
}

#[test]
fn truncation_to_zero_is_one_message_to_the_mgr_and_none_to_iods() {
    let world = World::new();
    let ino = world.file("f", 100_000);
    let to_zero = SetAttr { size: Some(0), ..SetAttr::default() };
    world.cost("setattr 1", "", async || {
        world.client.setattr(&world.cred, ino, to_zero, None).await.unwrap();
    });
    let open = world.cost("open 1", "", async || {
        world.client.open(&world.cred, ino, OpenOptions::READ_WRITE.truncate()).await.unwrap()
    });
    assert_eq!(world.runtime.block_on(open.attr()).unwrap().size, 0);
}

#[test]
fn unlink_is_one_message_to_the_mgr_and_each_target_is_asked_later_by_the_mgr() {
    let world = World::new();
    world.file("f", 100_000);
    let name = Name::new("f").unwrap();
    world.cost("unlink 1", "", async || world.client.unlink(&world.cred, Ino::ROOT, &name).await.unwrap());
    for iod in world.cluster.iods() {
        wait_until("the objects are removed", LIMIT, || {
            requests_received(&world.cluster.counters(iod), "mgr").contains_key("remove_objects")
        });
    }
}

#[test]
fn a_noncontiguous_access_is_one_request_to_each_target_it_touches() {
    let world = World::new();
    let ino = world.file("f", 64 * 4096);
    let file = world.open(ino, OpenOptions::READ_WRITE);
    // 64 pieces of 100 bytes, one in each strip: all four targets.
    let everywhere: Vec<(u64, u64)> = (0..64).map(|strip| (strip * 4096 + 50, 100)).collect();
    world.cost("", "read 4", async || {
        let pieces = file.read_list(&everywhere).await.unwrap();
        assert!(pieces.len() == 64 && pieces.iter().all(|piece| piece == &vec![7; 100]));
    });
    world.cost("", "write 4", async || {
        file.write_list(&everywhere, Bytes::from(vec![9; 6400])).await.unwrap();
    });
    // 16 pieces that all lie on one target.
    let on_one: Vec<(u64, u64)> = (0..16).map(|round| (round * 4 * 4096, 10)).collect();
    world.cost("", "read 1", async || file.read_list(&on_one).await.unwrap());
}

#[test]
fn an_iod_that_bounces_costs_each_client_one_connect_whatever_is_open() {
    let mut world = World::new();
    let inos: Vec<Ino> = (0..10).map(|n| world.file(&n.to_string(), 100_000)).collect();
    let other = world.runtime.block_on(connect(&world.cluster));
    let mut files = Vec::new();
    for &ino in &inos {
        for client in [&world.client, &other] {
            let file = world.runtime.block_on(client.open(&world.cred, ino, OpenOptions::READ)).unwrap();
            world.runtime.block_on(file.read_at(0, 100_000)).unwrap();
            files.push(file);
        }
    }
    let connects = |client: &Client| {
        let counters: BTreeMap<String, u64> = client.metrics().snapshot().into_iter().collect();
        counters["pvfs_connects_total{peer=\"iod\"}"]
    };
    let before = (connects(&world.client), connects(&other));
    world.cluster.kill9("iod2");
    world.cluster.restart("iod2");
    world.cost("", &format!("read {}", 20 * IODS), async || {
        for file in &files {
            assert_eq!(file.read_at(0, 100_000).await.unwrap().len(), 100_000);
        }
    });
    assert_eq!((connects(&world.client), connects(&other)), (before.0 + 1, before.1 + 1));
}

#[test]
fn through_the_mount_too_names_and_attributes_ask_no_iod() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(IODS).start();
    let mount = cluster.mount(&[]);
    fs::write(mount.join("there"), vec![7; 100_000]).unwrap();
    let (_, before) = requests(&cluster);
    fs::create_dir(mount.join("dir")).unwrap();
    fs::File::create(mount.join("dir/new")).unwrap();
    drop(fs::File::open(mount.join("there")).unwrap());
    assert_eq!(fs::metadata(mount.join("there")).unwrap().len(), 100_000);
    assert_eq!(fs::read_dir(&mount).unwrap().count(), 2);
    fs::rename(mount.join("dir/new"), mount.join("dir/newer")).unwrap();
    fs::remove_file(mount.join("dir/newer")).unwrap();
    fs::remove_dir(mount.join("dir")).unwrap();
    let (_, after) = requests(&cluster);
    assert_eq!(rise(&before, &after), "", "requests to iods");
}

#[test]
fn through_the_mount_too_reads_and_writes_ask_no_mgr() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(IODS).start();
    let mount = cluster.mount(&[]);
    let child = Child::start("counters::writer", &[&mount.join("f")]);
    child.wait_until_half();
    let (before, _) = requests(&cluster);
    child.go_on();
    child.wait_until_half();
    let (after, _) = requests(&cluster);
    child.go_on();
    child.end();
    assert_eq!(rise(&before, &after), "", "requests to the mgr");
}

#[test]
fn what_the_kernel_asks_of_attributes_for_itself_costs_the_mgr_nothing() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(IODS).start();
    fs::set_permissions(cluster.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let mount = cluster.mount(&[]);
    fs::create_dir(mount.join("dir")).unwrap();
    for n in 0..50 {
        fs::write(mount.join(format!("dir/{n}")), "bytes").unwrap();
    }
    let file = mount.join("f");
    fs::write(&file, "").unwrap();
    rustix::fs::setxattr(&file, "user.a", b"value", rustix::fs::XattrFlags::empty()).unwrap();
    let (before, _) = requests(&cluster);
    // By somebody else, so that the kernel has to look for ACLs.
    let mut shell = Command::new("sh");
    shell.args(["-euc", "ls -lR . && cat dir/* && stat f dir"]).current_dir(&mount);
    if rustix::process::geteuid().is_root() {
        shell.uid(12_001).gid(12_001);
    }
    assert!(shell.output().unwrap().status.success());
    fs::File::options().write(true).open(&file).unwrap().set_len(10).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let (after, _) = requests(&cluster);
    let asked = |counts: &BTreeMap<String, u64>| counts.get("getxattr").copied().unwrap_or(0);
    // Of some hundred questions. (One that comes more than a second after the attributes goes to the mgr.)
    assert!(asked(&after) - asked(&before) < 10, "{}", rise(&before, &after));
    // And writes of a file that has attributes, whatever refreshed what the kernel knows of it.
    let child = Child::start("counters::writer_that_stats", &[&file]);
    child.wait_until_half();
    let (before, _) = requests(&cluster);
    child.go_on();
    child.wait_until_half();
    let (after, _) = requests(&cluster);
    child.go_on();
    child.end();
    assert_eq!(asked(&after) - asked(&before), 0, "{}", rise(&before, &after));
}

#[test]
#[ignore = "what another test starts as a process of its own"]
fn writer_that_stats() {
    use std::os::unix::fs::FileExt;
    let mut half = Half::new();
    let file = fs::File::options().write(true).open(half.path()).unwrap();
    half.wait();
    for at in 0..20 {
        file.write_all_at(&[1; 4096], at * 4096).unwrap();
        assert_eq!(file.metadata().unwrap().len(), (at + 1) * 4096);
    }
    half.wait();
}

#[test]
#[ignore = "what another test starts as a process of its own"]
fn writer() {
    use std::os::unix::fs::FileExt;
    let mut half = Half::new();
    let file = fs::File::options().create(true).truncate(true).write(true).open(half.path()).unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    half.wait();
    for at in 0..64 {
        file.write_all_at(&vec![u8::try_from(at).unwrap(); 65536], at * 65536).unwrap();
    }
    half.wait();
}

/// Cold: a mount that has never seen the directory.
#[test]
fn a_long_listing_of_ten_thousand_files_is_a_message_for_five_hundred_and_none_to_iods() {
    const FILES: u64 = 10_000;
    if !can_mount() {
        return;
    }
    let mut world = World::new();
    let options = CreateOptions { exclusive: true, ..CreateOptions::default() };
    world.runtime.block_on(async {
        let dir =
            world.client.mkdir(&world.cred, Ino::ROOT, &Name::new("d").unwrap(), 0o755).await.unwrap().ino;
        for n in 0..FILES {
            let name = Name::new(format!("file-{n}")).unwrap();
            let made = world.client.create(&world.cred, dir, &name, options).await.unwrap();
            made.file.close().await.unwrap();
        }
        world.client.shutdown().await.unwrap();
    });
    let mount = world.cluster.mount(&[]);
    let before = requests(&world.cluster);
    let listed = Command::new("ls").arg("-l").arg(mount.join("d")).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&listed.stdout).lines().count() as u64,
        FILES + 1,
        "{}",
        listed.status
    );
    let after = requests(&world.cluster);
    assert_eq!(rise(&before.1, &after.1), "", "no iod is asked");
    let asked: u64 = ["readdir", "lookup", "getattr", "getxattr", "listxattr"]
        .iter()
        .map(|op| after.0.get(*op).unwrap_or(&0) - before.0.get(*op).unwrap_or(&0))
        .sum();
    assert!(asked <= FILES / 500, "{asked} messages: {}", rise(&before.0, &after.0));
}
