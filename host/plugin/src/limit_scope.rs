//! Names the plugins to which a limit applies, for messages.

use std::fmt;

use super::PluginClass;

/// The plugins to which a limit applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitScope {
    /// A class of plugins. The limit is the highest one of the class and of the overrides.
    Class(PluginClass),
    /// One plugin, by its name.
    Plugin(String),
}

// === impl LimitScope ===

impl LimitScope {
    /// Returns the section of the configuration that has the limit.
    pub(super) fn setting(&self) -> String {
        match self {
            Self::Class(class) => format!("plugins: {}", class.setting()),
            Self::Plugin(name) => format!("plugins: overrides: {name}"),
        }
    }
}

impl fmt::Display for LimitScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => write!(f, "{class} plugins"),
            Self::Plugin(name) => write!(f, "plugin '{name}'"),
        }
    }
}
