//! Operations on open files.

use super::{Samples, at, caller, capability, file_entry, mutator};
use pvfs_types::{Attr, Ino, SessionId};
use pvfs_wire::{
    Access,
    msg::{file::*, namespace::Entry, session::Done},
};

pub fn open_files(s: &mut Samples) {
    s.both(
        &Open {
            by: mutator(),
            ino: Ino(7),
            access: Access::READ,
            truncate: true,
            again: true,
            grow_to: None,
        },
        &Opened { entry: file_entry(), capability: capability() },
    );
    let report = ReportSize {
        by: mutator(),
        ino: Ino(7),
        size: 1 << 33,
        size_epoch: 2,
        mtime: Some(at(3)),
        close: true,
        allocated: None,
    };
    s.both(&report, &file_entry());
    s.request(&ReportSize { mtime: None, close: false, ..report.clone() });
    s.request(&ReportSize { allocated: Some(1 << 20), ..report });
    s.reply::<ReportSize>(&with_holes());
    s.both(&EndWrites { by: mutator(), inos: vec![Ino(7), Ino(1 << 40)] }, &Done {});
    let read = vec![ReadAt { ino: Ino(7), at: at(4) }];
    s.both(&TouchAtimes { by: mutator(), read, strict: true }, &Done {});
    let put =
        PutInline { by: mutator(), ino: Ino(7), data: b"small".to_vec(), size_epoch: 2, mtime: Some(at(3)) };
    s.both(&put, &inline());
    s.request(&PutInline { mtime: None, ..put });
    s.both(
        &ReadInline { caller: caller(), ino: Ino(7) },
        &InlineRead { entry: inline(), data: Some(b"small".to_vec()) },
    );
    s.reply::<ReadInline>(&InlineRead { entry: file_entry(), data: None });
    s.both(
        &ListWrites { session: SessionId(5), after: Ino(7) },
        &Writes { inos: vec![Ino(8), Ino(1 << 40)], end: true },
    );
}

fn inline() -> Entry {
    let entry = file_entry();
    Entry { attr: Attr { size: 5, inline: Some(true), ..entry.attr }, ..entry }
}

fn with_holes() -> Entry {
    let entry = file_entry();
    Entry { attr: Attr { allocated: Some(1 << 20), ..entry.attr }, ..entry }
}
