//! The results of `smoke`, as text and as JSON.

use std::fmt;

use serde::Serialize;

use crate::{measure::Figures, stats::Spread};

/// The minimum [`Summary::disturbed_percent`] at which the report warns about a busy machine. On an idle machine, the
/// percentage is well below 1.
pub(crate) const DISTURBED_PERCENT_MIN: f64 = 3.0;

/// The results of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) setup: Setup,
    pub(crate) rounds: Vec<Round>,
    pub(crate) summary: Summary,
    /// The number of requests without a response of status 200, including requests of the warm-up.
    pub(crate) failures: u64,
    /// The first failure.
    pub(crate) first_failure: Option<String>,
}

/// The measured server, and the conditions of the measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setup {
    /// The name of the measured server.
    pub(crate) target: &'static str,
    pub(crate) workload: String,
    pub(crate) connections: usize,
    pub(crate) saturated_seconds: u64,
    pub(crate) paced_seconds: u64,
    /// The size of the response body that the floor sends.
    pub(crate) sample_body_bytes: usize,
    pub(crate) sample_features: usize,
    pub(crate) sample_features_with_value: usize,
    pub(crate) cores: String,
    /// Whether this program, and therefore the floor, was built without optimization.
    pub(crate) debug_build: bool,
}

/// One round: the floor and the target, measured directly one after the other.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) floor: Figures,
    pub(crate) target: Figures,
    /// The floor's CPU time per request divided by the target's. At 1, the target is as cheap as bare hyper.
    pub(crate) cpu_ratio: f64,
    /// The target's p99 divided by the floor's, each at 60 % of its own saturated rate.
    pub(crate) p99_ratio: f64,
}

/// The summary of all rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) cpu_ratio: Spread,
    pub(crate) p99_ratio: Spread,
    /// The maximum percentage of a run for which the load or the floor waited for its core because of other processes.
    /// Numbers from a busy machine are not reliable.
    pub(crate) disturbed_percent: f64,
    /// The median of each number. The medians may come from different rounds.
    pub(crate) floor: Figures,
    pub(crate) target: Figures,
}

// === impl Round ===

impl Round {
    pub(crate) fn new(floor: Figures, target: Figures) -> Self {
        Self {
            cpu_ratio: floor.cpu_us_per_request / target.cpu_us_per_request,
            p99_ratio: target.p99_us / floor.p99_us,
            floor,
            target,
        }
    }

    /// Returns the maximum percentage of the run for which the load or the floor waited for its core. Both have a
    /// single thread, so they can only have waited for other processes.
    fn disturbed_percent(&self) -> f64 {
        self.floor.server_waited_percent.max(self.floor.load_waited_percent).max(self.target.load_waited_percent)
    }
}

// === impl Summary ===

impl Summary {
    pub(crate) fn of(rounds: &[Round]) -> Self {
        Self {
            cpu_ratio: Spread::of(rounds.iter().map(|round| round.cpu_ratio)),
            p99_ratio: Spread::of(rounds.iter().map(|round| round.p99_ratio)),
            disturbed_percent: rounds.iter().map(Round::disturbed_percent).fold(0.0, f64::max),
            floor: Figures::median(&rounds.iter().map(|round| round.floor).collect::<Vec<_>>()),
            target: Figures::median(&rounds.iter().map(|round| round.target).collect::<Vec<_>>()),
        }
    }
}

// === impl Report ===

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setup, rounds, summary, .. } = self;
        writeln!(f, "{setup}\n")?;
        write_heading(f)?;
        for (round, number) in rounds.iter().zip(1..) {
            write_figures(f, &format!("{number}"), "floor", &round.floor)?;
            writeln!(f)?;
            write_figures(f, "", setup.target, &round.target)?;
            writeln!(f, " {:>9.3} {:>9.2}", round.cpu_ratio, round.p99_ratio)?;
        }
        write_figures(f, "median", "floor", &summary.floor)?;
        writeln!(f)?;
        write_figures(f, "", setup.target, &summary.target)?;
        writeln!(f, " {:>9.3} {:>9.2}\n", summary.cpu_ratio.median, summary.p99_ratio.median)?;
        write_headline(f, setup.target, summary)?;
        if summary.disturbed_percent >= DISTURBED_PERCENT_MIN {
            writeln!(
                f,
                "THE MACHINE WAS BUSY: other processes used a core for up to {:.0} % of a run; measure again on an \
                 idle machine",
                summary.disturbed_percent
            )?;
        }
        if let Some(first) = &self.first_failure {
            writeln!(f, "{} REQUESTS FAILED; the first failure: {first}", self.failures)?;
        }
        Ok(())
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, compared with a floor that sends the same body of {} B", self.target, self.sample_body_bytes)?;
        writeln!(
            f,
            "{}; {} of {} features have a value in the sample",
            self.workload, self.sample_features_with_value, self.sample_features
        )?;
        write!(
            f,
            "{} connections, {} s saturated and {} s at 60 % of that rate; {}",
            self.connections, self.saturated_seconds, self.paced_seconds, self.cores
        )?;
        if self.debug_build {
            write!(f, "\nBUILT WITHOUT OPTIMIZATION: the floor is far too slow, so the ratios are not meaningful")?;
        }
        Ok(())
    }
}

fn write_heading(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "{:15}{:-^39} {:-^38}", "", " saturated ", " at 60 % of that ")?;
    writeln!(
        f,
        "{:<7}{:<8}{:>10} {:>7} {:>10} {:>9} {:>10} {:>8} {:>8} {:>9} {:>9} {:>9}",
        "round",
        "server",
        "req/s",
        "busy %",
        "cpu us/req",
        "B/resp",
        "req/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "cpu ratio",
        "p99 ratio"
    )
}

/// Writes one line without its line feed, because the ratios follow on the line of the target.
fn write_figures(f: &mut fmt::Formatter<'_>, round: &str, server: &str, figures: &Figures) -> fmt::Result {
    write!(
        f,
        "{round:<7}{server:<8}{:>10.0} {:>7.1} {:>10.2} {:>9.0} {:>10.0} {:>8.1} {:>8.1} {:>9.1}",
        figures.requests_per_s,
        figures.busy_percent,
        figures.cpu_us_per_request,
        figures.wire_bytes_per_response,
        figures.paced_requests_per_s,
        figures.p50_us,
        figures.p99_us,
        figures.p999_us
    )
}

fn write_headline(f: &mut fmt::Formatter<'_>, target: &str, summary: &Summary) -> fmt::Result {
    let (cpu, p99) = (summary.cpu_ratio, summary.p99_ratio);
    writeln!(
        f,
        "{target} costs {:.2} us, floor {:.2} us: {:.1} % of bare hyper ({:.1} %..{:.1} %)",
        summary.target.cpu_us_per_request,
        summary.floor.cpu_us_per_request,
        cpu.median * 100.0,
        cpu.min * 100.0,
        cpu.max * 100.0
    )?;
    writeln!(f, "p99 at 60 %: {:.2}x the floor's ({:.2}x..{:.2}x)", p99.median, p99.min, p99.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_target_has_worse_ratios() {
        let figures = |cpu_us_per_request, p99_us| Figures { cpu_us_per_request, p99_us, ..Figures::default() };
        let round = Round::new(figures(6.0, 40.0), figures(8.0, 50.0));
        assert_eq!((round.cpu_ratio, round.p99_ratio), (0.75, 1.25));
    }
}
