//! The plugin for `odfv_python`, an on-demand view of the Feast repository in `host/tests/golden`.

use larder_plugin::{Inputs, Outputs, plugin};

/// The inputs of the view.
#[derive(Debug, Inputs)]
pub struct Row {
    conv_rate: Option<f64>,
    /// From the request.
    amount: Option<f64>,
    /// From the request.
    hour: Option<i64>,
}

/// The outputs of the view.
#[derive(Debug, Outputs)]
pub struct Derived {
    /// The rate times the amount.
    conv_x_amount: Option<f64>,
    /// The hour as text, such as `h7`.
    label: Option<String>,
}

/// Returns the rate times the amount, and the hour as text.
#[plugin(name = "odfv_python", version = "1.0.0")]
pub fn derive(row: Row) -> Derived {
    Derived {
        conv_x_amount: row.conv_rate.zip(row.amount).map(|(rate, amount)| rate * amount),
        label: row.hour.map(|hour| format!("h{hour}")),
    }
}

#[cfg(test)]
mod tests {
    use larder_plugin::{rows, testing};

    #[test]
    fn outputs_equal_recorded_responses() {
        let table = testing::run::<super::derive>(rows![
            { conv_rate: 0.6001, amount: 2.0, hour: 1 },
            { amount: 3.0, hour: 2 },
        ]);
        assert_eq!(table["conv_x_amount"][0], 1.2002);
        assert!(table["conv_x_amount"][1].is_null());
        assert_eq!(table["label"], ["h1", "h2"].map(testing::Value::from));
    }
}
