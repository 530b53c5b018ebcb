//! The derived view's `config`. It is the same for all versions of the contract.

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config<Mode> {
    pub(crate) mode: Mode,
    /// The number of calls of `transform` in an instance that return a valid result before the violation begins.
    #[serde(default)]
    pub(crate) after: u32,
    /// If set, only calls with a row whose `x` is at least this value violate a rule. Mode `slow` does its work once for
    /// each such row. Only in version 0.1.
    #[serde(default)]
    pub(crate) bad: Option<f64>,
    /// The amount for modes that have one. The default depends on the mode.
    pub(crate) amount: Option<usize>,
}
