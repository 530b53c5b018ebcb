//! A version of a plugin in the admin API.

use serde::{Deserialize, Serialize};

/// A version of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginVersion {
    /// The version that the plugin declares.
    pub version: String,
    /// The SHA-256 digest of the file, in hexadecimal.
    pub digest: String,
    /// The language that the file declares, or `unknown`.
    pub language: String,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The description that the plugin declares.
    pub doc: String,
}
