//! Processes a batch: converts columns to rows, calls the function for each row, and converts the results to columns.

#[cfg(feature = "config")]
pub mod config;

use std::cell::RefCell;

use crate::{
    __private::types::{Batch, DataType, FailedRow, Field, ScalarType, Signature},
    Fault, Timestamp,
    frame::{Frame, Heads, aligned, zero_heads},
    input::Inputs,
    log,
    output::Outputs,
};

/// Data of a row in addition to its inputs. The host sets it, while serving and when training data is generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The reference time of the row: the time of the request, or the event time of a training row.
    pub as_of: Timestamp,
}

/// A plugin. `#[plugin]` implements this trait.
pub trait Plugin {
    /// The type of the derived view's `config`.
    type Config: 'static;
    /// The plugin's name.
    const NAME: &'static str;
    /// The plugin's version.
    const VERSION: &'static str;
    /// A description for users.
    const DOC: &'static str;

    /// Whether the function takes `&Context`.
    const READS_TIME: bool;

    /// Returns the inputs and outputs.
    fn fields() -> Fields;

    /// Reads the configuration.
    ///
    /// # Errors
    /// Returns a fault that describes the error in the text.
    fn configure(json: &str) -> Result<Self::Config, Fault>;

    /// Computes a batch.
    ///
    /// # Errors
    /// Returns a fault that describes the error in the frame of inputs. With `by = "columns"`, also returns the
    /// function's fault.
    fn transform(config: &Self::Config, rows: usize, inputs: &[u64]) -> Result<Batch, Fault>;
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// The type of each value, or of each item.
    pub scalar: ScalarType,
    /// Whether each value is a list.
    pub is_list: bool,
    /// Whether items of lists can be null.
    pub nullable_items: bool,
}

/// An input or an output that a struct declares.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// Its name.
    pub name: &'static str,
    /// The type of its column.
    pub column_type: ColumnType,
    /// For an input: whether rows in which it is null are computed. For an output: whether it can be null when the
    /// other outputs are not.
    pub nullable: bool,
    /// A one-line description for users.
    pub doc: &'static str,
}

/// The inputs and outputs of a plugin.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// The inputs, in the order of their columns.
    pub inputs: &'static [FieldSpec],
    /// The outputs, in the order of their columns.
    pub outputs: &'static [FieldSpec],
    /// Whether the function can return `None` for a row.
    pub any_null: bool,
}

/// The configuration of an instance, which is set after its creation. It needs no lock: a component has one thread.
#[derive(Debug)]
pub struct Instance<C> {
    config: RefCell<Option<C>>,
}

/// A return type of a function that processes one row.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the return type of a plugin",
    label = "not a return type of a plugin",
    note = "return a struct with #[derive(Outputs)], an Option of one (`None` is a row of nulls), or a Result<_, Fault> \
            (a fault fails the row)"
)]
pub trait Returned {
    /// The struct of outputs.
    type Outputs: Outputs;
    /// Whether the function can return `None`.
    const ANY_NULL: bool;

    /// Writes the row. If the function returned a fault, adds the row to the failed ones.
    fn write(self, row: usize, writers: &mut <Self::Outputs as Outputs>::Writers<'_>, failed: &mut Vec<FailedRow>);
}

// === impl ColumnType ===

impl ColumnType {
    /// Returns the type of a column of single values.
    #[must_use]
    pub const fn scalar(scalar: ScalarType) -> Self {
        Self { scalar, is_list: false, nullable_items: false }
    }

    /// Returns the type of a column of lists.
    #[must_use]
    pub const fn list(scalar: ScalarType, nullable_items: bool) -> Self {
        Self { scalar, is_list: true, nullable_items }
    }
}

// === impl Returned ===

impl<O: Outputs> Returned for O {
    type Outputs = O;
    const ANY_NULL: bool = false;

    #[inline]
    fn write(self, row: usize, writers: &mut O::Writers<'_>, _failed: &mut Vec<FailedRow>) {
        Outputs::write(self, row, writers);
    }
}

impl<O: Outputs> Returned for Option<O> {
    type Outputs = O;
    const ANY_NULL: bool = true;

    #[inline]
    fn write(self, row: usize, writers: &mut O::Writers<'_>, _failed: &mut Vec<FailedRow>) {
        match self {
            Some(outputs) => Outputs::write(outputs, row, writers),
            None => O::write_nulls(row, writers),
        }
    }
}

impl<R: Returned> Returned for Result<R, Fault> {
    type Outputs = R::Outputs;
    const ANY_NULL: bool = R::ANY_NULL;

