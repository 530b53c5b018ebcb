//! Processes a batch: converts columns to rows, calls the function for each row, and converts the results to columns.

#[cfg(feature = "config")]
pub mod config;

use std::cell::RefCell;

use crate::{
    __private::types::{self, DataType, Field, Signature},
    frame::{Batch, Frame, Heads, aligned},
    input::Inputs,
    log,
    output::Outputs,
};

/// Data of a call in addition to the inputs. The host sets it, and sets it again when training data is generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// "Now" of the request, or the event time of the training rows.
    pub as_of: crate::Timestamp,
}

/// Why a whole batch failed. For a single bad row, return nulls instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    kind: Kind,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Config,
    Input,
    Internal,
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

    /// Returns the inputs and outputs.
    fn fields() -> Fields;

    /// Reads the configuration.
    ///
    /// # Errors
    /// Returns a fault that describes the error in the text.
    fn configure(json: &str) -> Result<Self::Config, Fault>;

    /// Computes the frame of outputs of a batch.
    ///
    /// # Errors
    /// Returns the plugin's fault, or one that describes the error in the batch.
    fn transform(config: &Self::Config, context: &Context, batch: Batch<'_>) -> Result<Vec<u8>, Fault>;
}

/// An input or an output that a struct declares.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// Its name.
    pub name: &'static str,
    /// The type of its column.
    pub data_type: DataType,
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
    note = "return a struct with #[derive(Outputs)], an Option of one (`None` is a row of nulls), or a Result<_, Fault>"
)]
pub trait Returned {
    /// The struct of outputs.
    type Outputs: Outputs;
    /// Whether the function can return `None`.
    const ANY_NULL: bool;

    /// Converts the result to the most general return type.
    ///
    /// # Errors
    /// Returns the function's fault.
    fn row(self) -> Result<Option<Self::Outputs>, Fault>;
}

// === impl Fault ===

impl Fault {
    /// Creates a fault for an invalid configuration.
    pub fn bad_config(message: impl Into<String>) -> Self {
        Self { kind: Kind::Config, message: message.into() }
    }

    /// Creates a fault for invalid inputs.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self { kind: Kind::Input, message: message.into() }
    }

    /// Creates a fault for any other error.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { kind: Kind::Internal, message: message.into() }
    }

    /// Returns the message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<Fault> for types::Fault {
    fn from(fault: Fault) -> Self {
        match fault.kind {
            Kind::Config => Self::BadConfig(fault.message),
            Kind::Input => Self::BadInput(fault.message),
            Kind::Internal => Self::Internal(fault.message),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

// === impl Returned ===

impl<O: Outputs> Returned for O {
    type Outputs = O;
    const ANY_NULL: bool = false;

    #[inline]
    fn row(self) -> Result<Option<O>, Fault> {
        Ok(Some(self))
    }
}

impl<O: Outputs> Returned for Option<O> {
    type Outputs = O;
    const ANY_NULL: bool = true;

    #[inline]
    fn row(self) -> Result<Self, Fault> {
        Ok(self)
    }
}

impl<R: Returned> Returned for Result<R, Fault> {
    type Outputs = R::Outputs;
    const ANY_NULL: bool = R::ANY_NULL;

    #[inline]
    fn row(self) -> Result<Option<Self::Outputs>, Fault> {
        self?.row()
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
    /// Returns the plugin's fault.
    pub fn configure<P: Plugin<Config = C>>(&self, json: &str) -> Result<(), types::Fault> {
        log::log_panics();
        self.config.replace(Some(P::configure(json)?));
        Ok(())
    }

    /// Computes a batch. The host calls this for each batch.
    ///
    /// # Errors
    /// Returns the plugin's fault.
    pub fn transform<P: Plugin<Config = C>>(
        &self,
        context: types::Context,
        rows: u32,
        inputs: &[u8],
    ) -> Result<Vec<u8>, types::Fault> {
        let config = self.config.borrow();
        let Some(config) = &*config else {
            return Err(Fault::internal("transform was called before configure").into());
        };
        let len = inputs.len();
        if !len.is_multiple_of(size_of::<u64>()) {
            return Err(Fault::bad_input(format!("the frame has {len} bytes, which is not a multiple of 8")).into());
        }
        let context = Context { as_of: crate::Timestamp(context.as_of) };
        let inputs = aligned(inputs);
        let batch = Batch { frame: &inputs, rows: rows as usize };
        Ok(P::transform(config, &context, batch)?)
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
        data_type: field.data_type,
        nullable,
        doc: field.doc.to_owned(),
    };
    Signature {
        name: P::NAME.to_owned(),
        version: P::VERSION.to_owned(),
        doc: P::DOC.to_owned(),
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
        _ => Err(Fault::bad_config("this plugin takes no configuration, but the derived view has one")),
    }
}

/// Returns the inputs and outputs of a function that processes one row.
pub fn fields_by_row<'a, C: 'a, I: Inputs<'a>, R: Returned>(
    _function: impl FnMut(&'a Context, &'a C, I) -> R,
) -> Fields {
    Fields { inputs: I::FIELDS, outputs: R::Outputs::FIELDS, any_null: R::ANY_NULL }
}

/// Runs a function that processes one row over a batch.
///
/// # Errors
/// Returns the function's fault, or a fault that describes the error in the batch.
#[inline]
pub fn run_by_row<'a, C: 'a, I: Inputs<'a>, R: Returned>(
    context: &'a Context,
    config: &'a C,
    batch: Batch<'a>,
    mut function: impl FnMut(&'a Context, &'a C, I) -> R,
) -> Result<Vec<u8>, Fault> {
    let mut frame = Frame::open(batch, I::FIELDS)?;
    let readers = I::open(&mut frame)?;
    frame.close()?;
    let mut heads = Heads::new(R::Outputs::FIELDS, batch.rows);
    let mut writers = R::Outputs::writers(&mut heads);
    for row in 0..batch.rows {
        let outputs = match I::read(&readers, row) {
            Some(inputs) => function(context, config, inputs).row()?,
            None => None,
        };
        match outputs {
            Some(outputs) => outputs.write(row, &mut heads, &mut writers),
            None => R::Outputs::write_nulls(row, &mut heads, &mut writers),
        }
    }
    Ok(R::Outputs::finish(writers, heads))
}
