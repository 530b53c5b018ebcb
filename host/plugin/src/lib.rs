//! Plugins: derived features as sandboxed WebAssembly components.
//!
//! A component is untrusted. It imports nothing but the host's log, runs under limits of time, memory and output, and
//! what it returns is looked at before anybody reads it. This room knows wasmtime, and nobody else does.
//!
//! [`PluginRuntime::load`] makes a [`Component`] of a file. [`Transform::bind`] fits it to a derived view, and
//! [`Transform::call`] computes a batch of rows. A failure costs the instance that it happened in, and nothing else.

mod bindings;
mod breaker;
mod build_info;
mod cache;
mod column;
mod compiler;
mod component;
mod engine;
mod error;
mod frame;
mod guest;
mod killed;
mod latency;
mod logs;
mod metrics;
mod plugin_dir;
mod pool;
mod precheck;
mod runtime;
mod settings;
mod signature;
mod transform;
mod world;

pub use self::{
    breaker::BreakerState,
    build_info::BuildInfo,
    column::{Column, ColumnBuilder, ColumnFault, ColumnScalar, ColumnType, Output},
    compiler::{COMPILE_COMMAND, CompileKill, CompileLimits, compile_here},
    component::{Component, Digest},
    error::{BindError, CallError, Interrupt, LoadError, Misfit, PluginError},
    killed::KilledCompilations,
    plugin_dir::{Copy, PluginDir, PluginDirError, read_file},
    runtime::PluginRuntime,
    settings::{PluginLimits, PluginSettings},
    signature::{COLUMNS_MAX, Field, Signature},
    transform::Transform,
};
