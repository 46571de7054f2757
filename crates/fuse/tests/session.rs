//! The session layer with a toy file system under a real mount (as root): no request waits for another, unmounting
//! waits for the daemon, a dropped mount is gone.

use bytes::Bytes;
use pvfs_env::Metrics;
use pvfs_fuse::{
    Filesystem, MountOptions, Mounted, UmountError, Umounted,
    dirstream::start,
    mount,
    ops::{
        Attributes, Context, DirEntry, DirPage, DirRequest, Entry, Handle, NodeAttr, NodeId, OpenFlags,
        Opened, RenameMode, Reply, StatFs, Writing,
    },
    umount,
};
use pvfs_types::{Errno, FileKind, NewMode, SetAttr, Timestamp};
use std::{
    fs, io,
    os::unix::{fs::FileExt, fs::OpenOptionsExt, thread::JoinHandleExt},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

const VALID: Duration = Duration::from_secs(1);
const FILES: [&str; 2] = ["free", "stuck"];

/// Two files. Reads of `free` give `free`; reads of `stuck` wait for a permit.
struct Toy {
    permits: Semaphore,
    /// Files whose release waits for a permit too.
    slow_release: bool,
    /// Reads that wait for a permit.
    waiting: AtomicUsize,
    /// How often it was asked whether somebody waits in vain; and what it says.
    asked: AtomicUsize,
    in_vain: AtomicBool,
}

/// One of them.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Waiting<'a> {
        count.fetch_add(1, Ordering::SeqCst);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn attr(node: NodeId) -> NodeAttr {
    let is_root = node == NodeId::ROOT;
    let t = Timestamp::default();
    NodeAttr {
        ino: node.0,
        kind: if is_root { FileKind::Dir } else { FileKind::File },
        mode: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        size: 5,
        blocks: 1,
        atime: t,
        mtime: t,
        ctime: t,
        btime: t,
        rdev: (0, 0),
        block_bytes: 4096,
    }
}

fn node_of(name: &[u8]) -> Reply<NodeId> {
    let at = FILES.iter().position(|file| file.as_bytes() == name).ok_or(Errno::ENOENT)?;
    Ok(NodeId(at as u64 + 2))
}

fn entry(node: NodeId) -> Entry {
    Entry { node, attr: attr(node), valid: VALID, attr_valid: VALID }
}

impl Filesystem for Toy {
    async fn lookup(&self, _: &Context, _: NodeId, name: &[u8]) -> Reply<Entry> {
        node_of(name).map(entry)
    }
    async fn waits_in_vain(&self, _: u32) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.in_vain.load(Ordering::SeqCst)
    }
    fn forget(&self, _: NodeId, _: u64) {}
    async fn getattr(&self, _: &Context, node: NodeId, _: Option<Handle>) -> Reply<Attributes> {
        Ok(Attributes { attr: attr(node), valid: VALID })
    }
    async fn setattr(&self, _: &Context, _: NodeId, _: Option<Handle>, _: SetAttr) -> Reply<Attributes> {
        Err(Errno::EROFS)
    }
    async fn access(&self, _: &Context, _: NodeId, _: u32) -> Reply<()> {
        Ok(())
    }
    async fn readlink(&self, _: &Context, _: NodeId) -> Reply<Vec<u8>> {
        Err(Errno::EINVAL)
    }
    async fn mknod(
        &self,
        _: &Context,
        _: NodeId,
        _: &[u8],
        _: FileKind,
        _: NewMode,
        _: (u32, u32),
    ) -> Reply<Entry> {
        Err(Errno::EROFS)
    }
    async fn mkdir(&self, _: &Context, _: NodeId, _: &[u8], _: NewMode) -> Reply<Entry> {
        Err(Errno::EROFS)
    }
    async fn symlink(&self, _: &Context, _: NodeId, _: &[u8], _: &[u8]) -> Reply<Entry> {
        Err(Errno::EROFS)
    }
    async fn link(&self, _: &Context, _: NodeId, _: NodeId, _: &[u8]) -> Reply<Entry> {
        Err(Errno::EROFS)
    }
    async fn unlink(&self, _: &Context, _: NodeId, _: &[u8]) -> Reply<()> {
        Err(Errno::EROFS)
    }
    async fn rmdir(&self, _: &Context, _: NodeId, _: &[u8]) -> Reply<()> {
        Err(Errno::EROFS)
    }
    async fn rename(&self, _: &Context, _: (NodeId, &[u8]), _: (NodeId, &[u8]), _: RenameMode) -> Reply<()> {
        Err(Errno::EROFS)
    }
    async fn create(
        &self,
        _: &Context,
        _: NodeId,
        _: &[u8],
        _: NewMode,
        _: OpenFlags,
    ) -> Reply<(Entry, Opened)> {
        Err(Errno::EROFS)
    }
    async fn open(&self, _: &Context, node: NodeId, flags: OpenFlags) -> Reply<Opened> {
        Ok(Opened {
            handle: Handle(node.0),
            direct: flags.direct,
            keeps_pages: false,
            attributes_changed: true,
        })
    }
    async fn read(&self, _: &Context, handle: Handle, offset: u64, _: u32, _: bool) -> Reply<Bytes> {
        let name = FILES[usize::try_from(handle.0 - 2).expect("small")];
        if name == "stuck" {
            let _waiting = Waiting::begin(&self.waiting);
            self.permits.acquire().await.map_err(|_| Errno::EIO)?.forget();
        }
        let text = Bytes::from_static(name.as_bytes());
        Ok(text.slice(usize::try_from(offset).expect("small").min(text.len())..))
    }
    async fn write(&self, _: &Context, _: Handle, _: u64, _: Bytes, _: Writing) -> Reply<()> {
        Err(Errno::EROFS)
    }
    async fn flush(&self, _: &Context, _: Handle, _: u64) -> Reply<()> {
        Ok(())
    }
    async fn release(&self, _: &Context, _: Handle, _: Option<u64>) -> Reply<()> {
        if self.slow_release {
            let _waiting = Waiting::begin(&self.waiting);
            self.permits.acquire().await.map_err(|_| Errno::EIO)?.forget();
        }
        Ok(())
    }
    async fn fsync(&self, _: &Context, _: Handle, _: bool) -> Reply<()> {
        Ok(())
    }
    async fn opendir(&self, _: &Context, _: NodeId) -> Reply<Opened> {
        Ok(Opened { handle: Handle(0), direct: false, keeps_pages: false, attributes_changed: false })
    }
    async fn readdir(&self, _: &Context, node: NodeId, _: Handle, req: DirRequest) -> Reply<DirPage> {
        let (dots, after) = start(req.cookie);
        let dot = |&cookie: &u64| DirEntry {
            cookie,
            ino: node.0,
            kind: FileKind::Dir,
            name: vec![b'.'; usize::try_from(cookie).expect("1 or 2")],
            entry: None,
        };
        let file = |(at, name): (usize, &&str)| {
            let node = NodeId(at as u64 + 2);
            let name = name.as_bytes().to_vec();
            DirEntry {
                cookie: at as u64 + 3,
                ino: node.0,
                kind: FileKind::File,
                name,
                entry: Some(entry(node)),
            }
        };
        let files = FILES.iter().enumerate().map(file).filter(|e| e.cookie > after);
        Ok(DirPage::new(dots.iter().map(dot).chain(files).collect(), 0))
    }
    async fn releasedir(&self, _: &Context, _: Handle) -> Reply<()> {
        Ok(())
    }
    async fn fsyncdir(&self, _: &Context, _: Handle) -> Reply<()> {
        Ok(())
    }
    async fn statfs(&self, _: &Context, _: NodeId) -> Reply<StatFs> {
        Ok(StatFs { block_bytes: 4096, blocks: 7, name_bytes_max: 255, ..StatFs::default() })
    }
}

