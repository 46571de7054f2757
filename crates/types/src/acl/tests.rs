//! ACLs in setfacl's short words: `u::rw u:7:r g::r g:8:rwx m::r o::-`.

use super::*;
use proptest::prelude::*;

/// Entries as they stand, valid or not.
fn entries(text: &str) -> Vec<Entry> {
    let one = |word: &str| {
        let mut parts = word.split(':');
        let (kind, id, perm) = (parts.next(), parts.next().unwrap_or_default(), parts.next());
        let id = id.parse().ok();
        let who = match (kind, id) {
            (Some("u"), None) => Who::Owner,
            (Some("u"), Some(uid)) => Who::User(uid),
            (Some("g"), None) => Who::Group,
            (Some("g"), Some(gid)) => Who::NamedGroup(gid),
            (Some("m"), None) => Who::Mask,
            (Some("o"), None) => Who::Others,
            _ => panic!("{word}"),
        };
        let perm = perm.unwrap_or_default().chars().map(|bit| match bit {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            other => panic!("{other}"),
        });
        Entry { who, perm: perm.sum() }
    };
    text.split_whitespace().map(one).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    Acl(entries(text)).to_xattr()
}

fn acl(text: &str) -> Acl {
    Acl::from_xattr(&bytes(text)).expect(text).expect("has entries")
}

#[test]
fn the_attributes_form_is_that_of_linux() {
    let bytes = bytes("u::rw u:1000:r g::r m::r o::-");
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    assert_eq!(
        hex,
        "02000000\
         01000600ffffffff\
         02000400e8030000\
         04000400ffffffff\
         10000400ffffffff\
         20000000ffffffff"
    );
    assert_eq!(Acl::from_xattr(&[2, 0, 0, 0]), Ok(None), "no entries: no ACL");
}

#[test]
fn acls_that_are_not_valid_are_refused_with_linuxs_errno() {
    let check = |bytes: &[u8], errno| {
        assert_eq!(Acl::from_xattr(bytes).map_err(AclError::errno), Err(errno), "{bytes:?}");
    };
    for text in [
        "u::rw g::r",
        "u::rw o::r",
        "g::r o::r",
        "g::r u::rw o::r",
        "u::rw u::r g::r o::r",
        "u::rw u:7:r g::r o::r",
        "u::rw g::r g:7:r o::r",
        "u::rw g::r m::r",
        "u::rw m::r g::r o::r",
        "u::rw g::r m::r m::r o::r",
        "u::rw g::r o::r o::r",
        "u::rw g::r g:7:r u:7:r m::r o::r",
    ] {
        check(&bytes(text), Errno::EINVAL);
    }
    let good = bytes("u::rw g::r o::r");
    check(&[], Errno::EINVAL);
    check(&good[..3], Errno::EINVAL);
    check(&good[..good.len() - 1], Errno::EINVAL);
    let with = |at: usize, value: u8| {
        let mut changed = good.clone();
        changed[at] = value;
        changed
    };
    check(&with(0, 1), Errno::EOPNOTSUPP);
    check(&with(4, 3), Errno::EINVAL);
    check(&with(6, 8), Errno::EINVAL);
    check(&bytes(&format!("u::rw u:{NOBODY}:r g::r m::r o::r")), Errno::EINVAL);
    let long = format!("u::rw {} g::r m::r o::r", "u:7:r ".repeat(ACL_ENTRIES_MAX - 3));
    check(&bytes(&long), Errno::E2BIG);
    let longest = format!("u::rw {} g::r m::r o::r", "u:7:r ".repeat(ACL_ENTRIES_MAX - 4));
    assert!(Acl::from_xattr(&bytes(&longest)).is_ok());
}

#[test]
fn the_first_entry_that_is_about_the_caller_decides() {
    let cred = |uid, gid, groups: &[u32]| Cred { uid, gid, groups: groups.to_vec() };
    let check = |text: &str, who: Cred, allowed: &str| {
        let bits = [(mode::R, 'r'), (mode::W, 'w'), (mode::X, 'x')];
        let may = |bit| acl(text).permits((10, 20), &who, bit);
        let got: String = bits.iter().filter(|(bit, _)| may(*bit)).map(|(_, shown)| *shown).collect();
        assert_eq!(got, allowed, "{text} {who:?}");
    };
    let text = "u::r u:10:rwx u:7:rw u:6:- g::x g:30:rw g:31:r m::rx o::rwx";
    check(text, cred(10, 30, &[]), "r");
    check(text, cred(7, 30, &[]), "r");
    check(text, cred(6, 30, &[20]), "");
    check(text, cred(1, 20, &[]), "x");
    check(text, cred(1, 2, &[31, 20]), "rx");
    check(text, cred(1, 30, &[]), "r");
    check(text, cred(1, 2, &[]), "rwx");
    check("u::rwx g::r o::rwx", cred(1, 20, &[]), "r");
    // One entry must give all that is asked for together.
    let both = acl("u::- g::r g:30:w m::rw o::-");
    assert!(!both.permits((10, 20), &cred(1, 20, &[30]), mode::R | mode::W));
    assert!(both.permits((10, 20), &cred(1, 20, &[30]), mode::W));
}

#[test]
fn the_modes_group_bits_are_the_mask() {
    let check = |text: &str, bits: u32, is_mode_only| {
        assert_eq!((acl(text).mode_bits(), acl(text).is_mode_only()), (bits, is_mode_only), "{text}");
    };
    check("u::rw g::r o::-", 0o640, true);
    check("u::rw g::r m::rwx o::x", 0o671, false);
    check("u::rw u:7:r g::- m::r o::-", 0o640, false);
}

#[test]
fn chmod_changes_the_mask_and_leaves_the_groups_entry() {
    let check = |text: &str, mode, after: &str| {
        let mut changed = acl(text);
        changed.chmod(mode);
        assert_eq!(changed, acl(after));
        assert_eq!(changed.mode_bits(), mode & 0o777);
    };
    check("u::rw u:7:r g::r m::r o::-", 0o4731, "u::rwx u:7:r g::r m::wx o::x");
    check("u::rw g::r o::-", 0o731, "u::rwx g::wx o::x");
}

#[test]
fn what_is_new_gets_the_default_acl_cut_to_the_mode_asked_for() {
    let check = |default: &str, mode, bits, access: Option<&str>| {
        assert_eq!(acl(default).inherited(mode), (bits, access.map(acl)), "{default} {mode:o}");
    };
    check("u::rwx g::rx o::-", 0o666, 0o640, None);
    check("u::rwx u:7:rwx g::rx m::rwx o::-", 0o666, 0o660, Some("u::rw u:7:rwx g::rx m::rw o::-"));
    check("u::rwx u:7:rwx g::rx m::rx o::x", 0o600, 0o600, Some("u::rw u:7:rwx g::rx m::- o::-"));
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic_and_what_is_read_is_written_the_same(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        entries in prop::collection::vec((0..6_u8, 0..9_u8, 0..3_u8), 0..9),
    ) {
        let built = entries.iter().flat_map(|&(kind, perm, id)| [1 << kind, 0, perm, 0, id, 0, 0, 0]);
        let built: Vec<u8> = VERSION.to_le_bytes().into_iter().chain(built).collect();
        for bytes in [bytes, built] {
            if let Ok(Some(acl)) = Acl::from_xattr(&bytes) {
                prop_assert_eq!(Acl::from_xattr(&acl.to_xattr()), Ok(Some(acl)));
            }
        }
    }
}
