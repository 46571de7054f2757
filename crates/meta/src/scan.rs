//! Going through ranges of keys with a visitor that may fail.

use crate::{MetaError, Result, keys};
use pvfs_kv::Read;
use std::ops::ControlFlow;

/// What a visitor answers while it wants more.
pub(crate) const MORE: Result<ControlFlow<()>> = Ok(ControlFlow::Continue(()));

/// Shows the pairs with `from <= key < to` until `visit` breaks or errs.
pub(crate) fn range(
    txn: &(impl Read + ?Sized),
    from: &[u8],
    to: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut failed = None;
    txn.range(from, to, &mut |key, value| match visit(key, value) {
        Ok(flow) => flow,
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Shows the pairs whose key starts with `prefix`.
pub(crate) fn prefix(
    txn: &(impl Read + ?Sized),
    prefix: &[u8],
    visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
) -> Result<()> {
    range(txn, prefix, &keys::prefix_end(prefix), visit)
}

/// All that `parse` makes of the keys that start with `prefix`.
pub(crate) fn collect<T>(
    txn: &(impl Read + ?Sized),
    of: &[u8],
    mut parse: impl FnMut(keys::Parts<'_>, &[u8]) -> Result<Option<T>>,
) -> Result<Vec<T>> {
    let mut all = Vec::new();
    prefix(txn, of, |key, value| {
        all.push(parse(keys::Parts::of(key), value)?.ok_or_else(|| bad_key(key))?);
        MORE
    })?;
    Ok(all)
}

pub(crate) fn bad_key(key: &[u8]) -> MetaError {
    MetaError::Corrupt { what: "key", detail: key.escape_ascii().to_string() }
}
