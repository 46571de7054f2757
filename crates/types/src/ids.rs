//! Identities. Each is its own type, so that none is passed where another belongs.

use minicbor::{Decode, Encode};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $show:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $show, self.0)
            }
        }
    };
}

id! {
    /// The number of an inode. Never used twice in the life of a file system.
    Ino(u64), "{}"
}
id! {
    /// The data generation of a file: raised when a truncation to zero swaps all its objects at once.
    DataGen(u32), "g{}"
}
id! {
    /// A target's number within its file system, given by the mgr when the target joins. Never used twice.
    TargetId(u32), "t{}"
}
id! {
    /// The number of an iodtab. What a generation lists never changes.
    IodtabGen(u32), "iodtab {}"
}
id! {
    /// Which of a file's `pcount` objects: strip `n` of a file lies in slot `n % pcount`.
    Slot(u16), "slot{}"
}
id! {
    /// One client's standing with the mgr.
    SessionId(u64), "session {}"
}

impl Ino {
    /// The root directory. Also what FUSE calls its root.
    pub const ROOT: Ino = Ino(1);
}

/// What one target holds of one file: the bytes of one slot of one data generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ObjectId {
    #[n(0)]
    pub ino: Ino,
    #[n(1)]
    pub data_gen: DataGen,
    #[n(2)]
    pub slot: Slot,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.ino, self.data_gen, self.slot)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

        impl $name {
            /// A new random identity.
            pub fn random() -> Self {
                Self(*uuid::Uuid::new_v4().as_bytes())
            }

            /// The identity that these random bytes make.
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(*uuid::Builder::from_random_bytes(bytes).as_uuid().as_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                uuid::Uuid::from_bytes(self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(Self(*uuid::Uuid::parse_str(text)?.as_bytes()))
            }
        }
    };
}

uuid_id! {
    /// The identity of a file system, made by `pvfs format`. Daemons of different file systems refuse each other.
    FsId
}
uuid_id! {
    /// The identity of a target directory, made by `pvfs format`, written into it, never changed.
    TargetUuid
}
