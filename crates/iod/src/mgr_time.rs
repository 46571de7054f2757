//! The mgr's time as this iod follows it, and what it may confirm to the mgr.
//!
//! The time moves when a heartbeat is answered and only forward; while no mgr is heard it stands still, so that a dead
//! mgr stops no I/O. A time is confirmed once every request admitted before it has ended: then no write under a lease
//! that ended before the confirmed time can land any more.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

pub struct MgrTime {
    state: Mutex<State>,
}

struct State {
    /// In milliseconds; `None`: unknown since the machine died.
    now_ms: Option<u64>,
    /// What a mgr told this process first, in milliseconds.
    first_told_ms: Option<u64>,
    /// Capabilities to write that are not younger are too old.
    writes_since_ms: Option<u64>,
    confirmed_ms: u64,
    /// Shared by the requests admitted since it was made, and what tells that they have ended.
    admission: (Arc<Admission>, Ended),
    /// A time to be confirmed as soon as the requests admitted before it have ended.
    pending: Option<(u64, Ended)>,
}

/// Resolves, by an error, when the last request of an admission has ended.
type Ended = oneshot::Receiver<std::convert::Infallible>;

#[expect(dead_code, reason = "closed by being dropped")]
struct Admission(oneshot::Sender<std::convert::Infallible>);

/// A request in work. Dropped when it has ended.
pub struct Admitted {
    /// The mgr's time that the request is held against.
    pub now_ms: Option<u64>,
    _admission: Arc<Admission>,
}

impl MgrTime {
    /// `now_ms`: the time that an earlier process followed last.
    pub fn new(now_ms: Option<u64>) -> MgrTime {
        let confirmed_ms = now_ms.unwrap_or(0);
        let state = State {
            now_ms,
            first_told_ms: None,
            writes_since_ms: None,
            confirmed_ms,
            admission: Admission::new(),
            pending: None,
        };
        MgrTime { state: Mutex::new(state) }
    }

    pub fn now_ms(&self) -> Option<u64> {
        self.with(|state| state.now_ms)
    }

    /// A mgr told its time to this process.
    pub fn told(&self, told_ms: u64) {
        self.with(|state| {
            state.first_told_ms.get_or_insert(told_ms);
        });
    }

    /// A mgr told since when capabilities to write are good. It never takes that back.
    pub fn told_writes_since(&self, since_ms: Option<u64>) {
        self.with(|state| state.writes_since_ms = state.writes_since_ms.max(since_ms));
    }

    pub fn writes_since_ms(&self) -> Option<u64> {
        self.with(|state| state.writes_since_ms)
    }

    /// The mgr's time when, or after, this process started; `None`: no mgr was heard since.
    pub fn first_told_ms(&self) -> Option<u64> {
        self.with(|state| state.first_told_ms)
    }

    /// Lets a request in.
    pub fn admit(&self) -> Admitted {
        self.with(|state| Admitted { now_ms: state.now_ms, _admission: Arc::clone(&state.admission.0) })
    }

    /// The mgr told its time. An older one than was heard before changes nothing.
    pub fn follow(&self, told_ms: u64) {
        self.with(|state| state.now_ms = Some(state.now_ms.map_or(told_ms, |now| now.max(told_ms))));
    }

    /// The latest time that may be confirmed to the mgr.
    pub fn confirmed_ms(&self) -> u64 {
        self.with(|state| {
            state.settle();
            if let Some(now_ms) = state.now_ms
                && now_ms > state.confirmed_ms
                && state.pending.is_none()
            {
                state.pending = Some((now_ms, state.renew_admission()));
                state.settle();
            }
            state.confirmed_ms
        })
    }

    /// Resolves when every request admitted so far has ended.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        let (pending, ended) = self.with(|state| (state.pending.take(), state.renew_admission()));
        async move {
            if let Some((_, earlier)) = pending {
                let _ = earlier.await;
            }
            let _ = ended.await;
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn settle(&mut self) {
        if let Some((time_ms, ended)) = &mut self.pending
            && matches!(ended.try_recv(), Err(oneshot::error::TryRecvError::Closed))
        {
            self.confirmed_ms = *time_ms;
            self.pending = None;
        }
    }

    /// Requests from now on belong to a new admission; tells when those of the old one have ended.
    fn renew_admission(&mut self) -> Ended {
        std::mem::replace(&mut self.admission, Admission::new()).1
    }
}

impl Admission {
    fn new() -> (Arc<Admission>, Ended) {
        let (sender, ended) = oneshot::channel();
        (Arc::new(Admission(sender)), ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{pin::Pin, task::Poll};

    #[test]
    fn the_time_moves_forward_only() {
        let time = MgrTime::new(Some(5));
        time.follow(9);
        time.follow(7);
        assert_eq!(time.now_ms(), Some(9));
        assert_eq!(time.confirmed_ms(), 9);
    }

    #[test]
    fn what_was_told_first_stays() {
        let time = MgrTime::new(Some(5));
        assert_eq!(time.first_told_ms(), None, "an earlier process knew it, this one does not");
        time.told(5);
        time.told(9);
        assert_eq!(time.first_told_ms(), Some(5));
    }

    #[test]
    fn an_unknown_time_is_known_once_told() {
        let time = MgrTime::new(None);
        assert_eq!((time.now_ms(), time.confirmed_ms()), (None, 0));
        time.follow(7);
        assert_eq!((time.now_ms(), time.confirmed_ms()), (Some(7), 7));
    }

    #[test]
    fn a_time_is_confirmed_when_what_was_admitted_before_it_has_ended() {
        let time = MgrTime::new(Some(1));
        let early = time.admit();
        time.follow(5);
        assert_eq!(time.confirmed_ms(), 1, "a request admitted at 1 is in work");
        assert_eq!(time.admit().now_ms, Some(5), "yet requests are held against the new time");
        let late = time.admit();
        time.follow(8);
        drop(early);
        assert_eq!(time.confirmed_ms(), 5, "a request admitted at 5 is in work");
        drop(late);
        assert_eq!(time.confirmed_ms(), 8);
    }

    #[tokio::test]
    async fn ended_waits_for_requests_of_every_admission() {
        let time = MgrTime::new(Some(1));
        let early = time.admit();
        time.follow(5);
        time.confirmed_ms();
        let late = time.admit();
        let mut ended = Box::pin(time.ended());
        assert!(!is_ready(&mut ended).await);
        drop(late);
        assert!(!is_ready(&mut ended).await);
        drop(early);
        assert!(is_ready(&mut ended).await);
    }

    async fn is_ready<F: Future<Output = ()> + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|ctx| Poll::Ready(Pin::new(&mut *future).poll(ctx).is_ready())).await
    }
}
