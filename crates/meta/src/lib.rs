//! The name space: what each metadata operation means, as pure functions over a key-value transaction.
//!
//! Owns the records and keys of the metadata store (drawn in `docs/disk-mgr.md`), the permission rules of POSIX, and
//! one file per operation under [`ops`]. Knows no network, no clock (`now` is handed in) and not which engine it
//! runs on. An operation that errs may leave writes in its transaction: drop that transaction.

pub mod access;
pub mod check;
pub mod dentry;
pub mod garbage;
pub mod inline;
pub mod inode;
pub mod intent;
pub mod iodtab;
pub mod keys;
pub mod lock;
pub mod mgr_time;
pub mod ops;
pub mod orphan;
pub mod quota;
pub mod record;
pub mod rollback;
pub mod session;
pub mod settle;
pub mod slot;
pub mod superblock;
pub mod target;
pub mod writer;
pub mod xattr;

mod error;
mod op_env;
mod scan;
mod touched;
mod truncate;

pub use error::{MetaError, Result};
pub use inode::{Inode, Stat};
pub use intent::Intent;
pub use op_env::{OpEnv, Outcome, Placement};
pub use settle::{Settled, settle};
pub use touched::touched;
