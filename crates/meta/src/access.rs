//! Who may do what: all permission rules of POSIX, as Linux has them.
//!
//! Pure: an inode, who asks, an answer. Root (uid 0) passes where Linux lets `CAP_DAC_OVERRIDE`, `CAP_FOWNER`,
//! `CAP_CHOWN` and `CAP_FSETID` pass.

use crate::{Inode, MetaError, Result};
use pvfs_types::{Acl, Cred, FileKind, Name, NewMode, SetAttr, SetTime, XattrName, XattrSpace, limits, mode};
use pvfs_wire::Access;

/// Whether the mode bits, or the ACL, give `cred` all of `mask` (of [`mode::R`], [`mode::W`], [`mode::X`]). Exactly one
/// class of the mode's counts: an owner whom the owner's bits refuse is refused, whatever the others' say.
pub fn allows(inode: &Inode, cred: &Cred, mask: u32) -> bool {
    if cred.is_root() {
        // Even root runs nothing that nobody may run; directories root may always search.
        return inode.is_dir() || mask & mode::X == 0 || inode.mode & 0o111 != 0;
    }
    // As Linux does it: where the group class has nothing, the ACL is not looked at.
    if let Some(acl) = inode.acl.as_ref().filter(|_| inode.mode & 0o070 != 0) {
        return acl.permits((inode.uid, inode.gid), cred, mask);
    }
    let class = if cred.uid == inode.uid {
        inode.mode >> 6
    } else if cred.in_group(inode.gid) {
        inode.mode >> 3
    } else {
        inode.mode
    };
    class & mask == mask
}

fn need(inode: &Inode, cred: &Cred, mask: u32, needs: &'static str) -> Result<()> {
    if allows(inode, cred, mask) { Ok(()) } else { Err(MetaError::Denied { ino: inode.ino, needs }) }
}

fn is_owner(inode: &Inode, cred: &Cred) -> bool {
    cred.is_root() || cred.uid == inode.uid
}

pub fn may_read(inode: &Inode, cred: &Cred) -> Result<()> {
    need(inode, cred, mode::R, "read permission")
}

pub fn may_write(inode: &Inode, cred: &Cred) -> Result<()> {
    need(inode, cred, mode::W, "write permission")
}

/// To look names up in `dir`.
pub fn may_search(dir: &Inode, cred: &Cred) -> Result<()> {
    need(dir, cred, mode::X, "search permission")
}

/// To make or take away names in `dir`.
pub fn may_change_entries(dir: &Inode, cred: &Cred) -> Result<()> {
    need(dir, cred, mode::W | mode::X, "write and search permission")
}

/// To take the name of `victim` away from `dir`, or to give it to another inode.
pub fn may_take_name(dir: &Inode, name: &Name, victim: &Inode, cred: &Cred) -> Result<()> {
    may_change_entries(dir, cred)?;
    if dir.mode & mode::STICKY != 0 && !is_owner(dir, cred) && !is_owner(victim, cred) {
        return Err(MetaError::Sticky { dir: dir.ino, name: name.clone() });
    }
    Ok(())
}

/// To open a file for `access`, truncating it or not (which takes write permission, whatever the access).
pub fn may_open(inode: &Inode, cred: &Cred, access: Access, truncate: bool) -> Result<()> {
    if access.read {
        may_read(inode, cred)?;
    }
    if access.write || truncate {
        may_write(inode, cred)?;
    }
    Ok(())
}

/// To change what is no contents and no attribute of POSIX's: the owner.
pub fn may_administer(inode: &Inode, cred: &Cred) -> Result<()> {
    need_owner(inode, cred, "only its owner may do that")
}

fn need_owner(inode: &Inode, cred: &Cred, why: &'static str) -> Result<()> {
    if is_owner(inode, cred) { Ok(()) } else { Err(MetaError::NotPermitted { ino: inode.ino, why }) }
}

