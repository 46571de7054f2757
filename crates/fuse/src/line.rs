//! What keeper and worker say to each other: whole messages over a socket that the worker finds as its standard input,
//! descriptors among them.

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// The longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// The most descriptors of one message.
const DESCRIPTORS_MAX: usize = 3;

/// One end.
#[derive(Debug)]
pub struct Line(OwnedFd);

/// What was said.
#[derive(Debug)]
pub enum Word {
    /// Keeper to worker, first of all: the book, the memory of rings, and the session's descriptor if there is a session.
    Begin { book: OwnedFd, rings: OwnedFd, device: Option<OwnedFd> },
    /// Worker to keeper: mounted on `dir`, the mount's device number being `device`; this is the session's descriptor.
    Mounted { fd: OwnedFd, device: String, dir: String },
    /// Worker to keeper: requests are served.
    Live,
    /// Worker to keeper: it will not be, and why.
    Failed(String),
}

impl Line {
    pub fn pair() -> io::Result<(Line, Line)> {
        let (a, b) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Line(a), Line(b)))
    }

    pub fn from_fd(fd: OwnedFd) -> Line {
        Line(fd)
    }

    pub fn try_clone(&self) -> io::Result<Line> {
        self.0.try_clone().map(Line)
    }

    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    pub fn say_begin(
        &self,
        book: BorrowedFd,
        rings: BorrowedFd,
        device: Option<BorrowedFd>,
    ) -> io::Result<()> {
        let fds: Vec<_> = [book, rings].into_iter().chain(device).collect();
        self.send(b'B', "", &fds)
    }

    pub fn say_mounted(&self, fd: BorrowedFd, device: &str, dir: &str) -> io::Result<()> {
        self.send(b'M', &format!("{device}\n{dir}"), &[fd])
    }

    pub fn say_live(&self) -> io::Result<()> {
        self.send(b'L', "", &[])
    }

    pub fn say_failed(&self, why: &str) -> io::Result<()> {
        let end = (0..=why.len().min(MESSAGE_BYTES_MAX / 2)).rev().find(|&at| why.is_char_boundary(at));
        self.send(b'F', &why[..end.unwrap_or(0)], &[])
    }

    /// Waits for the next word; `None`: the other end is gone.
    pub fn hear(&self) -> io::Result<Option<Word>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let received = rustix::io::retry_on_intr(|| {
            let mut bufs = [IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&self.0, &mut bufs, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        });
        let len = match received {
            Ok(received) => received.bytes,
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let mut fds = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let mut fds = fds.next().into_iter().flatten();
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let Some((tag, text)) = bytes[..len].split_first() else { return Ok(None) };
        let text = std::str::from_utf8(text).map_err(|_| bad())?;
        let word = match tag {
            b'B' => Word::Begin {
                book: fds.next().ok_or_else(bad)?,
                rings: fds.next().ok_or_else(bad)?,
                device: fds.next(),
            },
            b'M' => {
                let (device, dir) = text.split_once('\n').ok_or_else(bad)?;
                let fd = fds.next().ok_or_else(bad)?;
                Word::Mounted { fd, device: device.to_owned(), dir: dir.to_owned() }
            }
            b'L' => Word::Live,
            b'F' => Word::Failed(text.to_owned()),
            _ => return Err(bad()),
        };
        Ok(Some(word))
    }

    fn send(&self, tag: u8, text: &str, fds: &[BorrowedFd]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let tag = [tag];
        let parts = [IoSlice::new(&tag), IoSlice::new(text.as_bytes())];
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(self.0.as_fd(), &parts, &mut ancillary, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Read};

    #[test]
    fn words_arrive_whole_with_their_descriptors_and_the_end_is_heard() {
        let (keeper, worker) = Line::pair().expect("a pair");
        let null = File::open("/dev/null").expect("opens");
        let zero = File::open("/dev/zero").expect("opens");
        keeper.say_begin(null.as_fd(), null.as_fd(), None).expect("says");
        keeper.say_begin(null.as_fd(), null.as_fd(), Some(zero.as_fd())).expect("says");
        assert!(matches!(worker.hear(), Ok(Some(Word::Begin { device: None, .. }))));
        let Ok(Some(Word::Begin { device: Some(device), .. })) = worker.hear() else { panic!("both") };
        let mut byte = [1];
        File::from(device).read_exact(&mut byte).expect("it is /dev/zero");
        assert_eq!(byte, [0]);
        worker.say_mounted(null.as_fd(), "0:45", "/mnt/a b").expect("says");
        worker.say_live().expect("says");
        worker.say_failed(&"ä".repeat(20_000)).expect("cut where it is too long");
        drop(worker);
        let Ok(Some(Word::Mounted { device, dir, .. })) = keeper.hear() else { panic!("mounted") };
        assert_eq!((device.as_str(), dir.as_str()), ("0:45", "/mnt/a b"));
        assert!(matches!(keeper.hear(), Ok(Some(Word::Live))));
        assert!(matches!(keeper.hear(), Ok(Some(Word::Failed(why))) if why.starts_with("ää")));
        assert!(matches!(keeper.hear(), Ok(None)));
    }
}
