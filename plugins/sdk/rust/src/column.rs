//! Whole columns, for functions that process all rows of a batch at once.

use crate::{
    __private::types::Batch,
    Context, Fault, Timestamp,
    frame::{Frame, Heads, zero_heads},
    input::{Read, Reader},
    list::Number,
    output::{Output, Writer},
    run::{ColumnType, FieldSpec, Fields, Plugin},
};

/// An input of all rows of a batch, for functions that process them at once:
///
/// ```
/// use larder_plugin::{Column, InputColumns, OutputColumns, plugin};
///
/// #[derive(InputColumns)]
/// struct Rates<'a> {
///     /// A rate per row.
///     rate: Column<'a, f64>,
/// }
///
/// #[derive(OutputColumns)]
/// struct Percents {
///     /// The rate in percent.
///     percent: Vec<Option<f64>>,
/// }
///
/// /// Converts rates to percent.
/// #[plugin(name = "percents", version = "1.0.0", by = "columns")]
/// fn percents(rates: Rates<'_>) -> Percents {
///     Percents { percent: rates.rate.iter().map(|rate| rate.map(|rate| rate * 100.0)).collect() }
/// }
/// # fn main() {
/// # use larder_plugin::{rows, testing};
/// # assert_eq!(testing::run::<percents>(rows![{ rate: 0.5 }])["percent"][0], 50.0);
/// # }
/// ```
///
/// Any input value can be null. The result has a `Vec` for each output, with one value per row. If its items are
/// `Option`s, they can be null. A row must not depend on other rows, because the host chooses the rows of a batch.
///
/// For the reference times of the rows, the function takes `&[`[`Context`]`]`, which has one context
/// per row:
///
/// ```
/// # use larder_plugin::{Column, Context, InputColumns, OutputColumns, Timestamp, plugin};
/// # #[derive(InputColumns)]
/// # struct Orders<'a> {
/// #     ordered: Column<'a, Timestamp>,
/// # }
/// # #[derive(OutputColumns)]
/// # struct Ages {
/// #     age_seconds: Vec<Option<i64>>,
/// # }
/// /// Returns the ages of orders.
/// #[plugin(name = "ages", version = "1.0.0", by = "columns")]
/// fn ages(contexts: &[Context], orders: Orders<'_>) -> Ages {
///     let age = |(context, ordered): (&Context, Option<Timestamp>)| Some((context.as_of.0 - ordered?.0) / 1_000_000);
///     Ages { age_seconds: contexts.iter().zip(orders.ordered.iter()).map(age).collect() }
/// }
/// # fn main() {
/// # use larder_plugin::{rows, testing::Host};
/// # let host = Host::<ages>::new().as_of_each([5_000_000, 0].map(Timestamp));
/// # assert_eq!(host.run(rows![{ ordered: Timestamp(2_000_000) }, {}]).unwrap()["age_seconds"][0], 3_i64);
/// # }
/// ```
///
/// The function may return a `Result<_, `[`Fault`]`>`. A fault fails the whole batch. The host then calls the function
/// with parts of the batch, down to single rows, to find the rows that fail. So a function that often fails is slow: if
/// faults are frequent, return nulls, or process one row at a time.
pub struct Column<'a, T: Read<'a>> {
    reader: Reader<'a, T::Values>,
    rows: usize,
}

/// A struct of [`Column`]s. Derive it with `#[derive(InputColumns)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a struct of columns",
    label = "not a struct of columns",
    note = "by = \"columns\" requires #[derive(InputColumns)]"
)]
pub trait InputColumns<'a>: Sized {
    /// The inputs, in order.
    const FIELDS: &'static [FieldSpec];

    /// Checks the columns of a batch.
    ///
    /// # Errors
    /// Returns a fault with the name of a column that does not match its declaration.
    fn open(frame: &mut Frame<'a>) -> Result<Self, Fault>;
}

/// A struct with a `Vec` for each output. Derive it with `#[derive(OutputColumns)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a struct of columns",
    label = "not a struct of columns",
    note = "by = \"columns\" requires #[derive(OutputColumns)], on a struct with a `Vec` for each output"
)]
pub trait OutputColumns: Sized {
    /// The outputs, in order.
    const FIELDS: &'static [FieldSpec];

    /// Converts the columns to a frame, whose heads are zero.
    ///
    /// # Errors
    /// Returns a fault if the number of values of a column is not the number of rows.
    fn write(self, rows: usize, frame: &mut Vec<u8>) -> Result<(), Fault>;
}

/// A field of a struct of input columns.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an input column",
    label = "not an input column",
    note = "use Column<'_, T>; any of its values can be null"
)]
pub trait InputColumn<'a>: Sized {
    const TYPE: ColumnType;
    fn open(frame: &mut Frame<'a>, index: usize, fields: &[FieldSpec]) -> Result<Self, Fault>;
}

