//! The marker file of an open store: it records how the previous process ended.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use larder_common::{clock::SharedClock, files::read_text};
use larder_model::model::Micros;

/// A small file next to the store that exists while the store is open. If it exists when a process starts, the previous
/// process ended without closing the store. The new process then checks every page if damage was found, if the previous
/// process opened the store only shortly before, or if the marker cannot be read. Without the check, every start might
/// read the same damaged page and fail.
#[derive(Debug)]
pub(super) struct OpenMarker {
    path: PathBuf,
    /// When the store was opened. This time is the first line of the file. Further lines describe damage that was found
    /// since, or are [`REBUILDING`].
    opened: Micros,
}

/// The extension of the marker file.
const EXTENSION: &str = "open";
/// If a process starts less than this long after the previous one opened the store, in microseconds, it may end for the
/// same reason as the previous one.
const SOON: Micros = 120_000_000;

/// The marker file has a line with this text for each rebuild that a start began and did not finish.
const REBUILDING: &str = "rebuilding";
/// If the marker file has this many such lines, the damaged file is quarantined without being read. A process that is
/// killed from outside during a rebuild also leaves a line, so the limit is higher than crashes alone would require.
pub(super) const REBUILDS_MAX: usize = 10;
const MARKER_BYTES_MAX: u64 = 64 << 10;

// === impl OpenMarker ===

impl OpenMarker {
    pub(super) fn new(path: &Path, clock: &SharedClock) -> Self {
        Self { path: path.with_extension(EXTENSION), opened: clock.now() }
    }

    /// Returns whether every page must be checked because of the marker of the previous process.
    pub(super) fn requires_full_check(&self) -> bool {
        let text = match self.text() {
            Ok(text) => text,
            Err(error) => return error.kind() != io::ErrorKind::NotFound,
        };
        match text.trim_end().parse::<Micros>() {
            Ok(opened) => self.opened.saturating_sub(opened) < SOON,
            // The marker contains more than a time.
            Err(_) => true,
        }
    }

    pub(super) fn create(&self) {
        self.write(&format!("{}\n", self.opened));
    }

    /// Records for the next start that damage was found.
    pub(super) fn note_damage(&self, what: &str) {
        self.write(&format!("{}\n{what}\n", self.opened));
    }

    /// Returns whether the previous process ended without closing the store.
    pub(super) fn exists(&self) -> bool {
        self.path.try_exists().unwrap_or(true)
    }

    /// Returns whether to try to read the intact rows of a damaged file, which may end the process.
    pub(super) fn allows_rebuild(&self) -> bool {
        let text = self.text().unwrap_or_default();
        text.lines().filter(|line| *line == REBUILDING).count() < REBUILDS_MAX
    }

    /// Records that a rebuild has begun. Returns the previous text of the marker.
    pub(super) fn note_rebuild(&self) -> String {
        let before = self.text().unwrap_or_else(|_| format!("{}\n", self.opened));
        self.write(&format!("{before}{REBUILDING}\n"));
        before
    }

    /// Removes the marker. Call this function only after the store was closed cleanly.
    pub(super) fn remove(&self) {
        // If the removal fails, the leftover marker only makes the next start slow.
        let _ = fs::remove_file(&self.path);
    }

    fn text(&self) -> io::Result<String> {
        read_text(&self.path, MARKER_BYTES_MAX)
    }

    pub(super) fn write(&self, text: &str) {
        // A failure is only logged, because the store itself may still be readable, for example if the disk is full.
        if let Err(error) = fs::write(&self.path, text) {
            tracing::warn!(%error, path = %self.path.display(), "cannot write the marker file of the open store");
        }
    }
}
