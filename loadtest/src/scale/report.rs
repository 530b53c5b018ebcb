//! The results of the command `scale`, as text and as JSON.

use std::fmt;

use serde::Serialize;

use crate::{measure::Figures, stats::Latency};

const MIB: f64 = 1_048_576.0;

/// The results of the measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ScaleReport {
    pub(crate) entities: u32,
    pub(crate) features: u16,
    pub(crate) cores: String,
    /// Whether this program, and therefore the floor, was built without optimization.
    pub(crate) debug_build: bool,
    pub(crate) load: Load,
    pub(crate) ready_after_stop_seconds: f64,
    pub(crate) ready_after_kill_seconds: f64,
    /// The minimum time for which the process had run when it was killed.
    pub(crate) killed_after_seconds: u64,
    /// The lookups. The first entry is the floor.
    pub(crate) lookups: Vec<Lookups>,
    pub(crate) memory: Memory,
    pub(crate) failures: u64,
    pub(crate) first_failure: Option<String>,
}

/// A load of a Parquet file, from the start of the server until it is ready.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Load {
    pub(crate) seconds: f64,
    pub(crate) rows_per_s: f64,
    /// The number of rows per second of CPU time.
    pub(crate) rows_per_cpu_s: f64,
    pub(crate) parquet_bytes: u64,
    pub(crate) store_bytes: u64,
}

/// Lookups of one entity each.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Lookups {
    pub(crate) name: String,
    pub(crate) figures: Figures,
    /// The floor's CPU time per request, divided by the CPU time per request of these lookups.
    pub(crate) cpu_ratio: f64,
    pub(crate) latency: Latency,
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    /// The sum of the configured sizes of both caches.
    pub(crate) cap: u64,
    pub(crate) after_load: u64,
    pub(crate) after_lookups: u64,
}

// === impl ScaleReport ===

impl fmt::Display for ScaleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, memory, entities, features, .. } = self;
        let per_row = |bytes: u64| bytes as f64 / f64::from(*entities);
        let cap = |bytes: u64| bytes as f64 / memory.cap as f64 * 100.0;
        writeln!(f, "{entities} entities of {features} features; {}", self.cores)?;
        if self.debug_build {
            writeln!(f, "BUILT WITHOUT OPTIMIZATION: the floor is far too slow, so the ratios are not meaningful")?;
        }
        writeln!(f)?;
        let mut line = |name: &str, value: String| writeln!(f, "{name:<36}{value}");
        line("load, until ready", format!("{:.1} s", load.seconds))?;
        line("rows per second", format!("{:.0}", load.rows_per_s))?;
        line("rows per second of CPU time", format!("{:.0}", load.rows_per_cpu_s))?;
        line("Parquet file", size(load.parquet_bytes, per_row(load.parquet_bytes)))?;
        line("store", size(load.store_bytes, per_row(load.store_bytes)))?;
        line("ready after a clean stop", format!("{:.2} s", self.ready_after_stop_seconds))?;
        line(
            "ready after kill -9",
            format!("{:.2} s (killed after {} s)", self.ready_after_kill_seconds, self.killed_after_seconds),
        )?;
        line("configured caches", format!("{:.0} MiB", memory.cap as f64 / MIB))?;
        let figures = [("memory after the load", memory.after_load), ("memory after lookups", memory.after_lookups)];
        for (name, bytes) in figures {
            line(name, format!("{:.0} MiB, {:.0} % of the caches", bytes as f64 / MIB, cap(bytes)))?;
        }
        writeln!(
            f,
            "\n{:<36}{:>10} {:>7} {:>12} {:>9} {:>9} {:>9}",
            "lookups of 1 entity", "req/s", "busy %", "cpu us/req", "cpu ratio", "p50 us", "p99 us"
        )?;
        for Lookups { name, figures, cpu_ratio, latency } in &self.lookups {
            writeln!(
                f,
                "{name:<36}{:>10.0} {:>7.1} {:>12.2} {:>9.3} {:>9.1} {:>9.1}",
                figures.requests_per_s,
                figures.busy_percent,
                figures.cpu_us_per_request,
                cpu_ratio,
                latency.p50_us,
                latency.p99_us.unwrap_or(f64::NAN)
            )?;
        }
        if let Some(first) = &self.first_failure {
            writeln!(f, "{} REQUESTS FAILED; the first failure: {first}", self.failures)?;
        }
        Ok(())
    }
}

fn size(bytes: u64, per_row: f64) -> String {
    format!("{:.0} MiB, {per_row:.1} bytes per row", bytes as f64 / MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_contains_sizes_and_ratios() {
        let latency = Latency {
            samples: 1,
            p50_us: 20.0,
            p90_us: 30.0,
            p99_us: Some(40.0),
            p999_us: None,
            p9999_us: None,
            max_us: 50.0,
        };
        let figures = Figures { cpu_us_per_request: 8.0, requests_per_s: 100_000.0, ..Figures::default() };
        let report = ScaleReport {
            entities: 1_000_000,
            features: 5,
            cores: "servers on core 0".to_owned(),
            debug_build: false,
            load: Load {
                seconds: 2.0,
                rows_per_s: 500_000.0,
                rows_per_cpu_s: 600_000.0,
                parquet_bytes: 50_000_000,
                store_bytes: 104_857_600,
            },
            ready_after_stop_seconds: 0.25,
            ready_after_kill_seconds: 0.5,
            killed_after_seconds: 125,
            lookups: vec![Lookups { name: "warm".to_owned(), figures, cpu_ratio: 0.75, latency }],
            memory: Memory { cap: 512 << 20, after_load: 256 << 20, after_lookups: 512 << 20 },
            failures: 0,
            first_failure: None,
        };
        let text = report.to_string();
        for expected in [
            "store                               100 MiB, 104.9 bytes per row",
            "memory after the load               256 MiB, 50 % of the caches",
            "ready after kill -9                 0.50 s (killed after 125 s)",
            "warm                                    100000     0.0         8.00     0.750      20.0      40.0",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }
}
