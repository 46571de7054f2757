//! The mount: the client core under the kernel's FUSE. A thin skin.
//!
//! Owns what the kernel asks ([`ops`], a trait of our own), how it is answered over the client ([`PvfsFs`]), how requests
//! come in and answers go out ([`Adapter`], over the crate `fuser`), mounting and unmounting. Knows no wire message and no
//! striping.
//!
//! [`run`](run()) mounts and serves until told to stop; [`mount_client`] gives a handle instead. [`umount`](umount())
//! ends a mount from outside; [`daemon`] puts one into the background; [`report`] tells who waits for what.

mod adapter;
mod book;
mod cache;
mod control;
mod creds;
pub mod daemon;
mod device;
pub mod dirstream;
mod error;
mod handles;
pub mod keeper;
mod line;
mod memory;
pub mod mountinfo;
mod openfile;
pub mod ops;
mod options;
mod pages;
mod pvfs;
mod remount;
pub mod report;
mod run;
mod session;
mod socket;

mod told;
mod trusted;
mod twins;
mod umount;
mod upgrade;

pub use adapter::Adapter;
pub use cache::CacheMode;
pub use error::{MountError, UmountError};
pub use ops::Filesystem;
pub use options::{Atimes, MountOptions, OptionError};
pub use pvfs::PvfsFs;
pub use remount::remount;
pub use run::{MountConfig, Takeover, mount_client, run, run_worker};
pub use session::{Mounted, mount};
pub use umount::{Umounted, umount};
pub use upgrade::upgrade;
