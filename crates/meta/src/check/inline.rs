//! Small files whose bytes are kept here: all of them, of a file that says so and that nobody writes.

use super::{Findings, content::Content};
use crate::keys;
use pvfs_kv::WriteTxn;
use pvfs_types::{FileKind, limits::INLINE_BYTES_MAX};

pub(super) fn check(content: &Content, findings: &mut Findings) {
    for (ino, bytes) in &content.inline {
        let about = format!("inode {ino}");
        match content.inodes.get(ino) {
            None => findings.add(&about, format!("{bytes} bytes are kept of it, it is gone")),
            Some(inode) => {
                findings.expect(
                    inode.inline.is_some(),
                    &about,
                    "bytes are kept of it, and it says that targets have them",
                );
                let is_all = *bytes == inode.size && (1..=INLINE_BYTES_MAX as u64).contains(bytes);
                findings.expect(is_all, &about, format!("{} bytes long, {bytes} are kept of it", inode.size));
            }
        }
    }
    for inode in content.inodes.values().filter(|inode| inode.inline.is_some()) {
        let about = format!("inode {}", inode.ino);
        findings.expect(inode.kind == FileKind::File, &about, "no file, and its bytes are kept here");
        findings.expect(
            content.inline.contains_key(&inode.ino),
            &about,
            format!("{} bytes long, and kept here, where none are: they are lost", inode.size),
        );
        let is_written = content.writers.iter().any(|(ino, _)| *ino == inode.ino);
        findings.expect(!is_written, &about, "is being written, and its bytes are kept here");
    }
    for intent in content.intents.iter().filter(|intent| intent.spills()) {
        let is_kept = content.inodes.get(&intent.ino).is_some_and(|inode| inode.inline.is_some());
        findings.expect(
            is_kept,
            format!("inode {}", intent.ino),
            "its bytes are to go to a target, and are not here",
        );
    }
}

/// Takes away what is kept of files that are gone. Gives how many records changed.
pub(super) fn mend(txn: &mut impl WriteTxn, content: &Content) -> u64 {
    let strays = content.inline.keys().filter(|ino| !content.inodes.contains_key(ino));
    strays.map(|&ino| txn.delete(&keys::inline(ino))).count() as u64
}