    #[inline]
    fn write(self, row: usize, writers: &mut <R::Outputs as Outputs>::Writers<'_>, failed: &mut Vec<FailedRow>) {
        match self {
            Ok(returned) => returned.write(row, writers, failed),
            Err(fault) => {
                R::Outputs::write_nulls(row, writers);
                failed.push(FailedRow { row: row as u32, message: fault.into() });
            }
        }
    }
}

// === impl Instance ===

impl<C> Instance<C> {
    /// Creates an instance that is not configured yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { config: RefCell::new(None) }
    }

    /// Sets the configuration. The host calls this first.
    ///
    /// # Errors
    /// Returns the message of the plugin's fault.
    pub fn configure<P: Plugin<Config = C>>(&self, json: &str) -> Result<(), String> {
        log::log_panics();
        self.config.replace(Some(P::configure(json)?));
        Ok(())
    }

    /// Computes a batch. The host calls this for each batch.
    ///
    /// # Errors
    /// Returns the message of the plugin's fault.
    pub fn transform<P: Plugin<Config = C>>(&self, rows: u32, inputs: &[u8]) -> Result<Batch, String> {
        let config = self.config.borrow();
        let Some(config) = &*config else {
            return Err("transform was called before configure".to_owned());
        };
        let len = inputs.len();
        if !len.is_multiple_of(size_of::<u64>()) {
            return Err(format!("the frame has {len} bytes, which is not a multiple of 8"));
        }
        Ok(P::transform(config, rows as usize, &aligned(inputs))?)
    }
}

impl<C> Default for Instance<C> {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the plugin's signature.
#[must_use]
pub fn describe<P: Plugin>() -> Signature {
    log::log_panics();
    let Fields { inputs, outputs, any_null } = P::fields();
    // With a required input, every output can be null.
    let any_null = any_null || inputs.iter().any(|input| !input.nullable);
    let field = |field: &FieldSpec, nullable: bool| Field {
        name: field.name.to_owned(),
        data_type: DataType { scalar: field.column_type.scalar, is_list: field.column_type.is_list },
        nullable,
        nullable_items: field.column_type.nullable_items,
        doc: field.doc.to_owned(),
    };
    Signature {
        name: P::NAME.to_owned(),
        version: P::VERSION.to_owned(),
        doc: P::DOC.to_owned(),
        reads_time: P::READS_TIME,
        inputs: inputs.iter().map(|input| field(input, input.nullable)).collect(),
        outputs: outputs.iter().map(|output| field(output, output.nullable || any_null)).collect(),
    }
}

/// Checks the configuration of a plugin that takes no configuration.
///
/// # Errors
/// Returns a fault if there is a configuration, because it would have no effect.
pub fn no_config(json: &str) -> Result<(), Fault> {
    match json.trim() {
        "" | "null" | "{}" => Ok(()),
        _ => Err(Fault::new(
            "this plugin takes no configuration, but the derived view has one. hint: remove `config` from the view",
        )),
    }
}

/// Returns the inputs and outputs of a function that processes one row.
pub fn fields_by_row<'a, P: Plugin, I: Inputs<'a>, R: Returned>(
    _function: impl FnMut(&Context, &'a P::Config, I) -> R,
) -> Fields {
    Fields { inputs: I::FIELDS, outputs: R::Outputs::FIELDS, any_null: R::ANY_NULL }
}

/// Runs a function that processes one row over a batch. If the function returns a fault, only its row fails.
///
/// # Errors
/// Returns a fault that describes the error in the frame of inputs.
#[inline]
pub fn run_by_row<'a, P: Plugin, I: Inputs<'a>, R: Returned>(
    config: &'a P::Config,
    rows: usize,
    inputs: &'a [u64],
    mut function: impl FnMut(&Context, &'a P::Config, I) -> R,
) -> Result<Batch, Fault> {
    let mut frame = Frame::open(inputs, rows, P::READS_TIME, I::FIELDS)?;
    let times = frame.times;
    let readers = I::open(&mut frame)?;
    frame.close()?;
    let mut outputs = zero_heads(R::Outputs::FIELDS, rows);
    let mut writers = R::Outputs::writers(&mut Heads::new(&mut outputs, rows));
    let mut failed = Vec::new();
    for row in 0..rows {
        let as_of = times.get(row).map_or_else(Timestamp::default, |time| Timestamp(*time));
        match I::read(&readers, row) {
            Some(inputs) => function(&Context { as_of }, config, inputs).write(row, &mut writers, &mut failed),
            None => R::Outputs::write_nulls(row, &mut writers),
        }
    }
    R::Outputs::append(R::Outputs::sinks(writers), &mut outputs);
    Ok(Batch { outputs, failed })
}
