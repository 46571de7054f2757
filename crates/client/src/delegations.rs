//! What the mgr has delegated to this client: attributes and names that it may go by without asking.
//!
//! An answer counts only if nothing was recalled, and nothing changed by this client itself, since its question was sent:
//! answers may be overtaken. This client's own changes need no recall: what they are about stays held, and is asked for anew.
//! Everything ends with the lease, as this client's clock has it, counted from before the keep-alive left; so it ends here
//! first. Knows no messages but what requests are about.

use crate::touches::Touched;
use pvfs_types::{Attr, Cred, FileKind, Ino, Name, mode};
use pvfs_wire::msg::namespace::Entry;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
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

/// An inode that nobody else changes without a recall.
struct Held {
    since: u64,
    attr: Attr,
    /// What of `attr` this client's own changes have left true.
    knows: Knows,
    /// Of a directory.
    names: Names,
}

/// What is known of a name.
#[derive(Clone, Copy)]
enum Target {
    Unknown,
    Nothing,
    Inode(Ino),
}

/// What is known of the names in a directory.
#[derive(Default)]
struct Names {
    known: HashMap<Name, Target>,
    /// It was seen empty: only this client has made names since, and these are they.
    made: Option<HashSet<Name>>,
}

/// What a name names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Nothing,
    Inode(Attr),
}

/// What is known of an inode that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Knows {
    Nothing,
    /// What it is, whose, and who may do what with it.
    Rights,
    All,
}

/// What stands between an inode and a change by somebody else: a recall, which comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// Never given twice: with the same number, there was no recall in between.
    pub number: u64,
    /// It stands for so long at least.
    pub left: Duration,
    /// The attributes are known, too: this client has not changed them itself since they were told.
    pub known: bool,
}

/// A question under way.
pub(crate) struct Asking {
    delegations: Arc<Delegations>,
    at: u64,
}

/// A change of this client's own under way: it goes by nothing that the change is about.
pub(crate) struct OwnChange {
    delegations: Arc<Delegations>,
    /// And what is still known of each.
    changed: BTreeMap<Ino, Knows>,
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
        state.live().then(|| state.held.get(&ino).and_then(|held| held.attr(Knows::All))).flatten()
    }

    /// What `name` in `dir` names, if that is known, and known to be for `cred` to see.
    pub fn lookup(&self, cred: &Cred, dir: Ino, name: &Name) -> Option<Named> {
        self.find(cred, dir, name, Knows::All)
    }

    /// As [`Delegations::lookup`]; of a directory the times, the size and the number of links may be old.
    pub fn step(&self, cred: &Cred, dir: Ino, name: &Name) -> Option<Named> {
        self.find(cred, dir, name, Knows::Rights)
    }

    fn find(&self, cred: &Cred, dir: Ino, name: &Name, of_dir: Knows) -> Option<Named> {
        let mut state = self.state();
        if !state.live() {
            return None;
        }
        let held = state.held.get(&dir)?;
        if held.knows < Knows::Rights || !may(&held.attr, cred, mode::X) {
            return None;
        }
        let ino = match held.names.find(name) {
            Target::Unknown => return None,
            Target::Nothing => return Some(Named::Nothing),
            Target::Inode(ino) => ino,
        };
        let found = state.held.get(&ino)?;
        found.attr(if found.attr.kind == FileKind::Dir { of_dir } else { Knows::All }).map(Named::Inode)
    }

    /// The delegation of `ino`, if there is one.
    pub fn of(&self, ino: Ino) -> Option<Delegation> {
        let mut state = self.state();
        let left = state.lease_until?.saturating_duration_since(Instant::now());
        if !state.live() {
            return None;
        }
        let held = state.held.get(&ino)?;
        Some(Delegation { number: held.since, left, known: held.knows == Knows::All })
    }

    /// Whether `cred` may read the file `ino`, if that is certain.
    pub fn may_read(&self, cred: &Cred, ino: Ino) -> bool {
        let attr = self.attr(ino);
        attr.is_some_and(|attr| attr.kind == FileKind::File && may(&attr, cred, mode::R))
    }

    /// A question leaves. Its answer is given to [`Asking::learn`].
    pub fn ask(self: &Arc<Self>) -> Asking {
        let mut state = self.state();
        let at = state.tick();
        *state.asking.entry(at).or_default() += 1;
        Asking { delegations: Arc::clone(self), at }
    }

    /// `ino` was changed by this client: it is asked for anew.
    pub fn outdate(&self, ino: Ino) {
        self.state().outdate(ino, Knows::Nothing);
    }

    /// `ino` is recalled: nothing is known of it.
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

    /// This client makes a change. What it is about stays held: nobody else changes it without a recall.
    pub fn change(self: &Arc<Self>, touched: Touched) -> Option<OwnChange> {
        if !self.is_on {
            return None;
        }
        let mut state = self.state();
        let Touched { inos, dirs, names } = touched;
        let mut changed: BTreeMap<Ino, Knows> = inos.into_iter().map(|ino| (ino, Knows::Nothing)).collect();
        for dir in dirs {
            changed.entry(dir).or_insert(Knows::Rights);
        }
        for (dir, name, goes) in names {
            let held = state.held.get_mut(&dir);
            match held.map_or(Target::Unknown, |held| held.names.change(name)) {
                Target::Inode(ino) => drop(changed.insert(ino, Knows::Nothing)),
                // It may be any inode's.
                Target::Unknown if goes => state.forget_all(),
                Target::Unknown | Target::Nothing => {}
            }
        }
        for (ino, knows) in &changed {
            state.outdate(*ino, *knows);
            *state.changing.entry(*ino).or_default() += 1;
        }
        drop(state);
        Some(OwnChange { delegations: Arc::clone(self), changed })
    }
}

