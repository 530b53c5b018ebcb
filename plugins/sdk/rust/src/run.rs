//! What happens to a batch: columns to rows, rows through the function, rows to columns.

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

/// What a transform may know of its surroundings: chosen by the host, and replayed when training data is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// "Now" of the request, or the event time of the training rows.
    pub as_of: crate::Timestamp,
}

/// Why a whole batch has no result. A row that has none is a null instead.
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

/// A plugin, as `#[plugin]` puts it together.
pub trait Plugin {
    /// What the derived view's `config` is read into.
    type Config: 'static;
    /// The plugin's name.
    const NAME: &'static str;
    /// Its version.
    const VERSION: &'static str;
    /// What it computes, for people.
    const DOC: &'static str;

    /// What it reads and computes.
    fn fields() -> Fields;

    /// Reads the configuration.
    ///
    /// # Errors
    /// A fault that says what is wrong with the text.
    fn configure(json: &str) -> Result<Self::Config, Fault>;

    /// Computes a batch, to a frame of its outputs.
    ///
    /// # Errors
    /// The plugin's own fault, or one that says what is wrong with the batch.
    fn transform(config: &Self::Config, context: &Context, batch: Batch<'_>) -> Result<Vec<u8>, Fault>;
}

/// An input or an output, as a struct declares it.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// Its name.
    pub name: &'static str,
    /// What its column holds.
    pub data_type: DataType,
    /// Of an input: whether rows without it are computed. Of an output: whether it can be null by itself.
    pub nullable: bool,
    /// One line for people.
    pub doc: &'static str,
}

/// What a plugin reads and computes.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// In the order of its columns.
    pub inputs: &'static [FieldSpec],
    /// In the order of its columns.
    pub outputs: &'static [FieldSpec],
    /// Whether the function may have no result for a row.
    pub any_null: bool,
}

/// An instance's configuration, which comes after the instance. A component has one thread.
#[derive(Debug)]
pub struct Instance<C> {
    config: RefCell<Option<C>>,
}

/// What a function of one row may return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no result of a plugin",
    label = "no result of a plugin",
    note = "it is a struct with #[derive(Outputs)], an Option of one (none is a row of nulls), or a Result<_, Fault> of these"
)]
pub trait Returned {
    /// The struct of outputs.
    type Outputs: Outputs;
    /// Whether there may be no result.
    const ANY_NULL: bool;

    /// The result in its most general form.
    ///
    /// # Errors
    /// The function's fault.
    fn row(self) -> Result<Option<Self::Outputs>, Fault>;
}

// === impl Fault ===

impl Fault {
    /// The configuration makes no sense.
    pub fn bad_config(message: impl Into<String>) -> Self {
        Self { kind: Kind::Config, message: message.into() }
    }

    /// The inputs make no sense.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self { kind: Kind::Input, message: message.into() }
    }

    /// Anything else.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { kind: Kind::Internal, message: message.into() }
    }

    /// What is told of it.
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
    /// An instance that is not configured yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { config: RefCell::new(None) }
    }

    /// What the host calls first.
    ///
    /// # Errors
    /// The plugin's fault.
    pub fn configure<P: Plugin<Config = C>>(&self, json: &str) -> Result<(), types::Fault> {
        log::panics_go_to_the_host();
        self.config.replace(Some(P::configure(json)?));
        Ok(())
    }

    /// What the host calls for each batch.
    ///
    /// # Errors
    /// The plugin's fault.
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
        if !inputs.len().is_multiple_of(size_of::<u64>()) {
            return Err(Fault::bad_input(format!("a frame of {} bytes is none", inputs.len())).into());
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

/// What the plugin says of itself.
#[must_use]
pub fn describe<P: Plugin>() -> Signature {
    log::panics_go_to_the_host();
    let Fields { inputs, outputs, any_null } = P::fields();
    // With an input that has to be there, every output can be null.
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

/// The configuration of a plugin that takes none.
///
/// # Errors
/// If there is one: nobody would read it.
pub fn no_config(json: &str) -> Result<(), Fault> {
    match json.trim() {
        "" | "null" | "{}" => Ok(()),
        _ => Err(Fault::bad_config("this plugin takes no configuration, and the derived view has one")),
    }
}

/// What a function of one row reads and computes.
pub fn fields_by_row<'a, C: 'a, I: Inputs<'a>, R: Returned>(
    _function: impl FnMut(&'a Context, &'a C, I) -> R,
) -> Fields {
    Fields { inputs: I::FIELDS, outputs: R::Outputs::FIELDS, any_null: R::ANY_NULL }
}

/// Runs a function of one row over a batch.
///
/// # Errors
/// The function's fault, or one that says what is wrong with the batch.
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
