//! Errors and warnings in text files, each with its position.

use std::{
    cell::{Cell, RefCell},
    fmt,
    sync::Arc,
};

/// A position in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as the user named it.
    pub file: Arc<str>,
    /// Line, from 1; 0 if only the file is known.
    pub line: u32,
    /// Column, from 1; 0 if only the line is known.
    pub column: u32,
}

/// A value and its position.
#[derive(Clone, Debug, PartialEq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// The position.
    pub at: Place,
}

/// The severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration or definition cannot be used.
    Error,
    /// The configuration or definition can be used, but is probably not what the author intended.
    Warning,
}

/// An error or a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The severity.
    pub severity: Severity,
    /// The position.
    pub at: Place,
    /// The message: a sentence without a full stop.
    pub message: String,
    /// How to fix the problem, if that is known.
    pub help: Option<String>,
}

/// Collects the problems of one or more files.
#[derive(Debug, Default)]
pub struct Problems {
    /// The problems, in the order in which they were found.
    list: RefCell<Vec<Problem>>,
    /// The number of errors in `list`.
    errors: Cell<usize>,
}

// === impl Place ===

impl Place {
    /// Returns the position of a file as a whole.
    #[must_use]
    pub fn file(name: &str) -> Self {
        Self { file: name.into(), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => f.write_str(&self.file),
            (line, 0) => write!(f, "{}:{line}", self.file),
            (line, column) => write!(f, "{}:{line}:{column}", self.file),
        }
    }
}

// === impl Problem ===

impl fmt::Display for Problem {
    /// Formats as `file:line:column: error: message (help)`, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}: {label}: {}", self.at, self.message)?;
        self.help.iter().try_for_each(|help| write!(f, " ({help})"))
    }
}

// === impl Problems ===

impl Problems {
    /// Adds an error.
    pub fn error(&self, at: &Place, message: impl Into<String>) {
        self.push(Severity::Error, at, message.into(), None);
    }

    /// Adds an error, optionally with help on how to fix it.
    pub fn error_with_help(&self, at: &Place, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.push(Severity::Error, at, message.into(), help.into());
    }

    /// Adds a warning, optionally with help on how to avoid it.
    pub fn warning(&self, at: &Place, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.push(Severity::Warning, at, message.into(), help.into());
    }

    /// Returns whether at least one problem is an error and not only a warning.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.error_count() > 0
    }

    /// Returns the number of errors so far.
    #[must_use]
    pub fn error_count(&self) -> usize {
        self.errors.get()
    }

    /// Returns all problems, sorted by position.
    #[must_use]
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut list = self.list.into_inner();
        list.sort_by(|a, b| a.at.cmp(&b.at));
        list
    }

    fn push(&self, severity: Severity, at: &Place, message: String, help: Option<String>) {
        self.errors.set(self.errors.get() + usize::from(severity == Severity::Error));
        self.list.borrow_mut().push(Problem { severity, at: at.clone(), message, help });
    }
}

/// Returns the help text "did you mean 'x'?", where 'x' is the known name that is most similar to the given name.
/// Returns `None` if no known name is similar enough.
#[must_use]
pub fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    nearest_name(written, known).map(|name| format!("did you mean '{name}'?"))
}

/// Returns the known name that is most similar to the given name; `None` if no known name is similar enough.
#[must_use]
pub fn nearest_name<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let lower = written.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&lower, &name.to_lowercase()), name))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}
