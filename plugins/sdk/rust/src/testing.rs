//! Runs a plugin over rows as the host does, for the plugin's unit tests.
//!
//! ```
//! use larder_plugin::{Inputs, Outputs, plugin, rows, testing};
//!
//! #[derive(Inputs)]
//! struct Numbers {
//!     left: f64,
//!     right: Option<f64>,
//! }
//!
//! #[derive(Outputs)]
//! struct Sum {
//!     sum: f64,
//! }
//!
//! /// Adds two numbers.
//! #[plugin(name = "sum", version = "1.0.0")]
//! fn sum(numbers: Numbers) -> Sum {
//!     Sum { sum: numbers.left + numbers.right.unwrap_or(0.0) }
//! }
//!
//! # fn main() {
//! let table = testing::run::<sum>(rows![{ left: 1.0, right: 2.0 }, { left: 1.0 }, { right: 2.0 }]);
//! assert_eq!(table["sum"][0], 3.0);
//! assert_eq!(table["sum"][1], 1.0);
//! assert!(table["sum"][2].is_null(), "the required input is null");
//! # }
//! ```
//!
//! If a row does not have an input, the input is null. To set the configuration and the times, use [`Host`]. The rows
//! that the plugin cannot compute are null; [`Table::failed`] returns their numbers and messages.
//!
//! The host divides batches as it likes, so a plugin must compute each row by itself. A run checks this: it also computes
//! each row alone, and all rows in reversed order, and panics if the results differ.

mod columns;
mod table;
mod value;

use std::{marker::PhantomData, slice};

pub use self::{table::Table, value::Value};
use crate::{
    Fault, Timestamp,
    run::{FieldSpec, Instance, Plugin},
};

