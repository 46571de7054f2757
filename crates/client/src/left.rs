//! Files that a predecessor had closed and not told of: the session counts as their writer, and nobody has them open.
//!
//! It may have died before it said that they are written no more, or while the mgr's store took no report. The mgr knows which
//! files these are. They count as open until each is closed once more, so that whoever asks this client for one is told what the
//! targets hold.

use crate::{
    ClientError,
    calls::{pause_after, refused, shut_down},
    client::Core,
    error::Result,
    inode::{OpenCount, State},
    session::CALLS_COME_AGAIN,
};
use futures_util::{StreamExt, stream};
use pvfs_types::Ino;
use pvfs_wire::{Access, msg::file::ListWrites};
use std::sync::Arc;
use tracing::debug;

/// So many are closed at once.
const AT_ONCE: usize = 16;

impl Core {
    /// Counts as open what the session counts as a writer of. To be called before the mgr may ask for claims.
    pub async fn hold_left(self: &Arc<Self>) -> Result<Vec<OpenCount>> {
        let (mut left, mut after) = (Vec::new(), Ino(0));
        loop {
            let request = ListWrites { session: self.session.standing().id, after };
            let page = self.mgr.call(&request).await.map_err(refused::<ListWrites>)?;
            for &ino in &page.inos {
                let mut count = OpenCount::new(self, ino, Access::WRITE);
                count.keep();
                count.inode.with(State::inherited);
                left.push(count);
            }
            match page.inos.last() {
                Some(&last) if !page.end => after = last,
                _ => return Ok(left),
            }
        }
    }

    /// Closes what is left of `left` once everything that a predecessor was asked to do has come again.
    pub async fn left_task(self: Arc<Self>, left: Vec<OpenCount>) {
        let mut closed = self.closed.subscribe();
        let work = async {
            tokio::time::sleep(CALLS_COME_AGAIN).await;
            stream::iter(left).for_each_concurrent(AT_ONCE, |count| self.close_left(count)).await;
        };
        tokio::select! {
            biased;
            () = shut_down(&mut closed) => {}
            () = work => {}
        }
    }

    async fn close_left(self: &Arc<Self>, mut count: OpenCount) {
        count.stop_access();
        let mut tries = 0;
        while let Err(error) = self.close_once_more(&count).await {
            if matches!(error, ClientError::Gone { .. } | ClientError::ShutDown) {
                return;
            }
            debug!(ino = %count.inode.ino, %error, "a predecessor's file is not closed yet");
            tries += 1;
            tokio::time::sleep(pause_after(tries)).await;
        }
    }

    async fn close_once_more(self: &Arc<Self>, count: &OpenCount) -> Result<()> {
        let inode = &count.inode;
        if inode.with(|state| state.writes_open > 0) {
            // Whoever closes it last tells.
            return Ok(());
        }
        {
            let _record = inode.record.lock().await;
            self.open_once_more(inode, Access::WRITE, None).await?;
        }
        self.report(inode, Some(0)).await
    }
}
