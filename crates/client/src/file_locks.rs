//! Locks of an open file: its own, as those of an open file description (`F_OFD_SETLK`).

use crate::{
    ClientError, File,
    error::Result,
    locking::{LockRequest, TakenLock, TestedLock},
};
use pvfs_types::{LockKind, LockMode, LockOwner};
use std::ops::RangeInclusive;

impl File {
    /// Locks `range` of bytes for this handle, over all clients of the file system; waits for others who hold it, in the order
    /// of coming. What the handle holds of the range already is replaced at once. Dropped before its end, the handle holds
    /// what it held before.
    ///
    /// What others have written before they gave the lock up is read under it. [`File::close`] gives up what is still
    /// locked. A client that is silent for longer than its lease loses its locks to those who want them; the next call
    /// by the handle then fails, once, with [`ClientError::LocksLost`].
    ///
    /// # Errors
    /// `EDEADLK` who holds it waits for this handle; `ENOLCK` too many locks; `EINVAL` the range is empty.
    ///
    /// # Examples
    /// A counter that any number of clients raise:
    /// ```no_run
    /// # async fn example(file: &pvfs_client::File) -> Result<(), pvfs_client::ClientError> {
    /// use pvfs_types::LockMode;
    /// file.lock(LockMode::Write, 0..=7).await?;
    /// let count = file.read_at(0, 8).await?;
    /// let count = u64::from_le_bytes(count.as_ref().try_into().unwrap_or_default());
    /// file.write_at(0, (count + 1).to_le_bytes().to_vec().into()).await?;
    /// file.unlock(0..=7).await
    /// # }
    /// ```
    pub async fn lock(&self, mode: LockMode, range: RangeInclusive<u64>) -> Result<()> {
        let (handle, request) = self.lock_request(mode, &range)?;
        self.lock_client().lock(self.ino(), handle, request).await?.keep();
        Ok(())
    }

    /// As [`File::lock`], but gives `false` where others hold some of it.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(file: &pvfs_client::File) -> Result<(), pvfs_client::ClientError> {
    /// use pvfs_types::LockMode;
    /// if !file.try_lock(LockMode::Write, 0..=u64::MAX).await? {
    ///     eprintln!("somebody else is at work");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_lock(&self, mode: LockMode, range: RangeInclusive<u64>) -> Result<bool> {
        let (handle, request) = self.lock_request(mode, &range)?;
        let taken = self.lock_client().try_lock(self.ino(), handle, request).await?;
        Ok(taken.map(TakenLock::keep).is_some())
    }

    /// Unlocks `range`, whatever of it this handle holds. Dropped, it is brought to its end in the background.
    pub async fn unlock(&self, range: RangeInclusive<u64>) -> Result<()> {
        let (_, request) = self.lock_request(LockMode::Read, &range)?;
        self.lock_client().unlock(self.ino(), request.owner, request.start, request.end).await
    }

    /// The first lock that [`File::try_lock`] would fail for; `None`: it would get it.
    pub async fn test_lock(&self, mode: LockMode, range: RangeInclusive<u64>) -> Result<Option<TestedLock>> {
        let (_, request) = self.lock_request(mode, &range)?;
        self.lock_client().test_lock(self.ino(), &request).await
    }

    /// This handle's number as an owner of locks, and what to ask for.
    fn lock_request(&self, mode: LockMode, range: &RangeInclusive<u64>) -> Result<(u64, LockRequest)> {
        let handle = self.lock_handle();
        self.need(pvfs_wire::Access::default(), "locking")?;
        let (&start, &end) = (range.start(), range.end());
        if range.is_empty() {
            return Err(ClientError::LockRange { start, end });
        }
        let owner = LockOwner { kind: LockKind::Posix, id: handle };
        Ok((handle, LockRequest { owner, start, end, mode, pid: std::process::id() }))
    }
}
