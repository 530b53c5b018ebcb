//! Columns as they are, for functions of a whole batch.

use crate::{
    __private::types::DataType,
    Context, Fault,
    frame::{Batch, Frame, Heads},
    input::{Read, Reader},
    list::Number,
    output::{Output, Writer},
    run::{FieldSpec, Fields},
};

/// An input of all rows of a batch, for functions that want them at once:
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
/// /// Rates in percent.
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
/// A value may always be null here. The result has a `Vec` for each output, of as many values as there are rows; values
/// in an `Option` may be null. Batches are cut as the host sees fit: a row must not depend on the others.
pub struct Column<'a, T: Read<'a>> {
    reader: Reader<'a, T::Values>,
    rows: usize,
}

/// A struct of [`Column`]s. `#[derive(InputColumns)]` writes this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no struct of columns",
    label = "no struct of columns",
    note = "by = \"columns\" wants #[derive(InputColumns)]"
)]
pub trait InputColumns<'a>: Sized {
    /// What is read, in order.
    const FIELDS: &'static [FieldSpec];

    /// Checks the columns of a batch.
    ///
    /// # Errors
    /// A fault that names the column which is not what was declared.
    fn open(frame: &mut Frame<'a>) -> Result<Self, Fault>;
}

/// A struct of a `Vec` per output. `#[derive(OutputColumns)]` writes this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no struct of columns",
    label = "no struct of columns",
    note = "by = \"columns\" wants #[derive(OutputColumns)], of a struct with a `Vec` for each output"
)]
pub trait OutputColumns: Sized {
    /// What is computed, in order.
    const FIELDS: &'static [FieldSpec];

    /// The columns as a frame.
    ///
    /// # Errors
    /// If one of them has not as many values as there are rows.
    fn finish(self, heads: Heads) -> Result<Vec<u8>, Fault>;
}

/// A field of a struct of columns that come in.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no column of inputs",
    label = "no column of inputs",
    note = "it is a Column<'_, T>, whose values may always be null"
)]
pub trait InputColumn<'a>: Sized {
    const TYPE: DataType;
    fn open(frame: &mut Frame<'a>, place: usize, fields: &[FieldSpec]) -> Result<Self, Fault>;
}

/// A field of a struct of columns that go out.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no column of outputs",
    label = "no column of outputs",
    note = "it is a Vec with a value for each row, in an Option where it may be null"
)]
pub trait OutputColumn {
    const TYPE: DataType;
    const NULLABLE: bool;
    type Writer;
    fn write(self, heads: &mut Heads, name: &str) -> Result<Self::Writer, Fault>;
}

/// What a function of columns may return.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no result of a plugin by columns",
    label = "no result of a plugin",
    note = "it is a struct with #[derive(OutputColumns)], or a Result<_, Fault> of one"
)]
pub trait ReturnedColumns {
    type Columns: OutputColumns;
    fn columns(self) -> Result<Self::Columns, Fault>;
}

// === impl Column ===

impl<'a, T: Read<'a>> Column<'a, T> {
    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The value of a row; none where it is null.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    #[inline]
    pub fn get(&self, row: usize) -> Option<T> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        self.reader.is_present(row).then(|| T::at(self.reader.values, row))
    }

    /// The values in order; none where they are null.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<T>> {
        (0..self.rows).map(|row| self.get(row))
    }
}

impl<'a, T: Number + Read<'a, Values = &'a [T]>> Column<'a, T> {
    /// All values as they lie in memory, with 0 for nulls.
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
    const TYPE: DataType = T::TYPE;

    fn open(frame: &mut Frame<'a>, place: usize, fields: &[FieldSpec]) -> Result<Self, Fault> {
        Ok(Self { reader: crate::input::open::<Option<T>>(frame, place, fields)?, rows: frame.rows })
    }
}

// === impl OutputColumn ===

impl<T: Output> OutputColumn for Vec<T> {
    const TYPE: DataType = T::TYPE;
    const NULLABLE: bool = T::NULLABLE;
    type Writer = Writer<T::Sink>;

    fn write(self, heads: &mut Heads, name: &str) -> Result<Self::Writer, Fault> {
        let rows = heads.rows;
        if self.len() != rows {
            return Err(Fault::internal(format!("output '{name}' has {} values for {rows} rows", self.len())));
        }
        let mut writer = Writer::new(heads);
        self.into_iter().enumerate().for_each(|(row, value)| value.write(row, heads, &mut writer));
        Ok(writer)
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

/// What such a function reads and computes.
#[doc(hidden)]
pub fn fields_by_columns<'a, C: 'a, I: InputColumns<'a>, R: ReturnedColumns>(
    _function: impl FnOnce(&'a Context, &'a C, I) -> R,
) -> Fields {
    Fields { inputs: I::FIELDS, outputs: R::Columns::FIELDS, any_null: false }
}

/// Runs such a function over a batch.
///
/// # Errors
/// The function's fault, or one that says what is wrong with the batch or the result.
#[doc(hidden)]
pub fn run_by_columns<'a, C: 'a, I: InputColumns<'a>, R: ReturnedColumns>(
    context: &'a Context,
    config: &'a C,
    batch: Batch<'a>,
    function: impl FnOnce(&'a Context, &'a C, I) -> R,
) -> Result<Vec<u8>, Fault> {
    let mut frame = Frame::open(batch, I::FIELDS)?;
    let inputs = I::open(&mut frame)?;
    frame.close()?;
    function(context, config, inputs).columns()?.finish(Heads::new(R::Columns::FIELDS, batch.rows))
}
