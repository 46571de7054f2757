//! The machine's own limit for moving bytes from one process to another's files: bare TCP over loopback.
//!
//! As many connections as ranks; at their other ends threads that write what comes to a file each, or send a file. No
//! framing, no checksum, no name space: what a parallel file system on this machine can at best come near to.

use crate::{BenchError, Row, Spec, Workload, cpu::Meter, ranks::Outcome};
use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Barrier,
    time::Instant,
};

const PLACE: &str = "bare TCP";

/// Runs the limits of those phases of `spec` that move bytes in order.
pub(crate) async fn run(spec: &Spec, dir: &Path, tell: &mut impl FnMut(Row)) -> Result<(), BenchError> {
    let wanted = |workload| spec.workloads.contains(&workload);
    if !wanted(Workload::Write) {
        return Ok(());
    }
    let loopback = |source| BenchError::Loopback { dir: dir.to_owned(), source };
    for workload in [Workload::Write, Workload::Read].into_iter().filter(|w| wanted(*w)) {
        let meter = Meter::start(&[]);
        let (send, receive) = tokio::sync::oneshot::channel();
        let (job, dir) = (spec.clone(), dir.to_owned());
        std::thread::spawn(move || {
            let _ = send.send(if workload == Workload::Write { push(&job, &dir) } else { pull(&job, &dir) });
        });
        let outcome = receive.await.map_err(|_| BenchError::RankLost)?.map_err(loopback)?;
        tell(Row::new(spec, workload, PLACE, outcome, meter.stop()));
    }
    for rank in 0..spec.ranks {
        std::fs::remove_file(sink_file(dir, rank)).map_err(loopback)?;
    }
    Ok(())
}

fn sink_file(dir: &Path, rank: u32) -> PathBuf {
    dir.join(format!("pvfs-bench-{}-sink{rank}", std::process::id()))
}

/// One end of one rank's connection. Ends when its bytes are through, or its peer is gone.
type End = fn(&Spec, TcpStream, &Path, &Barrier) -> io::Result<Moved>;

/// How many bytes went, in calls of which length.
#[derive(Default)]
struct Moved {
    bytes: u64,
    latencies_us: Vec<u32>,
}

fn push(spec: &Spec, dir: &Path) -> io::Result<Outcome> {
    transfer(spec, dir, push_near, push_far)
}

fn pull(spec: &Spec, dir: &Path) -> io::Result<Outcome> {
    transfer(spec, dir, pull_near, pull_far)
}

/// Connects all ranks, runs both ends of each in threads, sums the near ends up.
fn transfer(spec: &Spec, dir: &Path, near: End, far: End) -> io::Result<Outcome> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let mut pairs = Vec::new();
    for _ in 0..spec.ranks {
        let near = TcpStream::connect(addr)?;
        near.set_nodelay(true)?;
        pairs.push((near, listener.accept()?.0));
    }
    // The near ends and this thread start together.
    let start = &Barrier::new(pairs.len() + 1);
    std::thread::scope(|scope| {
        let mut ends = Vec::new();
        for (rank, (near_stream, far_stream)) in (0u32..).zip(pairs) {
            let path = sink_file(dir, rank);
            let far_path = path.clone();
            let far = scope.spawn(move || far(spec, far_stream, &far_path, start));
            let near = scope.spawn(move || near(spec, near_stream, &path, start));
            ends.push((near, far));
        }
        start.wait();
        let began = Instant::now();
        let mut outcome = Outcome::default();
        for (near, far) in ends {
            let lost = || io::Error::other("a thread of the loopback limit panicked");
            let moved = near.join().map_err(|_| lost())??;
            far.join().map_err(|_| lost())??;
            outcome.bytes += moved.bytes;
            outcome.calls += moved.latencies_us.len() as u64;
            outcome.latencies_us.extend(moved.latencies_us);
        }
        outcome.secs = began.elapsed().as_secs_f64();
        Ok(outcome)
    })
}

/// Sends; ends when the far end says that all is written.
fn push_near(spec: &Spec, mut stream: TcpStream, _: &Path, start: &Barrier) -> io::Result<Moved> {
    let data = vec![0x5a; buffer_bytes(spec)];
    let mut moved = Moved::default();
    start.wait();
    let began = Instant::now();
    for _ in 0..spec.transfers() {
        if spec.secs_max > 0.0 && began.elapsed().as_secs_f64() >= spec.secs_max {
            break;
        }
        let call = Instant::now();
        stream.write_all(&data)?;
        moved.took(call, data.len());
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    Ok(moved)
}

/// Writes what comes to its file, syncs if asked, says so.
fn push_far(spec: &Spec, mut stream: TcpStream, path: &Path, _: &Barrier) -> io::Result<Moved> {
    let mut file = File::create(path)?;
    let mut data = vec![0; buffer_bytes(spec)];
    loop {
        let got = fill(&mut stream, &mut data)?;
        if got == 0 {
            break;
        }
        file.write_all(&data[..got])?;
    }
    if spec.fsync {
        file.sync_all()?;
    }
    stream.write_all(&[1])?;
    Ok(Moved::default())
}

/// Receives to the end.
fn pull_near(spec: &Spec, mut stream: TcpStream, _: &Path, start: &Barrier) -> io::Result<Moved> {
    let mut data = vec![0; buffer_bytes(spec)];
    let mut moved = Moved::default();
    start.wait();
    let began = Instant::now();
    // A byte for each transfer: the far end sends when it is asked, as an iod would.
    for _ in 0..spec.transfers() {
        if spec.secs_max > 0.0 && began.elapsed().as_secs_f64() >= spec.secs_max {
            break;
        }
        let call = Instant::now();
        stream.write_all(&[1])?;
        let got = fill(&mut stream, &mut data)?;
        moved.took(call, got);
        if got < data.len() {
            break;
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(moved)
}

/// Sends the next part of its file for each byte that comes.
fn pull_far(spec: &Spec, mut stream: TcpStream, path: &Path, _: &Barrier) -> io::Result<Moved> {
    let mut file = File::open(path)?;
    let mut data = vec![0; buffer_bytes(spec)];
    while stream.read(&mut [0])? == 1 {
        let got = fill(&mut file, &mut data)?;
        stream.write_all(&data[..got])?;
        if got < data.len() {
            break;
        }
    }
    Ok(Moved::default())
}

impl Moved {
    fn took(&mut self, since: Instant, bytes: usize) {
        self.bytes += bytes as u64;
        self.latencies_us.push(u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
}

fn buffer_bytes(spec: &Spec) -> usize {
    usize::try_from(spec.transfer_bytes).unwrap_or(1 << 20)
}

/// Reads until `data` is full or the source ends; how much there was.
fn fill(source: &mut impl Read, data: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match source.read(&mut data[done..])? {
            0 => break,
            bytes => done += bytes,
        }
    }
    Ok(done)
}
