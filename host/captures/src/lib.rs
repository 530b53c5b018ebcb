//! Captures: calls of plugins with their inputs and outputs, in Arrow files.
//!
//! A server writes the calls that fail, and a sample of other calls on request. The files show why a row failed, and
//! another version of the plugin can compute the same rows. [`CaptureLog`] observes the calls, copies some of their rows
//! to a queue, and writes them on a thread of its own. [`CaptureFile`] reads a file, and [`ArrowFile`] any Arrow file.
//! [`Replay`] compares the captured outputs with those that a plugin computes now.

mod arrow_file;
mod capture_file;
mod columns;
mod directory;
mod error;
mod format;
mod log;
mod metrics;
mod queue;
mod replay;
mod sampling;
mod selection;
mod settings;
mod writer;

pub use self::{
    arrow_file::ArrowFile,
    capture_file::{CaptureFile, CapturedRows, is_capture},
    columns::{column_array, column_type_of, data_type_of, fill_column},
    directory::{CaptureEntry, capture_files},
    error::CaptureError,
    format::{CaptureHeader, CaptureKind},
    log::CaptureLog,
    replay::{Replay, ReplayDifference},
    sampling::SampleRequest,
    settings::CaptureSettings,
};
