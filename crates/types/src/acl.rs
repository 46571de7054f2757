//! POSIX ACLs as Linux has them (the withdrawn POSIX.1e draft 17): whom an inode lets in beside its mode, and what the
//! two make of each other. Pure.
//!
//! An access ACL and the mode tell the same of the owner, of the others and of the *group class*: the mode's group bits are
//! the ACL's mask, where it has one. [`Acl::mode_bits`] and [`Acl::chmod`] keep it so.
//!
//! Source: the kernel's `fs/posix_acl.c`, whose algorithms these are.

use crate::{Cred, Errno, limits::ACL_ENTRIES_MAX, mode};

/// A valid ACL: one entry each of owner, group and others, then named users and groups, and a mask where those are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<Entry>);

/// Whom an entry is about, and the permissions it gives (of [`mode::R`], [`mode::W`], [`mode::X`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub who: Who,
    pub perm: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Owner,
    User(u32),
    Group,
    NamedGroup(u32),
    /// The most that anybody but owner and others gets.
    Mask,
    Others,
}

/// Why bytes are not an ACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    #[error("an ACL is a version of 4 bytes and entries of 8, not {bytes} bytes")]
    Length { bytes: usize },
    #[error("ACLs have version 2, not {version}")]
    Version { version: u32 },
    #[error("entry {at} of the ACL is none that may stand there")]
    Entry { at: usize },
    #[error("the ACL lacks an entry that each must have")]
    Incomplete,
    #[error("an ACL has at most {ACL_ENTRIES_MAX} entries, this one has {entries}")]
    TooLong { entries: usize },
}

impl AclError {
    /// The errno Linux gives.
    pub fn errno(self) -> Errno {
        match self {
            AclError::Version { .. } => Errno::EOPNOTSUPP,
            AclError::Length { .. } | AclError::Entry { .. } | AclError::Incomplete => Errno::EINVAL,
            AclError::TooLong { .. } => Errno::E2BIG,
        }
    }
}

const VERSION: u32 = 2;
const HEAD_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// Stands for no user and no group.
const NOBODY: u32 = u32::MAX;

/// The numbers that the attribute's form has for each kind of entry.
mod tag {
    pub const OWNER: u16 = 0x01;
    pub const USER: u16 = 0x02;
    pub const GROUP: u16 = 0x04;
    pub const NAMED_GROUP: u16 = 0x08;
    pub const MASK: u16 = 0x10;
    pub const OTHERS: u16 = 0x20;
}

impl Acl {
    /// Reads the value of the attribute: version 2, little-endian. `None`: it has no entries, which stands for no ACL.
    pub fn from_xattr(bytes: &[u8]) -> Result<Option<Acl>, AclError> {
        let length = AclError::Length { bytes: bytes.len() };
        let (version, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(length)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(AclError::Version { version });
        }
        let entries = rest.len() / ENTRY_BYTES;
        if rest.len() % ENTRY_BYTES != 0 {
            return Err(length);
        }
        if entries > ACL_ENTRIES_MAX {
            return Err(AclError::TooLong { entries });
        }
        let read = |(at, bytes): (usize, &[u8])| Entry::read(bytes).ok_or(AclError::Entry { at });
        let entries: Vec<Entry> =
            rest.chunks_exact(ENTRY_BYTES).enumerate().map(read).collect::<Result<_, _>>()?;
        if entries.is_empty() {
            return Ok(None);
        }
        check(&entries)?;
        Ok(Some(Acl(entries)))
    }

    /// The value of the attribute.
    pub fn to_xattr(&self) -> Vec<u8> {
        let entries = self.0.iter().flat_map(|entry| entry.bytes());
        VERSION.to_le_bytes().into_iter().chain(entries).collect()
    }

    /// What root and the owner's own capabilities have no part in: whether the ACL of a file of `uid` and `gid` gives
    /// `cred` all of `mask`.
    pub fn permits(&self, (uid, gid): (u32, u32), cred: &Cred, mask: u32) -> bool {
        let gives = |entry: &Entry| u32::from(entry.perm) & mask == mask;
        let unmasked = |entry: &Entry| gives(entry) && self.mask().is_none_or(|most| gives(&most));
        let mut is_member = false;
        for entry in &self.0 {
            match entry.who {
                Who::Owner if cred.uid == uid => return gives(entry),
                Who::User(user) if cred.uid == user => return unmasked(entry),
                Who::Group if cred.in_group(gid) => {
                    is_member = true;
                    if gives(entry) {
                        return unmasked(entry);
                    }
                }
                Who::NamedGroup(group) if cred.in_group(group) => {
                    is_member = true;
                    if gives(entry) {
                        return unmasked(entry);
                    }
                }
                Who::Others => return !is_member && gives(entry),
                Who::Owner | Who::User(_) | Who::Group | Who::NamedGroup(_) | Who::Mask => {}
            }
        }
        false
    }

