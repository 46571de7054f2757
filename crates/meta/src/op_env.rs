//! What an operation is handed beside its request, and how one ends that has to wait for targets.

use crate::{Intent, Result};
use pvfs_types::{Distribution, LayoutHint, Timestamp};

/// The outside, as far as an operation may know it.
pub struct OpEnv<'a> {
    pub now: Timestamp,
    /// The store has only its reserve left: nothing new is made, so that there is room to remove what is there.
    pub is_short: bool,
    pub placement: &'a dyn Placement,
}

/// Chooses where a new file lies: knows which targets are up and how full they are.
pub trait Placement {
    /// # Errors
    /// [`crate::MetaError::Layout`] the wish cannot be had; [`crate::MetaError::NoTargets`] no target is up.
    fn choose(&self, hint: LayoutHint) -> Result<Distribution>;
}

/// How an operation that may truncate ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    Done(T),
    /// Targets must be truncated first. What the transaction wrote (the intent, if it is a new one) is to be
    /// committed; once the intent is finished, the same request is run again.
    Pending(Intent),
}
