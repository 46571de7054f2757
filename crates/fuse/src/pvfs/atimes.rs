//! Times of access (`relatime`, `strictatime`): noted with each read, told to the mgr in the background, many in one message, at
//! most once a second. Nobody waits for it; what was noted last is lost with the mount.

use super::PvfsFs;
use crate::options::{Atimes, MountOptions};
use pvfs_client::File;
use pvfs_types::{Ino, Timestamp, limits::ATIMES_MAX, wants_relatime};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::Notify;
use tracing::debug;

const GATHER: Duration = Duration::from_secs(1);
/// More are not noted while the mgr is away.
const NOTED_MAX: usize = 8 * ATIMES_MAX;

/// What was read and not told yet.
pub(super) struct Noted {
    which: Atimes,
    dirs: bool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    read: Mutex<BTreeMap<Ino, Timestamp>>,
    noted: Notify,
}

impl Noted {
    pub fn new(which: Atimes, dirs: bool) -> Noted {
        Noted { which, dirs, shared: Arc::default() }
    }

    /// Times of access are kept.
    pub fn are_kept(&self) -> bool {
        self.which != Atimes::No
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<Ino, Timestamp>) -> T) -> T {
        act(&mut self.shared.read.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, ino: Ino, at: Timestamp) {
        self.with(|read| {
            if read.len() < NOTED_MAX || read.contains_key(&ino) {
                read.insert(ino, at);
            }
        });
        self.shared.noted.notify_one();
    }

    fn take(&self) -> Vec<(Ino, Timestamp)> {
        self.with(|read| {
            let rest = read.keys().nth(ATIMES_MAX).copied().map(|ino| read.split_off(&ino));
            std::mem::replace(read, rest.unwrap_or_default()).into_iter().collect()
        })
    }
}

impl Drop for Noted {
    /// Ends the task.
    fn drop(&mut self) {
        self.shared.noted.notify_one();
    }
}

impl PvfsFs {
    /// Has times of access kept as `options` say. Before the mount is served.
    #[must_use]
    pub fn with_atimes(mut self, options: &MountOptions) -> PvfsFs {
        let which = if options.read_only || !options.atime { Atimes::No } else { options.atimes };
        self.atimes = Noted::new(which, options.diratime);
        self
    }

    pub(super) fn tell_atimes(self: &Arc<Self>) {
        if self.atimes.which == Atimes::No {
            return;
        }
        let (fs, shared) = (Arc::downgrade(self), Arc::clone(&self.atimes.shared));
        pvfs_env::task::spawn(async move {
            loop {
                shared.noted.notified().await;
                tokio::time::sleep(GATHER).await;
                let Some(fs) = Weak::upgrade(&fs) else { return };
                fs.tell_noted().await;
            }
        });
    }

    async fn tell_noted(&self) {
        loop {
            let read = self.atimes.take();
            if read.is_empty() {
                return;
            }
            let told = self.client.touch_atimes(&read, self.atimes.which == Atimes::Strict).await;
            if let Err(error) = told {
                debug!(%error, "times of access are lost");
            }
            // The kernel did not change them.
            let Some(notifier) = self.notifier.get() else { continue };
            for (ino, _) in read {
                // One that it does not know needs no telling.
                let _ = notifier.attributes_changed(self.node(ino).0);
            }
        }
    }

    /// `file` was read. `is_first`: by this open file.
    pub(super) fn was_read(&self, file: &File, is_first: bool) {
        let at = self.client.now();
        let is_due = match self.atimes.which {
            Atimes::No => false,
            Atimes::Strict => true,
            Atimes::Relative => {
                let attr = &file.at_open().attr;
                is_first && wants_relatime(attr.atime, attr.mtime, attr.ctime, at)
            }
        };
        if is_due {
            self.atimes.add(file.ino(), at);
        }
    }

    /// A directory was listed, or a symbolic link followed.
    pub(super) fn was_looked_at(&self, ino: Ino, is_dir: bool) {
        if self.atimes.which != Atimes::No && (self.atimes.dirs || !is_dir) {
            self.atimes.add(ino, self.client.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_takes_as_many_as_it_may_and_the_newest_time_of_each() {
        let noted = Noted::new(Atimes::Strict, true);
        for ino in 0..=ATIMES_MAX as u64 {
            noted.add(Ino(ino), Timestamp::from_millis(1));
        }
        noted.add(Ino(3), Timestamp::from_millis(2));
        let first = noted.take();
        assert_eq!((first.len(), first[3]), (ATIMES_MAX, (Ino(3), Timestamp::from_millis(2))));
        assert_eq!(noted.take(), [(Ino(ATIMES_MAX as u64), Timestamp::from_millis(1))]);
        assert_eq!(noted.take(), []);
    }
}
