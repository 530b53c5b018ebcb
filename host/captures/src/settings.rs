//! The settings of captures.

/// Settings for the calls to capture and the size of the files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaptureSettings {
    /// The number of failed calls that are captured for each derived view and minute.
    pub failed_per_minute: usize,
    /// The share of calls without failed rows that are captured, from 0 to 1.
    pub sample: f64,
    /// The maximum number of rows of a call that are captured.
    pub rows_max: usize,
    /// The maximum size of all files in bytes.
    pub bytes_max: u64,
}

impl Default for CaptureSettings {
    fn default() -> Self {
        Self { failed_per_minute: 10, sample: 0.0, rows_max: 32, bytes_max: 64 << 20 }
    }
}
