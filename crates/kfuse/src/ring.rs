//! Requests over `io_uring`: one ring and one thread for each processor, which the kernel gives the requests of that
//! processor's threads.
//!
//! An entry holds a request until it is answered; the command that brings the answer takes the next request into the same
//! entry. Interrupts, forgets and notifications go by the device all the same.
//!
//! What a process has when it dies lies in its entries ([`area`]), and the next one goes on with it.

mod area;
mod queue;

pub(crate) use area::Held;
pub(crate) use queue::Queue;

use crate::{
    abi::{self, UNIQUE_RESENT, ring},
    buffer::Buffer,
    device::Device,
    notify,
    request::{Malformed, Op, Request},
    way::Way,
};
use area::{Area, Left};
use io_uring::{
    IoUring, cqueue, opcode,
    squeue::Entry128,
    types::{Fd, Fixed},
};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::{
    fmt, fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tracing::debug;
use zerocopy::IntoBytes;

/// As many entries are made at first, and more at once, for each ring; fewer where there are many rings.
const GROWS_BY_MAX: usize = 4;
/// As many entries of all rings, but one of each at least, are there as a whole: see [`Area::map`].
const WHOLE_IN_ALL: usize = 64;
/// Commands that are under way to the kernel at once.
const COMMANDS: u32 = 64;

/// In the place of an entry's number: the bell, and the watch.
const BELL: u64 = u64::MAX;
const WATCH: u64 = u64::MAX - 1;
/// Of the registered files.
const DEVICE: Fixed = Fixed(0);
const BELL_FILE: Fixed = Fixed(1);

/// One processor's ring.
pub(crate) struct Ring {
    uring: IoUring<Entry128>,
    /// It has nothing to do; see [`Ring::watch`].
    idle: IoUring,
    device: Arc<Device>,
    queue: Arc<Queue>,
    area: Arc<Area>,
    qid: u16,
    /// Entries that are made at once.
    grows_by: usize,
    /// Entries that are the kernel's and hold no request that this process knows of.
    free: usize,
    /// Entries that take part.
    live: usize,
    /// The kernel takes no more entries: the session ends.
    over: bool,
    /// Where the file system is mounted.
    dir: Option<Arc<Path>>,
    /// Answers among the commands that the kernel is to be given: entries and commit ids.
    committed: Vec<(usize, u64)>,
    /// Room for the numbers, results and flags of commands that are done.
    completed: Vec<(u64, i32, u32)>,
}

/// What takes the requests of a ring.
pub(crate) trait Take {
    fn take(&self, request: Request, way: Way);
    fn refuse(&self, malformed: Malformed, way: Way);
    /// What a former process had of this source was taken, all of it.
    fn gave_all(&self);
}

/// A ring for each processor that may ever be there, as the kernel wants it, with the memory of `file`.
///
/// # Errors
/// The kernel does without `io_uring`, or keeps it from this process.
pub(crate) fn prepare(device: &Arc<Device>, file: &OwnedFd, request_bytes_max: u32) -> io::Result<Vec<Ring>> {
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let queues = count(&possible).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let payload_bytes = usize::try_from(request_bytes_max).map_err(|_| io::ErrorKind::InvalidInput)?;
    let payload_bytes = payload_bytes.max(abi::MIN_READ_BUFFER);
    let whole = (WHOLE_IN_ALL / usize::from(queues.max(1))).max(1);
    let grows_by = (whole / 2).clamp(1, GROWS_BY_MAX);
    let ring = |qid| Ring::new(device, qid, Area::map(file, qid, payload_bytes, whole)?, grows_by);
    (0..queues).map(ring).collect()
}

/// How many numbers a list such as `0-3,8` holds.
fn count(list: &str) -> Option<u16> {
    list.trim().split(',').try_fold(0_u16, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Ring").field("qid", &self.qid).finish_non_exhaustive()
    }
}

impl Ring {
    fn new(device: &Arc<Device>, qid: u16, area: Arc<Area>, grows_by: usize) -> io::Result<Ring> {
        let uring: IoUring<Entry128> = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_r_disabled()
            .setup_cqsize(COMMANDS * 16)
            .build(COMMANDS)?;
        let queue = Arc::new(Queue::new()?);
        uring.submitter().register_files(&[device.as_raw_fd(), queue.bell().as_raw_fd()])?;
        let (idle, device) = (IoUring::new(1)?, Arc::clone(device));
        Ok(Ring {
            uring,
            idle,
            device,
            queue,
            area,
            qid,
            grows_by,
            free: 0,
            live: 0,
            over: false,
            dir: None,
            committed: Vec::new(),
            completed: Vec::new(),
        })
    }

    pub fn set_dir(&mut self, dir: Arc<Path>) {
        self.dir = Some(dir);
    }

    /// Serves the requests of this ring until the session ends, those of a former process first. Leaves requests where they
    /// are once `draining`.
    pub fn run(mut self, take: &impl Take, mut buffer: Buffer, draining: &AtomicBool) -> io::Result<()> {
        self.uring.submitter().register_enable_rings()?;
        self.pin();
        self.watch()?;
        self.arm_bell()?;
        self.begin(take, &mut buffer, draining)?;
        take.gave_all();
        let mut answered = Vec::new();
        while self.live > 0 {
            self.queue.rest(&mut answered);
            for held in answered.drain(..) {
                self.commit(held)?;
            }
            self.submit(1)?;
            self.queue.awake();
            self.reap(take, &mut buffer, draining)?;
            if !self.over && self.free <= self.grows_by / 2 {
                self.grow()?;
                self.call_waiting();
            }
        }
        Ok(())
    }

    /// Gives the kernel its commands, and waits for that many of them to be done.
    fn submit(&mut self, wait_for: usize) -> io::Result<()> {
        match self.uring.submit_and_wait(wait_for) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
        if self.uring.submission().is_empty() {
            for (entry, commit_id) in self.committed.drain(..) {
                self.area.set_taken(entry, commit_id);
            }
        }
        Ok(())
    }

    /// Goes through the commands that are done.
    fn reap(&mut self, take: &impl Take, buffer: &mut Buffer, draining: &AtomicBool) -> io::Result<()> {
        let mut completed = std::mem::take(&mut self.completed);
        let entries = self.uring.completion();
        completed.extend(entries.map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        for (id, result, flags) in completed.drain(..) {
            match id {
                BELL if cqueue::more(flags) => {}
                BELL => self.arm_bell()?,
                WATCH => debug!(self.qid, result, "the watch ended"),
                entry => {
                    self.free = self.free.saturating_sub(1);
                    let entry = usize::try_from(entry).unwrap_or(usize::MAX);
                    self.complete(entry, result, take, buffer, draining)?;
                }
            }
        }
        self.completed = completed;
        Ok(())
    }

    /// Takes up what a former process left, and makes the first entries.
    fn begin(&mut self, take: &impl Take, buffer: &mut Buffer, draining: &AtomicBool) -> io::Result<()> {
        let inherited = self.area.entries();
        self.area.fetch_all()?;
        let mut asked = Vec::new();
        for entry in 0..inherited {
            let left = self.area.left(entry);
            if left == Left::Nothing {
                self.register(entry)?;
                continue;
            }
            #[expect(unsafe_code, reason = "takes what the kernel gave another process")]
            // SAFETY: the process that had the entry is gone, and with it the command for it.
            let held = unsafe { Held::new(&self.area, entry) };
            self.live += 1;
            match left {
                Left::Answered => self.commit(held)?,
                Left::Nothing | Left::Asked => asked.push(held),
            }
        }
        // Those that the kernel had already say so at once.
        self.submit(0)?;
        self.reap(take, buffer, draining)?;
        if self.free < self.grows_by {
            self.grow()?;
        }
        if inherited > 0 {
            self.call_waiting();
        }
        debug!(self.qid, self.live, asked = asked.len(), "a ring is served");
        for mut held in asked {
            held.restore();
            self.receive(held, UNIQUE_RESENT, take, buffer);
        }
        Ok(())
    }

    /// A command for `entry` is done.
    fn complete(
        &mut self,
        entry: usize,
        result: i32,
        take: &impl Take,
        buffer: &mut Buffer,
        draining: &AtomicBool,
    ) -> io::Result<()> {
        if result == -libc::ENOENT {
            // The answer was there already, and the entry is one that no command will ever take a request into.
            self.live -= 1;
            return self.register(entry);
        }
        if result < 0 {
            debug!(self.qid, entry, errno = -result, "an entry takes no more requests");
            self.live -= 1;
            self.over = true;
        } else if entry < self.area.entries() && !draining.load(Ordering::SeqCst) {
            #[expect(unsafe_code, reason = "takes what the kernel gives")]
            // SAFETY: the entry's one command has just completed.
            let held = unsafe { Held::new(&self.area, entry) };
            self.receive(held, 0, take, buffer);
        }
        Ok(())
    }

    fn receive(&self, held: Held, mark: u64, take: &impl Take, buffer: &mut Buffer) {
        let unique = held.commit_id | mark;
        let request = held.read(buffer).and_then(|len| Request::decode(buffer, len));
        let way = Way::Ring(Arc::clone(&self.queue), held);
        match request {
            Ok(Request { op: Op::StatFs, pid, .. }) if self.queue.is_caller(pid) => way.release(),
            Ok(request) => take.take(Request { unique, ..request }, way),
            Err(malformed) => take.refuse(Malformed { unique: Some(unique), ..malformed }, way),
        }
    }

    /// Hands the answer to the kernel, and the entry for the next request.
    fn commit(&mut self, held: Held) -> io::Result<()> {
        let command = self.command(ring::COMMIT_AND_FETCH, held.commit_id, None).user_data(held.entry as u64);
        self.committed.push((held.entry, held.commit_id));
        // It is the kernel's from here on.
        drop(held);
        self.free += 1;
        self.push(&command)
    }

    /// Adds entries.
    fn grow(&mut self) -> io::Result<()> {
        let before = self.area.entries();
        let after = self.area.grow(self.grows_by)?;
        (before..after).try_for_each(|entry| self.register(entry))
    }

    fn register(&mut self, entry: usize) -> io::Result<()> {
        let parts = self.area.parts(entry);
        let command = self.command(ring::REGISTER, 0, Some(&parts)).user_data(entry as u64);
        self.push(&command)?;
        // `parts` is read now.
        self.submit(0)?;
        self.free += 1;
        self.live += 1;
        Ok(())
    }

    /// The kernel gives a request that found no entry to the next one whose answer comes, and to no new one. So it is provoked
    /// to send some that can be answered at once.
    fn call_waiting(&mut self) {
        let (Some(dir), queue) = (self.dir.clone(), Arc::clone(&self.queue)) else { return };
        let provoked =
            notify::provoke(&self.device, dir, self.grows_by, move |thread| queue.set_caller(thread));
        if let Err(error) = provoked {
            debug!(self.qid, %error, "nobody calls requests that wait");
        }
    }

    fn command(&self, op: u32, commit_id: u64, parts: Option<&[libc::iovec; 2]>) -> Entry128 {
        const LEN_AT: usize = 24;
        let command = abi::RingCommand { commit_id, qid: self.qid, ..abi::RingCommand::default() };
        let mut bytes = [0; 80];
        bytes[..size_of_val(&command)].copy_from_slice(command.as_bytes());
        let built = opcode::UringCmd80::new(DEVICE, op).cmd(bytes);
        let Some(parts) = parts else { return built.build() };
        let mut entry = built.addr(Some(parts.as_ptr() as u64)).build();
        #[expect(unsafe_code, reason = "the crate sets no length of such a command")]
        // SAFETY: the entry begins with the kernel's `io_uring_sqe`, in which this 32 bit field is `len`.
        unsafe {
            (&raw mut entry).byte_add(LEN_AT).cast::<u32>().write(2);
        }
        entry
    }

    /// Has the kernel take the entries back when this thread is killed, while it can still copy requests for it: it does so
    /// for a thread that waits for another ring, and else only later, and loses what it was about to copy.
    fn watch(&mut self) -> io::Result<()> {
        let idle = Fd(self.idle.as_raw_fd());
        let poll = opcode::PollAdd::new(idle, u32::from(libc::POLLIN.cast_unsigned())).build();
        self.push(&poll.user_data(WATCH).into())
    }

    fn arm_bell(&mut self) -> io::Result<()> {
        let poll =
            opcode::PollAdd::new(BELL_FILE, u32::from(libc::POLLIN.cast_unsigned())).multi(true).build();
        self.push(&poll.user_data(BELL).into())
    }

    /// Puts a command into the queue for the next submission.
    fn push(&mut self, command: &Entry128) -> io::Result<()> {
        loop {
            #[expect(unsafe_code, reason = "the kernel gets addresses")]
            // SAFETY: the files are open as long as this; so is the memory of an entry; that of `parts` until the
            // submission, which `register` waits for.
            if unsafe { self.uring.submission().push(command) }.is_ok() {
                return Ok(());
            }
            self.submit(0)?;
        }
    }

    /// On the processor whose requests it serves, who asks wakes it with little ado.
    fn pin(&self) {
        let mut only = CpuSet::new();
        if usize::from(self.qid) < CpuSet::MAX_CPU {
            only.set(self.qid.into());
            if let Err(error) = sched_setaffinity(None, &only) {
                debug!(self.qid, %error, "not pinned");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_as_the_kernel_lists_them() {
        for (list, n) in [("0\n", Some(1)), ("0-1\n", Some(2)), ("0-3,8,10-11", Some(7))] {
            assert_eq!(count(list), n, "{list}");
        }
        for bad in ["", "a", "3-1", "0-", "0-65535"] {
            assert_eq!(count(bad), None, "{bad}");
        }
    }
}