/// To make all of `changes`. `by_handle`: the caller has the file open for writing, so its size is free to change,
/// and so are set-uid and set-gid bits to fall (what a write by someone else than root does).
pub fn may_set(inode: &Inode, cred: &Cred, changes: &SetAttr, by_handle: bool) -> Result<()> {
    if let Some(mode) = changes.mode
        && !(by_handle && only_drops_privileges(inode.mode, mode))
    {
        need_owner(inode, cred, "only its owner may change its mode")?;
    }
    may_chown(inode, cred, changes)?;
    if let Some(size) = changes.size {
        match inode.kind {
            FileKind::File => {}
            FileKind::Dir => return Err(MetaError::IsDir { ino: inode.ino }),
            FileKind::Symlink
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDev
            | FileKind::BlockDev => {
                return Err(MetaError::WrongKind { ino: inode.ino, wanted: "a regular file" });
            }
        }
        if size > limits::FILE_BYTES_MAX {
            return Err(MetaError::SizeTooBig { size });
        }
        if !by_handle {
            may_write(inode, cred)?;
        }
    }
    for time in [changes.atime, changes.mtime].into_iter().flatten() {
        match time {
            SetTime::At(at) if at.nanos >= 1_000_000_000 => {
                return Err(MetaError::BadTime { nanos: at.nanos });
            }
            SetTime::At(_) => need_owner(inode, cred, "only its owner may set its times")?,
            SetTime::Now if is_owner(inode, cred) => {}
            SetTime::Now => may_write(inode, cred)?,
        }
    }
    Ok(())
}

fn only_drops_privileges(old: u32, new: u32) -> bool {
    let privileges = mode::SUID | mode::SGID;
    new & !privileges == old & !privileges && new & !old & privileges == 0
}

/// The owner is root's to give away. The owner may give the file to a group he is in.
fn may_chown(inode: &Inode, cred: &Cred, changes: &SetAttr) -> Result<()> {
    if cred.is_root() {
        return Ok(());
    }
    let owns = cred.uid == inode.uid;
    if changes.uid.is_some_and(|uid| !(owns && uid == inode.uid)) {
        return Err(MetaError::NotPermitted { ino: inode.ino, why: "only root may change its owner" });
    }
    if changes.gid.is_some_and(|gid| !(owns && (gid == inode.gid || cred.in_group(gid)))) {
        let why = "only its owner may change its group, to one of his own";
        return Err(MetaError::NotPermitted { ino: inode.ino, why });
    }
    Ok(())
}

/// The mode that `chmod(mode)` by `cred` leaves: who is not in the file's group cannot set its set-gid bit.
pub fn chmod(inode: &Inode, mode: u32, cred: &Cred) -> u32 {
    let mode = mode & mode::ALL;
    if cred.is_root() || cred.in_group(inode.gid) { mode } else { mode & !mode::SGID }
}

/// To read the value of an attribute.
pub fn may_read_xattr(inode: &Inode, cred: &Cred, space: XattrSpace, name: &XattrName) -> Result<()> {
    let hidden = || MetaError::NoXattr { ino: inode.ino, name: name.clone() };
    match space {
        XattrSpace::User if !has_user_xattrs(inode) => Err(hidden()),
        XattrSpace::User => may_read(inode, cred),
        XattrSpace::Trusted if !cred.is_root() => Err(hidden()),
        XattrSpace::Acl(_) if inode.kind == FileKind::Symlink => {
            Err(MetaError::AclOfSymlink { ino: inode.ino })
        }
        XattrSpace::Trusted | XattrSpace::Security | XattrSpace::Acl(_) => Ok(()),
    }
}

/// To set an attribute or take it away.
pub fn may_write_xattr(inode: &Inode, cred: &Cred, space: XattrSpace) -> Result<()> {
    let not = |why| Err(MetaError::NotPermitted { ino: inode.ino, why });
    match space {
        XattrSpace::User if !has_user_xattrs(inode) => {
            not("only files and directories have `user.` attributes")
        }
        XattrSpace::User if inode.is_dir() && inode.mode & mode::STICKY != 0 && !is_owner(inode, cred) => {
            not("the attributes of a sticky directory are its owner's")
        }
        XattrSpace::User => may_write(inode, cred),
        XattrSpace::Trusted | XattrSpace::Security if !cred.is_root() => {
            not("that attribute is root's to change")
        }
        XattrSpace::Trusted | XattrSpace::Security => Ok(()),
        XattrSpace::Acl(_) if inode.kind == FileKind::Symlink => {
            Err(MetaError::AclOfSymlink { ino: inode.ino })
        }
        XattrSpace::Acl(_) => need_owner(inode, cred, "only its owner may change its ACL"),
    }
}

