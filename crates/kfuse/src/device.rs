//! The connected `/dev/fuse` descriptor: whole requests in, whole answers out.

use crate::{
    abi::{OutHeader, notify},
    buffer::Buffer,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, retry_on_intr},
    thread::{UnshareFlags, unshare_unsafe},
};
use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, OwnedFd, RawFd},
};
use zerocopy::IntoBytes;

/// One session's way to the kernel. Any number of threads may read and write it at once; each read gives a whole
/// request.
#[derive(Debug)]
pub(crate) struct Device {
    fd: OwnedFd,
}

/// What a read of the device brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A request of that many bytes.
    Request(usize),
    /// The file system was unmounted, or the session aborted: there will be no more.
    End,
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Device {
    pub fn new(fd: OwnedFd) -> Device {
        Device { fd }
    }

    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Gives the calling thread a table of descriptors of its own, with this one alone in it.
    ///
    /// # Safety
    /// From here on the thread uses no other descriptor.
    #[expect(unsafe_code, reason = "no safe interface can say which descriptors a thread uses")]
    pub unsafe fn keep_alone(&self) -> io::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { unshare_unsafe(UnshareFlags::FILES) }?;
        let mine = u32::try_from(self.fd.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let close = |first: u32, last: u32| {
            // SAFETY: likewise: what is closed is this thread's copy.
            if first <= last && unsafe { libc::close_range(first, last, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        };
        close(mine + 1, u32::MAX)?;
        mine.checked_sub(1).map_or(Ok(()), |below| close(0, below))
    }

    /// Waits for the next request.
    pub fn receive(&self, buffer: &mut Buffer) -> io::Result<Received> {
        loop {
            return match rustix::io::read(&self.fd, &mut **buffer) {
                Ok(len) => Ok(Received::Request(len)),
                // The caller gave up before the request was read; or nothing is there yet.
                Err(Errno::INTR | Errno::NOENT) => continue,
                Err(Errno::AGAIN) => {
                    let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
                    match poll(&mut fds, None) {
                        Ok(_) | Err(Errno::INTR) => continue,
                        Err(errno) => Err(errno.into()),
                    }
                }
                Err(Errno::NODEV | Errno::CONNABORTED) => Ok(Received::End),
                Err(errno) => Err(errno.into()),
            };
        }
    }

    /// Whether something is there to be received now.
    pub fn has_more(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let ready = retry_on_intr(|| poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
        Ok(ready > 0)
    }

    /// Answers the request `unique`: with `parts`, one after the other, or the (positive) `errno`.
    ///
    /// # Errors
    /// `ENOENT`: nobody waits for it any more.
    pub fn answer(&self, unique: u64, answer: Result<&[&[u8]], i32>) -> io::Result<()> {
        match answer {
            Ok(parts) => self.send(unique, 0, parts),
            // The kernel takes no number outside of these.
            Err(errno) => self.send(unique, -errno.clamp(1, 511), &[]),
        }
    }

    /// Tells the kernel something it has not asked for.
    pub fn notify(&self, code: i32, parts: &[&[u8]]) -> io::Result<()> {
        debug_assert!((notify::POLL..=notify::PRUNE).contains(&code));
        self.send(0, code, parts)
    }

    fn send(&self, unique: u64, error: i32, parts: &[&[u8]]) -> io::Result<()> {
        let len = size_of::<OutHeader>() + parts.iter().map(|part| part.len()).sum::<usize>();
        let len = u32::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        let head = OutHeader { len, error, unique };
        // At most three parts occur; more would go too, only not from the stack.
        let mut slices = [IoSlice::new(&[]); 4];
        slices[0] = IoSlice::new(head.as_bytes());
        let Some(rest) = slices.get_mut(1..=parts.len()) else {
            return self.send(unique, error, &[&parts.concat()]);
        };
        for (slice, part) in rest.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        let sent = retry_on_intr(|| rustix::io::writev(&self.fd, &slices[..=parts.len()]))?;
        // The kernel takes a whole message or none.
        if u32::try_from(sent) == Ok(len) { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}
