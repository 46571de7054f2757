//! The keyspace checker: reads everything and tells what does not fit together. Every property test ends with it.

use std::fmt;

/// Something that does not fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The key it is about, escaped.
    pub key: String,
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}
