//! Sessions with a kernel that the tests play: a socket that keeps messages apart stands for the device.

use pvfs_kfuse::{
    Agreed, Control, INTERRUPT_GRACE, Op, Reply, Request, Serve, Session, Wanted,
    abi::{self, init, notify, opcode},
    encode,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::{
    future::Future,
    os::fd::OwnedFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};
use tokio::{runtime::Handle, sync::Semaphore, task::spawn_blocking};
use zerocopy::{FromBytes, IntoBytes};

const EIO: i32 = -libc::EIO;
const WANTED: Wanted = Wanted {
    flags: init::PARALLEL_DIROPS,
    request_bytes_max: 1 << 20,
    read_ahead_bytes_max: 1 << 20,
    background_max: 8,
    background_congested: 6,
};
const AGREED: Agreed = Agreed { minor: 40, flags: init::HAS_RESEND, request_bytes_max: 128 << 10 };

/// The kernel's end.
#[derive(Clone)]
struct Kernel(Arc<OwnedFd>);

/// An answer: the error, whom to, and the rest.
type Answer = (i32, u64, Vec<u8>);

impl Kernel {
    fn pair() -> (Kernel, OwnedFd) {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .expect("a pair");
        (Kernel(Arc::new(ours)), theirs)
    }

    fn ask(&self, unique: u64, opcode: u32, args: &[&[u8]]) {
        let head = abi::InHeader { unique, opcode, nodeid: 1, ..abi::InHeader::default() };
        rustix::io::write(&*self.0, &encode(head, args)).expect("asks");
    }

    fn interrupt(&self, target: u64) {
        let args = abi::InterruptIn { unique: target };
        self.ask(target | abi::UNIQUE_INTERRUPT, opcode::INTERRUPT, &[args.as_bytes()]);
    }

    fn answer(&self) -> Answer {
        let mut bytes = vec![0; 1 << 20];
        let len = rustix::io::read(&*self.0, &mut bytes).expect("an answer");
        let (head, rest) = abi::OutHeader::read_from_prefix(&bytes[..len]).expect("a header");
        assert_eq!(usize::try_from(head.len), Ok(len));
        (head.error, head.unique, rest.to_vec())
    }
}

/// `statfs` is answered at once, a read once it has a permit; the length of what a write brought is its answer.
struct Toy {
    permits: Arc<Semaphore>,
    /// Reads that wait.
    waiting: Arc<AtomicUsize>,
    forgotten: AtomicUsize,
    came_again: OnceLock<Vec<u64>>,
}

struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Serve for Toy {
    fn serve(self: &Arc<Self>, request: Request, reply: Reply) -> impl Future<Output = ()> + Send + 'static {
        let toy = Arc::clone(self);
        async move {
            match request.op {
                Op::StatFs => {
                    reply.ok(&[b"stat", b"fs"]);
                }
                Op::Read { .. } => {
                    toy.waiting.fetch_add(1, Ordering::SeqCst);
                    let waiting = Waiting(toy.waiting.clone());
                    toy.permits.acquire().await.expect("never closed").forget();
                    drop(waiting);
                    reply.ok(&[b"read"]);
                }
                Op::Write { data, .. } => {
                    reply.ok(&[data.len().as_bytes()]);
                }
                Op::Unlink { .. } => reply.error(libc::ENOENT),
                _ => drop(reply),
            }
        }
    }

    fn waits_in_vain(self: &Arc<Self>, _pid: u32) -> impl Future<Output = bool> + Send + 'static {
        std::future::ready(false)
    }

    fn forget(&self, _node: u64, lookups: u64) {
        self.forgotten.fetch_add(usize::try_from(lookups).expect("few"), Ordering::SeqCst);
    }

    fn all_came_again(self: &Arc<Self>, requests: Vec<u64>) {
        self.came_again.set(requests).expect("told once");
    }
}

/// A toy that serves; ends when the kernel's end is closed.
struct Served {
    kernel: Kernel,
    toy: Arc<Toy>,
    control: Control,
    running: JoinHandle<std::io::Result<()>>,
}

