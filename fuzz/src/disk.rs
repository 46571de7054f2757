//! Targets over what is read from disks: the metadata store's records and a target directory's.

use pvfs_meta::record::{
    Client, Counter, Dentry, Inode, InodeNumbers, Intent, IodtabEntry, LockHeld, LockWait, Mark, MgrTime,
    OrphanEntry, Record, Reply, Session, Superblock, Target, TargetNumber, Writer, Xattr,
};
use pvfs_store::{Identity, Membership, State};
use pvfs_types::{FsId, TargetId, TargetUuid};

/// A value of the metadata store reads as an error, or as a record that survives the way there and back.
pub fn meta_record(data: &[u8]) {
    survives_the_way_back::<Superblock>(data);
    survives_the_way_back::<MgrTime>(data);
    survives_the_way_back::<InodeNumbers>(data);
    survives_the_way_back::<Counter>(data);
    survives_the_way_back::<Inode>(data);
    survives_the_way_back::<Dentry>(data);
    survives_the_way_back::<Session>(data);
    survives_the_way_back::<Client>(data);
    survives_the_way_back::<Reply>(data);
    survives_the_way_back::<Writer>(data);
    survives_the_way_back::<OrphanEntry>(data);
    survives_the_way_back::<Mark>(data);
    survives_the_way_back::<Intent>(data);
    survives_the_way_back::<Target>(data);
    survives_the_way_back::<TargetNumber>(data);
    survives_the_way_back::<IodtabEntry>(data);
    survives_the_way_back::<LockHeld>(data);
    survives_the_way_back::<LockWait>(data);
    survives_the_way_back::<Xattr>(data);
}

fn survives_the_way_back<T: Record>(data: &[u8]) {
    let Ok(record) = T::from_bytes(data) else { return };
    let bytes = record.to_bytes();
    let again = T::from_bytes(&bytes).expect("what we write, we read");
    assert_eq!(again.to_bytes(), bytes, "one way to write {}", T::KIND);
}

/// A record of a target directory reads as an error, or as one that survives the way there and back.
pub fn target_record(data: &[u8]) {
    if let Ok(record) = Identity::decode(data) {
        assert_eq!(Identity::decode(record.encode().as_bytes()).ok(), Some(record));
    }
    if let Ok(record) = State::decode(data) {
        assert_eq!(State::decode(record.encode().as_bytes()).ok(), Some(record));
    }
    if let Ok(record) = Membership::decode(data) {
        assert_eq!(Membership::decode(record.encode().as_bytes()).ok(), Some(record));
    }
    if let Ok(record) = pvfs_store::MgrTime::decode(data) {
        assert_eq!(pvfs_store::MgrTime::decode(record.encode().as_bytes()).ok(), Some(record));
    }
}

/// The golden records of `meta`'s tests.
pub fn meta_seeds() -> Vec<Vec<u8>> {
    let goldens = include_str!("../../crates/meta/tests/records.rs");
    goldens.split('"').filter(|text| text.len() >= 4).filter_map(crate::from_hex).collect()
}

/// One of each.
pub fn target_seeds() -> Vec<Vec<u8>> {
    let target = TargetUuid([2; 16]);
    let records = [
        Identity { fs: FsId([1; 16]), target }.encode(),
        State { generation: 3, boot: 4, clean: true, run: 5 }.encode(),
        Membership { target, id: TargetId(5) }.encode(),
        pvfs_store::MgrTime { boot: 6, time_ms: 7 }.encode(),
    ];
    records.map(String::into_bytes).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_records() {
        let seeds = meta_seeds();
        assert!(seeds.len() >= 10, "the goldens of crates/meta/tests/records.rs are found");
        assert!(seeds.iter().any(|seed| Inode::from_bytes(seed).is_ok()));
        assert!(target_seeds().iter().any(|seed| State::decode(seed).is_ok()));
    }
}
