//! Which inodes a change is about: those of which somebody could know something that it makes untrue.

use crate::keys::space;
use pvfs_kv::WriteSet;
use pvfs_types::Ino;
use std::collections::BTreeSet;

/// The inodes whose attributes, names, extended attributes or writers `changes` change.
pub fn touched(changes: &WriteSet) -> BTreeSet<Ino> {
    let of_key = |key: &[u8]| match key.split_first()? {
        // All of these keys begin with the inode's number.
        (&(space::INODE | space::DENTRY | space::XATTR | space::WRITER), rest) => {
            rest.first_chunk().map(|number| Ino(u64::from_be_bytes(*number)))
        }
        _ => None,
    };
    changes.iter().filter_map(|(key, _)| of_key(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dentry, keys};
    use pvfs_types::{Name, SessionId};

    #[test]
    fn attributes_names_and_writers_count_and_what_only_the_mgr_sees_does_not() {
        let name = Name::new(b"name").unwrap();
        let mut changes = WriteSet::new();
        changes.put(&keys::inode(Ino(3)), vec![1]);
        changes.delete(&keys::inode(Ino(4)));
        changes.put(&keys::dentry(Ino(5), dentry::cookie(&name), &name), vec![1]);
        changes.put(&keys::writer(Ino(6), SessionId(1)), vec![1]);
        changes.put(&keys::session_writer(SessionId(77), Ino(6)), vec![1]);
        changes.put(&keys::reply(SessionId(78), 1), vec![1]);
        changes.put(&keys::claim(Ino(79), SessionId(1)), vec![1]);
        changes.put(&keys::superblock(), vec![1]);
        assert_eq!(touched(&changes), BTreeSet::from([3, 4, 5, 6].map(Ino)));
    }
}
