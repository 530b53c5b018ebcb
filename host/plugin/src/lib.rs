//! Plugins: derived features as sandboxed WebAssembly components.
//!
//! A component is untrusted. It imports only the host's log function, and runs under limits for time, memory and
//! output. Its output is validated before it is used. Only this crate depends on wasmtime.
//!
//! [`PluginRuntime::load`] loads a [`Component`] from a file's bytes. [`Transform::bind`] binds it to a derived view,
//! and [`Transform::try_call`] computes a batch of rows. If a call does not return, or returns invalid outputs, only the
//! instance in which it ran is discarded, and only the rows that made it fail have no outputs.

mod acceptance;
mod batch;
mod bindings;
mod build_info;
mod cache;
mod call_clock;
mod cast;
mod class;
mod column_type;
mod comparison;
mod compile_limits;
mod compiler;
mod component;
mod contents;
mod cost;
mod diff;
mod digest;
mod engine;
mod error;
mod frame;
mod function_cache;
mod guest;
mod guest_state;
mod inline_failures;
mod inputs;
mod isolation;
mod killed;
mod limit_scope;
mod logs;
mod metrics;
mod observer;
mod output;
mod own_instance;
mod plugin_dir;
mod pool;
mod precheck;
mod random;
mod run_cost;
mod runtime;
mod settings;
mod shadow;
mod shape;
mod signature;
mod transform;
mod value_text;
mod view_types;
mod vitals;
mod world;

pub use self::{
    acceptance::{Acceptance, Rejection, RowGenerator, TestRow},
    batch::{NeedsIsolation, OnFailure},
    build_info::BuildInfo,
    cast::cast,
    class::PluginClass,
    column_type::{ColumnScalar, ColumnType},
    comparison::{Comparison, ComparisonReport},
    compile_limits::{CompileKill, CompileLimits},
    compiler::{COMPILE_COMMAND, compile_here},
    component::Component,
    diff::{Diff, DiffRows, DiffSide, DifferentRow, FailedExample, NULLS_MAX, NamedText, OutputDiff, WORST_MAX},
    digest::{Digest, DigestWriter, NotADigest},
    error::{BindError, CallError, Incompatibility, Interrupt, LoadError, PluginError},
    frame::{ColumnFault, ColumnRef, ColumnWriter, Frame, FrameBuilder},
    inputs::{AsOf, Inputs, InputsBuilder},
    isolation::{Isolation, IsolationPermit},
    killed::KilledCompilations,
    limit_scope::LimitScope,
    observer::{CallObserver, ObservedCall},
    output::{FailedRow, Output, Outputs},
    own_instance::OwnInstance,
    plugin_dir::{HistoryEntry, PluginDir, PluginDirError, PreparedVersion, RolloutDir, read_file},
    run_cost::RunCost,
    runtime::PluginRuntime,
    settings::{LimitOverrides, PluginLimits, PluginSettings},
    signature::{COLUMNS_MAX, Field, Signature, is_lower_version},
    transform::Transform,
    vitals::VitalCounts,
};