/// `false`, and says so, where this machine lets nobody mount.
fn can_mount() -> bool {
    let can = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !can {
        eprintln!("skipped: mounting needs root and /dev/fuse");
    }
    can
}

async fn mounted(slow_release: bool) -> (tempfile::TempDir, Arc<Toy>, Mounted) {
    let dir = tempfile::tempdir().expect("a directory");
    let toy = Arc::new(Toy {
        permits: Semaphore::new(0),
        slow_release,
        waiting: AtomicUsize::new(0),
        asked: AtomicUsize::new(0),
        in_vain: AtomicBool::new(false),
    });
    let options = MountOptions::parse("nosuid,nodev").expect("options");
    let mounted = mount(toy.clone(), "toy,with\\comma", dir.path(), &options, &Metrics::new(), None)
        .await
        .expect("mounts");
    (dir, toy, mounted)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_waits_holds_up_no_other() {
    if !can_mount() {
        return;
    }
    let (dir, toy, mounted) = mounted(false).await;
    assert!(mounted.is_live());
    let root = mounted.dir().to_owned();
    // More stuck reads than there are threads of any kind.
    let stuck: Vec<_> = (0..20)
        .map(|_| {
            let path = root.join("stuck");
            std::thread::spawn(move || {
                let file = fs::File::open(path).expect("opens");
                let mut buf = [0; 10];
                file.read_at(&mut buf, 0).map(|len| buf[..len].to_vec())
            })
        })
        .collect();
    let free = root.join("free");
    assert_eq!(blocking(move || fs::read(free)).await.expect("reads"), b"free");
    let listed = root.clone();
    let names = blocking(move || {
        let names = fs::read_dir(listed).expect("lists").map(|e| e.expect("entry").file_name());
        names.collect::<Vec<_>>()
    });
    assert_eq!(names.await, FILES);
    toy.permits.add_permits(100);
    for read in stuck {
        assert_eq!(blocking(move || read.join().expect("no panic")).await.expect("reads"), b"stuck");
    }
    mounted.unmount(Duration::from_secs(10)).await.expect("unmounts");
    assert!(!mounted.is_live());
    assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn umount_waits_for_the_daemon_and_the_daemon_notices() {
    if !can_mount() {
        return;
    }
    let (dir, toy, mounted) = mounted(true).await;
    let path = dir.path().to_owned();
    let free = path.join("free");
    assert_eq!(blocking(move || fs::read(free)).await.expect("reads"), b"free");
    // What the daemon has not taken yet goes with the mount.
    until("the release of `free` has begun", || toy.waiting.load(Ordering::SeqCst) == 1).await;
    let umounted = tokio::task::spawn_blocking(move || umount(&path, false));
    // The release of `free` still works: the mount is away, the daemon is not done.
    let about_20_ms = tokio::time::timeout(Duration::from_millis(20), mounted.ended());
    assert!(about_20_ms.await.is_err());
    assert!(!umounted.is_finished());
    toy.permits.add_permits(1);
    mounted.ended().await.expect("ends well");
    drop(mounted);
    assert_eq!(umounted.await.expect("no panic").expect("unmounts"), Umounted::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_mount_says_who_holds_it_and_is_taken_away_in_the_end() {
    if !can_mount() {
        return;
    }
    let (dir, _toy, mounted) = mounted(false).await;
    let path = dir.path().to_owned();
    let held = blocking({
        let free = path.join("free");
        move || fs::File::open(free).expect("opens")
    });
    let held = held.await;
    let refused = blocking(move || umount(&path, false)).await.expect_err("busy");
    let me = format!("(pid {})", std::process::id());
    assert!(matches!(&refused, UmountError::Busy { .. }), "{refused}");
    assert!(refused.to_string().contains(&me), "{refused}");
    mounted.unmount(Duration::ZERO).await.expect("taken away");
    assert!(!mounted.is_live());
    let gone = blocking(move || held.metadata().expect_err("the session is over")).await;
    assert_eq!(gone.kind(), io::ErrorKind::NotConnected, "{gone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_mount_is_refused_and_a_dropped_one_is_gone() {
    if !can_mount() {
        return;
    }
    let (dir, toy, mounted) = mounted(false).await;
    let options = MountOptions::default();
    let refused =
        mount(toy, "toy", dir.path(), &options, &Metrics::new(), None).await.expect_err("mounted already");
    assert!(refused.to_string().contains("mounted already (toy,with\\comma)"), "{refused}");
    let info = fs::read_to_string("/proc/self/mountinfo").expect("reads");
    let line = info.lines().find(|line| line.contains(&*dir.path().to_string_lossy()));
    let line = line.expect("it is listed");
    assert!(line.contains("nosuid,nodev") && line.contains("- fuse.pvfs "), "{line}");
    drop(mounted);
    let left = fs::read_to_string("/proc/self/mountinfo").expect("reads");
    assert!(!left.contains(&*dir.path().to_string_lossy()));
}

/// What ends a wait that is in vain: 20 ms of grace, and what a busy machine takes.
const SOON: Duration = Duration::from_secs(2);

/// Lets SIGUSR1 interrupt calls and do nothing else.
fn catch_signals() {
    extern "C" fn nothing(_: libc::c_int) {}
    #[expect(unsafe_code, reason = "no crate here installs a handler without SA_RESTART")]
    // SAFETY: the handler does nothing, and the action is whole.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        for signal in [libc::SIGUSR1, libc::SIGHUP] {
            assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
        }
    }
}

fn signal_thread<T>(thread: &std::thread::JoinHandle<T>, signal: libc::c_int) {
    #[expect(unsafe_code, reason = "std sends no signals")]
    // SAFETY: the thread is not joined yet, so its handle is good.
    unsafe {
        assert_eq!(libc::pthread_kill(thread.as_pthread_t(), signal), 0);
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caught_signal_ends_a_wait_in_vain_of_its_thread_only_if_it_asks_for_an_end() {
    if !can_mount() {
        return;
    }
    catch_signals();
    let (_dir, toy, mounted) = mounted(false).await;
    let reads: Vec<_> = (0..3)
        .map(|_| {
            let path = mounted.dir().join("stuck");
            std::thread::spawn(move || {
                // Else the wait is for a page, and the kernel lets only deadly signals end that.
                let file =
                    fs::File::options().read(true).custom_flags(libc::O_DIRECT).open(path).expect("opens");
                let mut buf = [0; 10];
                file.read_at(&mut buf, 0).map(|len| buf[..len].to_vec())
            })
        })
        .collect();
    until("all wait", || toy.waiting.load(Ordering::SeqCst) == 3).await;
    let mut reads = reads.into_iter();
    let (hit, other) = (reads.next().expect("three"), reads.next().expect("three"));
    let begin = Instant::now();
    // As of a timer: the one that asks comes later, and the kernel tells of the first only.
    for thread in [&hit, &other] {
        signal_thread(thread, libc::SIGUSR1);
    }
    signal_thread(&hit, libc::SIGHUP);
    until("it is looked again", || toy.asked.load(Ordering::SeqCst) >= 3).await;
    assert_eq!(toy.waiting.load(Ordering::SeqCst), 3, "what is there may take its time");
    toy.in_vain.store(true, Ordering::SeqCst);
    let ended = blocking(move || hit.join().expect("no panic")).await.expect_err("a signal came");
    assert_eq!(ended.raw_os_error(), Some(libc::EINTR), "{ended}");
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    until("its work was dropped", || toy.waiting.load(Ordering::SeqCst) == 2).await;
    toy.permits.add_permits(2);
    for read in reads.chain([other]) {
        assert_eq!(blocking(move || read.join().expect("no panic")).await.expect("reads"), b"stuck");
    }
    mounted.unmount(Duration::from_secs(10)).await.expect("unmounts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_waits_in_vain_dies_when_it_is_killed() {
    if !can_mount() {
        return;
    }
    let (_dir, toy, mounted) = mounted(false).await;
    // (dd catches SIGINT.)
    toy.in_vain.store(true, Ordering::SeqCst);
    for (signal, flags) in [
        (rustix::process::Signal::INT, "iflag=direct"),
        (rustix::process::Signal::KILL, "iflag=direct"),
        (rustix::process::Signal::KILL, "iflag=fullblock"),
    ] {
        let path = mounted.dir().join("stuck");
        until("the work for the last one was dropped", || toy.waiting.load(Ordering::SeqCst) == 0).await;
        let mut dd = Command::new("dd");
        dd.arg(format!("if={}", path.display())).args(["of=/dev/null", "count=1", flags]);
        let mut dd = dd.stderr(Stdio::null()).spawn().expect("dd runs");
        until("dd waits", || toy.waiting.load(Ordering::SeqCst) > 0).await;
        let begin = Instant::now();
        let pid = rustix::process::Pid::from_child(&dd);
        rustix::process::kill_process(pid, signal).expect("it is ours");
        let status = blocking(move || dd.wait().expect("waits")).await;
        assert!(!status.success() && begin.elapsed() < SOON, "{signal:?} {flags}: {:?}", begin.elapsed());
    }
    // What was read through the page cache is the kernel's own request: it ends with an answer.
    toy.permits.add_permits(100);
    until("nothing waits", || toy.waiting.load(Ordering::SeqCst) == 0).await;
    mounted.unmount(Duration::from_secs(10)).await.expect("unmounts");
}
