//! Which objects there are, page by page, for a check of the whole file system.

use crate::{
    Store, StoreError,
    objects::{self, OBJECTS_DIR, SHARDS},
};
use pvfs_env::disk::blocking;
use pvfs_types::{DataGen, Ino, ObjectId, Slot};
use std::io;

/// A page of a target's objects, by shard and number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub objects: Vec<ObjectId>,
    /// Files that are no objects, in the shards that this page began.
    pub strangers: Vec<String>,
    /// Nothing comes behind these.
    pub end: bool,
}

impl Store {
    /// At most `max` (at least 1) objects behind `after`. What comes or goes meanwhile is in it or not.
    pub fn list(&self, after: Option<ObjectId>, max: usize) -> Result<Listing, StoreError> {
        blocking(|| self.page(after, max.max(1)))
    }

    fn page(&self, after: Option<ObjectId>, max: usize) -> Result<Listing, StoreError> {
        let mut page = Listing::default();
        let first = after.map_or(0, objects::shard);
        if after.is_none() {
            let is_shard = |name: &String| name.len() == 3 && usize::from_str_radix(name, 16).is_ok();
            let strangers = self.names(OBJECTS_DIR)?.into_iter().filter(|name| !is_shard(name));
            page.strangers.extend(strangers.map(|name| format!("{OBJECTS_DIR}/{name}")));
        }
        for shard in first..SHARDS {
            let dir = objects::shard_dir(shard);
            let begun_before = after.is_some() && shard == first;
            let mut found = Vec::new();
            for name in self.names(&dir)? {
                match parse(&name).filter(|&id| objects::shard(id) == shard) {
                    Some(id) => found.push(id),
                    None if !begun_before => page.strangers.push(format!("{dir}/{name}")),
                    None => {}
                }
            }
            found.sort_unstable();
            let behind = found.into_iter().filter(|&id| !begun_before || Some(id) > after);
            page.objects.extend(behind);
            if page.objects.len() > max {
                page.objects.truncate(max);
                return Ok(page);
            }
        }
        page.end = true;
        Ok(page)
    }

    fn names(&self, dir: &str) -> Result<Vec<String>, StoreError> {
        match self.disk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(|source| self.io("list the objects", source)),
        }
    }
}

/// The object whose file has this name, within its shard.
fn parse(name: &str) -> Option<ObjectId> {
    let mut parts = name.split('.');
    let mut part = |digits: usize| parts.next().filter(|part| part.len() == digits);
    let ino = Ino(u64::from_str_radix(part(16)?, 16).ok()?);
    let data_gen = DataGen(u32::from_str_radix(part(8)?, 16).ok()?);
    let slot = Slot(u16::from_str_radix(part(4)?, 16).ok()?);
    let id = ObjectId { ino, data_gen, slot };
    // Exactly as it would be written: no signs, no capitals, nothing behind it.
    objects::file_name(id).ends_with(&format!("/{name}")).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_this_build_writes_are_objects() {
        let id = ObjectId { ino: Ino(0x12_3456), data_gen: DataGen(0xab), slot: Slot(3) };
        assert_eq!(parse("0000000000123456.000000ab.0003"), Some(id));
        for stranger in [
            "",
            "0000000000123456.000000ab",
            "0000000000123456.000000AB.0003",
            "0000000000123456.000000ab.0003.x",
            "+000000000123456.000000ab.0003",
            "0000000000123456.000000ab.003",
            "lost+found",
        ] {
            assert_eq!(parse(stranger), None, "{stranger}");
        }
    }
}
