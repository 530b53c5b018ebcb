//! The twin of `odfv_python`, an on-demand view of the Feast repository whose answers are recorded.

use larder_plugin::{Inputs, Outputs, plugin};

/// What the view reads.
#[derive(Debug, Inputs)]
pub struct Row {
    conv_rate: Option<f64>,
    /// Of the request.
    amount: Option<f64>,
    /// Of the request.
    hour: Option<i64>,
}

/// What it computes.
#[derive(Debug, Outputs)]
pub struct Derived {
    /// The rate times the amount.
    conv_x_amount: Option<f64>,
    /// The hour in words.
    label: Option<String>,
}

/// A rate times an amount, and a label.
#[plugin(name = "odfv_python", version = "1.0.0")]
pub fn derive(row: Row) -> Derived {
    Derived {
        conv_x_amount: row.conv_rate.zip(row.amount).map(|(rate, amount)| rate * amount),
        label: row.hour.map(|hour| format!("h{hour}")),
    }
}
