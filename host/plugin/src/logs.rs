//! Log lines of plugins. Each line has the plugin's name, version and view as fields. Length and rate are limited.

use std::{
    borrow::Cow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use metrics::{Counter, counter};

use super::{PluginLimits, bindings::Level};

/// The log of a plugin in a derived view. During `describe`, the name, version and view are not known, and are `?`.
#[derive(Debug)]
pub(super) struct PluginLog {
    plugin: String,
    version: String,
    view: String,
    line_bytes_max: usize,
    multiline: bool,
    lines: Mutex<Bucket>,
    dropped: Counter,
    /// Whether the plugin is being checked.
    is_checked: AtomicBool,
}

/// While this value exists, the log has no lines of the plugin. Checks call a plugin for hundreds of rows, many of which
/// can fail.
#[derive(Debug)]
pub(super) struct Checks<'l>(&'l PluginLog);

/// A token bucket, which limits the rate of lines.
#[derive(Debug)]
struct Bucket {
    /// The number of lines that may be written now. It grows by `rate` per second.
    left: f64,
    rate: f64,
    looked: Instant,
    /// The number of lines that were dropped since a line was last written.
    dropped: u64,
}

/// The maximum burst: the number of lines that the rate allows in this many seconds.
const BURST: f64 = 10.0;

// === impl PluginLog ===

impl PluginLog {
    pub(super) fn new(plugin: &str, version: &str, view: &str, limits: &PluginLimits) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "lines per second, far below 2^53")]
        let rate = limits.log_lines_per_second as f64;
        let dropped = counter!(
            "larder_plugin_log_lines_dropped_total", "plugin" => plugin.to_owned(), "view" => view.to_owned()
        );
        Self {
            plugin: plugin.to_owned(),
            version: version.to_owned(),
            view: view.to_owned(),
            line_bytes_max: limits.log_line_bytes,
            multiline: limits.multiline_logs,
            lines: Mutex::new(Bucket { left: rate * BURST, rate, looked: Instant::now(), dropped: 0 }),
            dropped,
            is_checked: AtomicBool::new(false),
        }
    }

    /// Writes no lines of the plugin until the returned value is dropped.
    pub(super) fn begin_checks(&self) -> Checks<'_> {
        self.is_checked.store(true, Ordering::Relaxed);
        Checks(self)
    }

    /// Writes a log line of the plugin.
    pub(super) fn write(&self, level: Level, message: &str) {
        if self.is_checked.load(Ordering::Relaxed) {
            return;
        }
        let Some(dropped) = self.may_write() else { return };
        let message = printable(message, self.line_bytes_max, self.multiline);
        let Self { plugin, version, view, .. } = self;
        match level {
            Level::Debug => tracing::debug!(target: "plugin", plugin, version, view, dropped, "{message}"),
            Level::Info => tracing::info!(target: "plugin", plugin, version, view, dropped, "{message}"),
            Level::Warn => tracing::warn!(target: "plugin", plugin, version, view, dropped, "{message}"),
            Level::Error => tracing::error!(target: "plugin", plugin, version, view, dropped, "{message}"),
        }
    }

    /// Logs that rows of a batch failed, with the same rate and length limits as the plugin's own lines. `row` is the
    /// first one, and `error` is its error.
    pub(super) fn failed(&self, kind: &'static str, row: usize, rows: usize, error: &dyn std::fmt::Display) {
        let Some(dropped) = self.may_write() else { return };
        let message = printable(&error.to_string(), self.line_bytes_max, false).into_owned();
        let Self { plugin, version, view, .. } = self;
        tracing::warn!(
            plugin, version, view, kind, first_row = row, rows, dropped, error = %message, "rows of a derived view failed"
        );
    }

    /// Returns `None` if no line may be written now. Otherwise returns the number of lines that were dropped since a
    /// line was last written, or `Some(None)` if none were dropped.
    fn may_write(&self) -> Option<Option<u64>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.take(Instant::now()) {
            let dropped = std::mem::take(&mut lines.dropped);
            return Some((dropped > 0).then_some(dropped));
        }
        lines.dropped += 1;
        self.dropped.increment(1);
        None
    }
}

// === impl Checks ===

impl Drop for Checks<'_> {
    fn drop(&mut self) {
        self.0.is_checked.store(false, Ordering::Relaxed);
    }
}

// === impl Bucket ===

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.looked).as_secs_f64();
        self.looked = now;
        self.left = (self.left + passed * self.rate).min(self.rate * BURST);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

/// Returns the text, truncated to the maximum length, with control characters escaped so that it cannot forge other log
/// lines. With `multiline`, line breaks are kept.
fn printable(text: &str, bytes_max: usize, multiline: bool) -> Cow<'_, str> {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cut = end < text.len();
    let text = &text[..end];
    let is_escaped = |c: char| c.is_control() && !(multiline && c == '\n');
    if !cut && !text.chars().any(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    if cut {
        clean.push_str("… (truncated)");
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn long_line_is_cut_at_character() {
        assert_eq!(printable("grün", 5, false), "grün");
        assert_eq!(printable("grün", 4, false), "grü… (truncated)");
        assert_eq!(printable("grün", 3, false), "gr… (truncated)");
    }

    #[test]
    fn a_line_cannot_forge_another_one() {
        assert_eq!(printable("a\n2026 ERROR b\u{1b}[31m", 99, false), "a\\n2026 ERROR b\\u{1b}[31m");
        assert_eq!(printable("a\nb\u{1b}[31m", 99, true), "a\nb\\u{1b}[31m", "in the log of a tool");
    }

    #[test]
    fn burst_then_rate_is_written() {
        let start = Instant::now();
        let mut bucket = Bucket { left: 2.0 * BURST, rate: 2.0, looked: start, dropped: 0 };
        assert_eq!((0..30).filter(|_| bucket.take(start)).count(), 20);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..30).filter(|_| bucket.take(later)).count(), 2);
        let much_later = start + Duration::from_hours(1);
        assert_eq!((0..30).filter(|_| bucket.take(much_later)).count(), 20, "no more than a burst");
    }
}
