//! Plugins: derived features as sandboxed WebAssembly components.
//!
//! A component is untrusted. It imports nothing but the host's log, runs under limits of time, memory and output, and
//! what it returns is looked at before anybody reads it. This room knows wasmtime, and nobody else does.

mod bindings;
mod column;

pub use self::column::{Column, ColumnBuilder, ColumnFault, ColumnScalar, ColumnType, Output};