fn serve(kernel: Kernel, session: Session) -> Served {
    let toy = Arc::new(Toy {
        permits: Arc::new(Semaphore::new(0)),
        waiting: Arc::default(),
        forgotten: AtomicUsize::new(0),
        came_again: OnceLock::new(),
    });
    let (serve, runtime) = (toy.clone(), Handle::current());
    let (tell, control) = std::sync::mpsc::channel();
    let running = std::thread::spawn(move || {
        session.run(serve, runtime, 2, None, |control| tell.send(control).expect("the test waits"))
    });
    Served { kernel, toy, control: control.recv().expect("it runs"), running }
}

/// A session that is attached, after the kernel was asked to send again.
fn attached() -> Served {
    let (kernel, device) = Kernel::pair();
    let session = Session::attach(device, AGREED, None).expect("attaches");
    assert_eq!(session.agreed(), AGREED);
    assert_eq!(kernel.answer(), (notify::RESEND, 0, vec![]));
    serve(kernel, session)
}

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// Plays the kernel. The clock stands still meanwhile.
async fn play<T: Send + 'static>(kernel: &Kernel, script: impl FnOnce(Kernel) -> T + Send + 'static) -> T {
    let kernel = kernel.clone();
    spawn_blocking(move || script(kernel)).await.expect("no panic")
}

