//! What happened, in order: a hash over all of it, by which two runs are compared, and its text where it is asked for.

use std::{
    fmt,
    hash::{DefaultHasher, Hasher},
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::Instant;

/// More events than any run has that does not go round in circles.
const EVENTS_MAX: u64 = 20_000_000;

/// The events of one run. Clones share them.
#[derive(Clone)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
    start: Instant,
}

struct Inner {
    hasher: DefaultHasher,
    events: u64,
    text: String,
    print: bool,
    failures: Vec<String>,
}

impl Trace {
    /// Begins now. With `print`, each event goes to standard error too.
    pub fn begin(print: bool) -> Trace {
        let inner = Inner {
            hasher: DefaultHasher::new(),
            events: 0,
            text: String::new(),
            print,
            failures: Vec::new(),
        };
        Trace { inner: Arc::new(Mutex::new(inner)), start: Instant::now() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Simulated milliseconds since the beginning.
    pub fn now_ms(&self) -> u128 {
        self.start.elapsed().as_millis()
    }

    /// Something happened to or in `who`.
    ///
    /// # Panics
    /// When the run goes round in circles.
    pub fn event(&self, who: &str, what: fmt::Arguments<'_>) {
        let now_ms = self.now_ms();
        self.with(|inner| {
            inner.text.clear();
            fmt::Write::write_fmt(&mut inner.text, format_args!("{now_ms:>7} {who:<8} {what}"))
                .expect("into a String");
            inner.hasher.write(inner.text.as_bytes());
            inner.events += 1;
            assert!(inner.events < EVENTS_MAX, "the run goes round in circles");
            if inner.print {
                let _ = writeln!(std::io::stderr(), "{}", inner.text);
            }
        });
    }

    /// A promise was broken.
    pub fn fail(&self, what: String) {
        self.event("FAILURE", format_args!("{what}"));
        self.with(|inner| inner.failures.push(what));
    }

    pub fn failures(&self) -> Vec<String> {
        self.with(|inner| inner.failures.clone())
    }

    /// How many events there were, and the hash over them.
    pub fn digest(&self) -> (u64, u64) {
        self.with(|inner| (inner.events, inner.hasher.finish()))
    }
}

/// Tells of something that happened: `event!(trace, who, "format", args…)`.
macro_rules! event {
    ($trace:expr, $who:expr, $($what:tt)*) => {
        $trace.event(&$who, format_args!($($what)*))
    };
}
pub(crate) use event;
