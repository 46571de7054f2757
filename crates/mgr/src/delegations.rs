//! Who may go by what it knows of an inode, and how it is asked before that changes.
//!
//! A session that has made a file, and that nobody else was told of since, is alone with it: it may keep there for a while
//! what it writes. Whoever asks for the file waits until that is recalled.
//!
//! All of it is in memory. A mgr that starts knows of each session that an earlier one gave delegations to, but not which:
//! until the session has told, or its lease has run out, it counts as if it held all.
//!
//! Knows no messages beyond those of delegations, and no store.

use pvfs_types::{Ino, SessionId};
use pvfs_wire::msg::delegation::{AwaitRecalls, HoldDelegations, Recall, Recalled, Recalls};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, watch};

/// Inodes that a change is about.
pub type Inos = BTreeSet<Ino>;

/// Most delegations of one session. Who holds as many gets no more until some are recalled.
const HELD_MAX: usize = 1 << 20;

/// The delegations that this mgr process has given.
pub struct Delegations {
    process: u64,
    table: Mutex<Table>,
    /// Counts what may let a waiting change go on.
    freed: watch::Sender<u64>,
    /// Somebody waits for a session.
    pub waits: Notify,
    stopped: watch::Sender<bool>,
}

#[derive(Default)]
struct Table {
    sessions: BTreeMap<SessionId, Holder>,
    holders: HashMap<Ino, BTreeSet<SessionId>>,
    /// How many changes are under way, or wait for recalls. Nothing is delegated meanwhile.
    changing: HashMap<Ino, u32>,
    /// The number of the last recall.
    last: u64,
}

struct Holder {
    inos: BTreeSet<Ino>,
    /// Those with which it may be alone.
    alone: BTreeSet<Ino>,
    /// Not answered yet.
    recalls: BTreeMap<u64, Ino>,
    /// What it holds is known.
    is_known: bool,
    /// Counts news for the session.
    news: watch::Sender<u64>,
    /// Counts those who have asked: the newest one is answered when there is news, the others at once.
    turn: watch::Sender<u64>,
}

/// Inodes that change: nobody is given a delegation of them as long as this lives.
pub struct Changing {
    delegations: Arc<Delegations>,
    inos: Inos,
}

/// Whether a session has a delegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    No,
    Now,
    /// It had it already.
    Before,
}

/// The mgr stops before the delegations in the way were given up.
#[derive(Debug)]
pub struct Stopped;

