//! What shall happen to which frame, and whether it has. Knows no sockets.

use super::{RawFrame, locked};
use pvfs_wire::Op;
use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

/// How long [`Caught::wait`] waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// From the client to the daemon, or back (refusals too).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    Request,
    Reply,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does not arrive, and its connection ends: what TCP makes of a lost message.
    Lose,
    /// It arrives; then its connection ends.
    CutAfter,
    /// It arrives twice, one behind the other.
    Double,
    /// It waits for [`Caught::release`]; later frames overtake it. A held request keeps its connection to the daemon
    /// open when the client's side ends.
    Hold,
    /// It arrives with a bit of its payload wrong.
    Flip,
    /// Half of it arrives; then its connection ends.
    Tear,
    /// Half of it arrives; then its connection is reset.
    Reset,
    /// It arrives; the test only wants to know.
    Pass,
}

#[derive(Debug, Default)]
pub(crate) struct Plans(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    seen: HashMap<(Way, u16), u64>,
    planned: Vec<(Way, u16, u64, Caught)>,
}

impl Plans {
    pub(crate) fn add(&self, way: Way, op: Op, nth: usize, fate: Fate) -> Caught {
        assert!(nth > 0, "frames are counted from 1");
        let caught = Caught(Arc::new(Inner { fate, state: Mutex::default(), changed: Condvar::new() }));
        let mut state = locked(&self.0);
        let at = state.seen.get(&(way, op.number())).copied().unwrap_or(0) + nth as u64;
        state.planned.push((way, op.number(), at, caught.clone()));
        caught
    }

    pub(crate) fn seen(&self, way: Way, op: Op) -> u64 {
        locked(&self.0).seen.get(&(way, op.number())).copied().unwrap_or(0)
    }

    /// Counts a frame; gives the plan that it is the frame of.
    pub(crate) fn catch(&self, way: Way, frame: &RawFrame) -> Option<Caught> {
        let op = frame.header().op;
        let mut state = locked(&self.0);
        let seen = state.seen.entry((way, op)).or_insert(0);
        *seen += 1;
        let now = *seen;
        let place = state.planned.iter().position(|(w, o, at, _)| (*w, *o, *at) == (way, op, now))?;
        Some(state.planned.swap_remove(place).3)
    }
}

/// A planned fault: whether it happened, to which frame, and the way to let a held frame go.
#[derive(Clone, Debug)]
pub struct Caught(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fate: Fate,
    state: Mutex<Happening>,
    changed: Condvar,
}

#[derive(Default)]
struct Happening {
    frame: Option<RawFrame>,
    release: Option<Box<dyn FnOnce() + Send>>,
}

impl std::fmt::Debug for Happening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Happening").field("frame", &self.frame).finish_non_exhaustive()
    }
}

impl Caught {
    pub fn has_happened(&self) -> bool {
        locked(&self.0.state).frame.is_some()
    }

    /// Waits until it has happened; fails the test where it does not.
    #[track_caller]
    pub fn wait(&self) {
        let begin = Instant::now();
        let mut state = locked(&self.0.state);
        while state.frame.is_none() {
            assert!(begin.elapsed() < PATIENCE, "no such frame came within {PATIENCE:?}");
            let waited = self.0.changed.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// The frame it happened to.
    #[track_caller]
    pub fn frame(&self) -> RawFrame {
        self.wait();
        locked(&self.0.state).frame.clone().unwrap()
    }

    /// Lets a held frame go on over its own connection, if that is still there.
    #[track_caller]
    pub fn release(&self) {
        self.wait();
        let release = locked(&self.0.state).release.take().expect("held, and not released before");
        release();
    }

    pub(crate) fn fate(&self) -> Fate {
        self.0.fate
    }

    pub(crate) fn on_release(&self, release: impl FnOnce() + Send + 'static) {
        locked(&self.0.state).release = Some(Box::new(release));
    }

    pub(crate) fn happened(&self, frame: RawFrame) {
        locked(&self.0.state).frame = Some(frame);
        self.0.changed.notify_all();
    }
}
