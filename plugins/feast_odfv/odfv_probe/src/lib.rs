//! The plugin for `odfv_probe`, an on-demand view of the Feast repository in `host/tests/golden`. The view in Feast
//! returns the names and Python types of its inputs. This plugin returns the names and values of its inputs.

use std::fmt::Debug;

use larder_plugin::{Inputs, Outputs, plugin};

/// The inputs of the view.
#[derive(Debug, Inputs)]
pub struct Row {
    conv_rate: Option<f64>,
    avg_daily_trips: Option<i64>,
}

/// The outputs of the view.
#[derive(Debug, Outputs)]
pub struct Derived {
    /// The names and values of the inputs.
    seen_columns: String,
}

/// Returns the names and values of the inputs.
#[plugin(name = "odfv_probe", version = "1.0.0")]
pub fn derive(row: Row) -> Derived {
    let seen = [see("conv_rate", row.conv_rate), see("avg_daily_trips", row.avg_daily_trips)];
    Derived { seen_columns: seen.join(",") }
}

fn see(name: &str, value: Option<impl Debug>) -> String {
    value.map_or_else(|| format!("{name}:null"), |value| format!("{name}:{value:?}"))
}
