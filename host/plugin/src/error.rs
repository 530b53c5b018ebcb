//! The errors of loading, binding and calling plugins.

mod hints;

use std::time::Duration;

use larder_model::model::ValueType;

pub(super) use self::hints::has_hint;
use self::hints::{compile_hint, contents_hint, import_hint, nearest_or, size_hint, with_hint};
use super::{ColumnFault, ColumnType, CompileKill, LimitScope, PluginClass, PluginDirError};

/// Why the plugin runtime cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The WebAssembly engine cannot be set up.
    #[error("cannot set up the WebAssembly engine, which needs 6 TiB of address space (ulimit -v): {0}")]
    Engine(String),
    /// A thread cannot be started.
    #[error("cannot start a thread for plugins: {0}")]
    Thread(std::io::Error),
    /// The directory of the server's own copies cannot be created.
    #[error(transparent)]
    PluginDir(#[from] PluginDirError),
}

/// Why a file is not a valid plugin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file is larger than the limit.
    #[error(
        "the file has more than {limit} bytes, which is the limit for {scope}. hint: {}",
        size_hint(scope, *marked)
    )]
    TooLarge {
        /// The limit.
        limit: u64,
        /// The plugins to which the limit applies.
        scope: LimitScope,
        /// Whether the file declares its class.
        marked: bool,
    },
    /// A core module, which is the default output of compilers.
    #[error("the file is a core WebAssembly module, not a component. hint: build it with `larder plugin build`")]
    CoreModule,
    /// The file is not a WebAssembly component.
    #[error("the file is not a WebAssembly component. hint: build it with `larder plugin build`")]
    NotWasm,
    /// More functions than the limit.
    #[error(
        "the component has more than {limit} functions, which is the limit for {scope}. hint: raise \
         '{}: functions'",
        scope.setting()
    )]
    Functions {
        /// The limit.
        limit: usize,
        /// The plugins to which the limit applies.
        scope: LimitScope,
    },
    /// More core instances, memories, tables or table elements than an instance can have.
    #[error("the component has {count} {what}, but {class} plugins can have at most {limit}. hint: {}", contents_hint(*class))]
    Contents {
        /// The things that are counted.
        what: &'static str,
        /// Their number.
        count: u64,
        /// The limit.
        limit: u64,
        /// The class whose limits apply.
        class: PluginClass,
    },
    /// Its compilation was killed.
    #[error("compiling the component {kill}. hint: {hint}", kill = .0, hint = compile_hint(*.0))]
    Killed(CompileKill),
    /// Its compilation was stopped because the server is stopping.
    #[error("compilation was stopped because Larder is stopping")]
    Stopped,
    /// The compiler's process could not be run.
    #[error("cannot run the compiler: {0}")]
    Compiler(String),
    /// WebAssembly that does not validate or compile.
    #[error("the component is invalid: {0}. hint: build it again with `larder plugin build`")]
    Broken(String),
    /// An import that Larder does not provide.
    #[error(
        "it imports {}, which Larder does not provide: plugins may import only larder:transform/host, version \
         0.1, 0.2 or 0.3, so they have no clock, files, network or randomness. hint: {}",
        .0.join(", "),
        import_hint(.0)
    )]
    Imports(Vec<String>),
    /// An export of the plugin contract is missing.
    #[error(
        "the component does not export {}: it does not implement the world larder:transform/derived-features. hint: mark \
         one function with `#[plugin(...)]`, and build it with `larder plugin build`",
        .0.join(", ")
    )]
    Exports(Vec<String>),
    /// Imports or exports with the right names but wrong types.
    #[error(
        "the component does not implement the world larder:transform/derived-features, {version}: {why}. hint: build it \
         with `larder plugin build`"
    )]
    World {
        /// The version of the contract whose types it imports.
        version: &'static str,
        /// wasmtime's error, which names the import or export with the wrong type.
        why: String,
    },
    /// It needs more memory, tables or instances than the limits allow.
    #[error(
        "the component cannot be instantiated within its limits: {0}. hint: use less memory, or raise 'memory' for the \
         plugin in 'plugins: overrides'"
    )]
    Instantiate(String),
    /// `describe` trapped or timed out.
    #[error("describe failed: {0}. hint: do nothing in static initializers, and return a constant signature")]
    Describe(Interrupt),
    /// Repeated calls of `describe` returned different signatures.
    #[error(
        "describe returns different signatures: a signature must be the same on every call. hint: return a constant \
             signature"
    )]
    Unsteady,
    /// Its signature is invalid.
    #[error("the signature is invalid: {0}")]
    Signature(String),
}

