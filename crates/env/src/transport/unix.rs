//! The two directions of a Unix stream. Whoever writes waits for room only where there is none.
//!
//! A stream of the runtime's always waits for both; and the kernel tells who waits for room on a Unix socket each time its
//! peer takes bytes off. So a thread would be woken for nothing once for each message.

use rustix::io::retry_on_intr;
use std::{
    io::{self, IoSlice},
    net::Shutdown,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

pub(super) struct Reader(Arc<AsyncFd<UnixStream>>);

/// Ends its direction when it is dropped.
pub(super) struct Writer {
    stream: Arc<AsyncFd<UnixStream>>,
    /// Waits for room.
    room: Option<AsyncFd<OwnedFd>>,
}

/// # Errors
/// It cannot be waited for.
pub(super) fn split(stream: tokio::net::UnixStream) -> io::Result<(Reader, Writer)> {
    let stream = Arc::new(waiting(stream.into_std()?, Interest::READABLE)?);
    Ok((Reader(Arc::clone(&stream)), Writer { stream, room: None }))
}

fn waiting<T: AsFd + AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    #[expect(unsafe_code, reason = "a descriptor must stay what it is while it is waited for")]
    // SAFETY: a stream and a descriptor own theirs, and give it away only when they are dropped.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(io::Error::from)
}

impl Reader {
    /// Tries `receive`, which says [`io::ErrorKind::WouldBlock`] where nothing has come, until it has something.
    pub fn poll_receive<T>(
        &self,
        cx: &mut Context<'_>,
        mut receive: impl FnMut(&UnixStream) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            if let Ok(received) = ready.try_io(|stream| receive(stream.get_ref())) {
                return Poll::Ready(received);
            }
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            #[expect(unsafe_code, reason = "bytes need not be zeroed to be read over")]
            // SAFETY: nothing in it is made uninitialised.
            let unfilled = unsafe { buf.unfilled_mut() };
            let read = ready.try_io(|stream| {
                let read = || rustix::io::read(stream.get_ref(), &mut *unfilled).map(|(read, _)| read.len());
                Ok(retry_on_intr(read)?)
            });
            match read {
                Err(_nothing_came) => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Ok(Ok(len)) => {
                    if len > 0 && len < room {
                        // That was all; what comes from now on is told anew.
                        ready.clear_ready();
                    }
                    #[expect(unsafe_code, reason = "the kernel has written them")]
                    // SAFETY: so many bytes were read into the unfilled part.
                    unsafe {
                        buf.assume_init(len);
                    }
                    buf.advance(len);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl Writer {
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        send: impl Fn(&UnixStream) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let stream = self.stream.get_ref();
        let send = || retry_on_intr(|| send(stream)).map_err(io::Error::from);
        loop {
            let sent = match &self.room {
                None => send(),
                Some(room) => {
                    let mut ready = ready!(room.poll_write_ready(cx))?;
                    let Ok(sent) = ready.try_io(|_| send()) else { continue };
                    sent
                }
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let again = stream.as_fd().try_clone_to_owned()?;
                    self.room = Some(waiting(again, Interest::WRITABLE)?);
                }
                sent => {
                    self.room = None;
                    return Poll::Ready(sent);
                }
            }
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |stream| rustix::io::write(stream, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |stream| rustix::io::writev(stream, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.get_ref().shutdown(Shutdown::Write))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The other end may be gone.
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair() -> ((Reader, Writer), (Reader, Writer)) {
        let (a, b) = tokio::net::UnixStream::pair().expect("a pair");
        (split(a).expect("waits"), split(b).expect("waits"))
    }

    #[tokio::test]
    async fn what_is_written_is_read_also_where_there_is_no_room_for_it_at_once() {
        let ((_, mut writer), (mut reader, _other)) = pair();
        let bytes: Vec<u8> = (0..4_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        let sent = bytes.clone();
        let writing = tokio::spawn(async move {
            for part in sent.chunks(70_000) {
                let (head, tail) = part.split_at(part.len() / 3);
                let written = writer.write_vectored(&[IoSlice::new(head), IoSlice::new(tail)]).await.unwrap();
                writer.write_all(&part[written..]).await.unwrap();
            }
            writer
        });
        let mut read = vec![0; bytes.len()];
        for part in read.chunks_mut(1_234_567) {
            reader.read_exact(part).await.unwrap();
        }
        assert_eq!(read, bytes);
        let writer = writing.await.unwrap();
        assert!(writer.room.is_none(), "nobody waits for room that is there");
        drop(writer);
        assert_eq!(reader.read(&mut read).await.unwrap(), 0, "the direction has ended");
    }

    #[tokio::test]
    async fn who_waits_for_room_learns_that_the_other_end_is_gone() {
        let ((_, mut writer), other) = pair();
        let writing = tokio::spawn(async move {
            let full = vec![7; 1 << 20];
            loop {
                if let Err(error) = writer.write_all(&full).await {
                    return error.kind();
                }
            }
        });
        tokio::task::yield_now().await;
        drop(other);
        assert_eq!(writing.await.unwrap(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_reader_is_woken_by_each_message() {
        let ((mut ours, mut to_them), (mut theirs, mut to_us)) = pair();
        let echo = tokio::spawn(async move {
            let mut bytes = [0; 64];
            for _ in 0..1000 {
                let len = theirs.read(&mut bytes).await.unwrap();
                to_us.write_all(&bytes[..len]).await.unwrap();
            }
        });
        for n in 0..1000_u32 {
            to_them.write_all(&n.to_be_bytes()).await.unwrap();
            assert_eq!(ours.read_u32().await.unwrap(), n);
        }
        echo.await.unwrap();
    }
}
