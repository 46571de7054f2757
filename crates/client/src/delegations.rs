//! What the mgr has delegated to this client: attributes and names that it may go by without asking.
//!
//! An answer counts only if nothing was recalled, and nothing changed by this client itself, since its question was sent:
//! answers may be overtaken. This client's own changes need no recall: what they are about stays held, and their answers tell
//! how it is since; of several the newest counts, by its number. What an answer does not tell of is asked for anew.
//! Everything ends with the lease, as this client's clock has it, counted from before the keep-alive left; so it ends here
//! first. Knows no messages but what requests are about.

use crate::touches::Touched;
use pvfs_types::{Attr, Cred, FileKind, Ino, Name, mode};
use pvfs_wire::msg::namespace::Entry;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Inodes that are gone by. When there are more, all are forgotten; the mgr may go on counting them.
const HELD_MAX: usize = 1 << 18;
/// Names that are known of one directory.
const NAMES_MAX: usize = 1 << 16;
/// When to look which recalls no question is waiting behind any more.
const RECALLED_SWEEP: usize = 1024;

/// Is told the inodes of a change; some twice.
pub type OnChange = Box<dyn Fn(Ino) + Send + Sync>;

/// The delegations of one client.
pub(crate) struct Delegations {
    is_on: bool,
    state: Mutex<State>,
    on_change: OnceLock<OnChange>,
}

#[derive(Default)]
struct State {
    /// Numbers questions, recalls and what is held, in their order.
    clock: u64,
    held: HashMap<Ino, Held>,
    lease_until: Option<Instant>,
    /// When an inode was last recalled or changed here, as long as there are questions from before.
    forgotten: HashMap<Ino, u64>,
    /// When an inode was last recalled, or changed here and nobody told how it is since; likewise.
    lost: HashMap<Ino, u64>,
    /// The same, of all.
    all_forgotten: u64,
    /// Questions and own changes under way.
    asking: BTreeSet<u64>,
    /// This client changes them now.
    changing: HashMap<Ino, Changing>,
}

/// Own changes of one inode under way.
#[derive(Clone, Copy, Debug, Default)]
struct Changing {
    all: u32,
    /// Those of a directory's names, which leave its rights as they are.
    names: u32,
}

/// An inode that nobody else changes without a recall.
struct Held {
    since: u64,
    /// This client has made the inode, and held it since.
    is_made: bool,
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
    /// This client changes them now.
    changing: HashMap<Name, NameChanging>,
}

/// Own changes of one name under way.
#[derive(Debug, Default)]
struct NameChanging {
    count: u32,
    /// There were several at once: which was the last, their answers do not tell.
    crossed: bool,
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
    at: u64,
    /// And what is known of each meanwhile.
    changed: BTreeMap<Ino, Knows>,
    /// Names, and whether something of that name goes.
    names: Vec<(Ino, Name, bool)>,
    /// How inodes were right after the change.
    told: Vec<Entry>,
}

impl Delegations {
    /// `is_on`: this client takes any.
    pub fn new(is_on: bool) -> Arc<Delegations> {
        Arc::new(Delegations { is_on, state: Mutex::default(), on_change: OnceLock::new() })
    }

    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// `told` learns of each change of this client's own that is over.
    pub fn on_change(&self, told: OnChange) {
        let _ = self.on_change.set(told);
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
        if state.live() { state.known(ino, Knows::All).cloned() } else { None }
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
        if !may(state.known(dir, Knows::Rights)?, cred, mode::X) {
            return None;
        }
        let ino = match state.held.get(&dir)?.names.find(name) {
            Target::Unknown => return None,
            Target::Nothing => return Some(Named::Nothing),
            Target::Inode(ino) => ino,
        };
        let is_dir = state.held.get(&ino)?.attr.kind == FileKind::Dir;
        state.known(ino, if is_dir { of_dir } else { Knows::All }).cloned().map(Named::Inode)
    }

    /// The delegation of `ino`, if there is one.
    pub fn of(&self, ino: Ino) -> Option<Delegation> {
        self.state().delegation(ino)
    }

    /// The number of the delegation that came with `ino` itself, if it stands: this client has made the inode, and nobody was
    /// told of it since without a recall.
    pub fn of_made(&self, ino: Ino) -> Option<u64> {
        let mut state = self.state();
        let is_made = state.held.get(&ino).is_some_and(|held| held.is_made);
        state.delegation(ino).filter(|_| is_made).map(|delegation| delegation.number)
    }

    /// The delegation of the inode of `attr`, if these are its attributes still.
    pub fn of_attr(&self, attr: &Attr) -> Option<Delegation> {
        let mut state = self.state();
        let of = state.delegation(attr.ino)?;
        let is_now = state.known(attr.ino, Knows::All).is_some_and(|known| known.change == attr.change);
        is_now.then_some(of)
    }

