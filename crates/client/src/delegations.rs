//! What the mgr has delegated to this client: attributes and names that it may go by without asking.
//!
//! An answer counts only if nothing was recalled, and nothing changed by this client itself, since its question was sent:
//! answers may be overtaken. Everything ends with the lease, as this client's clock has it, counted from before the
//! keep-alive left; so it ends here first. Knows no messages but what requests are about.

use pvfs_types::{Attr, Cred, Ino, Name, mode};
use pvfs_wire::msg::namespace::Entry;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Inodes that are gone by. When there are more, all are forgotten; the mgr may go on counting them.
const HELD_MAX: usize = 1 << 18;
/// Names that are known of one directory.
const NAMES_MAX: usize = 1 << 16;
/// When to look which recalls no question is waiting behind any more.
const RECALLED_SWEEP: usize = 1024;

/// The delegations of one client.
pub(crate) struct Delegations {
    is_on: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Numbers questions, recalls and what is held, in their order.
    clock: u64,
    held: HashMap<Ino, Held>,
    lease_until: Option<Instant>,
    /// When an inode was last recalled or changed here, as long as there are questions from before.
    forgotten: HashMap<Ino, u64>,
    /// The same, of all.
    all_forgotten: u64,
    /// Questions under way.
    asking: BTreeMap<u64, u32>,
    /// This client changes them now.
    changing: HashMap<Ino, u32>,
}

/// An inode that is gone by.
struct Held {
    since: u64,
    attr: Attr,
    /// Of a directory.
    names: HashMap<Name, Ino>,
}

/// A question under way.
pub(crate) struct Asking {
    delegations: Arc<Delegations>,
    at: u64,
}

/// A change of this client's own under way: it goes by nothing that the change is about.
pub(crate) struct OwnChange {
    delegations: Arc<Delegations>,
    inos: BTreeSet<Ino>,
}

impl Delegations {
    /// `is_on`: this client takes any.
    pub fn new(is_on: bool) -> Arc<Delegations> {
        Arc::new(Delegations { is_on, state: Mutex::default() })
    }

    pub fn is_on(&self) -> bool {
        self.is_on
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease is good until then.
    pub fn lease_until(&self, until: Instant) {
        let mut state = self.state();
        state.live();
        state.lease_until = Some(until);
    }

    /// What is known of `ino`.
    pub fn attr(&self, ino: Ino) -> Option<Attr> {
        let mut state = self.state();
        state.live().then(|| state.held.get(&ino).map(|held| held.attr.clone())).flatten()
    }

    /// What `name` in `dir` names, if that is known, and known to be for `cred` to see.
    pub fn lookup(&self, cred: &Cred, dir: Ino, name: &Name) -> Option<Attr> {
        let mut state = self.state();
        if !state.live() {
            return None;
        }
        let held = state.held.get(&dir).filter(|held| may_search(&held.attr, cred))?;
        let ino = held.names.get(name)?;
        state.held.get(ino).map(|held| held.attr.clone())
    }

    /// How long the delegation of `ino` is good at least; `None`: it is not delegated.
    pub fn standing(&self, ino: Ino) -> Option<Duration> {
        let mut state = self.state();
        let left = state.lease_until?.saturating_duration_since(Instant::now());
        (state.live() && state.held.contains_key(&ino)).then_some(left)
    }

    /// A question leaves. Its answer is given to [`Asking::learn`].
    pub fn ask(self: &Arc<Self>) -> Asking {
        let mut state = self.state();
        let at = state.tick();
        *state.asking.entry(at).or_default() += 1;
        Asking { delegations: Arc::clone(self), at }
    }

    /// `ino` is recalled, or changed: nothing is known of it.
    pub fn forget(&self, ino: Ino) {
        self.state().forget(ino);
    }

    /// The session, or its mgr, is another one: nothing is known of anything.
    pub fn forget_all(&self) {
        self.state().forget_all();
    }

    /// Another mgr process is there, which is to be told of all that is held. Questions that another one answers count no more.
    pub fn list(&self) -> Vec<Ino> {
        let mut state = self.state();
        if !state.live() {
            return Vec::new();
        }
        state.all_forgotten = state.tick();
        let mut inos: Vec<Ino> = state.held.keys().copied().collect();
        inos.sort_unstable();
        inos
    }

    /// This client changes `inos`, and what is named by `names` in their directories.
    pub fn change(self: &Arc<Self>, inos: Vec<Ino>, names: Vec<(Ino, Name)>) -> Option<OwnChange> {
        if !self.is_on {
            return None;
        }
        let mut state = self.state();
        let mut inos: BTreeSet<Ino> = inos.into_iter().collect();
        for (dir, name) in names {
            match state.held.get(&dir).and_then(|held| held.names.get(&name)) {
                Some(ino) => drop(inos.insert(*ino)),
                // It may be any.
                None => state.forget_all(),
            }
        }
        for ino in &inos {
            state.forget(*ino);
            *state.changing.entry(*ino).or_default() += 1;
        }
        drop(state);
        Some(OwnChange { delegations: Arc::clone(self), inos })
    }
}

impl Asking {
    /// Takes what the answer delegates.
    pub fn learn(&self, entry: &Entry) {
        let mut state = self.delegations.state();
        let ino = entry.attr.ino;
        if entry.delegated != Some(true) || !state.stands(ino, self.at) {
            return;
        }
        if state.held.len() >= HELD_MAX {
            state.forget_all();
            return;
        }
        let since = state.tick();
        let attr = entry.attr.clone();
        // What was known of its names stays known: it was not recalled.
        let held = state.held.entry(ino).or_insert_with(|| Held {
            since,
            attr: attr.clone(),
            names: HashMap::new(),
        });
        held.attr = attr;
    }

