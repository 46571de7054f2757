//! Extended attributes and ACLs, and what the kernel asks of them for itself: it must cost no message to the mgr.
//!
//! Before a write, a truncation or a change of owner the kernel asks for the length of `security.capability`, and for its
//! permission checks, of each inode that it has new attributes of, for the ACLs; `ls -l` asks for the labels of security modules.
//! Of what is not there they hear at once, as of the attributes that the kernel goes by anyway; the mgr checks permissions again, and takes file capabilities away itself.

use super::{PvfsFs, of_inode};
use crate::{
    creds,
    ops::{Context, NodeId, Reply},
};
use bytes::Bytes;
use pvfs_client::XattrMode;
use pvfs_types::{
    Attr, Cred, Errno,
    xattr::{ACL_ACCESS, ACL_DEFAULT, FILE_CAPS},
};

impl PvfsFs {
    pub(super) async fn read_xattr(
        &self,
        ctx: &Context,
        node: NodeId,
        name: &[u8],
        room: u32,
    ) -> Reply<Bytes> {
        if self.is_known_absent(node, name, room) {
            return Err(Errno::ENODATA);
        }
        let ino = self.ino(node);
        let ask = |cred: Cred| async move {
            self.client.getxattr(&cred, ino, name).await.map_err(|e| of_inode(&e))
        };
        creds::reading(ctx, ask).await.map(Bytes::from)
    }

    fn is_known_absent(&self, node: NodeId, name: &[u8], room: u32) -> bool {
        let told = || self.told.extras(node);
        match name {
            ACL_ACCESS => told().is_some_and(|extras| !extras.acl),
            ACL_DEFAULT => told().is_some_and(|extras| !extras.default_acl),
            // Who asks for the value itself (an exec, getcap) is told the truth of now.
            FILE_CAPS if room == 0 => {
                let extras = told().or_else(|| self.client.extras_of_written(self.ino(node)));
                extras.is_some_and(|extras| !extras.file_caps)
            }
            // Labels of security modules, which `ls -l` asks for.
            _ if name != FILE_CAPS && name.starts_with(b"security.") => {
                told().is_some_and(|extras| !extras.others)
            }
            _ => false,
        }
    }

    pub(super) async fn write_xattr(
        &self,
        ctx: &Context,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> Reply<()> {
        let mode = match flags {
            0 => XattrMode::Set,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return Err(Errno::EINVAL),
        };
        let set = self.client.setxattr(&creds::whole(ctx), self.ino(node), name, value, mode).await;
        self.xattrs_changed(node, &set.map_err(|e| of_inode(&e))?);
        Ok(())
    }

    /// The names, each closed by a NUL.
    pub(super) async fn list_xattrs(&self, ctx: &Context, node: NodeId) -> Reply<Bytes> {
        let cred = Cred { uid: ctx.uid, gid: ctx.gid, groups: Vec::new() };
        let names = self.client.listxattr(&cred, self.ino(node)).await.map_err(|e| of_inode(&e))?;
        let list = names.iter().flat_map(|name| name.as_bytes().iter().copied().chain([0]));
        Ok(list.collect::<Vec<u8>>().into())
    }

    pub(super) async fn remove_xattr(&self, ctx: &Context, node: NodeId, name: &[u8]) -> Reply<()> {
        // The kernel lets only those through who may set it, and asks for itself on behalf of whoever writes the file.
        let cred = if name == FILE_CAPS { Cred::root() } else { creds::whole(ctx) };
        match self.client.removexattr(&cred, self.ino(node), name).await {
            Ok(attr) => {
                self.xattrs_changed(node, &attr);
                Ok(())
            }
            Err(error) => Err(of_inode(&error)),
        }
    }

    fn xattrs_changed(&self, node: NodeId, attr: &Attr) {
        self.told.changed_extras(node, attr);
    }
}