impl Asking {
    /// Takes what the answer delegates.
    pub fn learn(&self, entry: &Entry) {
        if entry.delegated != Some(true) {
            return;
        }
        let mut state = self.delegations.state();
        let ino = entry.attr.ino;
        if !state.stands(ino, self.at) {
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
            knows: Knows::All,
            names: Names::default(),
        });
        if attr.kind == FileKind::Dir && attr.change == Attr::CHANGE_FIRST {
            held.names.made.get_or_insert_default();
        }
        (held.attr, held.knows) = (attr, Knows::All);
    }

    /// `name` in `dir` is `ino`, or nothing, if `dir` is held since before that was asked.
    pub fn learn_name(&self, dir: Ino, name: &Name, ino: Option<Ino>) {
        if !self.delegations.is_on {
            return;
        }
        let mut state = self.delegations.state();
        if !state.stands(dir, self.at) {
            return;
        }
        if let Some(held) = state.held.get_mut(&dir).filter(|held| held.since < self.at) {
            held.names.learn(name, ino);
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
        for (ino, knows) in &self.changed {
            // What was asked while it was made may have been answered before.
            state.outdate(*ino, *knows);
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
        self.overtake(ino);
    }

    /// `ino` is changed by this client, after which only so much is known of it.
    fn outdate(&mut self, ino: Ino, knows: Knows) {
        if let Some(held) = self.held.get_mut(&ino) {
            held.knows = held.knows.min(knows);
        }
        self.overtake(ino);
    }

    /// What was asked of `ino` before now does not count.
    fn overtake(&mut self, ino: Ino) {
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

impl Names {
    fn find(&self, name: &Name) -> Target {
        match self.known.get(name) {
            Some(target) => *target,
            None if self.made.as_ref().is_some_and(|made| !made.contains(name)) => Target::Nothing,
            None => Target::Unknown,
        }
    }

    fn learn(&mut self, name: &Name, ino: Option<Ino>) {
        if self.known.len() >= NAMES_MAX {
            self.known.clear();
        }
        self.known.insert(name.clone(), ino.map_or(Target::Nothing, Target::Inode));
    }

    /// This client makes or removes `name`. Gives what was known of it.
    fn change(&mut self, name: Name) -> Target {
        let found = self.find(&name);
        self.known.remove(&name);
        if let Some(made) = &mut self.made {
            made.insert(name);
        }
        if self.made.as_ref().is_some_and(|made| made.len() > NAMES_MAX) {
            self.made = None;
        }
        found
    }
}

impl Held {
    /// Its attributes, if at least so much of them is known.
    fn attr(&self, needs: Knows) -> Option<Attr> {
        (self.knows >= needs).then(|| self.attr.clone())
    }
}

/// Whether it is certain that `cred` may do with an inode what `bit` of a mode stands for.
fn may(attr: &Attr, cred: &Cred, bit: u32) -> bool {
    if cred.uid == 0 {
        return true;
    }
    if attr.extras.unwrap_or_default().acl {
        return false;
    }
    let class = if attr.uid == cred.uid {
        6
    } else if attr.gid == cred.gid || cred.groups.contains(&attr.gid) {
        3
    } else {
        0
    };
    attr.mode >> class & bit != 0
}

#[cfg(test)]
mod tests;
