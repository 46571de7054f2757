//! What a worker's directory must look like.

use std::collections::{BTreeMap, BTreeSet};

/// A file: for each block the number of its last write, 0 for a hole.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileModel {
    pub blocks: Vec<u64>,
    /// The number of the last write.
    pub writes: u64,
    pub names: BTreeSet<String>,
    pub handles: u32,
}

/// All of a worker's files by number, and the names that lead to them. Paths are relative to the worker's directory.
#[derive(Default)]
pub(crate) struct Model {
    pub files: BTreeMap<u64, FileModel>,
    pub names: BTreeMap<String, u64>,
    pub symlinks: BTreeMap<String, String>,
    /// Beside the worker's own, which is "".
    pub dirs: BTreeSet<String>,
    last: u64,
}

impl Model {
    /// A number that no file or name has had.
    pub fn fresh(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub fn created(&mut self, name: &str) -> u64 {
        let file = self.fresh();
        self.files.insert(file, FileModel::default());
        self.linked(file, name);
        file
    }

    pub fn linked(&mut self, file: u64, name: &str) {
        self.names.insert(name.to_owned(), file);
        if let Some(model) = self.files.get_mut(&file) {
            model.names.insert(name.to_owned());
        }
    }

    pub fn unlinked(&mut self, name: &str) {
        if let Some(file) = self.names.remove(name)
            && let Some(model) = self.files.get_mut(&file)
        {
            model.names.remove(name);
            self.forget_if_gone(file);
        }
    }

    pub fn renamed(&mut self, from: &str, to: &str) {
        // Two names of one file: POSIX leaves both.
        if let Some(&file) = self.names.get(from)
            && self.names.get(to) != Some(&file)
        {
            self.unlinked(to);
            self.linked(file, to);
            self.unlinked(from);
        }
    }

    pub fn opened(&mut self, file: u64) {
        if let Some(model) = self.files.get_mut(&file) {
            model.handles += 1;
        }
    }

    pub fn closed(&mut self, file: u64) {
        if let Some(model) = self.files.get_mut(&file) {
            model.handles = model.handles.saturating_sub(1);
            self.forget_if_gone(file);
        }
    }

    fn forget_if_gone(&mut self, file: u64) {
        if self.files.get(&file).is_some_and(|model| model.names.is_empty() && model.handles == 0) {
            self.files.remove(&file);
        }
    }

    /// What a listing of `dir` must show, in order.
    pub fn entries(&self, dir: &str) -> Vec<String> {
        let all = self.names.keys().chain(self.symlinks.keys()).chain(&self.dirs);
        let mut entries: Vec<String> =
            all.filter(|path| parent(path) == dir).map(|path| last_part(path).to_owned()).collect();
        entries.sort();
        entries
    }
}

pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn last_part(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, last)| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_as_long_as_a_name_or_a_descriptor_is() {
        let mut model = Model::default();
        let file = model.created("a");
        model.opened(file);
        model.linked(file, "b");
        model.renamed("a", "b");
        assert_eq!(model.entries(""), ["a", "b"], "two names of one file stay");
        model.unlinked("a");
        model.unlinked("b");
        assert!(model.files.contains_key(&file));
        model.closed(file);
        assert!(model.files.is_empty());
    }

    #[test]
    fn a_rename_over_a_name_takes_what_it_led_to() {
        let mut model = Model::default();
        let (kept, gone) = (model.created("kept"), model.created("gone"));
        model.dirs.insert("d".to_owned());
        model.renamed("kept", "gone");
        assert_eq!((model.names.get("gone"), model.files.contains_key(&gone)), (Some(&kept), false));
        model.renamed("gone", "d/x");
        assert_eq!((model.entries(""), model.entries("d")), (vec!["d".to_owned()], vec!["x".to_owned()]));
    }
}
