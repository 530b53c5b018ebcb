//! Shared by all layers of Larder: the clock, threads for long work, files and their changes, memory limits,
//! permissions, logs and metrics.

pub mod clock;
pub mod compute;
pub mod files;
pub mod memory;
pub mod private;
pub mod telemetry;
pub mod watch;
