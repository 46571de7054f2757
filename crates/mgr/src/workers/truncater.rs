//! Carries out truncations on the targets, and hands them the bytes of small files that are about to be written: each an intent in
//! the store, seen by all once every target has done its part. A target that is down is waited for.

use crate::{mgr::Mgr, sequencer::Txn, targets::Place};
use pvfs_env::task;
use pvfs_meta::{
    MetaError, OpEnv, inline,
    intent::{self, Intent},
};
use pvfs_types::{Ino, ObjectId, Slot};
use pvfs_wire::msg::data::{PutObject, TruncateObjects};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};
use tracing::{debug, info, warn};

const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The intents that are being carried out, for those who wait for them.
pub struct Queue {
    waited_for: Mutex<BTreeMap<Ino, watch::Sender<()>>>,
    inbox: mpsc::UnboundedSender<Ino>,
}

pub type Inbox = mpsc::UnboundedReceiver<Ino>;

impl Queue {
    pub fn new() -> (Queue, Inbox) {
        let (sender, inbox) = mpsc::unbounded_channel();
        (Queue { waited_for: Mutex::default(), inbox: sender }, inbox)
    }

    /// Has the intent on `ino` carried out; the receiver closes once it is.
    pub fn carry_out(&self, ino: Ino) -> watch::Receiver<()> {
        let mut waited_for = self.waited_for.lock().unwrap_or_else(PoisonError::into_inner);
        match waited_for.entry(ino) {
            Entry::Occupied(entry) => entry.get().subscribe(),
            Entry::Vacant(entry) => {
                let done = entry.insert(watch::channel(()).0).subscribe();
                // Without a worker the mgr is stopping, and so is whoever waits.
                let _ = self.inbox.send(ino);
                done
            }
        }
    }

    fn finished(&self, ino: Ino) {
        self.waited_for.lock().unwrap_or_else(PoisonError::into_inner).remove(&ino);
    }
}

/// Carries out what comes in, many at a time; the mgr sends what it found in the store at its start.
pub async fn work(mgr: Arc<Mgr>, mut inbox: Inbox) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = running.join_next(), if !running.is_empty() => {}
            ino = inbox.recv() => match ino {
                Some(ino) => {
                    task::spawn_in(&mut running, carry_out(Arc::clone(&mgr), ino));
                }
                None => return,
            },
        }
    }
}

async fn carry_out(mgr: Arc<Mgr>, ino: Ino) {
    while let Err(error) = try_to_carry_out(&mgr, ino).await {
        warn!(%ino, error, "what targets are to do first waits");
        sleep(RETRY_PAUSE).await;
    }
    mgr.wakes.truncater.finished(ino);
}

async fn try_to_carry_out(mgr: &Mgr, ino: Ino) -> Result<(), String> {
    let Some(intent) = mgr.read(|txn| intent::find(txn, ino)).map_err(|e| e.to_string())? else {
        return Ok(());
    };
    let places =
        mgr.targets.places(&intent.dist).ok_or_else(|| format!("{} is not known", intent.dist.iodtab))?;
    if mgr.rollback.is_noted() {
        return Err("the store is an old one: it was carried out since, maybe".to_owned());
    }
    let mut parts = JoinSet::new();
    if intent.spills() {
        let data = mgr.read(|txn| inline::find(txn, ino)).map_err(|e: MetaError| e.to_string())?;
        let data = data.ok_or("its bytes are not there")?;
        // No more than the first strip, and so of the first slot.
        let place = places.into_iter().find(|place| place.slot == Slot(0)).ok_or("it has no first slot")?;
        task::spawn_in(&mut parts, put(place, ino, intent, data));
    } else {
        for place in places {
            task::spawn_in(&mut parts, cut(place, ino, intent));
        }
    }
    while let Some(part) = parts.join_next().await {
        part.map_err(|e| e.to_string())?;
    }
    let finish = move |txn: &mut Txn<'_>, env: &OpEnv<'_>| intent::finish(txn, ino, env.now);
    let finished = if intent.spills() {
        // Who goes by its being kept here asks here. Nothing is recalled, for who asked to write it may hold what it has gathered, to
        // be sent when this is done.
        mgr.sequencer.run_unseen(finish).await
    } else {
        mgr.sequencer.run(finish).await
    };
    finished.map_err(|e| e.to_string())?;
    if intent.spills() {
        // An orphan may have waited for it.
        mgr.wakes.reaper.notify_one();
        debug!(%ino, size = intent.size, "a target has the bytes of a small file");
    } else {
        info!(%ino, size = intent.size, "truncation carried out");
    }
    Ok(())
}

/// Hands the bytes of a small file to its first slot; insists until they are there.
async fn put(place: Place, ino: Ino, intent: Intent, data: Vec<u8>) {
    let object = ObjectId { ino, data_gen: intent.data_gen, slot: place.slot };
    let request = PutObject { target: place.target, object, data };
    while let Err(refusal) = place.peer.call(&request).await {
        warn!(target = %place.target, %object, %refusal, "object cannot be made now");
        sleep(RETRY_PAUSE).await;
    }
}

/// Cuts one slot's object; insists until it is done.
async fn cut(place: Place, ino: Ino, intent: Intent) {
    let object = ObjectId { ino, data_gen: intent.data_gen, slot: place.slot };
    let len = intent.dist.object_len(place.slot, intent.size);
    let request = TruncateObjects { target: place.target, objects: vec![(object, len)] };
    while let Err(refusal) = place.peer.call(&request).await {
        warn!(target = %place.target, %object, %refusal, "object cannot be cut now");
        sleep(RETRY_PAUSE).await;
    }
}