    /// Whether `ino` certainly has a name.
    pub fn has_name(&self, ino: Ino) -> bool {
        let mut state = self.state();
        state.live() && state.known(ino, Knows::All).is_some_and(|attr| attr.nlink > 0)
    }

    /// Whether `cred` may read the file `ino`, if that is certain.
    pub fn may_read(&self, cred: &Cred, ino: Ino) -> bool {
        let attr = self.attr(ino);
        attr.is_some_and(|attr| attr.kind == FileKind::File && may(&attr, cred, mode::R))
    }

    /// A question leaves. Its answer is given to [`Asking::learn`].
    pub fn ask(self: &Arc<Self>) -> Asking {
        let at = self.state().begin();
        Asking { delegations: Arc::clone(self), at }
    }

    /// `ino` was changed by this client, nobody told how: it is asked for anew.
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
    pub fn change(self: &Arc<Self>, touched: Touched) -> OwnChange {
        let mut state = self.state();
        let at = state.begin();
        let Touched { inos, dirs, names } = touched;
        let mut changed: BTreeMap<Ino, Knows> = inos.into_iter().map(|ino| (ino, Knows::Nothing)).collect();
        for dir in dirs {
            changed.entry(dir).or_insert(Knows::Rights);
        }
        for (dir, name, goes) in &names {
            let held = state.held.get_mut(dir);
            match held.map_or(Target::Unknown, |held| held.names.change(name)) {
                Target::Inode(ino) => drop(changed.insert(ino, Knows::Nothing)),
                // It may be any inode's.
                Target::Unknown if *goes => state.forget_all(),
                Target::Unknown | Target::Nothing => {}
            }
        }
        for (ino, knows) in &changed {
            state.overtake(*ino);
            state.changing.entry(*ino).or_default().count(*knows, true);
        }
        drop(state);
        OwnChange { delegations: Arc::clone(self), at, changed, names, told: Vec::new() }
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
        state.hold(&entry.attr);
    }

    /// Whether `ino` was recalled, or changed by this client, since that was asked.
    pub fn is_overtaken(&self, ino: Ino) -> bool {
        self.delegations.state().forgotten.get(&ino).is_some_and(|at| *at > self.at)
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
            held.names.learn(name, ino.map_or(Target::Nothing, Target::Inode));
        }
    }
}

impl OwnChange {
    /// The change is made: inodes are like this now.
    pub fn made(&mut self, told: Vec<Entry>) {
        self.told = told;
    }

    /// What the changed name names now, if that is certain.
    fn named(&self) -> Option<Target> {
        let [(dir, _, goes)] = &self.names[..] else { return None };
        if self.told.is_empty() {
            return None;
        }
        if *goes {
            return Some(Target::Nothing);
        }
        let mut named = self.told.iter().filter(|entry| entry.attr.ino != *dir);
        match (named.next(), named.next()) {
            (Some(entry), None) => Some(Target::Inode(entry.attr.ino)),
            _ => None,
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.delegations.state().end(self.at);
    }
}

impl Drop for OwnChange {
    fn drop(&mut self) {
        let mut state = self.delegations.state();
        let told = |ino: &Ino| self.told.iter().find(|entry| entry.attr.ino == *ino);
        for (ino, knows) in &self.changed {
            match told(ino).filter(|_| state.is_untouched(*ino, self.at)) {
                Some(entry) => state.is_now(&entry.attr),
                None => state.outdate(*ino, *knows),
            }
            // What was asked while it was made may have been answered before.
            state.overtake(*ino);
            if let Some(changing) = state.changing.get_mut(ino)
                && changing.count(*knows, false)
            {
                state.changing.remove(ino);
            }
        }
        let is_new = |entry: &&Entry| entry.delegated == Some(true);
        for entry in self.told.iter().filter(is_new) {
            if state.stands(entry.attr.ino, self.at) {
                state.hold(&entry.attr);
                if let Some(held) = state.held.get_mut(&entry.attr.ino) {
                    held.is_made = true;
                }
            }
        }
        let named = self.named();
        for (dir, name, _) in &self.names {
            let target = named.filter(|_| state.is_untouched(*dir, self.at));
            if let Some(held) = state.held.get_mut(dir).filter(|held| held.since < self.at) {
                held.names.changed(name, target);
            }
        }
        state.end(self.at);
        drop(state);
        if let Some(told) = self.delegations.on_change.get() {
            let others = self.told.iter().map(|entry| &entry.attr.ino);
            for ino in self.changed.keys().chain(others) {
                told(*ino);
            }
        }
    }
}

impl Changing {
    /// One more or one less of those that leave so much known. True: there are none any more.
    fn count(&mut self, knows: Knows, more: bool) -> bool {
        let count = if knows == Knows::Nothing { &mut self.all } else { &mut self.names };
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        self.all == 0 && self.names == 0
    }

