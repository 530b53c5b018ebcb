//! Formats the report as Markdown.

use std::fmt::Write;

use super::{
    plan::{FEAST_CONNECTIONS, TargetKind},
    results::{BenchSetup, Point, Results, TargetResult, WorkloadResult},
    spec::FEAST_CUSTOMERS,
};
use crate::stats::Spread;

/// Formats the whole report. `plots` are the names of plots in the same directory.
pub(crate) fn markdown(results: &Results, plots: &[&str]) -> String {
    let mut text = String::from("# Larder under load\n\n");
    write_warnings(&mut text, results);
    write_setup(&mut text, results);
    text.push_str("\n## Workloads\n\n");
    write_workloads(&mut text, &results.workloads);
    write_beside(&mut text, results);
    write_values(&mut text, results);
    write_sweep(&mut text, &results.sweep);
    if !plots.is_empty() {
        text.push_str("\n## Plots\n\n");
        plots.iter().for_each(|plot| text.push_str(&format!("![{plot}]({plot})\n\n")));
    }
    write_absent(&mut text, results);
    write_reading(&mut text);
    text
}

fn write_warnings(text: &mut String, results: &Results) {
    let mut warn = |warning: String| {
        let _ = writeln!(text, "**{warning}**\n");
    };
    let setup = &results.setup;
    if setup.debug_build {
        warn("BUILT WITHOUT OPTIMIZATION: the floor is far too slow, so the ratios are not meaningful.".to_owned());
    }
    if setup.quick {
        warn("QUICK RUN: one short round, only to check that everything works.".to_owned());
    }
    if results.is_disturbed() {
        warn(format!(
            "THE MACHINE WAS BUSY: other processes used a core for up to {:.0} % of a run; measure again on an idle \
             machine.",
            results.disturbed_percent()
        ));
    }
    if let Some(first) = &results.first_failure {
        warn(format!("{} REQUESTS FAILED; the first failure: {first}", results.failures));
    }
}

fn write_setup(text: &mut String, results: &Results) {
    let BenchSetup {
        machine, cores, versions, socket, keys, connections, rounds, saturated_seconds, customers, ..
    } = &results.setup;
    let _ = writeln!(text, "* {machine}; {cores}");
    let _ = writeln!(text, "* {}", versions.join("; "));
    let _ = writeln!(
        text,
        "* HTTP/1.1 over {socket}, {connections} keep-alive connections; {customers} customers, key distribution: \
         {keys}"
    );
    let _ = writeln!(
        text,
        "* {rounds} rounds with all servers; in each, {saturated_seconds} s saturated, then at 60 % of that rate; \
         total time: {} min {:02} s",
        results.took_seconds / 60,
        results.took_seconds % 60
    );
}

fn write_workloads(text: &mut String, workloads: &[WorkloadResult]) {
    text.push_str(
        "| workload | server | CPU per request | of bare hyper | requests/s | busy | p50 | p99 | p99.9 | p99.99 | \
         samples | memory |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for workload in workloads {
        for (index, target) in workload.targets.iter().enumerate() {
            let name = if index == 0 { workload.name.as_str() } else { "" };
            let _ = writeln!(text, "| {name} | {} | {} |", target.target.name(), row(target));
        }
    }
    text.push('\n');
    for workload in workloads {
        let _ = writeln!(
            text,
            "* `{}`: {}; {} bytes per response",
            workload.name,
            workload.what,
            thousands(workload.sample_body_bytes as u64)
        );
    }
}

fn row(target: &TargetResult) -> String {
    let (median, latency) = (&target.median, &target.latency);
    let time = |us: Option<f64>| us.map_or("–".to_owned(), microseconds);
    [
        microseconds(median.cpu_us_per_request),
        target.cpu_ratio.map_or(String::new(), percent),
        thousands(median.requests_per_s as u64),
        format!("{:.0} %", median.busy_percent),
        time(Some(latency.p50_us)),
        time(latency.p99_us),
        time(latency.p999_us),
        time(latency.p9999_us),
        thousands(latency.samples),
        format!("{:.0} MiB", median.resident_bytes / f64::from(1 << 20)),
    ]
    .join(" | ")
}

