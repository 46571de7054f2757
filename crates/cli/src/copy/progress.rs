//! The progress bar: only on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{io::IsTerminal as _, time::Duration};

/// Bytes done of bytes found, rate, time left. Clones are the same bar.
#[derive(Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        if quiet || !std::io::stderr().is_terminal() {
            return Progress(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
        let template =
            "{bar:28} {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(bar)
    }

    /// There is one more file to copy, of `size` bytes.
    pub fn file_found(&self, size: u64) {
        self.0.inc_length(size);
    }

    pub fn file_done(&self) {
        let files = self.0.message().split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        self.0.set_message(if files == 0 { "1 file".to_owned() } else { format!("{} files", files + 1) });
    }

    pub fn bytes(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Prints without tearing the bar.
    pub fn aside(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
