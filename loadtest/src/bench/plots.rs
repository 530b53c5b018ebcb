//! Draws the report's plots: latency by percentile, and latency and throughput by the number of entities and by the
//! number of features.

use std::path::Path;

use super::{
    plan::TargetKind,
    results::{Point, Results, TargetResult},
    table::{microseconds, thousands},
};
use crate::plot::{Axis, Line, Panel, draw};

const TARGETS: [TargetKind; 4] = [TargetKind::Floor, TargetKind::Larder, TargetKind::Redis, TargetKind::Feast];

/// Draws the plots for which there are results. Returns the names of their files.
pub(crate) fn draw_all(results: &Results, dir: &Path) -> anyhow::Result<Vec<&'static str>> {
    let plots = [
        ("latency.svg", vec![latency(results)]),
        (
            "entities.svg",
            sizes(results, "50 features", "entities", |point| (point.features == 50).then_some(point.entities)),
        ),
        (
            "features.svg",
            sizes(results, "1 entity", "features", |point| (point.entities == 1).then_some(point.features)),
        ),
    ];
    let mut drawn = Vec::new();
    for (name, panels) in plots {
        if draw(&dir.join(name), &panels)? {
            drawn.push(name);
        }
    }
    Ok(drawn)
}

fn latency(results: &Results) -> Panel {
    let targets = results.workload("churn-1").map(|workload| &workload.targets[..]).unwrap_or_default();
    Panel {
        title: "churn-1: latency at 60 % of own saturated rate".to_owned(),
        x: Axis::Nines,
        y: "latency".to_owned(),
        y_text: time,
        lines: targets.iter().map(|target| line(target.target, false, target.tail.clone())).collect(),
    }
}

/// Returns two panels: latency and throughput, by the number of entities or features.
fn sizes(results: &Results, fixed: &str, axis: &str, size: impl Fn(&Point) -> Option<usize>) -> Vec<Panel> {
    let mut points: Vec<_> = results.sweep.iter().filter_map(|point| Some((size(point)?, point))).collect();
    points.sort_by_key(|&(size, _)| size);
    let of = |target: TargetKind, number: fn(&TargetResult) -> Option<f64>| -> Vec<(f64, f64)> {
        let found =
            points.iter().filter_map(|(size, point)| Some((*size as f64, number(point.result.target(target)?)?)));
        found.collect()
    };
    let present = |lines: Vec<Line>| lines.into_iter().filter(|line| !line.points.is_empty()).collect();
    let latencies = TARGETS.iter().flat_map(|&target| {
        let p50 = of(target, |result| Some(result.latency.p50_us));
        let p99 = of(target, |result| result.latency.p99_us);
        [line(target, false, p50), line(target, true, p99)]
    });
    let rates = TARGETS.map(|target| line(target, false, of(target, |result| Some(result.median.requests_per_s))));
    let panel = |title: String, y: &str, y_text, lines| Panel {
        title,
        x: Axis::Log(axis.to_owned()),
        y: y.to_owned(),
        y_text,
        lines: present(lines),
    };
    vec![
        panel(
            format!("Latency at 60 % of own saturated rate, {fixed}: p50, thin lines p99"),
            "latency",
            time,
            latencies.collect(),
        ),
        panel(format!("Saturated, {fixed}"), "requests/s", rate, rates.into()),
    ]
}

fn line(target: TargetKind, minor: bool, points: Vec<(f64, f64)>) -> Line {
    let color = TARGETS.iter().position(|&candidate| candidate == target).unwrap_or(0);
    Line { name: target.name().to_owned(), color, minor, points }
}

fn time(us: &f64) -> String {
    microseconds(*us).replace(".00", "").replace(".0", "")
}

fn rate(per_s: &f64) -> String {
    thousands(*per_s as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{WorkloadResult, tests::gathered};

    fn point(entities: usize, features: usize, cpu_us: f64) -> Point {
        let mut result = WorkloadResult { name: "churn-1".to_owned(), ..WorkloadResult::default() };
        result.set_targets(vec![
            gathered(TargetKind::Floor, &[(cpu_us / 2.0, 30.0)], 1000),
            gathered(TargetKind::Larder, &[(cpu_us, 60.0)], 1000),
        ]);
        Point { entities, features, result }
    }

    #[test]
    fn selected_points_are_sorted_by_size() {
        let sweep = vec![point(100, 50, 100.0), point(1, 50, 10.0), point(1, 200, 20.0)];
        let results = Results { sweep, ..Results::default() };
        let panels =
            sizes(&results, "50 features", "entities", |point| (point.features == 50).then_some(point.entities));
        let rates = &panels[1].lines;
        let names: Vec<_> = rates.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["floor", "larder"]);
        assert_eq!(rates[1].points, [(1.0, 100_000.0), (100.0, 10_000.0)]);
        assert_eq!(panels[0].lines.len(), 4);
    }

    #[test]
    fn plots_without_points_are_not_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let churn = point(1, 8, 10.0).result;
        let mut results = Results { workloads: vec![churn], ..Results::default() };
        assert_eq!(draw_all(&results, dir.path()).unwrap(), ["latency.svg"]);
        results.sweep = vec![point(1, 50, 10.0), point(10, 50, 20.0)];
        assert_eq!(draw_all(&results, dir.path()).unwrap(), ["latency.svg", "entities.svg", "features.svg"]);
        assert_eq!([1.0, 10.0, 100.0, 1000.0, 1e5].map(|us| time(&us)), ["1 µs", "10 µs", "100 µs", "1 ms", "100 ms"]);
    }
}