/// To see the name of an attribute in a list.
pub fn may_list_xattr(cred: &Cred, space: XattrSpace) -> bool {
    space != XattrSpace::Trusted || cred.is_root()
}

fn has_user_xattrs(inode: &Inode) -> bool {
    matches!(inode.kind, FileKind::File | FileKind::Dir)
}

/// What a new inode gets from the directory it is made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherited {
    pub mode: u32,
    pub gid: u32,
    pub acl: Option<Acl>,
    pub default_acl: Option<Acl>,
}

/// Mode, group and ACLs of a new inode in `dir`. A set-gid directory hands on its group, and to directories the bit. A
/// default ACL takes the umask's place.
pub fn inherit(dir: &Inode, kind: FileKind, asked: NewMode, cred: &Cred) -> Inherited {
    let default = dir.default_acl.as_ref().filter(|_| kind != FileKind::Symlink);
    let mode = if default.is_some() { asked.unmasked.unwrap_or(asked.mode) } else { asked.mode };
    let hands_on = dir.mode & mode::SGID != 0;
    let gid = if hands_on { dir.gid } else { cred.gid };
    let mode = match kind {
        FileKind::Dir => (mode & 0o1777) | if hands_on { mode::SGID } else { 0 },
        FileKind::Symlink => 0o777,
        FileKind::File | FileKind::Fifo | FileKind::Socket | FileKind::CharDev | FileKind::BlockDev => {
            let runs_as_group = mode & mode::SGID != 0 && mode & (mode::X << 3) != 0;
            if hands_on && runs_as_group && !cred.is_root() && !cred.in_group(gid) {
                mode & mode::ALL & !mode::SGID
            } else {
                mode & mode::ALL
            }
        }
    };
    match default {
        Some(default) => {
            let (bits, acl) = default.inherited(mode);
            let default_acl = (kind == FileKind::Dir).then(|| default.clone());
            Inherited { mode: mode & !0o777 | bits, gid, acl, default_acl }
        }
        None => Inherited { mode, gid, acl: None, default_acl: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inode;
    use pvfs_types::Timestamp;

    const OWNER: u32 = 10;
    const GROUP: u32 = 20;

    fn inode(kind: FileKind, mode: u32) -> Inode {
        let owner = Cred { uid: OWNER, gid: GROUP, groups: vec![] };
        Inode { kind, mode, ..inode::root(&owner, Timestamp::default()) }
    }

    fn cred(uid: u32, gid: u32, groups: &[u32]) -> Cred {
        Cred { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn exactly_one_class_of_bits_counts() {
        let check = |mode, who: Cred, allowed: &str| {
            let file = inode(FileKind::File, mode);
            let bits = [(mode::R, 'r'), (mode::W, 'w'), (mode::X, 'x')];
            let got: String = bits.iter().filter(|(m, _)| allows(&file, &who, *m)).map(|(_, c)| *c).collect();
            assert_eq!(got, allowed, "{mode:o} {who:?}");
        };
        check(0o421, cred(OWNER, 1, &[]), "r");
        check(0o421, cred(1, GROUP, &[]), "w");
        check(0o421, cred(1, 1, &[5, GROUP]), "w");
        check(0o421, cred(1, 1, &[]), "x");
        check(0o077, cred(OWNER, GROUP, &[]), "");
        check(0o707, cred(1, GROUP, &[]), "");
        check(0o000, Cred::root(), "rw");
        check(0o001, Cred::root(), "rwx");
    }

    #[test]
    fn root_searches_every_directory() {
        assert!(allows(&inode(FileKind::Dir, 0), &Cred::root(), mode::R | mode::W | mode::X));
    }

    #[test]
    fn in_a_sticky_directory_only_owners_take_names() {
        let mut dir = inode(FileKind::Dir, 0o1777);
        let mut victim = inode(FileKind::File, 0o666);
        let name = Name::new("n").expect("a name");
        let mut check = |dir_owner, file_owner, who: u32, allowed| {
            dir.uid = dir_owner;
            victim.uid = file_owner;
            assert_eq!(may_take_name(&dir, &name, &victim, &cred(who, 1, &[])).is_ok(), allowed);
        };
        check(1, 2, 3, false);
        check(1, 2, 1, true);
        check(1, 2, 2, true);
        check(1, 2, 0, true);
    }

    #[test]
    fn times_now_need_write_permission_and_named_times_the_owner() {
        let file = inode(FileKind::File, 0o602);
        let now = SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() };
        let at = SetAttr { atime: Some(SetTime::At(Timestamp::default())), ..SetAttr::default() };
        let errno =
            |changes, who: u32| may_set(&file, &cred(who, 1, &[]), changes, false).map_err(|e| e.errno());
        assert_eq!(errno(&now, 5), Ok(()));
        assert_eq!(errno(&at, 5), Err(pvfs_types::Errno::EPERM));
        assert_eq!(errno(&at, OWNER), Ok(()));
        let group = may_set(&file, &cred(5, GROUP, &[]), &now, false).map_err(|e| e.errno());
        assert_eq!(group, Err(pvfs_types::Errno::EACCES));
    }

    #[test]
    fn owners_give_files_to_their_groups_and_to_nobody() {
        let file = inode(FileKind::File, 0o644);
        let check = |uid: Option<u32>, gid: Option<u32>, who: &Cred, allowed| {
            let changes = SetAttr { uid, gid, ..SetAttr::default() };
            assert_eq!(may_set(&file, who, &changes, false).is_ok(), allowed, "{uid:?} {gid:?} {who:?}");
        };
        let owner = cred(OWNER, GROUP, &[7]);
        check(None, Some(7), &owner, true);
        check(None, Some(GROUP), &owner, true);
        check(Some(OWNER), Some(7), &owner, true);
        check(None, Some(8), &owner, false);
        check(Some(11), None, &owner, false);
        check(Some(OWNER), None, &cred(11, GROUP, &[]), false);
        check(None, Some(GROUP), &cred(11, GROUP, &[]), false);
        check(Some(11), Some(8), &Cred::root(), true);
    }

    #[test]
    fn a_set_gid_directory_hands_on_its_group() {
        let dir = inode(FileKind::Dir, 0o2775);
        let stranger = cred(5, 6, &[]);
        let inherit = |dir: &Inode, kind, mode: u32, cred: &Cred| {
            let Inherited { mode, gid, .. } = super::inherit(dir, kind, mode.into(), cred);
            (mode, gid)
        };
        assert_eq!(inherit(&dir, FileKind::Dir, 0o4755, &stranger), (0o2755, GROUP));
        assert_eq!(inherit(&dir, FileKind::File, 0o2755, &stranger), (0o755, GROUP));
        assert_eq!(inherit(&dir, FileKind::File, 0o2745, &stranger), (0o2745, GROUP));
        assert_eq!(inherit(&dir, FileKind::File, 0o2755, &cred(5, 6, &[GROUP])), (0o2755, GROUP));
        let plain = inode(FileKind::Dir, 0o775);
        assert_eq!(inherit(&plain, FileKind::File, 0o6755, &stranger), (0o6755, 6));
        assert_eq!(inherit(&plain, FileKind::Dir, 0o7755, &stranger), (0o1755, 6));
    }

    #[test]
    fn strangers_to_the_group_cannot_set_the_set_gid_bit() {
        let file = inode(FileKind::File, 0o755);
        assert_eq!(chmod(&file, 0o2755, &cred(OWNER, 6, &[])), 0o755);
        assert_eq!(chmod(&file, 0o2755, &cred(OWNER, 6, &[GROUP])), 0o2755);
        assert_eq!(chmod(&file, 0o2755, &Cred::root()), 0o2755);
    }

    #[test]
    fn whoever_writes_may_drop_privileges_but_not_more() {
        let file = inode(FileKind::File, 0o6777);
        let check = |mode, by_handle, allowed| {
            let changes = SetAttr { mode: Some(mode), ..SetAttr::default() };
            assert_eq!(may_set(&file, &cred(5, 5, &[]), &changes, by_handle).is_ok(), allowed);
        };
        check(0o777, true, true);
        check(0o2777, true, true);
        check(0o777, false, false);
        check(0o776, true, false);
    }
}
