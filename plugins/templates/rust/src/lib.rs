//! The plugin `{{name}}`: the ratio of two numbers.

use larder_plugin::{Fault, Inputs, Outputs, plugin};

/// The inputs of one row. `Option` marks a value that may be null.
#[derive(Debug, Inputs)]
pub struct Row {
    /// The numerator.
    pub numerator: Option<f64>,
    /// The denominator, at least 0.
    pub denominator: Option<f64>,
}

/// The outputs of one row.
#[derive(Debug, PartialEq, Outputs)]
pub struct Derived {
    /// The ratio; null if an input is null or the denominator is 0.
    pub ratio: Option<f64>,
}

/// The ratio of two numbers.
#[plugin(name = "{{name}}", version = "0.1.0")]
pub fn derive(row: Row) -> Result<Derived, Fault> {
    let (Some(numerator), Some(denominator)) = (row.numerator, row.denominator) else {
        return Ok(Derived { ratio: None });
    };
    if denominator < 0.0 {
        // Only this row fails. The other rows of the batch are computed.
        return Err(Fault::new("the denominator is below 0"));
    }
    let ratio = (denominator != 0.0).then(|| numerator / denominator);
    Ok(Derived { ratio })
}

#[cfg(test)]
mod tests {
    use larder_plugin::{rows, testing};

    #[test]
    fn ratio_is_computed() {
        // Runs the plugin as the host does. If a row does not have an input, the input is null.
        let table = testing::run::<super::derive>(rows![
            { numerator: 3.0, denominator: 2.0 },
            { numerator: 3.0, denominator: -1.0 },
            { numerator: 3.0, denominator: 0.0 },
            { denominator: 2.0 },
        ]);
        assert_eq!(table["ratio"][0], 1.5);
        assert_eq!(table.failed(), [(1, "the denominator is below 0")]);
        assert!(table["ratio"][2].is_null() && table["ratio"][3].is_null());
    }
}
