//! The errors of reading Arrow files and captures.

use std::io;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The operating system cannot read it.
    #[error("{path}: {source}")]
    Io {
        /// The path.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// It does not begin and end like an Arrow file.
    #[error(
        "{path} is not an Arrow file, or it is incomplete. hint: write it in the Arrow IPC file format, which is also \
         called Feather version 2; copy an incomplete file again"
    )]
    NotArrow {
        /// The path.
        path: String,
    },
    /// Its contents contradict the format.
    #[error("{path} is damaged: {why}. hint: copy or write the file again")]
    Damaged {
        /// The path.
        path: String,
        /// The reason.
        why: String,
    },
    /// It has a part that is larger than its limit.
    #[error("{path}: {what} has {found} bytes, but at most {limit} are allowed. hint: write smaller record batches")]
    TooLarge {
        /// The path.
        path: String,
        /// The part of the file.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A column has a type that Larder does not read.
    #[error(
        "{path}: column '{column}' has the type {found}, which Larder does not read from Arrow files. hint: {hint}"
    )]
    Unsupported {
        /// The path.
        path: String,
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// A type that Larder reads.
        hint: &'static str,
    },
    /// It is an Arrow file, but not a capture.
    #[error(
        "{path} is an Arrow file, but not a capture: {why}. hint: Larder writes captures to 'captures' in its data \
         directory; pass other rows with --input"
    )]
    NotACapture {
        /// The path.
        path: String,
        /// The reason.
        why: String,
    },
    /// It is a capture in a later version of the format.
    #[error(
        "{path} is a capture in format {found}, but this Larder reads format {known}. hint: use a later version of Larder"
    )]
    LaterFormat {
        /// The path.
        path: String,
        /// The version of the format.
        found: u32,
        /// The version that this build reads.
        known: u32,
    },
}
