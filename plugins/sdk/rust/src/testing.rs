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
//! If a row does not have an input, the input is null. To set the configuration and the request's time, use [`Host`].

mod columns;
mod value;

use std::{marker::PhantomData, ops::Index};

pub use self::value::Value;
use crate::{
    __private::types,
    Context, Fault, Timestamp,
    frame::{Batch, Frame, aligned},
    run::{FieldSpec, Fields, Instance, Plugin, describe},
};

/// A row of inputs, by name. [`rows!`](crate::rows) creates rows.
pub type Row = Vec<(&'static str, Value)>;

/// Calls a plugin in a test.
#[derive(Clone, Debug)]
pub struct Host<P> {
    config: String,
    context: Context,
    plugin: PhantomData<fn() -> P>,
}

/// The result of a plugin: a column of values for each output, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    columns: Vec<(&'static str, Vec<Value>)>,
}

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

/// Runs a plugin without configuration over rows.
///
/// # Panics
/// Panics if the rows do not match the plugin's inputs, or if the plugin returns a fault.
#[track_caller]
#[must_use]
pub fn run<P: Plugin>(rows: Vec<Row>) -> Table {
    Host::<P>::new().run(rows).unwrap_or_else(|fault| panic!("the plugin returned a fault: {fault}"))
}

// === impl Host ===

impl<P: Plugin> Host<P> {
    /// Creates a host whose derived view has no `config`, with the start of 1970 as the time of the request.
    #[must_use]
    pub fn new() -> Self {
        Self { config: "null".to_owned(), context: Context::default(), plugin: PhantomData }
    }

    /// Sets the derived view's `config`, as JSON.
    #[must_use]
    pub fn config(mut self, json: &str) -> Self {
        json.clone_into(&mut self.config);
        self
    }

    /// Sets the time of the request.
    #[must_use]
    pub fn as_of(mut self, time: Timestamp) -> Self {
        self.context.as_of = time;
        self
    }

    /// Runs the plugin over rows three times (twice in one instance, and once in another), to check that the same
    /// inputs give the same outputs.
    ///
    /// # Errors
    /// Returns the plugin's fault.
    ///
    /// # Panics
    /// Panics if the rows do not match the plugin's inputs (an unknown name or another type), or if the outputs of the
    /// runs differ or do not match the declaration.
    #[track_caller]
    pub fn run(&self, rows: Vec<Row>) -> Result<Table, Fault> {
        let Fields { inputs, outputs, .. } = P::fields();
        check_names(&rows, inputs);
        let frame = columns::write(inputs, &rows);
        let (first, second) = (Instance::new(), Instance::new());
        first.configure::<P>(&self.config)?;
        second.configure::<P>(&self.config)?;
        let call = |instance: &Instance<P::Config>| -> Result<Vec<u8>, Fault> {
            let context = types::Context { as_of: self.context.as_of.0 };
            let rows = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            Ok(instance.transform::<P>(context, rows, &frame)?)
        };
        let computed = call(&first)?;
        for (instance, whose) in [(&first, "the same"), (&second, "another")] {
            let same = call(instance)? == computed;
            assert!(same, "the same inputs gave a different result the second time, in {whose} instance");
        }
        let signature = describe::<P>();
        let computed = aligned(&computed);
        let mut frame = Frame::open(Batch { frame: &computed, rows: rows.len() }, outputs)?;
        let columns = columns::read(outputs, &mut frame);
        frame.close()?;
        let table = outputs.iter().zip(&signature.outputs).zip(columns).map(|((output, field), values)| {
            let has_null = values.iter().any(Value::is_null);
            assert!(field.nullable || !has_null, "output '{}' has a null, but is declared as never null", output.name);
            (output.name, values)
        });
        Ok(Table { columns: table.collect() })
    }
}

impl<P: Plugin> Default for Host<P> {
    fn default() -> Self {
        Self::new()
    }
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

// === impl Table ===

impl Table {
    /// Returns the values of an output, or `None` if no output has this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[Value]> {
        self.columns.iter().find(|(column, _)| *column == name).map(|(_, values)| values.as_slice())
    }
}

impl Index<&str> for Table {
    type Output = [Value];

    #[track_caller]
    fn index(&self, name: &str) -> &[Value] {
        let known = || self.columns.iter().map(|(column, _)| *column).collect::<Vec<_>>().join(", ");
        self.get(name).unwrap_or_else(|| panic!("there is no output '{name}'; the outputs are {}", known()))
    }
}

// === impl Fault ===

impl From<types::Fault> for Fault {
    fn from(fault: types::Fault) -> Self {
        match fault {
            types::Fault::BadConfig(message) => Self::bad_config(message),
            types::Fault::BadInput(message) => Self::bad_input(message),
            types::Fault::Internal(message) => Self::internal(message),
        }
    }
}

#[cfg(test)]
mod tests;
