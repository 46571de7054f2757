//! Asks the mgr and all targets, page by page, while the file system is in use; has fixes made.
//!
//! Why no live object is ever called an orphan: a target lists it first, the mgr judges it after that. Object numbers
//! are not used twice and no object is written before its file's record is durable, so what was live when it was listed
//! is live, garbage, or removed when it is judged; and what is nobody's is asked for once more at the target.
//! What a file shows is believed only if its record is the same afterwards.

use super::{Finding, Outcome, judge};
use crate::ask::{Asker, reason};
use pvfs_net::{CallError, Peer};
use pvfs_types::{Cred, Ino, ObjectId, Slot, TargetId, limits::FSCK_PAGE_MAX};
use pvfs_wire::{
    Request,
    msg::{
        data::{ObjectStat, StatObjects},
        fsck::{
            CheckStore, FileInfo, Files, Fix, JudgeObjects, ListFiles, ListObjects, Objects, Repair, Verdict,
        },
        hello::Role,
        session::{Iodtab, TargetInfo, Targets},
    },
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How long one page may take.
const PAGE_DEADLINE: Duration = Duration::from_mins(1);
/// How long the check of all records may take.
const STORE_DEADLINE: Duration = Duration::from_hours(1);
/// Files of one page: few enough that their objects are asked for in one message per target.
const FILES_PAGE: u32 = 256;
const OBJECTS_PAGE: u32 = 2048;

/// Told how far it is.
pub trait Progress {
    fn at(&self, what: &str, done: u64);
}

/// One check.
pub struct Checker<'a> {
    mgr: Arc<Peer>,
    cred: Cred,
    targets: BTreeMap<TargetId, Arc<Peer>>,
    iodtabs: Vec<Iodtab>,
    progress: &'a dyn Progress,
    outcome: Outcome,
}

impl<'a> Checker<'a> {
    /// A check by `cred` of the file system whose mgr is at `mgr` and told `known`.
    pub fn new(asker: &Asker, mgr: &str, known: Targets, cred: Cred, progress: &'a dyn Progress) -> Self {
        let mut peers: BTreeMap<String, Arc<Peer>> = BTreeMap::new();
        let mut outcome = Outcome::default();
        let mut targets = BTreeMap::new();
        for TargetInfo { id, addr, .. } in known.targets {
            if addr.is_empty() {
                outcome.silent.push((id, "the mgr has not heard of it".into()));
                continue;
            }
            // One connection per iod: a second one would fence the first.
            let peer = peers.entry(addr).or_insert_with_key(|addr| asker.peer(Role::Iod, addr));
            targets.insert(id, Arc::clone(peer));
        }
        let mgr = asker.peer(Role::Mgr, mgr);
        Checker { mgr, cred, targets, iodtabs: known.iodtabs, progress, outcome }
    }

    /// Looks at everything. With `repair`, mends what it can, and looks once more at what that concerned.
    ///
    /// # Errors
    /// The mgr does not answer, or the caller may not check.
    pub async fn run(mut self, repair: bool) -> Result<Outcome, CallError> {
        self.check_store().await?;
        self.check_files().await?;
        self.check_objects().await?;
        if repair {
            self.repair().await?;
        }
        Ok(self.outcome)
    }

    async fn ask<R: Request>(&self, request: &R) -> Result<R::Reply, CallError> {
        self.mgr.call_once(request, PAGE_DEADLINE).await
    }

    /// Asks a target; one that does not answer is noted, and asked no more.
    async fn ask_target<R: Request>(&mut self, target: TargetId, request: &R) -> Option<R::Reply> {
        let peer = Arc::clone(self.targets.get(&target)?);
        match peer.call_once(request, PAGE_DEADLINE).await {
            Ok(reply) => Some(reply),
            Err(error) => {
                self.targets.remove(&target);
                self.outcome.silent.push((target, reason(&error)));
                None
            }
        }
    }

