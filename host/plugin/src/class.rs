//! The classes of plugins, which differ in their limits and in the sizes of their instance pools.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The class of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginClass {
    /// A plugin in a language that is compiled to WebAssembly, such as Rust or C.
    Compiled,
    /// A plugin that contains an interpreter, such as those of Python or JavaScript.
    Interpreted,
}

// === impl PluginClass ===

impl PluginClass {
    /// All classes.
    pub const ALL: [Self; 2] = [Self::Compiled, Self::Interpreted];

    /// Returns the class of a plugin whose build information has no class, because an older kit built it. Those kits only
    /// support Rust and Python.
    pub(super) fn of_language(language: &str) -> Self {
        if language == "python" { Self::Interpreted } else { Self::Compiled }
    }

    /// Returns the key of the class's limits in `plugins:` of the configuration.
    #[must_use]
    pub fn setting(self) -> &'static str {
        match self {
            Self::Compiled => "limits",
            Self::Interpreted => "interpreted",
        }
    }
}

impl fmt::Display for PluginClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compiled => "compiled",
            Self::Interpreted => "interpreted",
        })
    }
}
