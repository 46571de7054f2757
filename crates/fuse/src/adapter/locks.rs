//! Locks between the kernel's terms and ours.

use super::{Answering, answer, convert};
use crate::ops::{Context, Filesystem, Handle, Lock, Locked, NodeId};
use pvfs_kfuse::{Op, Reply};
use pvfs_types::Errno;
use tracing::debug;

impl<F: Filesystem> Answering<'_, F> {
    /// Operations on locks of an open file.
    pub(super) async fn lock(&self, ctx: &Context, node: NodeId, op: Op, reply: Reply) {
        match op {
            Op::GetLock(asked) => {
                self.count("getlk");
                match convert::lock(&asked) {
                    Ok(lock) => {
                        let found = self.fs.getlk(ctx, Handle(asked.handle), lock).await;
                        answer::lock(
                            reply,
                            found.map(|found| convert::lock_out(&asked.lock, found.as_ref())),
                        );
                    }
                    Err(error) => reply.error(error.number()),
                }
            }
            Op::SetLock { lock: asked, wait } => {
                self.count("setlk");
                match convert::lock(&asked) {
                    Ok(lock) => self.set_lock(ctx, (node, Handle(asked.handle)), lock, wait, reply).await,
                    Err(error) => reply.error(error.number()),
                }
            }
            _ => reply.error(Errno::ENOSYS.number()),
        }
    }

    /// What others wrote under the lock is seen by whoever has it: the kernel forgets what may be old before it is told.
    async fn set_lock(
        &self,
        ctx: &Context,
        (node, handle): (NodeId, Handle),
        lock: Lock,
        wait: bool,
        reply: Reply,
    ) {
        match self.fs.setlk(ctx, handle, lock, wait).await {
            Ok(Locked { data_changed, attributes_changed, keep }) => {
                if data_changed {
                    self.forget_data(node).await;
                } else if attributes_changed
                    && let Err(error) = self.adapter.notifier.attributes_changed(node.0)
                {
                    debug!(node = node.0, %error, "attributes not invalidated");
                }
                // Nobody to tell: he was sent a signal, and the lock is taken back.
                if reply.ok(&[])
                    && let Some(keep) = keep
                {
                    keep();
                }
            }
            Err(error) => reply.error(error.number()),
        }
    }

    /// Waits for reads of the file that are under way.
    async fn forget_data(&self, node: NodeId) {
        let told = self.adapter.notifier.apart(move |kernel| kernel.data_changed(node.0, 0)).await;
        if let Err(error) = told.flatten() {
            debug!(node = node.0, %error, "bytes not invalidated");
        }
    }
}
