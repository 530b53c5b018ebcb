//! Utilities that all layers of Larder share: the clock, threads for long-running work, access to files, watching files
//! for changes, memory limits, private files and directories, logs, and metrics.

pub mod clock;
pub mod compute;
pub mod files;
mod links;
pub mod log_interval;
pub mod memory;
pub mod private;
pub mod telemetry;
pub mod watch;
