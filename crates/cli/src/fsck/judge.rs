//! What answers mean: pure.

use super::{Finding, on};
use pvfs_types::{ObjectId, Slot, TargetId};
use pvfs_wire::msg::{
    data::ObjectStat,
    fsck::{FileInfo, Fix, Verdict},
};

/// Holds a file against its objects, one for each slot in order; `None`: there is no such object.
///
/// A part without an object reads as zeros: a hole, or bytes lost. It is a hole where the mgr knows of holes and the other
/// objects hold all that it knows to be held; else it counts as lost where nothing of the file speaks for holes, as a
/// doubt where other objects have some.
pub fn file(file: &FileInfo, objects: &[Option<ObjectStat>]) -> Vec<Finding> {
    // Of what the mgr keeps a target may have taken a part, and been stopped in it.
    if file.busy || file.orphan || file.inline == Some(true) {
        return Vec::new();
    }
    let about = format!("inode {}", file.ino);
    let mut findings = Vec::new();
    let slots = || file.dist.slots().zip(objects);
    let missing: Vec<Slot> = slots()
        .filter(|(slot, object)| object.is_none() && file.dist.object_len(*slot, file.size) > 0)
        .map(|(slot, _)| slot)
        .collect();
    if !missing.is_empty() && !holds_all(file, objects) {
        let has_holes = objects.iter().flatten().any(|object| object.allocated < object.len);
        let which: Vec<String> = missing.iter().map(|slot| slot.0.to_string()).collect();
        let text = format!(
            "{} bytes long, and nothing is there of slot{} {} of {}",
            file.size,
            if which.len() == 1 { "" } else { "s" },
            which.join(", "),
            file.dist.pcount
        );
        findings.push(if has_holes {
            Finding::doubt("hole", &about, text + ": holes, as it has others, or lost bytes")
        } else {
            Finding::error(
                "missing",
                &about,
                text + ": lost bytes, unless the file was made with holes that the mgr was not told of",
                None,
            )
        });
    }
    let reach = slots()
        .filter_map(|(slot, object)| object.map(|object| file.dist.size_from_object(slot, object.len)))
        .max()
        .unwrap_or(0);
    if reach > file.size {
        let text = format!("{} bytes long, but its objects reach to {reach}", file.size);
        let fix = Fix::Grow { ino: file.ino, size_epoch: file.size_epoch, size: reach };
        findings.push(Finding::error("size", &about, text, Some(fix)));
    }
    findings
}

/// Whether the targets hold as much of a file with holes as they did when it was closed.
fn holds_all(file: &FileInfo, objects: &[Option<ObjectStat>]) -> bool {
    let held: u64 = objects.iter().flatten().map(|object| object.allocated).fold(0, u64::saturating_add);
    file.allocated.is_some_and(|bytes| bytes <= held)
}

