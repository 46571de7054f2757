//! An iod's object store: objects of one target, in a directory of a local file system.
//!
//! Owns the target directory's format (`docs/disk-target.md`), which objects there are, and the store generation.
//! Never knows files, names or the network. Where to start reading: [`Store`].
//!
//! Calls block as [`pvfs_env::disk`] says. Every error is a [`StoreError`].

mod cache;
mod commits;
mod copy;
mod error;
mod fence;
mod fill;
mod format;
mod handle;
mod ledger;
mod list;
mod mend;
mod objects;
mod ops;
mod records;
mod small_files;
mod store;
mod syncing;
mod text;
mod tombstones;
mod unsynced;

pub use error::StoreError;
pub use fence::Acked;
pub use format::{format_disk, format_target};
pub use list::Listing;
pub use objects::{Copied, Copy, Fill, FillWith, ObjectFilled, ObjectRead, ObjectRun, ObjectStat, Write};
pub use records::{FORMAT_VERSION, Identity, Loss, Membership, MgrTime, State, Witness};
pub use store::{Store, StoreOptions};
pub use syncing::Extent;
pub use text::RecordError;
