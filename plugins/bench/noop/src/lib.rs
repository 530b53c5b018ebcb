//! A plugin that does nothing. `make bench-plugin` uses it to measure the fixed cost of a call.

use larder_plugin::{Inputs, Outputs, plugin};

/// No inputs.
#[derive(Debug, Inputs)]
pub struct Nothing;

/// One output, because a plugin must have at least one.
#[derive(Debug, Outputs)]
pub struct Zero {
    /// Always false.
    nothing: bool,
}

/// Returns a constant.
#[plugin(name = "bench_noop", version = "1.0.0")]
pub fn noop(_nothing: Nothing) -> Zero {
    Zero { nothing: false }
}
