//! What a shared run consists of, and the faults that its parts find.

use crate::record::FaultKind;
use serde::Serialize;

/// How often a call is made again for `ESTALE`.
const STALE_MAX: u32 = 3;

/// One thing that several mounts are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// A counter under fcntl(2)'s lock.
    Fcntl,
    /// A counter under flock(2)'s.
    Flock,
    /// Records written with `O_APPEND`.
    Append,
    /// Only one at a time: by a name made with `O_EXCL`, by link(2), by mkdir(2).
    Mutex,
    /// A file renamed over another one that is open.
    Replace,
    /// Blocks of one file, each of which belongs to one process.
    Stripes,
    /// Files unlinked while they are open.
    Unlink,
    /// fallocate(2) that makes a file longer: of the model of one file.
    Room,
    /// One file through all mounts in turn, every answer held against a model.
    File,
    /// One tree of names, likewise.
    Names,
}

impl Part {
    pub const ALL: [Part; 10] = [
        Part::Fcntl,
        Part::Flock,
        Part::Append,
        Part::Mutex,
        Part::Replace,
        Part::Stripes,
        Part::Unlink,
        Part::Room,
        Part::File,
        Part::Names,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Part::Fcntl => "fcntl",
            Part::Flock => "flock",
            Part::Append => "append",
            Part::Mutex => "mutex",
            Part::Replace => "replace",
            Part::Stripes => "stripes",
            Part::Unlink => "unlink",
            Part::Room => "room",
            Part::File => "file",
            Part::Names => "names",
        }
    }

    pub fn find(name: &str) -> Option<Part> {
        Part::ALL.into_iter().find(|part| part.name() == name)
    }

    /// Done by several processes at once; the others by one, through all mounts in turn.
    pub(crate) fn is_at_once(self) -> bool {
        !matches!(self, Part::Room | Part::File | Part::Names)
    }

    /// Has steps and faults of its own.
    pub(crate) fn is_told(self) -> bool {
        self != Part::Room
    }
}

/// Something that was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub kind: FaultKind,
    pub text: String,
}

impl Wrong {
    pub fn new(kind: FaultKind, text: impl Into<String>) -> Wrong {
        Wrong { kind, text: text.into() }
    }

    pub fn lost(text: impl Into<String>) -> Wrong {
        Wrong::new(FaultKind::Lost, text)
    }

    pub fn other(text: impl Into<String>) -> Wrong {
        Wrong::new(FaultKind::Wrong, text)
    }

    pub fn doubled(text: impl Into<String>) -> Wrong {
        Wrong::new(FaultKind::Doubled, text)
    }
}

/// An operation failed that must not.
impl From<std::io::Error> for Wrong {
    fn from(error: std::io::Error) -> Wrong {
        Wrong::new(FaultKind::Error, error.to_string())
    }
}

impl From<rustix::io::Errno> for Wrong {
    fn from(error: rustix::io::Errno) -> Wrong {
        std::io::Error::from(error).into()
    }
}

pub(crate) type Checked<T = ()> = Result<T, Wrong>;

/// Says where it was.
pub(crate) trait At<T> {
    fn at(self, what: &str) -> Checked<T>;
}

impl<T, E: Into<Wrong>> At<T> for Result<T, E> {
    fn at(self, what: &str) -> Checked<T> {
        self.map_err(|error| {
            let wrong = error.into();
            Wrong { text: format!("{what}: {}", wrong.text), ..wrong }
        })
    }
}

/// Does `call` once more, some times, where it gives `ESTALE`, and counts that in `stale`. What somebody else has replaced or
/// moved between the kernel's finding it and its call gives that on a file system of several machines; never twice for long.
pub(crate) fn unless_stale<T>(
    stale: &mut u64,
    mut call: impl FnMut() -> std::io::Result<T>,
) -> std::io::Result<T> {
    for _ in 0..STALE_MAX {
        match call() {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::STALE.raw_os_error()) => {
                *stale += 1;
            }
            done => return done,
        }
    }
    call()
}
