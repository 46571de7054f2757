//! What holds for all frames of a proxy until it changes: silence, slowness, a narrow link. Knows no sockets.

use super::{Way, locked};
use pvfs_wire::msg::hello::Role;
use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

#[derive(Debug, Default)]
pub(crate) struct Weather {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Which frames wait for better weather.
    silent: Vec<(Way, Option<Role>)>,
    /// How long each frame travels.
    travel: [Duration; 2],
    bytes_per_second: Option<u32>,
}

impl Weather {
    /// From now on frames of that way, of peers of that role (`None`: of all), wait.
    pub fn silence(&self, way: Way, role: Option<Role>) {
        locked(&self.state).silent.push((way, role));
    }

    pub fn delay(&self, way: Way, travel: Duration) {
        locked(&self.state).travel[usize::from(way == Way::Reply)] = travel;
    }

    pub fn narrow(&self, bytes_per_second: u32) {
        locked(&self.state).bytes_per_second = Some(bytes_per_second);
    }

    /// All of that ends; what waited goes on.
    pub fn clear(&self) {
        *locked(&self.state) = State::default();
        self.changed.notify_all();
    }

    /// Returns when a frame of `bytes`, read from the connection of a peer of that role, may set out.
    pub fn pass(&self, way: Way, role: Option<Role>, bytes: usize) {
        let mut state = locked(&self.state);
        let is_silent = |state: &State| {
            state.silent.iter().any(|(w, whom)| *w == way && whom.is_none_or(|whom| Some(whom) == role))
        };
        while is_silent(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let rate = state.bytes_per_second;
        drop(state);
        if let Some(rate) = rate {
            let bytes = u32::try_from(bytes).unwrap();
            std::thread::sleep(Duration::from_secs_f64(f64::from(bytes) / f64::from(rate)));
        }
    }

    /// Returns when a frame that set out at `since` arrives.
    pub fn travel(&self, way: Way, since: Instant) {
        let travel = locked(&self.state).travel[usize::from(way == Way::Reply)];
        std::thread::sleep((since + travel).saturating_duration_since(Instant::now()));
    }
}
