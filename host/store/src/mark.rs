//! A file that shows the next process how the previous one ended.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use larder_common::{clock::SharedClock, files::read_text};
use larder_model::model::Micros;

/// A small file next to the store that exists while the store is open. The next process learns from it how the previous
/// one ended, and whether every page must be checked: because damage was found, or because the process ended soon after
/// the start, as happens repeatedly if every start hits a damaged page.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    /// When the store was opened: the first line of the file. A second line contains damage that was found since.
    opened: Micros,
}

/// The extension of the mark file.
const MARK: &str = "open";
/// A process that ended this soon after it opened the store may do so again, for the same reason.
const SOON: Micros = 120_000_000;

/// A line in the mark file for each rebuild that a start began and did not finish.
const REBUILDING: &str = "rebuilding";
/// After this many such lines, the damaged file is quarantined without reading it. A kill also leaves a line, so the
/// limit is higher than crashes alone would need.
pub(super) const REBUILDS_MAX: usize = 10;
const MARK_BYTES_MAX: u64 = 64 << 10;

// === impl Mark ===

impl Mark {
    pub(super) fn new(path: &Path, clock: &SharedClock) -> Self {
        Self { path: path.with_extension(MARK), opened: clock.now() }
    }

    /// Returns whether the mark of the previous process is a reason to check every page.
    pub(super) fn is_suspicious(&self) -> bool {
        let text = match self.text() {
            Ok(text) => text,
            Err(error) => return error.kind() != io::ErrorKind::NotFound,
        };
        match text.trim_end().parse::<Micros>() {
            Ok(opened) => self.opened.saturating_sub(opened) < SOON,
            // The mark contains more than a time.
            Err(_) => true,
        }
    }

    pub(super) fn make(&self) {
        self.write(&format!("{}\n", self.opened));
    }

    /// Records for the next start that damage was found.
    pub(super) fn note_damage(&self, what: &str) {
        self.write(&format!("{}\n{what}\n", self.opened));
    }

    /// Returns whether the previous process ended without closing the store.
    pub(super) fn is_there(&self) -> bool {
        self.path.try_exists().unwrap_or(true)
    }

    /// Returns whether to try to read the intact rows of a damaged file, which may end the process.
    pub(super) fn allows_rebuild(&self) -> bool {
        let text = self.text().unwrap_or_default();
        text.lines().filter(|line| *line == REBUILDING).count() < REBUILDS_MAX
    }

    /// Records that a rebuild has begun. Returns the text of the mark before that.
    pub(super) fn note_rebuild(&self) -> String {
        let before = self.text().unwrap_or_else(|_| format!("{}\n", self.opened));
        self.write(&format!("{before}{REBUILDING}\n"));
        before
    }

    /// Removes the mark. Call this function after the store was closed cleanly.
    pub(super) fn remove(&self) {
        // A leftover mark only makes the next start slow.
        let _ = fs::remove_file(&self.path);
    }

    fn text(&self) -> io::Result<String> {
        read_text(&self.path, MARK_BYTES_MAX)
    }

    pub(super) fn write(&self, text: &str) {
        // For example on a full disk: the store itself may still be readable.
        if let Err(error) = fs::write(&self.path, text) {
            tracing::warn!(%error, path = %self.path.display(), "cannot write the mark of the open store");
        }
    }
}
