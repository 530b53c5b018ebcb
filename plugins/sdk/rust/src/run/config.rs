//! Reads the derived view's `config`.

use serde::de::DeserializeOwned;

use crate::Fault;

/// Reads a configuration. A view without a configuration has `null`, which is read as `{}` if the type does not accept
/// `null`.
///
/// # Errors
/// Returns a fault with serde's message.
pub fn read<C: DeserializeOwned>(json: &str) -> Result<C, Fault> {
    let read = serde_json::from_str(json);
    let read = if json == "null" { read.or_else(|_| serde_json::from_str("{}")) } else { read };
    read.map_err(Fault::new)
}
