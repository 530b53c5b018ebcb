//! Draws lines over logarithmic axes, as SVG.

use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::{coord::Shift, prelude::*, style::FontTransform};

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// The index of the color. Lines with the same index have the same color in all plots.
    pub(crate) color: usize,
    /// Whether the line belongs to another line with the same color. Such a line is thin and has no name.
    pub(crate) minor: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A plot of several lines over the same axes.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x: Axis,
    /// The label of the logarithmic vertical axis.
    pub(crate) y: String,
    /// Formats the numbers on the vertical axis.
    pub(crate) y_text: fn(&f64) -> String,
    pub(crate) lines: Vec<Line>,
}

/// A horizontal axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Axis {
    /// Quantiles, as numbers of nines: 0 is the minimum, 1 is p90, 2 is p99.
    Nines,
    /// A logarithmic axis for numbers from 1 up, with its label.
    Log(String),
}

/// Colors that are dark enough for print, and distinct for color-blind readers.
const COLORS: [RGBColor; 4] =
    [RGBColor(0x80, 0x80, 0x80), RGBColor(0x00, 0x72, 0xb2), RGBColor(0xd5, 0x5e, 0x00), RGBColor(0x00, 0x9e, 0x73)];

const PANEL: (u32, u32) = (560, 400);

/// Draws the panels next to each other. Omits panels that have no points. If no panel has points, writes no file and
/// returns false.
pub(crate) fn draw(path: &Path, panels: &[Panel]) -> anyhow::Result<bool> {
    let panels: Vec<_> = panels.iter().filter(|panel| panel.lines.iter().any(|line| !line.points.is_empty())).collect();
    if panels.is_empty() {
        return Ok(false);
    }
    let size = (PANEL.0 * panels.len() as u32, PANEL.1);
    let area = SVGBackend::new(path, size).into_drawing_area();
    let drawn = || -> Result<(), Box<dyn std::error::Error>> {
        area.fill(&WHITE)?;
        for (area, panel) in area.split_evenly((1, panels.len())).iter().zip(&panels) {
            panel.draw(area)?;
        }
        area.present()?;
        Ok(())
    };
    drawn().map_err(|error| anyhow!("{error}")).with_context(|| format!("cannot draw {}", path.display()))?;
    Ok(true)
}

// === impl Panel ===