impl Delegations {
    pub fn new(process: u64) -> Arc<Delegations> {
        Arc::new(Delegations {
            process,
            table: Mutex::default(),
            freed: watch::channel(0).0,
            waits: Notify::new(),
            stopped: watch::channel(false).0,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on changes wait no more.
    pub fn stop(&self) {
        self.stopped.send_replace(true);
    }

    /// A session that takes delegations. `is_known`: it holds none yet; else it has some of an earlier mgr's.
    pub fn admit(&self, session: SessionId, is_known: bool) {
        self.table().sessions.entry(session).or_insert_with(|| Holder::new(is_known));
    }

    /// The session is over, or its lease has: it goes by nothing any more.
    pub fn forget(&self, session: SessionId) {
        let gone = {
            let mut table = self.table();
            let gone = table.sessions.remove(&session);
            for ino in gone.iter().flat_map(|holder| &holder.inos) {
                unlist(&mut table.holders, *ino, session);
            }
            gone
        };
        if let Some(holder) = gone {
            // Whoever still asks for it finds it unknown.
            holder.news.send_modify(|news| *news += 1);
            self.freed.send_modify(|freed| *freed += 1);
        }
    }

    /// The lease of `session` has run out, and with it what it held. It may come back, knowing that.
    pub fn lapse(&self, session: SessionId) {
        let is_there = self.table().sessions.contains_key(&session);
        self.forget(session);
        if is_there {
            self.admit(session, true);
        }
    }

    /// Gives `session` the delegation of `ino`, if nothing stands in the way. What is then read of the inode may be told
    /// with it.
    pub fn delegate(&self, session: SessionId, ino: Ino) -> Given {
        let mut table = self.table();
        if table.changing.contains_key(&ino) {
            return Given::No;
        }
        table.give(session, ino)
    }

    /// Gives `session` the delegation of the file `ino`, which it makes, and with which it is alone then. To be called before
    /// anybody can see the file, while it counts as changing for that.
    pub fn delegate_new(&self, session: SessionId, ino: Ino) -> Given {
        let mut table = self.table();
        if table.changing.get(&ino).is_some_and(|changes| *changes > 1) {
            // Somebody waits for what had, or is to get, that number.
            return Given::No;
        }
        let given = table.give(session, ino);
        if let Some(holder) = table.sessions.get_mut(&session).filter(|_| given == Given::Now) {
            holder.alone.insert(ino);
        }
        given
    }

    /// Whether one of `writers`, other than `by`, may be alone with `ino`.
    pub fn is_alone(&self, ino: Ino, writers: &[SessionId], by: SessionId) -> bool {
        self.table().is_alone(ino, writers, by)
    }

    /// Whether `session` takes delegations.
    pub fn are_taken_by(&self, session: SessionId) -> bool {
        self.table().sessions.contains_key(&session)
    }

    /// The session was not told of the delegation.
    pub fn take_back(&self, session: SessionId, ino: Ino) {
        let mut table = self.table();
        if let Some(holder) = table.sessions.get_mut(&session) {
            holder.give_up(ino);
        }
        unlist(&mut table.holders, ino, session);
        drop(table);
        self.freed.send_modify(|freed| *freed += 1);
    }

    /// Begins a change of `inos` by `by` (`None`: by the mgr itself), if no other session goes by what it knows of them.
    pub fn change(self: &Arc<Self>, inos: &Inos, by: Option<SessionId>) -> Option<Changing> {
        let mut table = self.table();
        if table.is_free(inos, by) { Some(table.begin(self, inos.clone())) } else { None }
    }

    /// Waits until no session but `by` goes by what it knows of `inos`; none begins to as long as what this gives lives.
    pub async fn recall(self: &Arc<Self>, inos: &Inos, by: Option<SessionId>) -> Result<Changing, Stopped> {
        let changing = {
            let mut table = self.table();
            let changing = table.begin(self, inos.clone());
            table.recall(inos, by);
            changing
        };
        self.until(|table| table.is_free(inos, by)).await?;
        Ok(changing)
    }

    /// Waits until none of `writers` but `by` is alone with `ino`.
    pub async fn recall_alone(
        self: &Arc<Self>,
        ino: Ino,
        writers: &[SessionId],
        by: SessionId,
    ) -> Result<(), Stopped> {
        // Who tells only now what it holds is asked to give it up.
        let _changing = {
            let mut table = self.table();
            let changing = table.begin(self, Inos::from([ino]));
            for writer in writers.iter().filter(|writer| **writer != by) {
                table.recall_of(*writer, &changing.inos);
            }
            changing
        };
        self.until(|table| !table.is_alone(ino, writers, by)).await
    }

    /// Waits until the table is so, for what it waits for to be freed.
    async fn until(&self, is_so: impl Fn(&Table) -> bool) -> Result<(), Stopped> {
        let mut freed = self.freed.subscribe();
        let mut stopped = self.stopped.subscribe();
        self.waits.notify_one();
        loop {
            freed.mark_unchanged();
            if is_so(&self.table()) {
                return Ok(());
            }
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return Err(Stopped),
                // Its sender lives as long as `self`.
                _ = freed.changed() => {}
            }
        }
    }

    /// The sessions that changes wait for.
    pub fn awaited(&self) -> Vec<SessionId> {
        let table = self.table();
        let anybody_waits = !table.changing.is_empty();
        let is_awaited = |holder: &Holder| !holder.recalls.is_empty() || anybody_waits && !holder.is_known;
        table.sessions.iter().filter(|(_, holder)| is_awaited(holder)).map(|(id, _)| *id).collect()
    }

    /// The session has forgotten what these recalls were about.
    pub fn recalled(&self, req: &Recalled) {
        if req.mgr != self.process {
            return;
        }
        {
            let table = &mut *self.table();
            let Some(holder) = table.sessions.get_mut(&req.session) else { return };
            for id in &req.ids {
                let Some(ino) = holder.recalls.remove(id) else { continue };
                holder.give_up(ino);
                unlist(&mut table.holders, ino, req.session);
            }
        }
        self.freed.send_modify(|freed| *freed += 1);
    }

    /// The session tells what an earlier mgr has given it. Sent twice, nothing comes of it.
    pub fn held(&self, req: &HoldDelegations) {
        if req.mgr != self.process {
            return;
        }
        {
            let mut table = self.table();
            let Some(holder) = table.sessions.get_mut(&req.session).filter(|holder| !holder.is_known) else {
                return;
            };
            let room = HELD_MAX.saturating_sub(holder.inos.len());
            holder.inos.extend(req.inos.iter().take(room));
            // Which of them it is alone with, nobody remembers.
            holder.alone.extend(req.inos.iter().take(room));
            holder.is_known = req.last;
            for ino in &req.inos {
                table.holders.entry(*ino).or_default().insert(req.session);
            }
            if req.last {
                // Changes that wait for it, wait for what it holds from now on.
                let waiting: Inos = table.changing.keys().copied().collect();
                table.recall_of(req.session, &waiting);
            }
        }
        self.freed.send_modify(|freed| *freed += 1);
    }

    /// Waits until there is something to tell the session, or it asks anew.
    pub async fn wait(&self, req: &AwaitRecalls) -> Recalls {
        let found = self.table().sessions.get(&req.session).map(|holder| {
            let news = holder.news.subscribe();
            holder.turn.send_modify(|turn| *turn += 1);
            (news, holder.turn.subscribe())
        });
        let Some((mut news, mut turn)) = found else { return self.tell(req) };
        loop {
            news.mark_unchanged();
            let told = self.tell(req);
            if told.unknown || !told.recalls.is_empty() {
                return told;
            }
            tokio::select! {
                biased;
                // An error: the session is over.
                changed = news.changed() => if changed.is_err() { return self.tell(req) },
                _ = turn.changed() => return self.tell(req),
            }
        }
    }

    fn tell(&self, req: &AwaitRecalls) -> Recalls {
        let table = self.table();
        let after = if req.mgr == self.process { req.after } else { 0 };
        let holder = table.sessions.get(&req.session);
        let recalls = holder.into_iter().flat_map(|holder| holder.recalls.range(after + 1..));
        Recalls {
            mgr: self.process,
            recalls: recalls.map(|(&id, &ino)| Recall { id, ino }).collect(),
            unknown: holder.is_some_and(|holder| !holder.is_known),
        }
    }
}

impl Holder {
    fn new(is_known: bool) -> Holder {
        Holder {
            inos: BTreeSet::new(),
            alone: BTreeSet::new(),
            recalls: BTreeMap::new(),
            is_known,
            news: watch::channel(0).0,
            turn: watch::channel(0).0,
        }
    }

    fn give_up(&mut self, ino: Ino) {
        self.inos.remove(&ino);
        self.alone.remove(&ino);
    }
}

fn unlist(holders: &mut HashMap<Ino, BTreeSet<SessionId>>, ino: Ino, session: SessionId) {
    if let hash_map::Entry::Occupied(mut of) = holders.entry(ino) {
        of.get_mut().remove(&session);
        if of.get().is_empty() {
            of.remove();
        }
    }
}

impl Table {
    fn is_free(&self, inos: &Inos, by: Option<SessionId>) -> bool {
        if inos.is_empty() {
            return true;
        }
        let others = |session: &SessionId| Some(*session) != by;
        let is_unknown = |(session, holder): (&SessionId, &Holder)| others(session) && !holder.is_known;
        let held = |ino| self.holders.get(ino).is_some_and(|holders| holders.iter().any(others));
        !inos.iter().any(held) && !self.sessions.iter().any(is_unknown)
    }

    fn give(&mut self, session: SessionId, ino: Ino) -> Given {
        let Some(holder) = self.sessions.get_mut(&session) else { return Given::No };
        let is_recalled = holder.recalls.values().any(|recalled| *recalled == ino);
        if !holder.is_known || is_recalled || holder.inos.len() >= HELD_MAX {
            return Given::No;
        }
        if !holder.inos.insert(ino) {
            return Given::Before;
        }
        self.holders.entry(ino).or_default().insert(session);
        Given::Now
    }

    fn is_alone(&self, ino: Ino, writers: &[SessionId], by: SessionId) -> bool {
        let may_be = |holder: &Holder| !holder.is_known || holder.alone.contains(&ino);
        let others = writers.iter().filter(|writer| **writer != by);
        others.filter_map(|writer| self.sessions.get(writer)).any(may_be)
    }

    fn begin(&mut self, delegations: &Arc<Delegations>, inos: Inos) -> Changing {
        for ino in &inos {
            *self.changing.entry(*ino).or_default() += 1;
        }
        Changing { delegations: Arc::clone(delegations), inos }
    }

    fn recall(&mut self, inos: &Inos, by: Option<SessionId>) {
        let holders: BTreeSet<SessionId> =
            inos.iter().filter_map(|ino| self.holders.get(ino)).flatten().copied().collect();
        for session in holders.into_iter().filter(|session| Some(*session) != by) {
            self.recall_of(session, inos);
        }
    }

    /// Recalls what `session` holds of `inos`, if that is not done already.
    fn recall_of(&mut self, session: SessionId, inos: &Inos) {
        let Some(holder) = self.sessions.get_mut(&session) else { return };
        let is_recalled =
            |holder: &Holder, ino: &Ino| holder.recalls.values().any(|recalled| recalled == ino);
        for ino in inos {
            if holder.inos.contains(ino) && !is_recalled(holder, ino) {
                self.last += 1;
                holder.recalls.insert(self.last, *ino);
            }
        }
        if !holder.recalls.is_empty() {
            holder.news.send_modify(|news| *news += 1);
        }
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        let mut table = self.delegations.table();
        for ino in &self.inos {
            if let hash_map::Entry::Occupied(mut count) = table.changing.entry(*ino) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