#[tokio::test(start_paused = true)]
async fn every_request_has_one_answer() {
    let Served { kernel, toy, .. } = attached();
    play(&kernel, |kernel| {
        kernel.ask(2, opcode::STATFS, &[]);
        assert_eq!(kernel.answer(), (0, 2, b"statfs".to_vec()));
        kernel.ask(4, opcode::UNLINK, &[b"name\0"]);
        assert_eq!(kernel.answer(), (-libc::ENOENT, 4, vec![]));
        kernel.ask(6, opcode::UNLINK, &[b"no end"]);
        assert_eq!(kernel.answer(), (EIO, 6, vec![]), "nonsense is answered too");
        kernel.ask(8, opcode::RMDIR, &[b"name\0"]);
        assert_eq!(kernel.answer(), (EIO, 8, vec![]), "so is what the server drops");
        kernel.ask(10, opcode::IOCTL, &[b"whatever"]);
        assert_eq!(kernel.answer(), (-libc::ENOSYS, 10, vec![]));
        let data = vec![7; 100_000];
        let args = abi::WriteIn { size: 100_000, ..abi::WriteIn::default() };
        kernel.ask(12, opcode::WRITE, &[args.as_bytes(), &data]);
        assert_eq!(kernel.answer(), (0, 12, data.len().as_bytes().to_vec()));
        let lookups = abi::ForgetIn { nlookup: 3 };
        kernel.ask(14, opcode::FORGET, &[lookups.as_bytes()]);
        kernel.ask(16, opcode::DESTROY, &[]);
        assert_eq!(kernel.answer(), (0, 16, vec![]), "a forget has no answer");
    })
    .await;
    play(&kernel, move |_| until(|| toy.forgotten.load(Ordering::SeqCst) == 3)).await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_ends_exactly_its_request_after_the_grace() {
    let Served { kernel, toy, control, .. } = attached();
    let waiting = toy.waiting.clone();
    play(&kernel, move |kernel| {
        for unique in [2, 4, 6] {
            kernel.ask(unique, opcode::READ, &[abi::ReadIn::default().as_bytes()]);
        }
        until(|| waiting.load(Ordering::SeqCst) == 3);
        kernel.interrupt(4);
        kernel.ask(8, opcode::STATFS, &[]);
        assert_eq!(kernel.answer(), (0, 8, b"statfs".to_vec()), "not yet");
    })
    .await;
    tokio::time::sleep(INTERRUPT_GRACE * 2).await;
    let waiting = toy.waiting.clone();
    play(&kernel, move |kernel| {
        assert_eq!(kernel.answer(), (-libc::EINTR, 4, vec![]));
        until(|| waiting.load(Ordering::SeqCst) == 2);
    })
    .await;
    assert_eq!(control.in_flight(), 2);
    toy.permits.add_permits(9);
    let mut others = play(&kernel, |kernel| [kernel.answer(), kernel.answer()]).await;
    others.sort_by_key(|answer| answer.1);
    assert_eq!(others, [(0, 2, b"read".to_vec()), (0, 6, b"read".to_vec())]);
    assert_eq!(control.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_answered_within_the_grace_sees_nothing_of_a_signal() {
    let Served { kernel, toy, .. } = attached();
    let (waiting, permits) = (toy.waiting.clone(), toy.permits.clone());
    play(&kernel, move |kernel| {
        kernel.ask(2, opcode::READ, &[abi::ReadIn::default().as_bytes()]);
        until(|| waiting.load(Ordering::SeqCst) == 1);
        kernel.interrupt(2);
        kernel.ask(4, opcode::STATFS, &[]);
        assert_eq!(kernel.answer(), (0, 4, b"statfs".to_vec()));
        permits.add_permits(1);
        assert_eq!(kernel.answer(), (0, 2, b"read".to_vec()));
    })
    .await;
    tokio::time::sleep(INTERRUPT_GRACE * 2).await;
    play(&kernel, |kernel| {
        kernel.ask(6, opcode::STATFS, &[]);
        assert_eq!(kernel.answer(), (0, 6, b"statfs".to_vec()), "and no second answer");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_of_a_request_that_is_not_there_is_asked_for_again() {
    let Served { kernel, .. } = attached();
    kernel.interrupt(2);
    let answer = spawn_on_a_thread({
        let kernel = kernel.clone();
        move || kernel.answer()
    });
    assert_eq!(answer.await, (-libc::EAGAIN, 2 | abi::UNIQUE_INTERRUPT, vec![]));
}

#[tokio::test(start_paused = true)]
async fn where_the_kernel_sends_nothing_again_an_interrupt_ends_what_a_dead_server_had() {
    let (kernel, device) = Kernel::pair();
    let session = Session::attach(device, Agreed { flags: 0, ..AGREED }, None).expect("attaches");
    let served = serve(kernel.clone(), session);
    kernel.interrupt(2);
    let answer = spawn_on_a_thread(move || served.kernel.answer());
    assert_eq!(answer.await, (-libc::EINTR, 2, vec![]), "and nothing was said before");
}

/// Not by `spawn_blocking`: the clock must go on.
async fn spawn_on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || tell.send(work()).ok());
    told.await.expect("no panic")
}

#[tokio::test(start_paused = true)]
async fn a_resent_request_is_known_as_such_and_answered_under_its_name() {
    let Served { kernel, .. } = attached();
    let unique = 2 | abi::UNIQUE_RESENT;
    let head = abi::InHeader { unique, opcode: opcode::STATFS, ..abi::InHeader::default() };
    assert!(pvfs_kfuse::decode(&encode(head, &[])).expect("decodes").is_resent());
    play(&kernel, move |kernel| {
        kernel.ask(unique, opcode::STATFS, &[]);
        assert_eq!(kernel.answer(), (0, unique, b"statfs".to_vec()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_server_is_told_once_which_requests_came_again() {
    let (kernel, device) = Kernel::pair();
    let session = Session::attach(device, AGREED, None).expect("attaches");
    assert_eq!(kernel.answer(), (notify::RESEND, 0, vec![]));
    for unique in [2, 6] {
        let read = abi::ReadIn::default();
        kernel.ask(unique | abi::UNIQUE_RESENT, opcode::READ, &[read.as_bytes()]);
    }
    kernel.ask(4 | abi::UNIQUE_RESENT, opcode::STATFS, &[]);
    let Served { kernel, toy, .. } = serve(kernel, session);
    let told = play(&kernel, move |kernel| {
        until(|| toy.came_again.get().is_some());
        kernel.ask(8, opcode::READ, &[abi::ReadIn::default().as_bytes()]);
        until(|| toy.waiting.load(Ordering::SeqCst) == 3);
        toy.came_again.get().cloned().expect("told")
    });
    let mut told = told.await;
    told.retain(|unique| *unique != 4);
    told.sort_unstable();
    assert_eq!(told, [2, 6], "but for those that are answered by then");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_drains_leaves_what_comes_to_the_next() {
    let Served { kernel, toy, control, running } = attached();
    let waiting = toy.waiting.clone();
    play(&kernel, move |kernel| {
        kernel.ask(2, opcode::READ, &[abi::ReadIn::default().as_bytes()]);
        until(|| waiting.load(Ordering::SeqCst) == 1);
    })
    .await;
    control.drain();
    // One for each reading thread.
    kernel.ask(4, opcode::STATFS, &[]);
    kernel.ask(6, opcode::STATFS, &[]);
    spawn_on_a_thread(move || running.join().expect("no panic")).await.expect("ends well");
    toy.permits.add_permits(1);
    let answer = play(&kernel, |kernel| kernel.answer()).await;
    assert_eq!(answer, (0, 2, b"read".to_vec()), "what was begun is brought to its end");
}

#[tokio::test(start_paused = true)]
async fn work_that_is_given_up_is_dropped() {
    let Served { kernel, toy, control, .. } = attached();
    let waiting = toy.waiting.clone();
    play(&kernel, move |kernel| {
        kernel.ask(2, opcode::READ, &[abi::ReadIn::default().as_bytes()]);
        until(|| control.in_flight() == 1);
        assert_eq!(waiting.load(Ordering::SeqCst), 1);
        control.give_up();
        until(|| waiting.load(Ordering::SeqCst) == 0);
        assert_eq!(control.in_flight(), 0);
    })
    .await;
}

#[tokio::test]
async fn the_handshake_takes_what_is_offered_and_refuses_old_kernels() {
    let shake = |offers: Vec<abi::InitIn>| async move {
        let (kernel, device) = Kernel::pair();
        let shaking = spawn_on_a_thread(move || Session::handshake(device, &WANTED, None));
        let answers = spawn_on_a_thread(move || {
            let more = abi::InitInExt { flags2: u32::MAX, unused: [0; 11] };
            offers
                .iter()
                .map(|offer| {
                    kernel.ask(2, opcode::INIT, &[offer.as_bytes(), more.as_bytes()]);
                    kernel.answer()
                })
                .collect::<Vec<_>>()
        });
        tokio::join!(shaking, answers)
    };
    let offer = |major, minor| abi::InitIn { major, minor, max_readahead: 1 << 17, flags: u32::MAX };

    let (session, answers) = shake(vec![offer(8, 1), offer(7, 38)]).await;
    let agreed = session.expect("agrees").agreed();
    assert_eq!((agreed.minor, agreed.request_bytes_max), (38, 1 << 20));
    assert_ne!(agreed.flags & init::HAS_RESEND, 0);
    let first = abi::InitOut::read_from_bytes(&answers[0].2).expect("told our version");
    assert_eq!(first.major, 7);
    let second = abi::InitOut::read_from_bytes(&answers[1].2).expect("agreed");
    assert_eq!((second.max_write, second.max_pages), (1 << 20, 256));

    let (session, answers) = shake(vec![offer(7, 30)]).await;
    assert!(session.expect_err("too old").to_string().contains("7.31 is needed"));
    assert_eq!(answers[0].0, -libc::EPROTO);
}

#[tokio::test]
async fn where_rings_are_not_to_be_had_requests_come_by_the_device_and_a_session_that_has_them_waits() {
    let (kernel, device) = Kernel::pair();
    let wanted = Wanted { flags: init::OVER_IO_URING, ..WANTED };
    // It cannot be mapped.
    let no_memory = || OwnedFd::from(std::io::pipe().expect("a pipe").0);
    let shaking = spawn_on_a_thread(move || Session::handshake(device, &wanted, Some(&no_memory())));
    let answer = spawn_on_a_thread(move || {
        let offer = abi::InitIn { major: 7, minor: 42, max_readahead: 1 << 17, flags: u32::MAX };
        let more = abi::InitInExt { flags2: u32::MAX, unused: [0; 11] };
        kernel.ask(2, opcode::INIT, &[offer.as_bytes(), more.as_bytes()]);
        kernel.answer()
    });
    let (session, answer) = tokio::join!(shaking, answer);
    let session = session.expect("agrees");
    assert!(!session.is_over_rings());
    assert_eq!(session.agreed().flags & init::OVER_IO_URING, 0);
    let told = abi::InitOut::read_from_bytes(&answer.2).expect("agreed");
    assert_eq!(u64::from(told.flags2) << 32 & init::OVER_IO_URING, 0, "the kernel goes by it too");

    let (_kernel, device) = Kernel::pair();
    let agreed = Agreed { flags: init::HAS_RESEND | init::OVER_IO_URING, ..AGREED };
    let refused =
        Session::attach(device, agreed, Some(&no_memory())).expect_err("its requests are elsewhere");
    assert!(refused.to_string().contains("io_uring, over which its requests come, is not to be had"));
}
