//! Capabilities and leases: what a mgr signs and an iod checks without remembering anything.
//!
//! A capability says *what* (this file, this data generation, these rights, for this session); the session's lease
//! says *until when*. One renewal of the lease, with every keep-alive, renews all files at once. Both bear a BLAKE3
//! keyed hash under a key that only daemons hold.

use minicbor::{Decode, Encode};
use pvfs_types::{DataGen, Distribution, Ino, SessionId};

/// What a capability allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Access {
    #[n(0)]
    pub read: bool,
    #[n(1)]
    pub write: bool,
}

impl Access {
    pub const READ: Access = Access { read: true, write: false };
    pub const WRITE: Access = Access { read: false, write: true };
    pub const READ_WRITE: Access = Access { read: true, write: true };

    /// Whether everything that `wanted` asks is in `self`.
    pub fn covers(self, wanted: Access) -> bool {
        (self.read || !wanted.read) && (self.write || !wanted.write)
    }

    #[must_use]
    pub fn union(self, other: Access) -> Access {
        Access { read: self.read || other.read, write: self.write || other.write }
    }
}

/// The key under which mgrs sign. Only daemons hold it.
#[derive(Clone)]
pub struct MacKey([u8; 32]);

impl MacKey {
    /// Derives the signing key from the daemons' secret.
    pub fn from_daemon_secret(secret: &[u8; 32]) -> MacKey {
        MacKey(blake3::derive_key("pvfs 2026 capability signing key", secret))
    }

    fn mac(&self, what: &str, body: &impl Encode<()>) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(what.as_bytes());
        hasher.update(&[0]);
        hasher.update(&crate::encode(body));
        hasher.finalize()
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(…)")
    }
}

/// What a capability states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Grant {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub data_gen: DataGen,
    #[n(3)]
    pub dist: Distribution,
    #[n(4)]
    pub access: Access,
    /// The mgr's time just before it looked whether `data_gen` is the file's: that was so at this time or later. `None`:
    /// of an older mgr.
    #[n(5)]
    pub granted_ms: Option<u64>,
    /// The end of the last byte that may be written; `None`: no limit binds the file.
    #[n(6)]
    pub size_max: Option<u64>,
}

impl Grant {
    /// Whether the file may be written up to `end`.
    pub fn reaches(&self, end: u64) -> bool {
        self.size_max.is_none_or(|size_max| end <= size_max)
    }
}

/// A signed [`Grant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Capability {
    #[n(0)]
    pub grant: Grant,
    #[cbor(n(1), with = "minicbor::bytes")]
    mac: [u8; 32],
}

impl Capability {
    pub fn sign(grant: Grant, key: &MacKey) -> Capability {
        Capability { grant, mac: *key.mac("capability", &grant).as_bytes() }
    }

    /// Whether a holder of `key` signed this. Takes the same time whatever the answer.
    pub fn is_genuine(&self, key: &MacKey) -> bool {
        key.mac("capability", &self.grant) == self.mac
    }
}

/// A signed statement that `session` is good until `until_ms`, in the mgr's time (milliseconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Lease {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub until_ms: u64,
    #[cbor(n(2), with = "minicbor::bytes")]
    mac: [u8; 32],
}

impl Lease {
    pub fn sign(session: SessionId, until_ms: u64, key: &MacKey) -> Lease {
        Lease { session, until_ms, mac: *key.mac("lease", &(session, until_ms)).as_bytes() }
    }

    pub fn is_genuine(&self, key: &MacKey) -> bool {
        key.mac("lease", &(self.session, self.until_ms)) == self.mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_types::IodtabGen;

    fn grant() -> Grant {
        Grant {
            session: SessionId(3),
            ino: Ino(7),
            data_gen: DataGen(1),
            dist: Distribution { iodtab: IodtabGen(1), base: 0, pcount: 4, ssize: 65536 },
            access: Access::READ,
            granted_ms: Some(9),
            size_max: Some(1 << 20),
        }
    }

    #[test]
    fn a_changed_capability_is_forged() {
        let key = MacKey::from_daemon_secret(&[1; 32]);
        let cap = Capability::sign(grant(), &key);
        assert!(cap.is_genuine(&key));
        assert!(!cap.is_genuine(&MacKey::from_daemon_secret(&[2; 32])), "another cluster's key");
        let mut other_file = cap;
        other_file.grant.ino = Ino(8);
        assert!(!other_file.is_genuine(&key));
        let mut more_rights = cap;
        more_rights.grant.access.write = true;
        assert!(!more_rights.is_genuine(&key));
        let mut fresher = cap;
        fresher.grant.granted_ms = Some(10);
        assert!(!fresher.is_genuine(&key));
        let mut unbound = cap;
        unbound.grant.size_max = None;
        assert!(!unbound.is_genuine(&key));
    }

    #[test]
    fn a_prolonged_lease_is_forged() {
        let key = MacKey::from_daemon_secret(&[1; 32]);
        let mut lease = Lease::sign(SessionId(1), 1000, &key);
        assert!(lease.is_genuine(&key));
        lease.until_ms += 1;
        assert!(!lease.is_genuine(&key));
    }
}