    async fn check_store(&mut self) -> Result<(), CallError> {
        self.progress.at("records of the mgr", 0);
        let checked = self.mgr.call_once(&CheckStore { cred: self.cred.clone() }, STORE_DEADLINE).await?;
        let outcome = &mut self.outcome;
        (outcome.inodes, outcome.sessions, outcome.writers) =
            (checked.inodes, checked.sessions, checked.writers);
        (outcome.orphans, outcome.garbage, outcome.intents) =
            (checked.orphans, checked.garbage, checked.intents);
        outcome.rolled_back = checked.rolled_back;
        if let Some(found) = checked.rolled_back {
            let text = format!(
                "it is older than what targets have heard from it (it could have told times up to {}, they follow {}): \
                 put back from a backup? Nothing is changed until `pvfs fsck --repair` has settled it",
                found.stored_ms, found.heard_ms
            );
            outcome.findings.push(Finding::error("old store", "the metadata store", text, Some(Fix::Settle)));
        }
        let told = checked.findings.len() as u64;
        for (about, text) in checked.findings {
            // Counts are mended whole; of others nobody knows what was meant.
            let is_count = text.contains(" links, has ")
                || about == "inode numbers"
                || about.starts_with("use of ")
                || text.starts_with("is charged ahead");
            let fix = is_count.then_some(Fix::Counts);
            outcome.findings.push(Finding::error("record", about, text, fix));
        }
        if checked.findings_total > told {
            let text = format!("{} more findings are not shown", checked.findings_total - told);
            outcome.findings.push(Finding::error("record", "the metadata store", text, None));
        }
        Ok(())
    }

    async fn check_files(&mut self) -> Result<(), CallError> {
        let mut after = Ino(0);
        loop {
            let Files { files, end } =
                self.ask(&ListFiles { cred: self.cred.clone(), after, max: FILES_PAGE }).await?;
            let Some(last) = files.last() else { return Ok(()) };
            after = last.ino;
            let suspects = self.judge_files(&files).await;
            for (file, findings) in suspects {
                if self.is_unchanged(&file).await? {
                    self.outcome.findings.extend(findings);
                }
            }
            self.outcome.files += files.len() as u64;
            self.outcome.busy += files.iter().filter(|file| file.busy).count() as u64;
            self.progress.at("files", self.outcome.files);
            if end {
                return Ok(());
            }
        }
    }

    /// Those that do not look right.
    async fn judge_files(&mut self, files: &[FileInfo]) -> Vec<(FileInfo, Vec<Finding>)> {
        let mut asked: BTreeMap<TargetId, Vec<ObjectId>> = BTreeMap::new();
        for file in files {
            for slot in file.dist.slots() {
                let object = ObjectId { ino: file.ino, data_gen: file.data_gen, slot };
                if let Some(target) = self.target_of(file, slot) {
                    asked.entry(target).or_default().push(object);
                }
            }
        }
        let mut found: BTreeMap<ObjectId, Option<ObjectStat>> = BTreeMap::new();
        for (target, objects) in asked {
            for part in objects.chunks(FSCK_PAGE_MAX) {
                let request = StatObjects { target, objects: part.to_vec(), store: None };
                let Some(stats) = self.ask_target(target, &request).await else { break };
                found.extend(part.iter().copied().zip(stats.objects));
            }
        }
        let judged = files.iter().filter_map(|file| {
            let of = |slot| ObjectId { ino: file.ino, data_gen: file.data_gen, slot };
            // All of its targets have answered.
            let objects: Option<Vec<_>> =
                file.dist.slots().map(|slot| found.get(&of(slot)).copied()).collect();
            let findings = judge::file(file, &objects?);
            (!findings.is_empty()).then_some((*file, findings))
        });
        judged.collect()
    }

    fn target_of(&self, file: &FileInfo, slot: Slot) -> Option<TargetId> {
        let iodtab = self.iodtabs.iter().find(|iodtab| iodtab.generation == file.dist.iodtab)?;
        let places = iodtab.targets.len();
        (places > 0).then(|| iodtab.targets.get(file.dist.place(slot, places)).copied())?
    }

