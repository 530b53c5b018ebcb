//! The plugin for `odfv_pandas`, an on-demand view of the Feast repository in `host/tests/golden`.

use larder_plugin::{Inputs, Outputs, plugin};

/// The inputs of the plugin.
#[derive(Debug, Inputs)]
pub struct Row {
    avg_amount: Option<f32>,
    /// From the request.
    amount: Option<f64>,
    /// From the request.
    hour: Option<i64>,
}

/// The outputs of the view.
#[derive(Debug, Outputs)]
pub struct Derived {
    /// The amount divided by the customer's average amount.
    amount_over_avg: Option<f64>,
    /// Whether the hour is before 6.
    is_night: Option<bool>,
}

/// Returns an amount relative to the average, and whether it is night.
#[plugin(name = "odfv_pandas", version = "1.0.0")]
pub fn derive(row: Row) -> Derived {
    // As in numpy, the 32-bit float is converted to a double before the division.
    let amount_over_avg = row.amount.zip(row.avg_amount).map(|(amount, average)| amount / f64::from(average));
    Derived { amount_over_avg, is_night: row.hour.map(|hour| hour < 6) }
}

#[cfg(test)]
mod tests {
    use larder_plugin::{rows, testing};

    #[test]
    fn outputs_equal_recorded_responses() {
        let table = testing::run::<super::derive>(rows![
            { avg_amount: 0.1_f32, amount: 10.0, hour: 3 },
            { avg_amount: 3.0, amount: 20.0, hour: 15 },
        ]);
        assert_eq!(table["amount_over_avg"], [99.999_998_509_883_91, 6.666_666_666_666_667].map(testing::Value::from));
        assert_eq!(table["is_night"], [true, false].map(testing::Value::from));
    }
}