    /// The permission bits of the mode that goes with it.
    pub fn mode_bits(&self) -> u32 {
        let of = |who| self.find(who).map_or(0, |entry| u32::from(entry.perm));
        let class = self.mask().map_or_else(|| of(Who::Group), |mask| u32::from(mask.perm));
        of(Who::Owner) << 6 | class << 3 | of(Who::Others)
    }

    /// Whether the mode's permission bits say all that it says.
    pub fn is_mode_only(&self) -> bool {
        self.0.len() == 3
    }

    /// Gives owner, group class and others the permission bits of `mode`.
    pub fn chmod(&mut self, mode: u32) {
        let class = if self.mask().is_some() { Who::Mask } else { Who::Group };
        for entry in &mut self.0 {
            let shift = match entry.who {
                Who::Owner => 6,
                Who::Others => 0,
                who if who == class => 3,
                Who::User(_) | Who::Group | Who::NamedGroup(_) | Who::Mask => continue,
            };
            entry.perm = perm_of(mode >> shift);
        }
    }

    /// What something new gets in a directory whose default ACL this is, when its maker asks for the permission bits of
    /// `mode`: its own bits, and its access ACL where the bits do not say it all.
    pub fn inherited(&self, mode: u32) -> (u32, Option<Acl>) {
        let mut acl = self.clone();
        acl.chmod(self.mode_bits() & mode);
        let bits = acl.mode_bits();
        (bits, (!acl.is_mode_only()).then_some(acl))
    }

    fn find(&self, who: Who) -> Option<Entry> {
        self.0.iter().copied().find(|entry| entry.who == who)
    }

    fn mask(&self) -> Option<Entry> {
        self.find(Who::Mask)
    }
}

/// The lowest three bits.
fn perm_of(bits: u32) -> u16 {
    u16::try_from(bits & 0o7).unwrap_or_default()
}

/// The order that the form prescribes, and that what must be there is. (Who is named twice counts the first time.)
fn check(entries: &[Entry]) -> Result<(), AclError> {
    /// Where in the list: after the owner come users, after the group named groups, after the mask the others.
    #[derive(PartialEq)]
    enum At {
        Owner,
        Users,
        Groups,
        Others,
        End,
    }
    let (mut state, mut needs_mask) = (At::Owner, false);
    for (at, entry) in entries.iter().enumerate() {
        state = match (state, entry.who) {
            (At::Owner, Who::Owner) => At::Users,
            (At::Users, Who::User(_)) => {
                needs_mask = true;
                At::Users
            }
            (At::Users, Who::Group) => At::Groups,
            (At::Groups, Who::NamedGroup(_)) => {
                needs_mask = true;
                At::Groups
            }
            (At::Groups, Who::Mask) => At::Others,
            (At::Others, Who::Others) => At::End,
            (At::Groups, Who::Others) if !needs_mask => At::End,
            _ => return Err(AclError::Entry { at }),
        };
    }
    if state == At::End { Ok(()) } else { Err(AclError::Incomplete) }
}

impl Entry {
    /// From its 8 bytes: kind, permissions, number; `None` for what no entry can say.
    fn read(bytes: &[u8]) -> Option<Entry> {
        let (kind, rest) = bytes.split_first_chunk()?;
        let (perm, id) = rest.split_first_chunk()?;
        let (perm, id) = (u16::from_le_bytes(*perm), u32::from_le_bytes(*id.first_chunk()?));
        let named = |who: fn(u32) -> Who| (id != NOBODY).then_some(who(id));
        let who = match u16::from_le_bytes(*kind) {
            tag::OWNER => Who::Owner,
            tag::USER => named(Who::User)?,
            tag::GROUP => Who::Group,
            tag::NAMED_GROUP => named(Who::NamedGroup)?,
            tag::MASK => Who::Mask,
            tag::OTHERS => Who::Others,
            _ => return None,
        };
        (u32::from(perm) & !(mode::R | mode::W | mode::X) == 0).then_some(Entry { who, perm })
    }

    fn bytes(self) -> [u8; ENTRY_BYTES] {
        let (kind, id) = match self.who {
            Who::Owner => (tag::OWNER, NOBODY),
            Who::User(uid) => (tag::USER, uid),
            Who::Group => (tag::GROUP, NOBODY),
            Who::NamedGroup(gid) => (tag::NAMED_GROUP, gid),
            Who::Mask => (tag::MASK, NOBODY),
            Who::Others => (tag::OTHERS, NOBODY),
        };
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.perm.to_le_bytes());
        bytes[4..].copy_from_slice(&id.to_le_bytes());
        bytes
    }
}

/// In the attribute's form.
impl<C> minicbor::Encode<C> for Acl {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.to_xattr())?.ok()
    }
}

/// Decoding checks: no ACL comes off a disk that is not valid.
impl<'b, C> minicbor::Decode<'b, C> for Acl {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let acl = Acl::from_xattr(d.bytes()?).map_err(minicbor::decode::Error::custom)?;
        acl.ok_or_else(|| minicbor::decode::Error::message("an ACL without entries"))
    }
}

#[cfg(test)]
mod tests;