impl Panel {
    fn draw<'a>(&'a self, area: &DrawingArea<SVGBackend<'a>, Shift>) -> Result<(), Box<dyn std::error::Error>> {
        let xs = self.points().map(|(x, _)| x);
        let x_max = xs.fold(1.0, f64::max);
        let (y_min, y_max) = decades(self.points().map(|(_, y)| y));
        // The additional decade is space for the names of the lines.
        let y_max = y_max * 10.0;
        let mut builder = ChartBuilder::on(area);
        builder
            .caption(&self.title, ("sans-serif", 16))
            .margin(12)
            .margin_right(30)
            .x_label_area_size(44)
            .y_label_area_size(70);
        let rise = (y_min..y_max).log_scale();
        match &self.x {
            Axis::Nines => {
                let mut chart = builder.build_cartesian_2d(0.0..x_max.ceil(), rise)?;
                self.mesh(&mut chart.configure_mesh(), "percentile", &quantile_name)?;
                self.lines(&mut chart)
            }
            Axis::Log(name) => {
                let mut chart = builder.build_cartesian_2d((1.0..x_max * 1.05).log_scale(), rise)?;
                self.mesh(&mut chart.configure_mesh(), name, &|x| format!("{x}"))?;
                self.lines(&mut chart)
            }
        }
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines.iter().flat_map(|line| line.points.iter().copied())
    }

    fn mesh<'m, X, Y>(
        &'m self,
        mesh: &mut plotters::chart::MeshStyle<'_, 'm, X, Y, SVGBackend<'_>>,
        x: &'m str,
        x_text: &'m dyn Fn(&f64) -> String,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
    {
        mesh.x_desc(x)
            .y_desc(&self.y)
            .x_labels(6)
            .y_labels(8)
            .x_label_formatter(x_text)
            .y_label_formatter(&self.y_text)
            .label_style(("sans-serif", 12))
            .axis_desc_style(("sans-serif", 13).into_font().transform(FontTransform::None))
            .light_line_style(TRANSPARENT)
            .draw()?;
        Ok(())
    }

    fn lines<'a, X, Y>(
        &'a self,
        chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        X: Ranged<ValueType = f64>,
        Y: Ranged<ValueType = f64>,
    {
        for line in &self.lines {
            let style = line.style();
            let drawn = chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
            if !line.minor {
                drawn.label(&line.name).legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
            }
            if self.x != Axis::Nines {
                chart.draw_series(line.points.iter().map(|&point| Circle::new(point, 3, line.style().filled())))?;
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .label_font(("sans-serif", 12))
            .draw()?;
        Ok(())
    }
}

// === impl Line ===

impl Line {
    fn style(&self) -> ShapeStyle {
        let color = COLORS[self.color % COLORS.len()].mix(if self.minor { 0.45 } else { 1.0 });
        color.stroke_width(if self.minor { 1 } else { 2 })
    }
}

/// Returns two different powers of ten that enclose all positive numbers.
fn decades(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = numbers
        .filter(|number| *number > 0.0)
        .fold((f64::INFINITY, 0.0_f64), |(least, most), number| (least.min(number), most.max(number)));
    if most == 0.0 {
        return (1.0, 10.0);
    }
    let (below, above) = (least.log10().floor(), most.log10().ceil());
    (10_f64.powf(below), 10_f64.powf(above.max(below + 1.0)))
}

/// Returns the name of the quantile with this many nines: `p0` for 0, `p99` for 2, `p99.99` for 4.
fn quantile_name(nines: &f64) -> String {
    match nines.round() as usize {
        0 => "p0".to_owned(),
        1 => "p90".to_owned(),
        2 => "p99".to_owned(),
        nines => format!("p99.{}", "9".repeat(nines - 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(x: Axis, points: &[(f64, f64)]) -> Panel {
        let line = Line { name: "larder".to_owned(), color: 1, minor: false, points: points.to_vec() };
        Panel {
            title: "A title".to_owned(),
            x,
            y: "latency".to_owned(),
            y_text: |y| format!("{y} µs"),
            lines: vec![line],
        }
    }

    #[test]
    fn plot_has_names_and_units() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.svg");
        let panels = [
            panel(Axis::Nines, &[(0.0, 20.0), (1.0, 30.0), (3.0, 400.0)]),
            panel(Axis::Log("entities".to_owned()), &[(1.0, 20.0), (100.0, 900.0)]),
            panel(Axis::Nines, &[]),
        ];
        assert!(draw(&path, &panels).unwrap());
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with("<svg width=\"1120\" height=\"400\""), "{}", &svg[..80]);
        assert!(svg.trim_end().ends_with("</svg>"));
        for text in ["A title", "larder", "p99.9", "100 µs", "entities", "percentile"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.matches("<polyline").count() >= 2);
    }

    #[test]
    fn panel_without_points_is_not_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.svg");
        assert!(!draw(&path, &[panel(Axis::Nines, &[])]).unwrap());
        assert!(!path.try_exists().unwrap());
    }

    #[test]
    fn axes_span_powers_of_ten() {
        assert_eq!(decades([20.0, 900.0].into_iter()), (10.0, 1000.0));
        assert_eq!(decades([10.0].into_iter()), (10.0, 100.0));
        assert_eq!(decades([].into_iter()), (1.0, 10.0));
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0, 4.0].map(|nines| quantile_name(&nines)),
            ["p0", "p90", "p99", "p99.9", "p99.99"]
        );
    }
}
