//! The words every other crate speaks: ids, offsets, striping arithmetic, names, attributes, errno, limits.
//!
//! Owns what these things *mean*. Knows no I/O, no clock and no async code; every function here is pure.

pub mod acl;
pub mod attr;
pub mod errno;
pub mod ids;
pub mod limits;
pub mod lock;
pub mod name;
pub mod pattern;
pub mod quota;
pub mod striping;
pub mod time;
pub mod xattr;

pub use acl::{Acl, AclError};
pub use attr::{Attr, Cred, Extras, FileKind, NewMode, SetAttr, SetTime, mode, wants_relatime};
pub use errno::Errno;
pub use ids::{DataGen, FsId, Ino, IodtabGen, ObjectId, SessionId, Slot, TargetId, TargetUuid};
pub use lock::{LockKind, LockMode, LockOwner, LockRange, Locked};
pub use name::{Name, NameError};
pub use pattern::{Level, Pattern, PatternError};
pub use quota::QuotaOwner;
pub use striping::{Distribution, LayoutError, LayoutHint, LogicalOffset, ObjectOffset, Piece};
pub use time::Timestamp;
pub use xattr::{AclKind, XattrName, XattrNameError, XattrSpace};
