//! What a transaction wants changed: for each key a new value, or its removal.

use crate::{
    KvError,
    engine::{ENGINE_KEY, KEY_BYTES_MAX},
};
use std::collections::{BTreeMap, btree_map::Entry};
use std::ops::Bound;

/// Puts and deletes by key, in key order; the last word on a key counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl WriteSet {
    pub fn new() -> WriteSet {
        WriteSet::default()
    }

    pub fn put(&mut self, key: &[u8], value: Vec<u8>) {
        self.set(key, Some(value));
    }

    pub fn delete(&mut self, key: &[u8]) {
        self.set(key, None);
    }

    fn set(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        match self.0.get_mut(key) {
            Some(there) => *there = value,
            None => {
                self.0.insert(key.to_vec(), value);
            }
        }
    }

    /// Adds `later`: where both speak of a key, `later` counts.
    pub fn merge(&mut self, later: WriteSet) {
        if self.0.is_empty() {
            self.0 = later.0;
            return;
        }
        for (key, value) in later.0 {
            match self.0.entry(key) {
                Entry::Occupied(mut there) => {
                    there.insert(value);
                }
                Entry::Vacant(free) => {
                    free.insert(value);
                }
            }
        }
    }

    /// `None`: says nothing of `key`. `Some(None)`: deletes it.
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.0.get(key).map(Option::as_deref)
    }

    /// In key order; `None` deletes.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// As [`WriteSet::iter`], of `from <= key < to`.
    pub fn range<'a>(
        &'a self,
        from: &'a [u8],
        to: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let bounds = (Bound::Included(from), Bound::Excluded(to.max(from)));
        self.0.range::<[u8], _>(bounds).map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Keys and values together, in bytes.
    pub fn byte_count(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
    }

    /// Whether every engine takes all the keys.
    pub fn check_keys(&self) -> Result<(), KvError> {
        match self.0.keys().map(Vec::len).find(|len| !(1..=KEY_BYTES_MAX).contains(len)) {
            Some(bytes) => Err(KvError::KeySize { bytes }),
            None if self.0.contains_key(ENGINE_KEY) => Err(KvError::ReservedKey),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_set_has_the_last_word() {
        let mut first = WriteSet::new();
        first.put(b"a", b"1".to_vec());
        first.put(b"b", b"1".to_vec());
        first.delete(b"c");
        let mut later = WriteSet::new();
        later.delete(b"b");
        later.put(b"c", b"2".to_vec());
        first.merge(later);
        let all: Vec<_> = first.iter().collect();
        assert_eq!(all, [(&b"a"[..], Some(&b"1"[..])), (b"b", None), (b"c", Some(b"2"))]);
        assert_eq!(first.byte_count(), 5);
    }

    #[test]
    fn a_range_that_ends_before_it_starts_is_empty() {
        let mut set = WriteSet::new();
        set.put(b"b", Vec::new());
        assert_eq!(set.range(b"c", b"a").count(), 0);
    }
}