    async fn is_unchanged(&self, file: &FileInfo) -> Result<bool, CallError> {
        let after = Ino(file.ino.0.saturating_sub(1));
        let now = self.ask(&ListFiles { cred: self.cred.clone(), after, max: 1 }).await?;
        Ok(now.files.first() == Some(file))
    }

    async fn check_objects(&mut self) -> Result<(), CallError> {
        let targets: Vec<TargetId> = self.targets.keys().copied().collect();
        for target in targets {
            let mut after = None;
            loop {
                let request = ListObjects { target, after, max: OBJECTS_PAGE };
                let Some(Objects { objects, strangers, end }) = self.ask_target(target, &request).await
                else {
                    break;
                };
                after = objects.last().copied();
                let is_last = end || after.is_none();
                self.outcome.objects += objects.len() as u64;
                for stranger in strangers {
                    let text = "it is no object: put there by hand?";
                    self.outcome.findings.push(Finding::doubt(
                        "stranger",
                        format!("{stranger} on {target}"),
                        text,
                    ));
                }
                self.judge_page(target, objects).await?;
                self.progress.at("objects", self.outcome.objects);
                if is_last {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn judge_page(&mut self, target: TargetId, objects: Vec<ObjectId>) -> Result<(), CallError> {
        if objects.is_empty() {
            return Ok(());
        }
        let request = JudgeObjects { cred: self.cred.clone(), target, objects: objects.clone() };
        let verdicts = self.ask(&request).await?.verdicts;
        let judged = || objects.iter().copied().zip(verdicts.iter().copied());
        self.outcome.garbage_seen +=
            judged().filter(|(_, verdict)| *verdict == Verdict::Garbage).count() as u64;
        let suspects: Vec<(ObjectId, Finding)> = judged()
            .filter_map(|(object, verdict)| Some((object, judge::object(target, object, verdict)?)))
            .collect();
        if suspects.is_empty() {
            return Ok(());
        }
        // It may have been removed since it was listed.
        let request = StatObjects {
            target,
            objects: suspects.iter().map(|(object, _)| *object).collect(),
            store: None,
        };
        let Some(stats) = self.ask_target(target, &request).await else { return Ok(()) };
        let still = suspects.into_iter().zip(stats.objects).filter(|(_, stat)| stat.is_some());
        self.outcome.findings.extend(still.map(|((_, finding), _)| finding));
        Ok(())
    }

    /// Numbers first, then what depends on them; settling last.
    async fn repair(&mut self) -> Result<(), CallError> {
        self.progress.at("repairs", 0);
        // What is nobody's in an old store may be somebody's in the backup that is put back next.
        let is_old = self.outcome.rolled_back.is_some();
        let order = |fix: &Fix| match fix {
            Fix::Pass(_) => 0,
            Fix::Counts => 1,
            Fix::Grow { .. } => 2,
            Fix::Remove(..) => 3,
            Fix::Settle => 4,
        };
        let mut wanted: Vec<(usize, Fix)> = Vec::new();
        for (place, finding) in self.outcome.findings.iter().enumerate() {
            wanted.extend(
                finding.fix.filter(|fix| !(is_old && matches!(fix, Fix::Remove(..)))).map(|fix| (place, fix)),
            );
        }
        wanted.sort_by_key(|(_, fix)| order(fix));
        for part in wanted.chunks(FSCK_PAGE_MAX) {
            let fixes = part.iter().map(|(_, fix)| *fix).collect();
            let repaired = self.ask(&Repair { cred: self.cred.clone(), fixes }).await?;
            for ((place, fix), changed) in part.iter().zip(repaired.changed) {
                // Counts are mended for all by the first; a number is passed for all below by the highest.
                let together = matches!(fix, Fix::Counts | Fix::Pass(_));
                self.outcome.findings[*place].mended = changed > 0 || together;
            }
        }
        Ok(())
    }
}