/// A row of inputs, by name. [`rows!`](crate::rows) creates rows.
pub type Row = Vec<(&'static str, Value)>;

/// Calls a plugin in a test.
#[derive(Clone, Debug)]
pub struct Host<P> {
    config: String,
    as_of: AsOf,
    plugin: PhantomData<fn() -> P>,
}

/// The reference times of rows.
#[derive(Clone, Debug)]
enum AsOf {
    All(Timestamp),
    Each(Vec<Timestamp>),
}

/// The result of a call: the frame of outputs, and the failed rows; or the message if the whole batch failed.
type Computed = Result<(Vec<u8>, Vec<(u32, String)>), String>;

/// How to fix a plugin whose results depend on more than the row.
const BY_ITSELF: &str = "hint: compute each row by itself, without other rows and without data of earlier calls";

/// Creates rows of inputs: `rows![{ name: value, other: value }, { name: value }]`. Each value must be convertible to a
/// [`Value`](crate::testing::Value).
#[macro_export]
macro_rules! rows {
    ($({ $($name:ident: $value:expr),* $(,)? }),* $(,)?) => {
        ::std::vec![$({
            let row: $crate::testing::Row =
                ::std::vec![$((::core::stringify!($name), $crate::testing::Value::from($value))),*];
            row
        }),*]
    };
}

/// Runs a plugin without configuration over rows. See [`Host::run`].
///
/// # Panics
/// Panics for the reasons of [`Host::run`], and if the plugin needs a configuration.
#[track_caller]
#[must_use]
pub fn run<P: Plugin>(rows: Vec<Row>) -> Table {
    Host::<P>::new().run(rows).unwrap_or_else(|fault| panic!("the plugin rejects an empty configuration: {fault}"))
}

// === impl Host ===

impl<P: Plugin> Host<P> {
    /// Creates a host whose derived view has no `config`. The reference time of all rows is the start of 1970.
    #[must_use]
    pub fn new() -> Self {
        Self { config: "null".to_owned(), as_of: AsOf::All(Timestamp::default()), plugin: PhantomData }
    }

    /// Sets the derived view's `config`, as JSON.
    #[must_use]
    pub fn config(mut self, json: &str) -> Self {
        json.clone_into(&mut self.config);
        self
    }

    /// Sets the reference time of all rows.
    #[must_use]
    pub fn as_of(mut self, time: Timestamp) -> Self {
        self.as_of = AsOf::All(time);
        self
    }

    /// Sets the reference times of the rows, one for each row.
    #[must_use]
    pub fn as_of_each(mut self, times: impl Into<Vec<Timestamp>>) -> Self {
        self.as_of = AsOf::Each(times.into());
        self
    }

    /// Runs the plugin over a batch of rows, as the host does. If the whole batch fails, each row has the result of a
    /// batch with only this row.
    ///
    /// Also checks that the plugin computes each row by itself. For this, the plugin runs again in the same instance and
    /// in another one, over each row alone, and over the rows in reversed order.
    ///
    /// # Errors
    /// Returns the plugin's fault if the plugin rejects the configuration.
    ///
    /// # Panics
    /// Panics if the rows do not match the plugin's inputs (an unknown name or another type), if the number of times is
    /// not the number of rows, or if the results of the runs differ or do not match the declaration.
    #[track_caller]
    pub fn run(&self, rows: Vec<Row>) -> Result<Table, Fault> {
        check_names(&rows, P::fields().inputs);
        let times = self.times(rows.len());
        let mut rows: Vec<(Row, Timestamp)> = rows.into_iter().zip(times).collect();
        let (first, second) = (Instance::new(), Instance::new());
        first.configure::<P>(&self.config)?;
        second.configure::<P>(&self.config)?;

        let batch = call::<P>(&first, &rows);
        for (instance, whose) in [(&first, "the same"), (&second, "another")] {
            let same = call::<P>(instance, &rows) == batch;
            assert!(same, "the same inputs gave a different result the second time, in {whose} instance. {BY_ITSELF}");
        }
        let each = rows.iter().map(|row| Table::of::<P>(call::<P>(&first, slice::from_ref(row)), 1));
        let alone = Table::concat::<P>(each.collect());
        if let Err(message) = &batch {
            let has_failed = rows.is_empty() || !alone.failed().is_empty();
            assert!(has_failed, "the batch fails, but no row fails alone: {message}. {BY_ITSELF}");
            return Ok(alone);
        }
        let table = Table::of::<P>(batch, rows.len());
        table.check_same(&alone, "alone");
        rows.reverse();
        table.check_same(&Table::of::<P>(call::<P>(&first, &rows), rows.len()).reversed(), "in reversed order");
        Ok(table)
    }

    /// Returns the reference time of each row.
    #[track_caller]
    fn times(&self, rows: usize) -> Vec<Timestamp> {
        match &self.as_of {
            AsOf::All(time) => vec![*time; rows],
            AsOf::Each(times) => {
                assert!(times.len() == rows, "as_of_each has {} times for {rows} rows", times.len());
                times.clone()
            }
        }
    }
}

impl<P: Plugin> Default for Host<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs the plugin over a batch.
#[track_caller]
fn call<P: Plugin>(instance: &Instance<P::Config>, rows: &[(Row, Timestamp)]) -> Computed {
    let frame = columns::write(P::fields().inputs, P::READS_TIME, rows);
    let batch = instance.transform::<P>(u32::try_from(rows.len()).unwrap_or(u32::MAX), &frame)?;
    Ok((batch.outputs, batch.failed.into_iter().map(|failed| (failed.row, failed.message)).collect()))
}

#[track_caller]
fn check_names(rows: &[Row], inputs: &[FieldSpec]) {
    for (name, _) in rows.iter().flatten() {
        if !inputs.iter().any(|input| input.name == *name) {
            let known: Vec<&str> = inputs.iter().map(|input| input.name).collect();
            panic!("a row has '{name}', but the plugin's inputs are {}", known.join(", "));
        }
    }
}

#[cfg(test)]
mod tests;
