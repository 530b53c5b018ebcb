//! A plugin that computes eight doubles from eight doubles. `make bench-plugin` measures it.

use larder_plugin::{Inputs, Outputs, plugin};

/// Eight inputs.
#[derive(Clone, Copy, Debug, Inputs)]
pub struct Numbers {
    a: Option<f64>,
    b: Option<f64>,
    c: Option<f64>,
    d: Option<f64>,
    e: Option<f64>,
    f: Option<f64>,
    g: Option<f64>,
    h: Option<f64>,
}

/// Eight outputs, computed from the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Outputs)]
pub struct Computed {
    sum: Option<f64>,
    difference: Option<f64>,
    product: Option<f64>,
    ratio: Option<f64>,
    larger: Option<f64>,
    root: Option<f64>,
    scaled: Option<f64>,
    mean: Option<f64>,
}

/// Returns sums, ratios and similar functions of eight numbers.
#[plugin(name = "bench_floats", version = "1.0.0")]
pub fn compute(numbers: Numbers) -> Computed {
    let Numbers { a, b, c, d, e, f, g, h } = numbers;
    Computed {
        sum: a.zip(b).map(|(a, b)| a + b),
        difference: c.zip(d).map(|(c, d)| c - d),
        product: e.zip(f).map(|(e, f)| e * f),
        ratio: g.zip(h).filter(|(_, h)| *h != 0.0).map(|(g, h)| g / h),
        larger: a.zip(h).map(|(a, h)| if a > h { a } else { h }),
        root: b.filter(|b| *b >= 0.0).map(f64::sqrt),
        scaled: c.map(|c| c * 0.01 + 1.0),
        mean: d.zip(e).map(|(d, e)| (d + e) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use larder_plugin::{rows, testing};

    #[test]
    fn outputs_are_computed() {
        let table = testing::run::<super::compute>(rows![
            { a: 1, b: 4, c: 3, d: 2, e: 5, f: 6, g: 1, h: 8 },
            { a: 1, b: -4, g: 1, h: 0 },
        ]);
        let computed = ["sum", "difference", "product", "ratio", "larger", "root", "scaled", "mean"]
            .map(|name| [table[name][0].clone(), table[name][1].clone()]);
        let expected = [
            [Some(5.0), Some(-3.0)],
            [Some(1.0), None],
            [Some(30.0), None],
            [Some(0.125), None],
            [Some(8.0), Some(1.0)],
            [Some(2.0), None],
            [Some(1.03), None],
            [Some(3.5), None],
        ];
        assert_eq!(computed, expected.map(|row| row.map(testing::Value::from)));
    }
}
