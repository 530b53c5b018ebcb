//! Prints results, tables, progress bars and errors. All commands print through this module; only help and usage errors
//! are printed by clap.

use std::{
    borrow::Cow,
    io::{self, ErrorKind, IsTerminal, Write, stdout},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use larder_common::telemetry::{flush_logs, write_line};

/// The first error of writing to standard output.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);
/// How long a command waits at its end until standard error is written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Prints a line of a command's result. If that fails, [`finish`] returns the error.
pub(super) fn line(line: &str) {
    keep_error(writeln!(stdout(), "{line}"));
}

/// Prints a part of a line. [`line`] prints the end of the line.
#[cfg(feature = "tools")]
pub(super) fn part(text: &str) {
    keep_error(write!(stdout(), "{text}"));
}

/// Keeps the first error for [`finish`].
fn keep_error(written: io::Result<()>) {
    if let Err(error) = written {
        FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Flushes standard output at the end of a command.
///
/// # Errors
/// If a part of the result was not written. It is not an error if the reader stops early, as `head` does.
pub(super) fn finish() -> io::Result<()> {
    keep_error(stdout().flush());
    match FAILED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Prints an error.
pub(super) fn error(message: &str) {
    write_line(&format!("larder: {}", printable(message)));
}

/// Prints a message that is not part of the result.
pub(super) fn note(message: &str) {
    write_line(&printable(message));
}

/// Waits until errors, notes and log lines are written to standard error, but at most [`FLUSH_TIMEOUT`].
pub(super) fn flush() {
    flush_logs(FLUSH_TIMEOUT);
}

/// Escapes characters that would change what a terminal shows, except line breaks and tabs: values and messages can come
/// from files and plugins that are not trusted.
fn printable(text: &str) -> Cow<'_, str> {
    let is_directional =
        |c: char| matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_hidden = |c: char| (c.is_control() && c != '\n' && c != '\t') || is_directional(c);
    if !text.contains(is_hidden) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { escaped.extend(c.escape_unicode()) } else { escaped.push(c) }
    }
    escaped.into()
}

/// Prints rows under headings, in columns as wide as their contents.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell).into_owned()).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let padded_line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let head = padded_line(&headings);
    if stdout().is_terminal() {
        line(&format!("\u{1b}[1m{head}\u{1b}[0m"))
    } else {
        line(&head)
    }
    rows.iter().for_each(|row| line(&padded_line(row)));
}

/// Creates a progress bar that counts rows; it is hidden if standard error is not a terminal.
pub(super) fn progress(what: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = "{prefix:<34} {bar:30} {human_pos}/{human_len} rows {per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_owned());
    bar
}

/// Formats a count: `1 entity`, `2 entities`.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", thousands(count), if count == 1 { one } else { many })
}

/// Returns the path or name with which this program was started. Messages use it in the commands that they suggest.
pub(super) fn program() -> String {
    std::env::args_os().next().map_or_else(|| "larder".to_owned(), |name| shell_word(&name.to_string_lossy()))
}

/// Quotes text if a shell would not read it as one word.
pub(super) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Formats a number with separators: `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a size in a suitable unit: `512 B`, `18.4 KiB`, `17.6 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let (kib, mib) = (1 << 10, 1 << 20);
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{}.{} KiB", bytes / kib, bytes % kib * 10 / kib),
        _ => format!("{}.{} MiB", bytes / mib, bytes % mib * 10 / mib),
    }
}

/// Formats an age in the largest unit in which it is at least 2, such as `45s`, `3m`, `5h` or `12d`.
pub(super) fn age(seconds: i64) -> String {
    match seconds {
        ..0 => format!("in {}", age(seconds.saturating_neg())),
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Formats an error with its chain of causes. Omits a cause if the message already contains its text.
pub(super) fn describe(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sequences_are_escaped() {
        assert_eq!(printable("a\u{1b}[2J\u{202e}b\0\u{9b}"), "a\\u{1b}[2J\\u{202e}b\\u{0}\\u{9b}");
        let plain = "größe 日本 ✓\n\ttext";
        assert!(matches!(printable(plain), Cow::Borrowed(text) if text == plain));
    }

    #[test]
    fn large_numbers_have_separators() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn one_item_is_singular() {
        let entities = |count| counted(count, "entity", "entities");
        assert_eq!([0, 1, 2, 1_000].map(entities), ["0 entities", "1 entity", "2 entities", "1,000 entities"]);
    }

    #[test]
    fn shell_words_are_quoted_if_needed() {
        for (text, word) in [("target/release/larder", "target/release/larder"), ("my dir", "'my dir'"), ("", "''")] {
            assert_eq!(shell_word(text), word);
        }
        assert_eq!(shell_word("it's"), r"'it'\''s'");
    }

    #[test]
    fn age_has_suitable_unit() {
        for (seconds, text) in [(0, "0s"), (119, "119s"), (120, "2m"), (7_200, "2h"), (172_800, "2d"), (-5, "in 5s")] {
            assert_eq!(age(seconds), text);
        }
    }
}
