//! The last operations of a model, for whoever looks for the reason of a fault.

use std::{collections::VecDeque, fmt::Write as _};

const KEPT: usize = 24;

#[derive(Default)]
pub(crate) struct History {
    steps: u64,
    last: VecDeque<String>,
}

impl History {
    /// An operation begins.
    pub fn add(&mut self, what: String) {
        self.steps += 1;
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(what);
    }

    pub fn text(&self) -> String {
        let first = self.steps - self.last.len() as u64 + 1;
        let mut out = String::new();
        for (number, what) in (first..).zip(&self.last) {
            // Writing to a String does not fail.
            let _ = writeln!(out, "  {number:8}  {what}");
        }
        out
    }
}
