//! What giving a file another size takes. The one place that decides between the three ways.

use crate::{Inode, Intent, OpEnv, Result, garbage, inline, intent, quota, writer, xattr};
use pvfs_kv::WriteTxn;
use pvfs_types::DataGen;
use pvfs_wire::msg::session::Mutator;

/// Gives `inode` the size `size`, or notes what targets have to do first and answers with that. The caller puts the
/// inode, and puts nothing where it is answered an intent.
///
/// - To nothing, and no other session writes: the objects are swapped for new ones in this transaction.
/// - Not to less, and nobody writes: only the record changes. The epoch stays, as no byte went.
/// - Not to nothing, and its bytes are kept here: a target takes them first.
/// - Else the targets cut first: bytes past the record may be there, and none of them may come back as the file
///   grows again.
///
/// # Errors
/// `EDQUOT` its owner may not have so much.
pub(crate) fn truncate(
    txn: &mut impl WriteTxn,
    inode: &mut Inode,
    size: u64,
    by: &Mutator,
    env: &OpEnv,
) -> Result<Option<Intent>> {
    if let Some(standing) = intent::find(txn, inode.ino)? {
        return Ok(Some(standing));
    }
    if inode.inline.is_some() && size > 0 {
        return intent::spill(txn, inode, by, env.now).map(Some);
    }
    xattr::drop_file_caps(txn, inode)?;
    if !by.cred.is_root() {
        inode.drop_privileges();
    }
    if inode.truncated_by == Some(by.into()) {
        return Ok(None);
    }
    if size > inode.size {
        quota::may_have_size(txn, inode, size)?;
    }
    let writers = writer::of(txn, inode.ino, by.session)?;
    if size >= inode.size && !writers.any() {
        inode.resize(size);
    } else if size == 0 && !writers.foreign {
        if inode.inline.is_some() {
            inline::remove(txn, inode);
        } else {
            garbage::add_all(txn, inode.ino, inode.data_gen, inode.load_dist()?)?;
        }
        inode.data_gen = next_data_gen(inode.data_gen)?;
        inode.resize(0);
        inode.next_epoch()?;
        // Nobody writes the new objects by what was allowed of the old ones.
        inode.allowed = None;
        if writers.own {
            quota::allow(txn, inode, None)?;
        }
    } else {
        return intent::start(txn, inode, size, by, env.now).map(Some);
    }
    inode.touch_content(env.now);
    Ok(None)
}

fn next_data_gen(data_gen: DataGen) -> Result<DataGen> {
    let next =
        data_gen.0.checked_add(1).ok_or(crate::MetaError::NumbersUsedUp { what: "data generations" })?;
    Ok(DataGen(next))
}