fn write_beside(text: &mut String, results: &Results) {
    for workload in &results.workloads {
        if let Some(background) = &workload.background {
            let _ = writeln!(
                text,
                "* During `{}`: {background}. The CPU time of the server includes this work.",
                workload.name
            );
        }
    }
}

fn write_values(text: &mut String, results: &Results) {
    let points = results.sweep.iter().map(|point| &point.result);
    let agreements: Vec<_> = results
        .workloads
        .iter()
        .chain(points)
        .flat_map(|workload| workload.agreement.iter().map(|result| format!("* `{}`: {result}\n", workload.name)))
        .collect();
    if !agreements.is_empty() {
        text.push_str(
            "\n## Comparison of values\n\nBefore a workload is measured, its sample request is sent to each server, \
             and the values are compared with Larder's:\n\n",
        );
        text.push_str(&agreements.concat());
    }
}

fn write_sweep(text: &mut String, points: &[Point]) {
    if points.is_empty() {
        return;
    }
    text.push_str(
        "\n## Sizes\n\n| entities | features | bytes | server | CPU per request | of bare hyper | requests/s | p50 | \
         p99 |\n|--:|--:|--:|---|--:|--:|--:|--:|--:|\n",
    );
    for point in points {
        for (index, target) in point.result.targets.iter().enumerate() {
            let size = format!(
                "{} | {} | {}",
                point.entities,
                point.features,
                thousands(point.result.sample_body_bytes as u64)
            );
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                if index == 0 { &size } else { " | | " },
                target.target.name(),
                microseconds(target.median.cpu_us_per_request),
                target.cpu_ratio.map_or(String::new(), percent),
                thousands(target.median.requests_per_s as u64),
                microseconds(target.latency.p50_us),
                target.latency.p99_us.map_or("–".to_owned(), microseconds),
            );
        }
    }
}

fn write_absent(text: &mut String, results: &Results) {
    if results.absent.is_empty() {
        return;
    }
    text.push_str("\n## Not measured\n\n");
    for absent in &results.absent {
        let _ = writeln!(text, "* {}: {}", absent.what, absent.why);
    }
}

fn write_reading(text: &mut String) {
    let _ = writeln!(
        text,
        "\n## How to read this\n\n\
         * The floor is a bare hyper server that reads the request and sends the body of Larder's response to the \
         sample request. \"CPU per request\" is the server's user and system time in saturated runs. \"Of bare hyper\" \
         is the floor's CPU time divided by the server's: the median of the rounds, and their minimum and maximum. If \
         \"busy\" is well below 100 %, the load was the bottleneck, and requests/s are not meaningful.\n\
         * Latencies are measured in an open loop at 60 % of the server's own saturated rate. Each latency counts from \
         the time at which its request was due. Quantiles beyond p99 are shown only if at least a hundred samples are \
         beyond them.\n\
         * Redis is read with pipelined HMGET commands in its own protocol, from one hash for each view and entity: \
         without JSON, types and times. Feast is measured with one worker, {FEAST_CONNECTIONS} connections, one round, \
         and only the first {FEAST_CUSTOMERS} customers.\n\
         * Memory is the resident memory of the server's processes after the runs. Shared pages count for each process."
    );
}

fn percent(Spread { median, min, max }: Spread) -> String {
    let digits = if median < 0.1 { 2 } else { 1 };
    let percent = |ratio: f64| format!("{:.digits$}", ratio * 100.0);
    if min.to_bits() == max.to_bits() {
        return format!("{} %", percent(median));
    }
    format!("{} % ({}..{})", percent(median), percent(min), percent(max))
}

/// Formats a duration in a suitable unit, with about three digits.
pub(crate) fn microseconds(us: f64) -> String {
    match us {
        us if us < 10.0 => format!("{us:.2} µs"),
        us if us < 100.0 => format!("{us:.1} µs"),
        us if us < 1000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{:.2} ms", us / 1000.0),
        us if us < 100_000.0 => format!("{:.1} ms", us / 1000.0),
        us => format!("{:.0} ms", us / 1000.0),
    }
}

pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the text that is printed at the end of a run, with a line for each workload.
pub(crate) fn headline(results: &Results) -> String {
    let mut text = String::new();
    for workload in &results.workloads {
        let Some(larder) = workload.target(TargetKind::Larder) else { continue };
        let cpu_us = larder.median.cpu_us_per_request;
        let feast = workload.target(TargetKind::Feast).map(|feast| feast.median.cpu_us_per_request / cpu_us);
        let _ = writeln!(
            text,
            "{:<20} larder {:>8} per request{}{}, p50 {}, p99 {}",
            workload.name,
            microseconds(cpu_us),
            larder.cpu_ratio.map_or(String::new(), |ratio| format!(", {} of bare hyper", percent(ratio))),
            feast.map_or(String::new(), |times| format!(", Feast {times:.0} times as much as Larder")),
            microseconds(larder.latency.p50_us),
            larder.latency.p99_us.map_or("–".to_owned(), microseconds),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{Absent, tests::gathered};

    fn results() -> Results {
        let mut workload = WorkloadResult {
            name: "churn-1".to_owned(),
            what: "8 features".to_owned(),
            sample_body_bytes: 1975,
            agreement: vec!["Feast returns the same 8 values".to_owned()],
            ..WorkloadResult::default()
        };
        workload.set_targets(vec![
            gathered(TargetKind::Floor, &[(6.0, 30.0)], 1000),
            gathered(TargetKind::Larder, &[(8.0, 60.0), (12.0, 60.0)], 1000),
        ]);
        let point = Point { entities: 1, features: 50, result: workload.clone() };
        let absent = Absent { what: "redis".to_owned(), why: "not installed".to_owned() };
        Results { workloads: vec![workload], sweep: vec![point], absent: vec![absent], ..Results::default() }
    }

    #[test]
    fn markdown_contains_every_section() {
        let text = markdown(&results(), &["latency.svg"]);
        for expected in [
            "| churn-1 | floor | 6.00 µs |  | 166,666 | 99 % |",
            "|  | larder | 10.0 µs | 62.5 % (50.0..75.0) |",
            "* `churn-1`: 8 features; 1,975 bytes per response",
            "* `churn-1`: Feast returns the same 8 values",
            "| 1 | 50 | 1,975 | floor | 6.00 µs |",
            "![latency.svg](latency.svg)",
            "* redis: not installed",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        assert!(!text.contains("FAILED") && !text.contains("BUSY"));
    }

    #[test]
    fn headline_compares_floor_and_feast() {
        let headline_with = |feast: &[(f64, f64)]| {
            let mut results = results();
            results.workloads[0].set_targets(vec![
                gathered(TargetKind::Floor, &[(6.0, 30.0)], 1000),
                gathered(TargetKind::Larder, &[(8.0, 60.0)], 1000),
                gathered(TargetKind::Feast, feast, 1000),
            ]);
            headline(&results)
        };
        let text = headline_with(&[(2_800.0, 5_000.0)]);
        let expected = "larder  8.00 µs per request, 75.0 % of bare hyper, Feast 350 times as much as Larder, p50";
        assert!(text.contains(expected), "{text}");
        assert!(!headline_with(&[]).contains("Feast"), "Feast was not measured");
    }

    #[test]
    fn report_begins_with_warnings() {
        let mut results = results();
        results.failures = 3;
        results.first_failure = Some("larder: status 503".to_owned());
        results.setup.debug_build = true;
        let text = markdown(&results, &[]);
        assert!(text.contains("3 REQUESTS FAILED; the first failure: larder: status 503"), "{text}");
        assert!(text.contains("BUILT WITHOUT OPTIMIZATION"), "{text}");
    }

    #[test]
    fn durations_get_unit_and_three_digits() {
        let times = [0.5, 12.34, 123.4, 1234.0, 98_765.0, 1_234_567.0].map(microseconds);
        assert_eq!(times, ["0.50 µs", "12.3 µs", "123 µs", "1.23 ms", "98.8 ms", "1235 ms"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
