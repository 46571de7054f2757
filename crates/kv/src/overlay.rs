//! A transaction in the making: a [`WriteSet`] over something that is read.

use crate::{KvError, Read, Visit, WriteSet, WriteTxn};
use std::ops::ControlFlow;

/// Reads through its own writes to `parent`, which stays as it is. Overlays stack: a batch over a snapshot, one
/// operation over the batch.
pub struct Overlay<'a, R: Read + ?Sized> {
    parent: &'a R,
    set: WriteSet,
}

impl<'a, R: Read + ?Sized> Overlay<'a, R> {
    pub fn new(parent: &'a R) -> Overlay<'a, R> {
        Overlay { parent, set: WriteSet::new() }
    }

    pub fn set(&self) -> &WriteSet {
        &self.set
    }

    pub fn into_set(self) -> WriteSet {
        self.set
    }

    /// Takes over what an overlay over this one gathered.
    pub fn merge(&mut self, later: WriteSet) {
        self.set.merge(later);
    }
}

impl<R: Read + ?Sized> Read for Overlay<'_, R> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match self.set.get(key) {
            Some(own) => Ok(own.map(<[u8]>::to_vec)),
            None => self.parent.get(key),
        }
    }

    fn range(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        read_through(self.set.range(from, to), self.parent, from, to, visit)
    }
}

/// Shows the pairs of `below` with `from <= key < to` as the changes in `own` (in key order, `None` deletes) make them.
pub(crate) fn read_through<'o>(
    own: impl Iterator<Item = (&'o [u8], Option<&'o [u8]>)>,
    below: &(impl Read + ?Sized),
    from: &[u8],
    to: &[u8],
    visit: &mut Visit<'_>,
) -> Result<(), KvError> {
    let mut own = own.peekable();
    let mut stopped = false;
    let mut show = |key: &[u8], value: Option<&[u8]>| match value {
        Some(value) => visit(key, value),
        None => ControlFlow::Continue(()),
    };
    below.range(from, to, &mut |key, value| {
        while let Some((own_key, own_value)) = own.next_if(|(own_key, _)| *own_key < key) {
            if show(own_key, own_value).is_break() {
                stopped = true;
                return ControlFlow::Break(());
            }
        }
        let shown = match own.next_if(|(own_key, _)| *own_key == key) {
            Some((_, own_value)) => show(key, own_value),
            None => show(key, Some(value)),
        };
        stopped = shown.is_break();
        shown
    })?;
    if !stopped {
        for (key, value) in own {
            if show(key, value).is_break() {
                break;
            }
        }
    }
    Ok(())
}

impl<R: Read + ?Sized> WriteTxn for Overlay<'_, R> {
    fn put(&mut self, key: &[u8], value: Vec<u8>) {
        self.set.put(key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        self.set.delete(key);
    }
}
