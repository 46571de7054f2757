//! What a server tells the kernel of its own accord.

use crate::{
    abi::{self, notify},
    device::Device,
};
use std::{io, path::Path, sync::Arc};
use zerocopy::IntoBytes;

/// Tells the kernel that what it holds is old, or that it is to send requests again.
#[derive(Clone, Debug)]
pub struct Notifier {
    device: Arc<Device>,
}

impl Notifier {
    pub(crate) fn new(device: Arc<Device>) -> Notifier {
        Notifier { device }
    }

    /// The attributes of `node` are old. False: the kernel does not hold it.
    pub fn attributes_changed(&self, node: u64) -> io::Result<bool> {
        // A negative offset: no pages, which might have to be waited for.
        inval_inode(&self.device, &abi::InvalInodeOut { ino: node, off: -1, len: 0 })
    }

    /// Tells what may have to wait for requests under way, and gives what `tell` gives.
    ///
    /// No signal ends such a wait, SIGKILL neither, but only an answer; and if this process is killed, that is for the next one to
    /// give. So the wait is a thread's of its own, which shares no descriptors with this process: by them others see that
    /// it has died, though the kernel shows it until that thread is free.
    ///
    /// # Errors
    /// There is no thread to be had. `tell` is not called then.
    pub async fn apart<T: Send + 'static>(
        &self,
        tell: impl FnOnce(&Waiting<'_>) -> T + Send + 'static,
    ) -> io::Result<T> {
        let device = Arc::clone(&self.device);
        let thread = std::thread::Builder::new().name("fuse-notice".to_owned()).spawn(move || {
            #[expect(unsafe_code, reason = "the thread's own table of descriptors is what this is for")]
            // SAFETY: of this thread's copies of the process's descriptors only the device's is used from here on, and it is
            // closed by nobody before `device` is dropped.
            unsafe { device.keep_alone() }?;
            Ok(tell(&Waiting { device: &device }))
        })?;
        // Joined by a thread of the runtime: that one cannot wake it without descriptors.
        let joined = tokio::task::spawn_blocking(|| thread.join()).await.map_err(io::Error::other)?;
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Every request that was read and not answered comes again.
    pub(crate) fn resend(&self) -> io::Result<()> {
        self.device.notify(notify::RESEND, &[])
    }
}

/// What may have to wait.
#[derive(Debug)]
pub struct Waiting<'a> {
    device: &'a Device,
}

impl Waiting<'_> {
    /// The attributes of `node` and its bytes from `offset` on are old. Waits for reads of those bytes, and until what programs
    /// have changed of them in memory is written back. False: the kernel does not hold it.
    pub fn data_changed(&self, node: u64, offset: u64) -> io::Result<bool> {
        self.range_changed(node, offset, 0)
    }

    /// As [`Waiting::data_changed`], of `len` bytes from `offset` on.
    pub fn range_changed(&self, node: u64, offset: u64, len: u64) -> io::Result<bool> {
        let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        inval_inode(self.device, &abi::InvalInodeOut { ino: node, off: signed(offset), len: signed(len) })
    }
}

fn inval_inode(device: &Device, out: &abi::InvalInodeOut) -> io::Result<bool> {
    found(device.notify(notify::INVAL_INODE, &[out.as_bytes()]))
}

/// Has the kernel send that many requests (`STATFS`) of the file system on `dir`, one after the other, on the processor that
/// this runs on. Their caller is the thread that `tell` is told of.
///
/// That is one like those of [`Notifier::apart`], and for the same reason.
pub(crate) fn provoke(
    device: &Arc<Device>,
    dir: Arc<Path>,
    requests: usize,
    tell: impl FnOnce(u32) + Send + 'static,
) -> io::Result<()> {
    let device = Arc::clone(device);
    let calls = move || {
        #[expect(unsafe_code, reason = "the thread's own table of descriptors is what this is for")]
        // SAFETY: no descriptor is used from here on, and the device's is closed by nobody before `device` is dropped.
        if unsafe { device.keep_alone() }.is_ok() {
            tell(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned());
            for _ in 0..requests {
                // What it says is of no interest.
                let _ = rustix::fs::statfs(&*dir);
            }
        }
    };
    std::thread::Builder::new().name("fuse-call".to_owned()).spawn(calls).map(drop)
}

/// What the kernel does not hold need not be dropped.
fn found(told: io::Result<()>) -> io::Result<bool> {
    match told {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
