//! A line beside a stream of this machine, over which a daemon passes descriptors to a client.
//!
//! The client makes it, and sends the daemon's end along with the stream's first byte. What is passed has a number, by which the
//! client knows what it asked for. The line breaks in the moment in which the daemon dies.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

/// How many descriptors are passed at once.
const PASSED: usize = 2;
/// More than this that nobody has taken is thrown away: who asked for it has gone.
const UNTAKEN_MAX: usize = 64;

/// The client's end.
pub struct Line {
    fd: OwnedFd,
    untaken: Mutex<Vec<(u64, [OwnedFd; PASSED])>>,
}

/// The daemon's end.
#[derive(Debug)]
pub struct LineEnd(OwnedFd);

/// Makes a line.
pub(super) fn line() -> io::Result<(Line, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (fd, end) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok((Line { fd, untaken: Mutex::default() }, end))
}

impl LineEnd {
    pub(super) fn new(fd: OwnedFd) -> LineEnd {
        LineEnd(fd)
    }

    /// Passes `fds` under `number`. Never waits.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: the client takes nothing.
    pub fn pass(&self, number: u64, fds: [BorrowedFd<'_>; PASSED]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PASSED))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let number = number.to_be_bytes();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(&number)], &mut control, flags)?;
        Ok(())
    }
}

impl Line {
    /// What came under `number`; `None`: nothing did.
    pub fn take(&self, number: u64) -> Option<[OwnedFd; PASSED]> {
        let mut untaken = self.untaken.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(passed) = self.receive() {
            if untaken.len() == UNTAKEN_MAX {
                untaken.remove(0);
            }
            untaken.extend(passed);
        }
        let found = untaken.iter().position(|(came, _)| *came == number)?;
        Some(untaken.swap_remove(found).1)
    }

    /// The daemon has died, or ended the connection.
    pub fn is_broken(&self) -> bool {
        let mut polled = [PollFd::new(&self.fd, PollFlags::RDHUP)];
        match poll(&mut polled, Some(&Timespec::default())) {
            Ok(0) => false,
            Ok(_) | Err(_) => true,
        }
    }

    /// The next message; `None`: it is of no form.
    ///
    /// # Errors
    /// There is none.
    fn receive(&self) -> io::Result<Option<(u64, [OwnedFd; PASSED])>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PASSED))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut number = [0; size_of::<u64>()];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let came = loop {
            match recvmsg(&self.fd, &mut [IoSliceMut::new(&mut number)], &mut control, flags) {
                Err(Errno::INTR) => {}
                came => break came?,
            }
        };
        let fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        match (came.bytes, <[OwnedFd; PASSED]>::try_from(fds)) {
            // The end of the line.
            (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
            (len, Ok(fds)) if len == number.len() => Ok(Some((u64::from_be_bytes(number), fds))),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        os::fd::AsFd as _,
    };

    fn pair() -> (Line, LineEnd) {
        let (line, end) = line().unwrap();
        (line, LineEnd::new(end))
    }

    /// Something to pass, and what has its other end.
    fn pipe() -> (io::PipeReader, io::PipeWriter) {
        io::pipe().unwrap()
    }

    #[test]
    fn descriptors_come_under_their_numbers_in_any_order() {
        let (line, end) = pair();
        assert!(line.take(1).is_none(), "nothing came yet");
        let (reader, mut writer) = pipe();
        end.pass(7, [reader.as_fd(), writer.as_fd()]).unwrap();
        end.pass(8, [writer.as_fd(), reader.as_fd()]).unwrap();
        let [_, _] = line.take(8).expect("it came");
        assert!(line.take(8).is_none(), "once");
        let [read, _] = line.take(7).expect("it came before");
        writer.write_all(b"x").unwrap();
        let mut byte = [0];
        std::fs::File::from(read).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn the_line_breaks_with_the_daemon_s_end_and_what_came_before_can_be_taken() {
        let (line, end) = pair();
        assert!(!line.is_broken());
        let (reader, writer) = pipe();
        end.pass(1, [reader.as_fd(), writer.as_fd()]).unwrap();
        assert!(!line.is_broken(), "something is there to be taken");
        drop(end);
        assert!(line.is_broken());
        assert!(line.take(1).is_some());
        assert!(line.take(2).is_none());
    }

    #[test]
    fn a_client_that_takes_nothing_stops_no_daemon() {
        let (line, end) = pair();
        let (reader, writer) = pipe();
        let mut passed = 0;
        while end.pass(passed, [reader.as_fd(), writer.as_fd()]).is_ok() {
            passed += 1;
            assert!(passed < 100_000, "it fills up at some time");
        }
        let held = || line.untaken.lock().unwrap().len();
        assert!(line.take(u64::MAX).is_none());
        assert!(held() <= UNTAKEN_MAX && line.take(passed - 1).is_some(), "the last ones are kept");
    }

    #[test]
    fn what_is_of_no_form_is_passed_over() {
        let (line, end) = pair();
        rustix::net::send(&end.0, b"short", SendFlags::NOSIGNAL).unwrap();
        rustix::net::send(&end.0, &[0; 8], SendFlags::NOSIGNAL).unwrap();
        let (reader, writer) = pipe();
        end.pass(3, [reader.as_fd(), writer.as_fd()]).unwrap();
        assert!(line.take(0).is_none());
        assert!(line.take(3).is_some());
    }
}
