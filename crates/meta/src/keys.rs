//! The one list of all keys. `docs/disk-mgr.md` draws it; numbers are big-endian, so that keys sort as numbers do.

use pvfs_types::{
    DataGen, Ino, IodtabGen, LockKind, LockOwner, Name, ObjectId, QuotaOwner, SessionId, Slot, TargetId,
    TargetUuid, XattrName,
};

/// The first byte of every key: what kind of record it leads to. A value never changes its meaning.
pub mod space {
    pub const SUPERBLOCK: u8 = b's';
    pub const MGR_TIME: u8 = b'm';
    pub const COUNTER: u8 = b'c';
    pub const INODE: u8 = b'i';
    pub const DENTRY: u8 = b'd';
    pub const SESSION: u8 = b'S';
    pub const CLIENT: u8 = b'C';
    pub const REPLY: u8 = b'r';
    pub const WRITER: u8 = b'w';
    pub const SESSION_WRITER: u8 = b'W';
    pub const ORPHAN: u8 = b'o';
    pub const CLAIM: u8 = b'k';
    pub const SESSION_CLAIM: u8 = b'K';
    pub const GARBAGE: u8 = b'g';
    pub const INTENT: u8 = b'n';
    pub const TARGET: u8 = b't';
    pub const TARGET_UUID: u8 = b'u';
    pub const IODTAB: u8 = b'T';
    pub const LOCK: u8 = b'l';
    pub const SESSION_LOCK: u8 = b'L';
    pub const LOCK_WAIT: u8 = b'q';
    pub const XATTR: u8 = b'x';
    pub const INLINE: u8 = b'b';
    pub const QUOTA_LIMITS: u8 = b'Q';
    pub const QUOTA_USAGE: u8 = b'U';

    pub const ALL: [u8; 25] = [
        SUPERBLOCK,
        MGR_TIME,
        COUNTER,
        INODE,
        DENTRY,
        SESSION,
        CLIENT,
        REPLY,
        WRITER,
        SESSION_WRITER,
        ORPHAN,
        CLAIM,
        SESSION_CLAIM,
        GARBAGE,
        INTENT,
        TARGET,
        TARGET_UUID,
        IODTAB,
        LOCK,
        SESSION_LOCK,
        LOCK_WAIT,
        XATTR,
        INLINE,
        QUOTA_LIMITS,
        QUOTA_USAGE,
    ];
}

/// Puts a key together from its space and fixed-size parts.
macro_rules! key {
    ($space:ident $(, $part:expr)*) => {{
        let parts: &[&[u8]] = &[&[space::$space], $(&$part),*];
        parts.concat()
    }};
}

pub fn superblock() -> Vec<u8> {
    key!(SUPERBLOCK)
}

pub fn mgr_time() -> Vec<u8> {
    key!(MGR_TIME)
}

pub fn inode_numbers() -> Vec<u8> {
    key!(COUNTER, *b"i")
}

pub fn session_numbers() -> Vec<u8> {
    key!(COUNTER, *b"s")
}

pub fn orphan_numbers() -> Vec<u8> {
    key!(COUNTER, *b"o")
}

pub fn lock_waits_numbers() -> Vec<u8> {
    key!(COUNTER, *b"q")
}

pub fn rolled_back() -> Vec<u8> {
    key!(COUNTER, *b"b")
}

pub fn inode(ino: Ino) -> Vec<u8> {
    key!(INODE, ino.0.to_be_bytes())
}

/// `cookie` is `dentry::cookie(name)`.
pub fn dentry(dir: Ino, cookie: u64, name: &Name) -> Vec<u8> {
    key!(DENTRY, dir.0.to_be_bytes(), cookie.to_be_bytes(), *name.as_bytes())
}

/// Where the entries of `dir` with this cookie or a higher one start.
pub fn dentries_from(dir: Ino, cookie: u64) -> Vec<u8> {
    key!(DENTRY, dir.0.to_be_bytes(), cookie.to_be_bytes())
}

pub fn dentries(dir: Ino) -> Vec<u8> {
    key!(DENTRY, dir.0.to_be_bytes())
}

pub fn session(id: SessionId) -> Vec<u8> {
    key!(SESSION, id.0.to_be_bytes())
}

pub fn client(client: &[u8; 16]) -> Vec<u8> {
    key!(CLIENT, *client)
}

pub fn reply(session: SessionId, slot: u16) -> Vec<u8> {
    key!(REPLY, session.0.to_be_bytes(), slot.to_be_bytes())
}

pub fn replies(session: SessionId) -> Vec<u8> {
    key!(REPLY, session.0.to_be_bytes())
}

pub fn writer(ino: Ino, session: SessionId) -> Vec<u8> {
    key!(WRITER, ino.0.to_be_bytes(), session.0.to_be_bytes())
}

