//! All of the key space, decoded.

use super::Findings;
use crate::keys::{self, Parts, space};
use crate::record::{
    Client, Counter, Dentry, Inline, Inode, InodeNumbers, Intent, IodtabEntry, LockHeld, LockWait, Mark,
    MgrTime, OrphanEntry, QuotaLimits, QuotaUsage, Record, Reply, RolledBack, Session, Superblock, Target,
    TargetNumber, Writer, Xattr, XattrTotals,
};
use crate::{MetaError, Result, dentry, garbage};
use pvfs_kv::Read;
use pvfs_types::{Ino, LockOwner, Name, ObjectId, QuotaOwner, SessionId, TargetId, TargetUuid, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

#[derive(Default)]
pub(super) struct Content {
    pub superblock: Option<Superblock>,
    pub inode_numbers: Option<InodeNumbers>,
    pub last_session: u64,
    pub last_orphan: u64,
    pub inodes: BTreeMap<Ino, Inode>,
    pub dentries: Vec<(Ino, Name, Dentry)>,
    pub sessions: BTreeMap<SessionId, Session>,
    pub clients: BTreeMap<[u8; 16], SessionId>,
    pub reply_sessions: BTreeSet<SessionId>,
    pub writers: BTreeSet<(Ino, SessionId)>,
    pub session_writers: BTreeSet<(Ino, SessionId)>,
    pub orphans: BTreeMap<u64, Ino>,
    pub claims: BTreeSet<(Ino, SessionId)>,
    pub session_claims: BTreeSet<(Ino, SessionId)>,
    pub garbage: Vec<(TargetId, ObjectId)>,
    pub intents: Vec<Intent>,
    pub targets: BTreeMap<TargetId, TargetUuid>,
    pub target_uuids: BTreeMap<TargetUuid, TargetId>,
    pub iodtabs: BTreeMap<u32, Vec<TargetId>>,
    pub locks: BTreeMap<LockPlace, LockHeld>,
    pub session_locks: BTreeSet<LockPlace>,
    pub lock_waits: Vec<(Ino, u64, LockWait)>,
    pub last_lock_wait: u64,
    /// What the attributes of each inode come to.
    pub xattrs: BTreeMap<Ino, XattrTotals>,
    /// How many bytes are kept of each file.
    pub inline: BTreeMap<Ino, u64>,
    pub usage: BTreeMap<QuotaOwner, QuotaUsage>,
    pub limited: BTreeSet<QuotaOwner>,
}

/// Whose locks of which file.
pub(super) type LockPlace = (Ino, SessionId, LockOwner);

impl Content {
    pub fn load(txn: &(impl Read + ?Sized), findings: &mut Findings) -> Result<Content> {
        let mut content = Content::default();
        txn.range(&[0], &[0xff; 2], &mut |key, value| {
            if let Err(error) = content.take(key, value, findings) {
                findings.add(key.escape_ascii(), error.to_string());
            }
            ControlFlow::Continue(())
        })?;
        Ok(content)
    }

    fn take(&mut self, key: &[u8], value: &[u8], findings: &mut Findings) -> Result<()> {
        let bad_key = || crate::scan::bad_key(key);
        let mut parts = Parts::of(key);
        match key.first().copied().unwrap_or_default() {
            space::SUPERBLOCK => self.superblock = Some(Superblock::from_bytes(value)?),
            space::MGR_TIME => {
                MgrTime::from_bytes(value)?;
            }
            space::COUNTER if key == keys::inode_numbers() => {
                self.inode_numbers = Some(InodeNumbers::from_bytes(value)?);
            }
            space::COUNTER if key == keys::session_numbers() => {
                self.last_session = Counter::from_bytes(value)?.last;
            }
            space::COUNTER if key == keys::orphan_numbers() => {
                self.last_orphan = Counter::from_bytes(value)?.last;
            }
            space::COUNTER if key == keys::lock_waits_numbers() => {
                self.last_lock_wait = Counter::from_bytes(value)?.last;
            }
            space::COUNTER if key == keys::rolled_back() => {
                RolledBack::from_bytes(value)?;
            }
            space::INODE => {
                let ino = parts.ino().ok_or_else(bad_key)?;
                let inode = Inode::from_bytes(value)?;
                findings.expect(inode.ino == ino, key.escape_ascii(), "the key is another inode's");
                self.inodes.insert(ino, inode);
            }
            space::DENTRY => {
                let (dir, cookie, name) = dentry::parse(key)?;
                let about = key.escape_ascii();
                findings.expect(cookie == dentry::cookie(&name), about, "the cookie is not its name's");
                self.dentries.push((dir, name, Dentry::from_bytes(value)?));
            }
            space::SESSION => {
                let id = parts.session().ok_or_else(bad_key)?;
                self.sessions.insert(id, Session::from_bytes(value)?);
            }
            space::CLIENT => {
                let client = key.get(1..).and_then(|rest| rest.try_into().ok()).ok_or_else(bad_key)?;
                self.clients.insert(client, Client::from_bytes(value)?.session);
            }
            space::REPLY => {
                let id = parts.session().ok_or_else(bad_key)?;
                let in_range = parts.u16().is_some_and(|slot| slot < limits::SESSION_SLOTS);
                findings.expect(in_range, key.escape_ascii(), "no such slot");
                Reply::from_bytes(value)?;
                self.reply_sessions.insert(id);
            }
            space::WRITER => {
                Writer::from_bytes(value)?;
                self.writers.insert(ino_session(parts).ok_or_else(bad_key)?);
            }
            space::CLAIM => {
                Mark::from_bytes(value)?;
                self.claims.insert(ino_session(parts).ok_or_else(bad_key)?);
            }
            space::SESSION_WRITER => {
                Mark::from_bytes(value)?;
                self.session_writers.insert(session_ino(parts).ok_or_else(bad_key)?);
            }
            space::SESSION_CLAIM => {
                Mark::from_bytes(value)?;
                self.session_claims.insert(session_ino(parts).ok_or_else(bad_key)?);
            }
            space::ORPHAN => {
                let seq = parts.u64().ok_or_else(bad_key)?;
                self.orphans.insert(seq, OrphanEntry::from_bytes(value)?.ino);
            }
            space::GARBAGE => {
                Mark::from_bytes(value)?;
                self.garbage.push(garbage::parse(key)?);
            }
            space::INTENT => {
                let ino = parts.ino().ok_or_else(bad_key)?;
                let intent = Intent::from_bytes(value)?;
                findings.expect(intent.ino == ino, key.escape_ascii(), "the key is another inode's");
                self.intents.push(intent);
            }
            space::TARGET => {
                let id = TargetId(parts.u32().ok_or_else(bad_key)?);
                self.targets.insert(id, Target::from_bytes(value)?.uuid);
            }
            space::TARGET_UUID => {
                let uuid = key.get(1..).and_then(|rest| rest.try_into().ok()).ok_or_else(bad_key)?;
                self.target_uuids.insert(TargetUuid(uuid), TargetNumber::from_bytes(value)?.id);
            }
            space::IODTAB => {
                let generation = parts.u32().ok_or_else(bad_key)?;
                self.iodtabs.insert(generation, IodtabEntry::from_bytes(value)?.targets);
            }
            space::LOCK | space::SESSION_LOCK | space::LOCK_WAIT => self.take_lock(key, value)?,
            space::INLINE => self.take_inline(key, value)?,
            space::XATTR => self.take_xattr(key, value, findings)?,
            space::QUOTA_LIMITS | space::QUOTA_USAGE => self.take_quota(key, value)?,
            _ => return Err(MetaError::Corrupt { what: "key", detail: "of no known kind".to_owned() }),
        }
        Ok(())
    }

    fn take_xattr(&mut self, key: &[u8], value: &[u8], findings: &mut Findings) -> Result<()> {
        let bad_key = || crate::scan::bad_key(key);
        let mut parts = Parts::of(key);
        let ino = parts.ino().ok_or_else(bad_key)?;
        let name = parts.xattr_name().ok_or_else(bad_key)?;
        let value = Xattr::from_bytes(value)?.value;
        let fits = value.len() <= limits::XATTR_VALUE_BYTES_MAX;
        findings.expect(fits, key.escape_ascii(), "an attribute that is too long");
        self.xattrs.entry(ino).or_default().add(&name);
        Ok(())
    }

    fn take_quota(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut parts = Parts::of(key);
        let owner = parts.quota_owner();
        let owner = parts.whole(owner).ok_or_else(|| crate::scan::bad_key(key))?;
        if key.first() == Some(&space::QUOTA_USAGE) {
            self.usage.insert(owner, QuotaUsage::from_bytes(value)?);
        } else {
            QuotaLimits::from_bytes(value)?;
            self.limited.insert(owner);
        }
        Ok(())
    }

    fn take_inline(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let ino = Parts::of(key).ino().ok_or_else(|| crate::scan::bad_key(key))?;
        self.inline.insert(ino, Inline::from_bytes(value)?.data.len() as u64);
        Ok(())
    }

    fn take_lock(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let bad_key = || crate::scan::bad_key(key);
        let mut parts = Parts::of(key);
        match key.first().copied().unwrap_or_default() {
            space::LOCK => {
                let place = parts.ino().zip(parts.session()).zip(parts.lock_owner());
                let ((ino, session), owner) = parts.whole(place).ok_or_else(bad_key)?;
                self.locks.insert((ino, session, owner), LockHeld::from_bytes(value)?);
            }
            space::SESSION_LOCK => {
                Mark::from_bytes(value)?;
                let place = parts.session().zip(parts.lock_owner()).zip(parts.ino());
                let ((session, owner), ino) = parts.whole(place).ok_or_else(bad_key)?;
                self.session_locks.insert((ino, session, owner));
            }
            _ => {
                let place = parts.ino().zip(parts.u64());
                let (ino, number) = parts.whole(place).ok_or_else(bad_key)?;
                self.lock_waits.push((ino, number, LockWait::from_bytes(value)?));
            }
        }
        Ok(())
    }
}

fn ino_session(mut parts: Parts<'_>) -> Option<(Ino, SessionId)> {
    let pair = parts.ino().zip(parts.session());
    parts.whole(pair)
}

fn session_ino(mut parts: Parts<'_>) -> Option<(Ino, SessionId)> {
    let pair = parts.session().zip(parts.ino());
    parts.whole(pair).map(|(session, ino)| (ino, session))
}