/// Why a plugin cannot compute a derived view that uses it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: {why}",
    if why.is_mismatch() {
        format!("derived view '{view}' and plugin '{plugin}' {version} are incompatible")
    } else {
        format!("plugin '{plugin}' {version} is not accepted for derived view '{view}'")
    }
)]
pub struct BindError {
    /// The name of the derived view.
    pub view: String,
    /// The name of the plugin.
    pub plugin: String,
    /// The version of the plugin.
    pub version: String,
    /// The reason.
    pub why: Box<Incompatibility>,
}

/// A mismatch of a plugin and a derived view, or a failure of the plugin while it was prepared for the view.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Incompatibility {
    /// The plugin reads an input that the view does not have.
    #[error(
        "the plugin reads '{name}', but the view has no such input. hint: {}",
        suggestion.as_ref().map_or_else(
            || "add the input to the view".to_owned(),
            |suggestion| format!("{suggestion} If so, rename the view's input to '{name}'")
        )
    )]
    NoInput {
        /// The plugin's input.
        name: String,
        /// A hint with the most similar input of the view, if there is one.
        suggestion: Option<String>,
    },
    /// An input of another type.
    #[error("input '{name}' is {view} in the view, but {plugin} in the plugin. hint: change one of the two types")]
    InputType {
        /// The input.
        name: String,
        /// The view's type.
        view: String,
        /// The plugin's type.
        plugin: ColumnType,
    },
    /// The view declares a feature that the plugin does not compute.
    #[error(
        "the view has a feature '{name}', but the plugin does not compute it{}",
        nearest_or(suggestion.as_ref(), "remove the feature from the view, or first deploy a version that computes it")
    )]
    NoOutput {
        /// The view's feature.
        name: String,
        /// A hint with the most similar output of the plugin, if there is one.
        suggestion: Option<String>,
    },
    /// A feature of another type.
    #[error("feature '{name}' is {view} in the view, but {plugin} in the plugin. hint: change one of the two types")]
    OutputType {
        /// The feature.
        name: String,
        /// The view's type.
        view: String,
        /// The plugin's type.
        plugin: ColumnType,
    },
    /// `configure` rejected the view's configuration.
    #[error("the plugin rejects the config {config}: {}", with_hint(fault, "correct 'config' in the view"))]
    Config {
        /// The configuration, truncated.
        config: String,
        /// The message of the plugin.
        fault: String,
    },
    /// `configure` failed.
    #[error("configure failed: {0}. hint: {hint}", hint = .0.hint())]
    Configure(Interrupt),
    /// No instance could be created.
    #[error("{}", .0.with_hint())]
    Instance(CallError),
    /// A test call failed.
    #[error("a test call with {row} failed: {}", error.with_hint())]
    TestCall {
        /// A description of the row, for the message.
        row: &'static str,
        /// The error.
        error: CallError,
    },
}

/// Why a call into a guest did not return a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Interrupt {
    /// It used more CPU time than its limit allows.
    #[error("it used more than {0:?} of CPU time")]
    Timeout(Duration),
    /// It did not return for far longer than its limit on CPU time, because its thread got almost no CPU time.
    #[error("it did not return within {0:?}")]
    Elapsed(Duration),
    /// It requested more memory or table elements than its limits allow.
    #[error("it requested more than {limit} bytes of memory, or too many table elements")]
    Memory {
        /// The limit.
        limit: usize,
    },
    /// It returned more bytes than its limit allows.
    #[error("it returned more than {limit} bytes")]
    Output {
        /// The limit.
        limit: usize,
    },
    /// Its stack overflowed.
    #[error("its stack overflowed")]
    Stack,
    /// It trapped.
    #[error("it trapped: {0}")]
    Trap(String),
    /// It trapped after it had logged the message of a panic, which begins with `panicked`.
    #[error("it {0}")]
    Panic(String),
    /// It returned a value that does not match the contract's types.
    #[error("it returned a value that is not of the contract's types: {0}")]
    Value(String),
}

