//! What happens to a batch: columns to rows, rows through the function, rows to columns.

use crate::{
    __private::types::{self, Column, DataType, Field, Signature},
    log,
    output::Builder,
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

/// A plugin, as the macros put it together.
pub trait Plugin {
    /// What `config` is read into.
    type Config: Send + Sync + 'static;
    const NAME: &'static str;
    const VERSION: &'static str;
    const DOC: &'static str;

    const INPUTS: &'static [FieldSpec];
    const OUTPUTS: &'static [FieldSpec];

    /// Reads the configuration.
    fn configure(json: &str) -> Result<Self::Config, Fault>;
    /// Computes a batch into columns that are empty yet.
    fn transform(
        config: &Self::Config,
        context: &Context,
        rows: usize,
        inputs: &[Column],
        outputs: &mut [Builder],
    ) -> Result<(), Fault>;
}

/// An input or an output, as a struct declares it.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    pub name: &'static str,
    pub data_type: DataType,
    pub nullable: bool,
    pub doc: &'static str,
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

/// What the plugin says of itself.
#[must_use]
pub fn describe<P: Plugin>() -> Signature {
    log::panics_go_to_the_host();
    // With an input that has to be there, every output can be null.
    let has_required = P::INPUTS.iter().any(|input| !input.nullable);
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
        inputs: P::INPUTS.iter().map(|input| field(input, input.nullable)).collect(),
        outputs: P::OUTPUTS.iter().map(|output| field(output, output.nullable || has_required)).collect(),
    }
}

/// Reads the configuration.
pub fn configure<P: Plugin>(json: &str) -> Result<P::Config, Fault> {
    log::panics_go_to_the_host();
    P::configure(json)
}

/// Computes a batch.
pub fn transform<P: Plugin>(
    config: &P::Config,
    context: &Context,
    rows: usize,
    inputs: &[Column],
) -> Result<Vec<Column>, Fault> {
    let mut outputs: Vec<Builder> = P::OUTPUTS.iter().map(|field| Builder::new(field.data_type, rows)).collect();
    P::transform(config, context, rows, inputs, &mut outputs)?;
    Ok(outputs.into_iter().map(Builder::finish).collect())
}
