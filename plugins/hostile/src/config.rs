//! The derived view's `config`, in both versions of the contract.

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config<Mode> {
    pub(crate) mode: Mode,
    /// The number of calls of `transform` in an instance that succeed first.
    #[serde(default)]
    pub(crate) after: u32,
    /// The amount; the default depends on the mode.
    pub(crate) amount: Option<usize>,
}