    /// How much of what is known counts meanwhile.
    fn leaves(self) -> Knows {
        if self.all > 0 { Knows::Nothing } else { Knows::Rights }
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A question or a change begins.
    fn begin(&mut self) -> u64 {
        let at = self.tick();
        self.asking.insert(at);
        at
    }

    /// That which began at `at` is over.
    fn end(&mut self, at: u64) {
        self.asking.remove(&at);
        match self.asking.first().copied() {
            None => {
                self.forgotten.clear();
                self.lost.clear();
            }
            Some(oldest) if self.forgotten.len() >= RECALLED_SWEEP => {
                self.forgotten.retain(|_, at| *at > oldest);
                self.lost.retain(|_, at| *at > oldest);
            }
            Some(_) => {}
        }
    }

    /// The delegation of `ino`, if there is one.
    fn delegation(&mut self, ino: Ino) -> Option<Delegation> {
        let left = self.lease_until?.saturating_duration_since(Instant::now());
        if !self.live() {
            return None;
        }
        let number = self.held.get(&ino)?.since;
        Some(Delegation { number, left, known: self.known(ino, Knows::All).is_some() })
    }

    /// The attributes of `ino`, if at least so much of them is known.
    fn known(&self, ino: Ino, needs: Knows) -> Option<&Attr> {
        let held = self.held.get(&ino)?;
        let meanwhile = self.changing.get(&ino).map_or(Knows::All, |changing| changing.leaves());
        (held.knows.min(meanwhile) >= needs).then_some(&held.attr)
    }

    /// `attr` is delegated, and all that is to know.
    fn hold(&mut self, attr: &Attr) {
        if self.held.len() >= HELD_MAX {
            return self.forget_all();
        }
        let since = self.tick();
        // What was known of its names stays known: it was not recalled.
        let held = self.held.entry(attr.ino).or_insert_with(|| Held {
            since,
            is_made: false,
            attr: attr.clone(),
            knows: Knows::All,
            names: Names::default(),
        });
        if attr.kind == FileKind::Dir && attr.change == Attr::CHANGE_FIRST {
            held.names.made.get_or_insert_default();
        }
        (held.attr, held.knows) = (attr.clone(), Knows::All);
    }

    /// This client's own change has left `attr`, if nothing newer has come.
    fn is_now(&mut self, attr: &Attr) {
        let Some(held) = self.held.get_mut(&attr.ino) else { return };
        // Each change but the first counts one more.
        let is_older = attr.change.wrapping_sub(held.attr.change) > u64::MAX / 2;
        if !is_older {
            held.attr = attr.clone();
        }
        held.knows = Knows::All;
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
        self.lose(ino);
    }

    /// `ino` was changed by this client, after which only so much is known of it.
    fn outdate(&mut self, ino: Ino, knows: Knows) {
        if let Some(held) = self.held.get_mut(&ino) {
            held.knows = held.knows.min(knows);
        }
        self.lose(ino);
    }

    /// What is told by changes of `ino` that began before now does not count either.
    fn lose(&mut self, ino: Ino) {
        self.overtake(ino);
        if !self.asking.is_empty() {
            self.lost.insert(ino, self.clock);
        }
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

    /// Whether what a change that began at `at` tells of `ino` still counts.
    fn is_untouched(&mut self, ino: Ino, at: u64) -> bool {
        self.live() && self.lost.get(&ino).copied().unwrap_or(0).max(self.all_forgotten) < at
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

    fn learn(&mut self, name: &Name, target: Target) {
        if self.known.len() >= NAMES_MAX {
            self.known.clear();
        }
        self.known.insert(name.clone(), target);
    }

    /// This client makes or removes `name`. Gives what was known of it.
    fn change(&mut self, name: &Name) -> Target {
        let found = self.find(name);
        self.known.remove(name);
        let changing = self.changing.entry(name.clone()).or_default();
        changing.count += 1;
        changing.crossed |= changing.count > 1;
        if let Some(made) = &mut self.made {
            made.insert(name.clone());
        }
        if self.made.as_ref().is_some_and(|made| made.len() > NAMES_MAX) {
            self.made = None;
        }
        found
    }

    /// A change of `name` is over; `target`: what it names since, where that was told.
    fn changed(&mut self, name: &Name, target: Option<Target>) {
        let Some(changing) = self.changing.get_mut(name) else { return };
        changing.count -= 1;
        let was_alone = !changing.crossed;
        if changing.count == 0 {
            self.changing.remove(name);
        }
        if let Some(target) = target.filter(|_| was_alone) {
            self.learn(name, target);
        }
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
