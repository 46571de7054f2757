//! Extended attributes and POSIX ACLs: one method per operation, each one message to the mgr. And what of them is known of
//! open files without one.

use crate::{
    Client, ClientError, File,
    error::{Answer, Result},
    inode::Inode,
};
use pvfs_types::{Attr, Cred, Extras, Ino, SetAttr as Changes, XattrName, limits};
use pvfs_wire::{
    Op,
    msg::{
        namespace::SetAttr,
        xattr::{GetXattr, ListXattr, RemoveXattr, SetXattr, XattrMode},
    },
};
use std::sync::Arc;

impl Client {
    /// The value of an attribute. ACLs have Linux's own form, version 2.
    ///
    /// # Errors
    /// `ENODATA` there is none; `EACCES` no read permission, for `user.`; `ERANGE` a name of no or more than 255 bytes;
    /// `EOPNOTSUPP` no such name space.
    ///
    /// # Examples
    /// ```no_run
    /// # use pvfs_client::{Client, ClientError, XattrMode};
    /// # use pvfs_types::{Cred, Ino};
    /// # async fn example(client: &Client, cred: &Cred, ino: Ino) -> Result<(), ClientError> {
    /// client.setxattr(cred, ino, b"user.mime_type", b"text/plain", XattrMode::Set).await?;
    /// assert_eq!(client.getxattr(cred, ino, b"user.mime_type").await?, b"text/plain");
    /// # Ok(())
    /// # }
    /// ```
    pub fn getxattr<'a>(&'a self, cred: &'a Cred, ino: Ino, name: &'a [u8]) -> Answer<'a, Vec<u8>> {
        self.core.call(Op::GetXattr, Some(ino), async move {
            let name = XattrName::new(name)?;
            let ask = |caller| GetXattr { caller, ino, name: name.clone() };
            Ok(self.core.ask(cred, ask).await?.value)
        })
    }

    /// The names of all attributes that `cred` may know of.
    pub fn listxattr<'a>(&'a self, cred: &'a Cred, ino: Ino) -> Answer<'a, Vec<XattrName>> {
        self.core.call(Op::ListXattr, Some(ino), async move {
            Ok(self.core.ask(cred, |caller| ListXattr { caller, ino }).await?.names)
        })
    }

    /// Sets an attribute, or an ACL (whatever `mode` says).
    ///
    /// # Errors
    /// `EEXIST` with `Create`, `ENODATA` with `Replace`; `EACCES`, `EPERM` as xattr(7) has them; `E2BIG` a value of more than
    /// 64 KiB, or an ACL of more than 511 entries; `ENOSPC` the names would be more than 64 KiB; `EINVAL` an ACL that is not
    /// valid; else as [`Client::getxattr`].
    pub fn setxattr<'a>(
        &'a self,
        cred: &'a Cred,
        ino: Ino,
        name: &'a [u8],
        value: &'a [u8],
        mode: XattrMode,
    ) -> Answer<'a, Attr> {
        self.core.call(Op::SetXattr, Some(ino), async move {
            if value.len() > limits::XATTR_VALUE_BYTES_MAX {
                return Err(ClientError::XattrTooBig { bytes: value.len() });
            }
            let (name, value) = (XattrName::new(name)?, value.to_vec());
            let make = move |by| SetXattr { by, ino, name: name.clone(), value: value.clone(), mode };
            let entry = self.core.mutate(cred, make).await?;
            self.core.complete(entry).await
        })
    }

    /// Takes an attribute away, or an ACL.
    ///
    /// # Errors
    /// `ENODATA` there is none (of an ACL no error); else as [`Client::setxattr`].
    pub fn removexattr<'a>(&'a self, cred: &'a Cred, ino: Ino, name: &'a [u8]) -> Answer<'a, Attr> {
        self.core.call(Op::RemoveXattr, Some(ino), async move {
            let name = XattrName::new(name)?;
            let make = move |by| RemoveXattr { by, ino, name: name.clone() };
            let entry = self.core.mutate(cred, make).await?;
            self.core.complete(entry).await
        })
    }

    /// Which attributes a file that is open here for writing has, as of what the mgr told last. Asks nobody.
    pub fn extras_of_written(&self, ino: Ino) -> Option<Extras> {
        let inode = self.core.inodes.find(ino)?;
        inode.with(|state| state.attr_is_known().then_some(state.extras).filter(|_| state.writes_open > 0))
    }
}

impl File {
    /// Whether a program in the file runs with rights of its own (set-user-id, set-group-id, file capabilities), as of what
    /// the mgr told last. Asks nobody.
    pub fn is_privileged(&self) -> bool {
        self.inode().with(|state| state.privileged || state.extras.file_caps)
    }

    /// Takes those rights away: before a write by `cred`, who may not keep them.
    ///
    /// # Errors
    /// `EBADF` not open for writing.
    pub async fn drop_privileges(&self, cred: &Cred) -> Result<()> {
        self.core()
            .call(Op::SetAttr, Some(self.ino()), async {
                if !self.access().write {
                    return Err(ClientError::NotOpenFor { wanted: "writing" });
                }
                let (core, inode, cred) = (Arc::clone(self.core()), Arc::clone(self.inode()), cred.clone());
                let work = Arc::clone(&core);
                core.finish(async move { drop_privileges(&work, &inode, &cred).await }).await
            })
            .await
    }
}

async fn drop_privileges(core: &Arc<crate::client::Core>, inode: &Inode, cred: &Cred) -> Result<()> {
    let make = |by| SetAttr {
        by,
        ino: inode.ino,
        changes: Changes::default(),
        by_handle: true,
        want: None,
        drop_privileges: Some(true),
    };
    let set = core.mutate_here(cred, make).await?;
    inode.absorb(&set.entry);
    Ok(())
}
