//! Which objects were removed of late, so that a late write does not bring one back.

use pvfs_types::ObjectId;
use std::collections::{HashSet, VecDeque};

/// The last removed objects, a bounded number of them. Lost with the process: what was allowed before the next one started
/// makes no object there ([`crate::Write::makes`]).
pub(crate) struct Tombstones {
    members: HashSet<ObjectId>,
    by_age: VecDeque<ObjectId>,
    count_max: usize,
}

impl Tombstones {
    pub(crate) fn new(count_max: usize) -> Tombstones {
        Tombstones { members: HashSet::new(), by_age: VecDeque::new(), count_max }
    }

    pub(crate) fn insert(&mut self, id: ObjectId) {
        if !self.members.insert(id) {
            return;
        }
        self.by_age.push_back(id);
        if self.by_age.len() > self.count_max
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.members.remove(&oldest);
        }
    }

    pub(crate) fn contains(&self, id: ObjectId) -> bool {
        self.members.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_types::{DataGen, Ino, Slot};

    #[test]
    fn the_oldest_are_forgotten_first() {
        let id = |ino| ObjectId { ino: Ino(ino), data_gen: DataGen(0), slot: Slot(0) };
        let mut stones = Tombstones::new(2);
        for ino in [1, 2, 2, 3] {
            stones.insert(id(ino));
        }
        assert_eq!([1, 2, 3].map(|ino| stones.contains(id(ino))), [false, true, true]);
    }
}
