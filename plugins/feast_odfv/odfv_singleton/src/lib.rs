//! The plugin for `odfv_singleton`, an on-demand view of the Feast repository in `host/tests/golden`. If the view in
//! Feast raises an exception, the row fails here. With the Cargo feature `second`, the plugin is a second version for
//! tests of deployment: it adds two trips instead of one, and has one more output.

use larder_plugin::{Fault, Inputs, Outputs, plugin};

/// The inputs of the view.
#[derive(Debug, Inputs)]
pub struct Row {
    avg_daily_trips: Option<i64>,
}

/// The outputs of the view.
#[derive(Debug, Outputs)]
pub struct Derived {
    /// The number of trips plus one.
    trips_plus_one: i64,
    /// Twice the number of trips.
    #[cfg(feature = "second")]
    trips_twice: i64,
}

/// Adds one trip.
#[cfg_attr(not(feature = "second"), plugin(name = "odfv_singleton", version = "1.0.0"))]
#[cfg_attr(feature = "second", plugin(name = "odfv_singleton", version = "2.0.0"))]
pub fn derive(row: Row) -> Result<Derived, Fault> {
    let trips = row.avg_daily_trips.ok_or("a row without trips")?;
    Ok(Derived {
        trips_plus_one: trips + if cfg!(feature = "second") { 2 } else { 1 },
        #[cfg(feature = "second")]
        trips_twice: trips * 2,
    })
}

#[cfg(test)]
mod tests {
    use larder_plugin::{rows, testing};

    #[test]
    fn outputs_equal_recorded_responses() {
        let table = testing::run::<super::derive>(rows![{ avg_daily_trips: 1001 }, {}]);
        assert_eq!(table["trips_plus_one"][0], if cfg!(feature = "second") { 1003 } else { 1002 });
        assert_eq!(table.failed(), [(1, "a row without trips")]);
    }
}
