//! Quotas: what users, groups and trees use, and what they may. Client to mgr.

use super::{
    request,
    session::{Caller, Mutator},
};
use minicbor::{Decode, Encode};
use pvfs_types::QuotaOwner;

/// Sets what an owner may use, or takes limits away. For root and the owner of the root directory. With its first limit a
/// directory becomes a tree, with its last it ends to be one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetQuota {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub owner: QuotaOwner,
    #[n(2)]
    pub bytes: LimitChange,
    #[n(3)]
    pub inodes: LimitChange,
}

/// What becomes of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum LimitChange {
    #[default]
    #[n(0)]
    Keep,
    #[n(1)]
    Set(#[n(0)] u64),
    #[n(2)]
    Clear,
}

/// Asks what owners use and may use. Root, and the owner of the root directory, are told of all; others of themselves, their
/// groups and the trees whose top directory they may read.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GetQuotas {
    #[n(0)]
    pub caller: Caller,
    /// Only this one, also if it uses nothing.
    #[n(1)]
    pub owner: Option<QuotaOwner>,
    /// Those behind this one, in their order.
    #[n(2)]
    pub after: Option<QuotaOwner>,
    /// At most so many (and at most `limits::QUOTAS_PAGE_MAX`).
    #[n(3)]
    pub max: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Quotas {
    /// No: no limit was ever set, and nothing is counted.
    #[n(0)]
    pub counted: bool,
    #[n(1)]
    pub quotas: Vec<Quota>,
    #[n(2)]
    pub end: bool,
}

/// What one owner uses, and may.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Quota {
    #[n(0)]
    pub owner: QuotaOwner,
    /// The sizes of its regular files, as the mgr knows them.
    #[n(1)]
    pub bytes: u64,
    /// Charged beside them for files that are being written: so far they may grow.
    #[n(2)]
    pub bytes_ahead: u64,
    #[n(3)]
    pub bytes_limit: Option<u64>,
    #[n(4)]
    pub inodes: u64,
    #[n(5)]
    pub inodes_limit: Option<u64>,
    /// Where a tree's top directory is now.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub path: Option<Vec<u8>>,
}

request! {
    SetQuota => SetQuota, Quota;
    GetQuotas => GetQuotas, Quotas;
}