    /// `name` in `dir` is `ino`, if that is gone by since before it was asked.
    pub fn learn_name(&self, dir: Ino, name: &Name, ino: Ino) {
        let mut state = self.delegations.state();
        if !state.stands(dir, self.at) {
            return;
        }
        if let Some(held) = state.held.get_mut(&dir).filter(|held| held.since < self.at) {
            if held.names.len() >= NAMES_MAX {
                held.names.clear();
            }
            held.names.insert(name.clone(), ino);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut state = self.delegations.state();
        if let Some(count) = state.asking.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                state.asking.remove(&self.at);
            }
        }
        let oldest = state.asking.keys().next().copied();
        match oldest {
            None => state.forgotten.clear(),
            Some(oldest) if state.forgotten.len() >= RECALLED_SWEEP => {
                state.forgotten.retain(|_, at| *at > oldest);
            }
            Some(_) => {}
        }
    }
}

impl Drop for OwnChange {
    fn drop(&mut self) {
        let mut state = self.delegations.state();
        for ino in &self.inos {
            // What was asked while it was made may have been answered before.
            state.forget(*ino);
            if let Some(count) = state.changing.get_mut(ino) {
                *count -= 1;
                if *count == 0 {
                    state.changing.remove(ino);
                }
            }
        }
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Whether the lease is good; if not, nothing is known.
    fn live(&mut self) -> bool {
        let is_live = self.lease_until.is_some_and(|until| Instant::now() < until);
        if !is_live && !self.held.is_empty() {
            self.forget_all();
        }
        is_live
    }

    fn forget(&mut self, ino: Ino) {
        self.held.remove(&ino);
        let at = self.tick();
        if !self.asking.is_empty() {
            self.forgotten.insert(ino, at);
        }
    }

    fn forget_all(&mut self) {
        self.held.clear();
        self.all_forgotten = self.tick();
    }

    /// Whether what was asked of `ino` at `at` still counts.
    fn stands(&mut self, ino: Ino, at: u64) -> bool {
        let forgotten = self.forgotten.get(&ino).copied().unwrap_or(0).max(self.all_forgotten);
        self.live() && forgotten < at && !self.changing.contains_key(&ino)
    }
}

/// Whether it is certain that `cred` may look names up in `dir`.
fn may_search(dir: &Attr, cred: &Cred) -> bool {
    if cred.uid == 0 {
        return true;
    }
    if dir.extras.unwrap_or_default().acl {
        return false;
    }
    let class = if dir.uid == cred.uid {
        6
    } else if dir.gid == cred.gid || cred.groups.contains(&dir.gid) {
        3
    } else {
        0
    };
    dir.mode >> class & mode::X != 0
}

#[cfg(test)]
mod tests;
