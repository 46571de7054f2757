//! Directory entries with attributes, as this library can show them.

use crate::{
    dirstream::{self, COOKIE_DOT_DOT},
    ops::{Attributes, Context, DirEntry, DirRequest, Entry, Filesystem, Handle, NodeId, Reply},
};
use pvfs_types::Errno;

/// Entries for one reply, all with attributes but the dots: this library cannot show an entry without them, and wrong
/// ones would become the kernel's.
pub async fn readdir_plus<F: Filesystem>(
    fs: &F,
    ctx: &Context,
    dir: NodeId,
    handle: Handle,
    mut cookie: u64,
) -> Reply<Vec<DirEntry>> {
    loop {
        let page = fs.readdir(ctx, dir, handle, DirRequest { cookie, plus: true }).await?;
        let offered = dirstream::one_reply(page.entries());
        let Some(last) = offered.last() else { return Ok(Vec::new()) };
        cookie = last.cookie;
        let mut whole = Vec::with_capacity(offered.len());
        for entry in offered {
            let mut entry = entry.clone();
            if entry.entry.is_none() && entry.cookie > COOKIE_DOT_DOT {
                let node = NodeId(entry.ino);
                match fs.getattr(ctx, node, None).await {
                    Ok(Attributes { attr, valid }) => entry.entry = Some(Entry { node, attr, valid }),
                    // It has gone meanwhile.
                    Err(Errno::ENOENT | Errno::ESTALE) => continue,
                    Err(error) => return Err(error),
                }
            }
            whole.push(entry);
        }
        // An empty reply would be the end of the directory.
        if !whole.is_empty() {
            return Ok(whole);
        }
    }
}