pub fn writers(ino: Ino) -> Vec<u8> {
    key!(WRITER, ino.0.to_be_bytes())
}

pub fn session_writer(session: SessionId, ino: Ino) -> Vec<u8> {
    key!(SESSION_WRITER, session.0.to_be_bytes(), ino.0.to_be_bytes())
}

pub fn session_writers(session: SessionId) -> Vec<u8> {
    key!(SESSION_WRITER, session.0.to_be_bytes())
}

pub fn orphan(seq: u64) -> Vec<u8> {
    key!(ORPHAN, seq.to_be_bytes())
}

pub fn claim(ino: Ino, session: SessionId) -> Vec<u8> {
    key!(CLAIM, ino.0.to_be_bytes(), session.0.to_be_bytes())
}

pub fn claims(ino: Ino) -> Vec<u8> {
    key!(CLAIM, ino.0.to_be_bytes())
}

pub fn session_claim(session: SessionId, ino: Ino) -> Vec<u8> {
    key!(SESSION_CLAIM, session.0.to_be_bytes(), ino.0.to_be_bytes())
}

pub fn session_claims(session: SessionId) -> Vec<u8> {
    key!(SESSION_CLAIM, session.0.to_be_bytes())
}

pub fn garbage(target: TargetId, object: ObjectId) -> Vec<u8> {
    key!(
        GARBAGE,
        target.0.to_be_bytes(),
        object.ino.0.to_be_bytes(),
        object.data_gen.0.to_be_bytes(),
        object.slot.0.to_be_bytes()
    )
}

pub fn garbage_of(target: TargetId) -> Vec<u8> {
    key!(GARBAGE, target.0.to_be_bytes())
}

pub fn intent(ino: Ino) -> Vec<u8> {
    key!(INTENT, ino.0.to_be_bytes())
}

pub fn target(id: TargetId) -> Vec<u8> {
    key!(TARGET, id.0.to_be_bytes())
}

pub fn target_uuid(uuid: TargetUuid) -> Vec<u8> {
    key!(TARGET_UUID, uuid.0)
}

pub fn iodtab(generation: IodtabGen) -> Vec<u8> {
    key!(IODTAB, generation.0.to_be_bytes())
}

fn lock_kind(kind: LockKind) -> [u8; 1] {
    match kind {
        LockKind::Posix => *b"p",
        LockKind::Flock => *b"f",
        LockKind::Append => *b"a",
    }
}

/// What an owner holds of `ino`.
pub fn lock(ino: Ino, session: SessionId, owner: LockOwner) -> Vec<u8> {
    key!(LOCK, ino.0.to_be_bytes(), session.0.to_be_bytes(), lock_kind(owner.kind), owner.id.to_be_bytes())
}

pub fn locks(ino: Ino) -> Vec<u8> {
    key!(LOCK, ino.0.to_be_bytes())
}

/// An owner holds locks of `ino`, or waits for one.
pub fn session_lock(session: SessionId, owner: LockOwner, ino: Ino) -> Vec<u8> {
    key!(
        SESSION_LOCK,
        session.0.to_be_bytes(),
        lock_kind(owner.kind),
        owner.id.to_be_bytes(),
        ino.0.to_be_bytes()
    )
}

pub fn session_locks(session: SessionId) -> Vec<u8> {
    key!(SESSION_LOCK, session.0.to_be_bytes())
}

pub fn owner_locks(session: SessionId, owner: LockOwner) -> Vec<u8> {
    key!(SESSION_LOCK, session.0.to_be_bytes(), lock_kind(owner.kind), owner.id.to_be_bytes())
}

/// A lock of `ino` that is waited for. Numbers rise, so that they stand in the order in which they came.
pub fn lock_wait(ino: Ino, number: u64) -> Vec<u8> {
    key!(LOCK_WAIT, ino.0.to_be_bytes(), number.to_be_bytes())
}

pub fn lock_waits(ino: Ino) -> Vec<u8> {
    key!(LOCK_WAIT, ino.0.to_be_bytes())
}

pub fn xattr(ino: Ino, name: &XattrName) -> Vec<u8> {
    key!(XATTR, ino.0.to_be_bytes(), *name.as_bytes())
}

pub fn xattrs(ino: Ino) -> Vec<u8> {
    key!(XATTR, ino.0.to_be_bytes())
}

/// The bytes of a small file.
pub fn inline(ino: Ino) -> Vec<u8> {
    key!(INLINE, ino.0.to_be_bytes())
}

fn quota_owner(owner: QuotaOwner) -> [u8; 9] {
    let (kind, id) = match owner {
        QuotaOwner::Group(gid) => (b'g', u64::from(gid)),
        QuotaOwner::Tree(top) => (b't', top.0),
        QuotaOwner::User(uid) => (b'u', u64::from(uid)),
    };
    let mut part = [kind; 9];
    part[1..].copy_from_slice(&id.to_be_bytes());
    part
}