/// What the mgr's verdict means for an object that `target` has.
pub fn object(target: TargetId, object: ObjectId, verdict: Verdict) -> Option<Finding> {
    let about = on(object, target);
    Some(match verdict {
        Verdict::Live | Verdict::Garbage => return None,
        Verdict::Nobodys => {
            let fix = Fix::Remove(target, object);
            Finding::error("orphan object", about, "no file has it", Some(fix))
        }
        Verdict::Newer => Finding::error(
            "newer object",
            about,
            "it has a number that the mgr has not dealt out: the metadata store is an old one",
            Some(Fix::Pass(object)),
        ),
        Verdict::Misplaced => Finding::error(
            "misplaced object",
            about,
            "its file has it on another target: a copied or swapped directory?",
            None,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_types::{DataGen, Distribution, Ino, IodtabGen, Timestamp};

    const STRIP: u64 = 4096;

    /// A file over two targets.
    fn of_size(size: u64) -> FileInfo {
        let dist = Distribution { iodtab: IodtabGen(1), base: 0, pcount: 2, ssize: 4096 };
        FileInfo {
            ino: Ino(7),
            dist,
            data_gen: DataGen(1),
            size,
            size_epoch: 3,
            busy: false,
            orphan: false,
            allocated: None,
            inline: None,
        }
    }

    fn dense(len: u64) -> Option<ObjectStat> {
        of_blocks(len, len.next_multiple_of(STRIP))
    }

    fn holey(len: u64) -> Option<ObjectStat> {
        of_blocks(len, 0)
    }

    #[expect(clippy::unnecessary_wraps, reason = "an object that is there, beside those that are not")]
    fn of_blocks(len: u64, allocated: u64) -> Option<ObjectStat> {
        Some(ObjectStat { len, allocated, mtime: Timestamp::default() })
    }

    /// The kinds of what is found, in order.
    #[track_caller]
    fn check(info: FileInfo, objects: &[Option<ObjectStat>], kinds: &[&str]) -> Vec<Finding> {
        let found = file(&info, objects);
        assert_eq!(found.iter().map(|finding| finding.kind).collect::<Vec<_>>(), kinds, "{found:?}");
        found
    }

    #[test]
    fn a_file_that_is_all_there_is_right() {
        check(of_size(3 * STRIP), &[dense(2 * STRIP), dense(STRIP)], &[]);
        check(of_size(0), &[None, None], &[]);
        check(of_size(10), &[dense(10), None], &[]);
        check(of_size(3 * STRIP), &[dense(100), dense(STRIP)], &[]);
    }

    #[test]
    fn a_part_without_an_object_is_lost_or_a_hole() {
        let found = check(of_size(3 * STRIP), &[dense(2 * STRIP), None], &["missing"]);
        assert!(found[0].is_error_left() && found[0].text.contains("slot 1 of 2"), "{found:?}");
        check(of_size(10), &[None, None], &["missing"]);
        let found = check(of_size(3 * STRIP), &[holey(2 * STRIP), None], &["hole"]);
        assert!(!found[0].is_error_left());
    }

    #[test]
    fn a_file_that_was_closed_with_holes_is_right_as_long_as_all_is_held_that_was_then() {
        let closed = |allocated| FileInfo { allocated: Some(allocated), ..of_size(3 * STRIP) };
        check(closed(0), &[None, None], &[]);
        check(closed(STRIP), &[dense(STRIP), None], &[]);
        check(closed(2 * STRIP), &[dense(STRIP), None], &["missing"]);
        check(closed(STRIP), &[holey(STRIP), None], &["hole"]);
    }

    #[test]
    fn bytes_behind_the_end_make_the_file_longer() {
        let found = check(of_size(10), &[dense(11), None], &["size"]);
        assert_eq!(found[0].fix, Some(Fix::Grow { ino: Ino(7), size_epoch: 3, size: 11 }));
        let found = check(of_size(10), &[dense(10), dense(1)], &["size"]);
        assert_eq!(found[0].fix, Some(Fix::Grow { ino: Ino(7), size_epoch: 3, size: STRIP + 1 }));
    }

    #[test]
    fn what_is_being_changed_or_goes_anyway_is_left_alone() {
        check(FileInfo { busy: true, ..of_size(10) }, &[dense(11), None], &[]);
        check(FileInfo { orphan: true, ..of_size(10) }, &[None, None], &[]);
    }

    #[test]
    fn only_an_object_that_is_surely_nobodys_is_removed() {
        let id = ObjectId { ino: Ino(7), data_gen: DataGen(1), slot: Slot(0) };
        let fix = |verdict| object(TargetId(1), id, verdict).map(|finding| finding.fix);
        assert_eq!(fix(Verdict::Live), None);
        assert_eq!(fix(Verdict::Garbage), None);
        assert_eq!(fix(Verdict::Nobodys), Some(Some(Fix::Remove(TargetId(1), id))));
        assert_eq!(fix(Verdict::Newer), Some(Some(Fix::Pass(id))));
        assert_eq!(fix(Verdict::Misplaced), Some(None));
    }
}