/// Why a call, or a row of a batch, has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The plugin returned an error for the whole call.
    #[error("fault: {0}")]
    Fault(String),
    /// A value of an input that the plugin's type cannot represent exactly.
    #[error("input '{input}' has a value that {to} cannot represent exactly")]
    Cast {
        /// The input.
        input: String,
        /// The plugin's type.
        to: ColumnType,
    },
    /// The text of an output is not a value of the view's type.
    #[error("output '{output}' is not {}a value of type {value_type}", json_text_of(*value_type))]
    Text {
        /// The output.
        output: String,
        /// The view's type.
        value_type: ValueType,
    },
    /// The plugin reported that it cannot compute this row.
    #[error("{0}")]
    Row(String),
    /// The guest did not return.
    #[error(transparent)]
    Interrupt(#[from] Interrupt),
    /// The number of returned columns is not the number that the signature declares.
    #[error("it returned {found} columns, but declares {declared}")]
    Columns {
        /// Returned columns.
        found: usize,
        /// Declared columns.
        declared: usize,
    },
    /// A column that does not match the signature.
    #[error("output '{name}' {fault}")]
    Column {
        /// The output.
        name: String,
        /// The fault.
        fault: ColumnFault,
    },
    /// The guest returned more bytes than the declared columns take.
    #[error("it returned {bytes} bytes more than its outputs take")]
    Surplus {
        /// Bytes after the last column.
        bytes: usize,
    },
    /// The row was not computed, because the limit on failed calls was reached.
    #[error("it was not called for this row, because too many calls with other rows of the batch failed")]
    Skipped,
    /// A list of failed rows that is not in ascending order, or that names a row twice.
    #[error("it reported failed row {row} after row {previous}, but the rows must be in ascending order")]
    FailedOrder {
        /// The index of the row.
        row: usize,
        /// The index of the row before it.
        previous: usize,
    },
    /// A failed row beyond the batch.
    #[error("it reported failed row {row}, but the batch has {rows} rows")]
    FailedRow {
        /// The index of the row.
        row: usize,
        /// The rows of the call.
        rows: usize,
    },
    /// No instance could be created.
    #[error("cannot create an instance: {0}")]
    Busy(String),
}

/// Returns how a plugin returns a value of this type.
fn json_text_of(value_type: ValueType) -> &'static str {
    if let ValueType::Nested(_) = value_type { "the JSON text of " } else { "" }
}

// === impl Incompatibility ===

impl Incompatibility {
    /// Returns whether the definitions of the plugin and of the view do not match. If not, the plugin failed.
    fn is_mismatch(&self) -> bool {
        !matches!(self, Self::Configure(_) | Self::Instance(_) | Self::TestCall { .. })
    }
}

// === impl CallError ===

impl CallError {
    /// Returns the kind of error, as a metric label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fault(_) => "fault",
            Self::Row(_) => "row",
            Self::Cast { .. } => "cast",
            Self::Text { .. } => "text",
            Self::Interrupt(Interrupt::Timeout(_) | Interrupt::Elapsed(_)) => "timeout",
            Self::Interrupt(Interrupt::Memory { .. }) => "memory",
            Self::Interrupt(Interrupt::Output { .. }) => "output_bytes",
            Self::Interrupt(Interrupt::Stack) => "stack",
            Self::Interrupt(Interrupt::Trap(_) | Interrupt::Panic(_)) => "trap",
            Self::Interrupt(Interrupt::Value(_))
            | Self::Columns { .. }
            | Self::Column { .. }
            | Self::FailedOrder { .. }
            | Self::FailedRow { .. }
            | Self::Surplus { .. } => "bad_output",
            Self::Skipped => "skipped",
            Self::Busy(_) => "busy",
        }
    }

    /// The kinds of failed calls, for metrics that are bound in advance.
    pub(super) const KINDS: [&'static str; 8] =
        ["fault", "timeout", "memory", "output_bytes", "stack", "trap", "bad_output", "busy"];

    /// Returns the message for clients. The text of an error that the plugin returned is meant for callers; the details
    /// of all other errors are internal.
    #[must_use]
    pub fn for_client(&self) -> String {
        match self {
            Self::Fault(message) | Self::Row(message) => message.clone(),
            Self::Cast { .. } | Self::Text { .. } => self.to_string(),
            Self::Busy(_) => "no instance of it is available. hint: retry later".to_owned(),
            Self::Skipped => "too many other rows failed".to_owned(),
            _ => "the call failed. hint: look for the reason in the server's log".to_owned(),
        }
    }
}