/// A field of a struct of output columns.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an output column",
    label = "not an output column",
    note = "use a Vec with a value for each row, and Option for values that may be null"
)]
pub trait OutputColumn {
    const TYPE: ColumnType;
    const NULLABLE: bool;
    type Sink;
    fn write(self, heads: &mut Heads<'_>, name: &str) -> Result<Self::Sink, Fault>;
}

/// A return type of a function with `by = "columns"`.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the return type of a plugin with by = \"columns\"",
    label = "not a return type of a plugin",
    note = "return a struct with #[derive(OutputColumns)], or a Result<_, Fault> of one"
)]
pub trait ReturnedColumns {
    type Columns: OutputColumns;
    fn columns(self) -> Result<Self::Columns, Fault>;
}

// === impl Column ===

impl<'a, T: Read<'a>> Column<'a, T> {
    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Returns whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Returns the value of a row, or `None` if it is null.
    ///
    /// # Panics
    /// Panics if there is no such row.
    #[must_use]
    #[inline]
    pub fn get(&self, row: usize) -> Option<T> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        self.reader.is_present(row).then(|| T::at(self.reader.values, row))
    }

    /// Returns the values in order, with `None` for nulls.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<T>> {
        (0..self.rows).map(|row| self.get(row))
    }
}

impl<'a, T: Number + Read<'a, Values = &'a [T]>> Column<'a, T> {
    /// Returns all values as a slice, with 0 for nulls.
    #[must_use]
    pub fn values(&self) -> &'a [T] {
        self.reader.values
    }
}

impl<'a, T: Read<'a>> std::fmt::Debug for Column<'a, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Column").field("rows", &self.rows).finish_non_exhaustive()
    }
}

// === impl InputColumn ===

impl<'a, T: Read<'a>> InputColumn<'a> for Column<'a, T> {
    const TYPE: ColumnType = T::TYPE;

    fn open(frame: &mut Frame<'a>, index: usize, fields: &[FieldSpec]) -> Result<Self, Fault> {
        Ok(Self { reader: crate::input::open::<Option<T>>(frame, index, fields)?, rows: frame.rows })
    }
}

// === impl OutputColumn ===

impl<T: Output> OutputColumn for Vec<T> {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = T::NULLABLE;
    type Sink = T::Sink;

    fn write(self, heads: &mut Heads<'_>, name: &str) -> Result<T::Sink, Fault> {
        let rows = heads.rows;
        if self.len() != rows {
            return Err(Fault::new(format_args!("output '{name}' has {} values for {rows} rows", self.len())));
        }
        let mut writer = Writer::new(heads);
        self.into_iter().enumerate().for_each(|(row, value)| value.write(row, &mut writer));
        Ok(writer.into_sink())
    }
}

// === impl ReturnedColumns ===

impl<O: OutputColumns> ReturnedColumns for O {
    type Columns = O;

    fn columns(self) -> Result<O, Fault> {
        Ok(self)
    }
}

impl<O: OutputColumns> ReturnedColumns for Result<O, Fault> {
    type Columns = O;

    fn columns(self) -> Self {
        self
    }
}

/// Returns the inputs and outputs of a function with `by = "columns"`.
#[doc(hidden)]
pub fn fields_by_columns<'a, P: Plugin, I: InputColumns<'a>, R: ReturnedColumns>(
    _function: impl FnOnce(&[Context], &'a P::Config, I) -> R,
) -> Fields {
    Fields { inputs: I::FIELDS, outputs: R::Columns::FIELDS, any_null: false }
}

/// Runs a function with `by = "columns"` over a batch.
///
/// # Errors
/// Returns the function's fault, or a fault that describes the error in the frame of inputs or in the result.
#[doc(hidden)]
pub fn run_by_columns<'a, P: Plugin, I: InputColumns<'a>, R: ReturnedColumns>(
    config: &'a P::Config,
    rows: usize,
    inputs: &'a [u64],
    function: impl FnOnce(&[Context], &'a P::Config, I) -> R,
) -> Result<Batch, Fault> {
    let mut frame = Frame::open(inputs, rows, P::READS_TIME, I::FIELDS)?;
    let contexts: Vec<Context> = frame.times.iter().map(|time| Context { as_of: Timestamp(*time) }).collect();
    let inputs = I::open(&mut frame)?;
    frame.close()?;
    let columns = function(&contexts, config, inputs).columns()?;
    let mut outputs = zero_heads(R::Columns::FIELDS, rows);
    columns.write(rows, &mut outputs)?;
    Ok(Batch { outputs, failed: Vec::new() })
}
