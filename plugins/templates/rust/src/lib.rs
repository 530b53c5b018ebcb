//! The plugin `{{name}}`: the ratio of two numbers.

use larder_plugin::{Inputs, Outputs, plugin};

/// What the plugin reads, one row of it. `Option` is a value that may be null.
#[derive(Debug, Inputs)]
pub struct Row {
    /// What is divided.
    pub numerator: Option<f64>,
    /// What it is divided by.
    pub denominator: Option<f64>,
}

/// What it computes.
#[derive(Debug, PartialEq, Outputs)]
pub struct Derived {
    /// Numerator by denominator; null where either is null, or the denominator is 0.
    pub ratio: Option<f64>,
}

/// The ratio of two numbers.
#[plugin(name = "{{name}}", version = "0.1.0")]
pub fn derive(row: Row) -> Derived {
    let denominator = row.denominator.filter(|denominator| *denominator != 0.0);
    let ratio = row.numerator.zip(denominator).map(|(numerator, denominator)| numerator / denominator);
    Derived { ratio }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(numerator: Option<f64>, denominator: Option<f64>) -> Option<f64> {
        derive(Row { numerator, denominator }).ratio
    }

    #[test]
    fn a_ratio_is_computed_where_there_is_one() {
        assert_eq!(ratio(Some(3.0), Some(2.0)), Some(1.5));
        assert_eq!(ratio(Some(3.0), Some(0.0)), None);
        assert_eq!(ratio(None, Some(2.0)), None);
        assert_eq!(ratio(Some(3.0), None), None);
    }
}
