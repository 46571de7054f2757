//! Files without a name (`O_TMPFILE`): one message to the mgr, none to any iod. [`Client::link`] gives one its name.

use crate::{
    Client, ClientError, File,
    calls::Reserved,
    client::{Core, Tasks},
    error::{Answer, Result},
    inode::OpenCount,
    open::{CreateUnderWay, Created},
};
use pvfs_types::{Cred, Ino, LayoutHint, NewMode};
use pvfs_wire::{Access, Op, msg::namespace::TmpFile};
use std::sync::Arc;

/// How to make a file without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TmpFileOptions {
    pub access: Access,
    pub mode: NewMode,
    /// It may be given a name: without `O_EXCL`.
    pub linkable: bool,
    /// As of [`crate::CreateOptions`].
    pub layout: LayoutHint,
}

impl Client {
    /// Makes a regular file as if in `dir`, without a name, and opens it. When nobody has it open any more, it goes.
    ///
    /// # Errors
    /// `EACCES`, `ENOENT`, `ENOTDIR`, `ENOSPC` as POSIX has them; `EINVAL` for a layout that cannot be had.
    pub fn tmpfile<'a>(&'a self, cred: &'a Cred, dir: Ino, options: TmpFileOptions) -> Answer<'a, Created> {
        self.core.call(Op::TmpFile, Some(dir), async move {
            if options.access == Access::default() {
                return Err(ClientError::NoAccess);
            }
            let (core, tasks, cred) = (Arc::clone(&self.core), Arc::clone(&self.tasks), cred.clone());
            let reserved = core.reserve(Op::TmpFile).await?;
            let work = Arc::clone(&core);
            core.finish(async move { work.tmpfile_here(tasks, reserved, &cred, dir, options).await }).await
        })
    }
}

impl Core {
    async fn tmpfile_here(
        self: &Arc<Self>,
        tasks: Arc<Tasks>,
        reserved: Reserved,
        cred: &Cred,
        dir: Ino,
        TmpFileOptions { access, mode, linkable, layout }: TmpFileOptions,
    ) -> Result<Created> {
        let under_way = CreateUnderWay::new(self);
        let make = |by| TmpFile {
            by,
            dir,
            mode: mode.mode,
            unmasked: mode.unmasked,
            open: access,
            linkable,
            layout,
        };
        let made = self.mutate_in(reserved, cred, make).await?;
        let count = OpenCount::new(self, made.entry.attr.ino, access);
        // It is an orphan already: claimed, it is given up soon after its close.
        self.session.orphans(|orphans| orphans.claim(made.entry.attr.ino));
        drop(under_way);
        count.inode.opened(&made.entry, made.capability);
        self.has_made(&count.inode, access);
        let attr = made.entry.attr.clone();
        let file = File::new(Arc::clone(self), tasks, count, access, cred, made.entry);
        Ok(Created { file, attr, created: true })
    }
}