/// What an owner may use. Keys stand in the order of their owners.
pub fn quota_limits(owner: QuotaOwner) -> Vec<u8> {
    key!(QUOTA_LIMITS, quota_owner(owner))
}

/// What an owner uses. In the same order.
pub fn quota_usage(owner: QuotaOwner) -> Vec<u8> {
    key!(QUOTA_USAGE, quota_owner(owner))
}

/// All keys of one space.
pub fn all(space: u8) -> Vec<u8> {
    vec![space]
}

/// The first key past all that start with `prefix`, which starts with a space's byte.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}

/// Reads a key's parts from the front.
pub(crate) struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// The parts of a key of any space.
    pub fn of(key: &'a [u8]) -> Parts<'a> {
        Parts(key.get(1..).unwrap_or_default())
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (part, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*part)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub fn ino(&mut self) -> Option<Ino> {
        self.u64().map(Ino)
    }

    pub fn session(&mut self) -> Option<SessionId> {
        self.u64().map(SessionId)
    }

    pub fn lock_owner(&mut self) -> Option<LockOwner> {
        let kind = match &self.take::<1>()? {
            b"p" => LockKind::Posix,
            b"f" => LockKind::Flock,
            b"a" => LockKind::Append,
            _ => return None,
        };
        Some(LockOwner { kind, id: self.u64()? })
    }

    pub fn quota_owner(&mut self) -> Option<QuotaOwner> {
        let [kind] = self.take::<1>()?;
        let id = self.u64()?;
        match kind {
            b'g' => u32::try_from(id).ok().map(QuotaOwner::Group),
            b't' => Some(QuotaOwner::Tree(Ino(id))),
            b'u' => u32::try_from(id).ok().map(QuotaOwner::User),
            _ => None,
        }
    }

    pub fn object(&mut self) -> Option<ObjectId> {
        Some(ObjectId { ino: self.ino()?, data_gen: DataGen(self.u32()?), slot: Slot(self.u16()?) })
    }

    pub fn name(&mut self) -> Option<Name> {
        Name::new(std::mem::take(&mut self.0)).ok()
    }

    pub fn xattr_name(&mut self) -> Option<XattrName> {
        XattrName::new(std::mem::take(&mut self.0)).ok()
    }

    /// `value`, if it is there and nothing follows it.
    pub fn whole<T>(self, value: Option<T>) -> Option<T> {
        if self.0.is_empty() { value } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_differ() {
        let mut all = space::ALL.to_vec();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), space::ALL.len());
    }

    #[test]
    fn a_prefix_ends_where_the_next_number_starts() {
        assert_eq!(prefix_end(&writers(Ino(7))), writers(Ino(8)));
        assert_eq!(prefix_end(&writers(Ino(0xff))), key!(WRITER, [0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(prefix_end(&writers(Ino(u64::MAX))), vec![space::WRITER + 1]);
    }

    #[test]
    fn the_longest_key_fits_every_engine() {
        let name = Name::new(vec![b'n'; 255]).expect("255 bytes are a name");
        assert!(dentry(Ino(u64::MAX), u64::MAX, &name).len() <= pvfs_kv::KEY_BYTES_MAX);
        let name = XattrName::new(vec![b'n'; 255]).expect("255 bytes are a name");
        assert!(xattr(Ino(u64::MAX), &name).len() <= pvfs_kv::KEY_BYTES_MAX);
    }

    #[test]
    fn keys_give_back_their_parts() {
        let object = ObjectId { ino: Ino(5), data_gen: DataGen(2), slot: Slot(3) };
        let key = garbage(TargetId(9), object);
        let mut parts = Parts::of(&key);
        assert_eq!((parts.u32(), parts.object()), (Some(9), Some(object)));
        assert_eq!(parts.whole(Some(())), Some(()));
        let owner = LockOwner { kind: LockKind::Flock, id: 77 };
        let key = session_lock(SessionId(4), owner, Ino(5));
        let mut parts = Parts::of(&key);
        assert_eq!(
            (parts.session(), parts.lock_owner(), parts.ino()),
            (Some(SessionId(4)), Some(owner), Some(Ino(5)))
        );
        for owner in [QuotaOwner::Group(7), QuotaOwner::Tree(Ino(1 << 40)), QuotaOwner::User(u32::MAX)] {
            assert_eq!(Parts::of(&quota_usage(owner)).quota_owner(), Some(owner));
        }
        let key = garbage(TargetId(9), object);
        let mut short = Parts::of(&key[..6]);
        assert_eq!((short.u32(), short.object()), (Some(9), None));
    }
}
