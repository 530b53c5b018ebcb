//! The least that a plugin can do: what a call costs, whatever is computed.

use larder_plugin::{Inputs, Outputs, plugin};

/// Nothing.
#[derive(Debug, Inputs)]
pub struct Nothing;

/// What there has to be.
#[derive(Debug, Outputs)]
pub struct Zero {
    /// False.
    nothing: bool,
}

/// Nothing.
#[plugin(name = "bench_noop", version = "1.0.0")]
pub fn noop(_nothing: Nothing) -> Zero {
    Zero { nothing: false }
}
