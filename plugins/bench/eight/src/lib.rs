//! Eight doubles in, two out: the plugin that is measured, beside the same arithmetic in the host.

use larder_plugin::{Inputs, Outputs, plugin};

/// Eight numbers.
#[derive(Debug, Inputs)]
pub struct Eight {
    a: Option<f64>,
    b: Option<f64>,
    c: Option<f64>,
    d: Option<f64>,
    e: Option<f64>,
    f: Option<f64>,
    g: Option<f64>,
    h: Option<f64>,
}

/// Two numbers.
#[derive(Debug, Outputs)]
pub struct Two {
    /// A weighted sum; null where any is null.
    score: Option<f64>,
    /// The first by the second.
    ratio: Option<f64>,
}

/// A weighted sum of eight numbers, and the ratio of two.
#[plugin(name = "bench_eight", version = "1.0.0")]
pub fn derive(row: Eight) -> Two {
    let score = || {
        let tail = row.e? * 0.05 + row.f? * 0.06 + row.g? * 0.07 + row.h? * 0.08;
        Some(row.a? * 0.01 + row.b? * 0.02 + row.c? * 0.03 + row.d? * 0.04 + tail)
    };
    Two { score: score(), ratio: row.a.zip(row.b).map(|(a, b)| a / b) }
}
