//! Reads nothing and computes a null: what a call costs by itself.

use larder_plugin::{Inputs, Outputs, plugin};

/// Nothing.
#[derive(Debug, Inputs)]
pub struct Nothing {}

/// A null.
#[derive(Debug, Outputs)]
pub struct Null {
    /// Always null.
    nothing: Option<i64>,
}

/// Nothing at all.
#[plugin(name = "bench_noop", version = "1.0.0")]
pub fn derive(_nothing: Nothing) -> Null {
    Null { nothing: None }
}
