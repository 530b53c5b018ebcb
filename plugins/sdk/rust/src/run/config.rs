//! The derived view's `config`.

use serde::de::DeserializeOwned;

use crate::Fault;

/// Reads a configuration. A view that has none says `null`, and means what `{}` means, unless the type knows better.
///
/// # Errors
/// A fault with serde's words for what is wrong.
pub fn read<C: DeserializeOwned>(json: &str) -> Result<C, Fault> {
    let read = serde_json::from_str(json);
    let read = if json == "null" { read.or_else(|_| serde_json::from_str("{}")) } else { read };
    read.map_err(|error: serde_json::Error| Fault::bad_config(error.to_string()))
}
