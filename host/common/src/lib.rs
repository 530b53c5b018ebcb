//! Utilities that all layers of Larder share: the clock, threads for long-running work, files and their changes, memory
//! limits, permissions, logs and metrics.

pub mod clock;
pub mod compute;
pub mod files;
mod links;
pub mod memory;
pub mod private;
pub mod telemetry;
pub mod watch;
