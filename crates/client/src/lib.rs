//! The client core: the native, async library that the mount, the command line and the benchmarks are thin skins over.
//!
//! Owns sessions, open files, striping of reads and writes over targets, and what is sent again when. Knows nothing of
//! FUSE, and nothing of what is inside the daemons.
//!
//! # Example
//! ```no_run
//! use pvfs_client::{Client, ClientConfig, CreateOptions, OpenOptions};
//! use pvfs_types::Cred;
//! use pvfs_wire::msg::hello::Secret;
//!
//! # async fn example() -> Result<(), pvfs_client::ClientError> {
//! let secret = Secret([0; 32]); // of the cluster; see `cluster.key`
//! let client = Client::connect(ClientConfig::new(vec!["127.0.0.1:7334".into()], secret)).await?;
//! let me = Cred { uid: 1000, gid: 1000, groups: vec![] };
//!
//! let made = client.create_path(&me, "/results/run-1", CreateOptions::default()).await?;
//! made.file.write_at(0, "forty-two".into()).await?;
//! made.file.close().await?;
//!
//! let file = client.open_path(&me, "/results/run-1", OpenOptions::READ).await?;
//! assert_eq!(file.read_at(6, 100).await?, "two");
//! file.close().await?;
//! client.shutdown().await
//! # }
//! ```
//!
//! # What waits, what errs
//! A daemon that is away is no error: each call waits for the daemons it needs and goes on when they are back.
//! [`Client::status`] tells who waits for what. To bound a wait, drop the future (`tokio::time::timeout`), or set
//! [`ClientConfig::timeo`] for all.
//! [`ClientError::errno`] gives the number that a POSIX program would see.

mod append_lock;
mod appends;
mod atimes;
mod calls;
mod client;
mod config;
mod delegations;
mod ends;
mod error;
mod estate;
mod file;
mod file_locks;
mod gathers;
mod held;
mod holds;
mod inline;
mod inode;
mod io;
mod left;
mod lending;
mod locking;
mod locks;
mod mem_journal;
mod namespace;
mod near;
mod open;
mod orphans;
mod paths;
mod plan;
mod quota;
mod recalls;
mod replay;
mod retry;
mod session;
mod size;
mod slots;
mod status;
mod targets;
mod tmpfile;
mod touches;
mod waits;
mod xattr;

pub use client::{Client, Forgetter};
pub use config::{ClientConfig, Delegating};
pub use delegations::{Delegation, OnChange};
pub use error::{Answer, ClientError};
pub use estate::{AppendMark, Estate, GatherMark, Gathered, Held, Journal, LockMark, Mark};
pub use file::File;
pub use gathers::{GATHER_BYTES_MAX, GATHERS_MAX};
pub use locking::{LockRequest, TakenLock, TestedLock};
pub use mem_journal::MemJournal;
pub use namespace::{DirItem, DirPage};
pub use open::{CreateOptions, Created, OpenOptions};
pub use recalls::KERNEL_VALID_MAX;
pub use status::{ClientStatus, ServerStatus, WaitingCall, WaitingFor};
pub use tmpfile::TmpFileOptions;
pub use waits::{WaitsFor, asked_by};

// What callers need of the layers below.
pub use pvfs_wire::{
    Access,
    msg::{
        namespace::{FsUsage, RenameMode},
        quota::{LimitChange, Quota, Quotas},
        xattr::XattrMode,
    },
};
