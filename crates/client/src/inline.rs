//! Small files whose bytes the mgr keeps. Who is alone with a new file and closes it gives them to the mgr, all at once, in place of
//! sending them to a target and telling the size; who reads the file asks the mgr. Before the first write the mgr
//! hands the bytes to a target; so no client that writes a file knows it as kept by the mgr.

use crate::{
    ClientError,
    client::Core,
    error::Result,
    file::store_failed,
    inode::{Inode, State},
};
use bytes::Bytes;
use pvfs_types::{Cred, DataGen, Errno, Ino, SessionId, Timestamp};
use pvfs_wire::msg::{
    file::{InlineRead, PutInline, ReadInline},
    namespace::Entry,
    session::Mutator,
};
use std::sync::Arc;

/// All of a small file that is being closed.
struct Small {
    data: Vec<u8>,
    /// It may be told in this session alone: in another one others may have seen the file without it.
    session: SessionId,
    cred: Arc<Cred>,
    size_epoch: u32,
    mtime: Option<Timestamp>,
    /// The standing as a writer, which ends.
    recorded: Option<SessionId>,
}

impl Core {
    /// Whether a close of `mine` write handles may give the file's bytes to the mgr.
    pub fn is_small(&self, inode: &Inode, mine: u32) -> bool {
        let bytes_max = self.session.standing().inline_bytes_max;
        inode.with(|state| state.small(mine, bytes_max).is_some())
    }

    /// Closes a small file, where that can be done by giving its bytes to the mgr. `false`: they are to be sent, and their end to be
    /// told.
    ///
    /// As long as that is under way the bytes count as gathered: whoever wants the file waits for it.
    pub async fn put_inline(self: &Arc<Self>, inode: &Arc<Inode>, mine: u32) -> Result<bool> {
        if !self.is_small(inode, mine) {
            return Ok(false);
        }
        let bytes_max = self.session.standing().inline_bytes_max;
        let _turn = inode.sending.lock().await;
        let _record = inode.record.lock().await;
        let Some(small) = inode.with(|state| state.take_small(mine, bytes_max)) else { return Ok(false) };
        let Small { data, session, cred, size_epoch, mtime, recorded } = small;
        let ino = inode.ino;
        let make = |by: Mutator| {
            // Nothing is not taken.
            let data = if by.session == session { data.clone() } else { Vec::new() };
            PutInline { by, ino, data, size_epoch, mtime }
        };
        self.closes.begin();
        let told = self.mutate_here(&cred, make).await;
        self.closes.end();
        let is_kept = told.as_ref().is_ok_and(|entry| entry.attr.is_inline());
        inode.with(|state| {
            state.telling = false;
            if !is_kept {
                state.untold(mtime, recorded);
                state.first_is_on_its_way(false);
                state.is_untouched = false;
            }
        });
        match told {
            Ok(entry) => {
                inode.absorb(&entry);
                if is_kept {
                    self.first_is_sent(inode);
                }
                Ok(is_kept)
            }
            // It may have room for the file without them.
            Err(error) if store_failed(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All bytes of the file, and its data generation, if the mgr keeps them.
    ///
    /// # Errors
    /// `ESTALE` it is gone.
    pub async fn read_inline(self: &Arc<Self>, inode: &Inode) -> Result<Option<(DataGen, Bytes)>> {
        let ino = inode.ino;
        while inode.with(|state| state.is_inline()) {
            match self.ask(&Cred::root(), |caller| ReadInline { caller, ino }).await {
                Ok(InlineRead { entry, data }) => {
                    inode.absorb(&entry);
                    if let Some(data) = data {
                        return Ok(Some((entry.attr.data_gen, data.into())));
                    }
                }
                Err(ClientError::Refused { errno: Errno::ENOENT | Errno::ESTALE, .. }) => {
                    return Err(ClientError::Gone { ino });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// What is known of a file that the mgr is known to keep: until it is recalled nobody writes it.
    pub fn known_inline(&self, ino: Ino) -> Option<Entry> {
        let attr = self.delegations.attr(ino).and_then(|attr| self.known(attr))?;
        attr.is_inline().then_some(Entry { attr, has_writers: false, delegated: None })
    }
}

impl State {
    /// The bytes of a small file of which no target was sent any, if the last of its writers closes `mine` handles, and the session
    /// in which they were written.
    fn small(&self, mine: u32, bytes_max: u64) -> Option<(SessionId, &[u8])> {
        let is_last = self.writes_open <= mine && self.writes_in_flight == 0 && self.doubts().is_none();
        let (session, data) = self.gathered_whole().filter(|_| self.is_untouched && is_last)?;
        let fits = !data.is_empty() && data.len() as u64 <= bytes_max && self.recorded == Some(session);
        fits.then_some((session, data))
    }

    fn take_small(&mut self, mine: u32, bytes_max: u64) -> Option<Small> {
        let (session, data) = self.small(mine, bytes_max)?;
        let data = data.to_vec();
        self.first_is_on_its_way(true);
        (self.dirty, self.telling) = (false, true);
        Some(Small {
            data,
            session,
            cred: self.written_by.clone().unwrap_or_default(),
            size_epoch: self.size_epoch,
            mtime: self.mtime.take(),
            recorded: self.end_record(),
        })
    }
}
