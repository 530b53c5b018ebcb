//! What every layer of Larder uses: the clock, threads for long work, files, memory limits, permissions, logs and metrics.

pub mod clock;
pub mod compute;
pub mod files;
pub mod memory;
pub mod private;
pub mod telemetry;
