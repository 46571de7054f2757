//! What a shared run consists of, and the faults that its parts find.

use crate::record::FaultKind;
use serde::Serialize;

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
    /// One file through all mounts in turn, every answer held against a model.
    File,
    /// One tree of names, likewise.
    Names,
}

impl Part {
    pub const ALL: [Part; 9] = [
        Part::Fcntl,
        Part::Flock,
        Part::Append,
        Part::Mutex,
        Part::Replace,
        Part::Stripes,
        Part::Unlink,
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
            Part::File => "file",
            Part::Names => "names",
        }
    }

    pub fn find(name: &str) -> Option<Part> {
        Part::ALL.into_iter().find(|part| part.name() == name)
    }

    /// Done by several processes at once; the others by one, through all mounts in turn.
    pub(crate) fn is_at_once(self) -> bool {
        !matches!(self, Part::File | Part::Names)
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
