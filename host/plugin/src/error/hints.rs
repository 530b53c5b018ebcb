//! The ways out in the messages of errors. A message has at most one hint.

use std::fmt;

use larder_model::model::ValueType;

use super::{CallError, Interrupt};
use crate::{CompileKill, LimitScope, PluginClass};

// === impl CallError ===

impl CallError {
    /// Returns the message with a hint.
    #[must_use]
    pub fn with_hint(&self) -> String {
        with_hint(self, self.hint())
    }

    /// Returns what the author of the plugin can do.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Fault(_) | Self::Row(_) => "handle such inputs in the code, for example by returning null",
            Self::Cast { .. } => "change the type of the input in the view or in the plugin",
            Self::Text { value_type: ValueType::Nested(_), .. } => {
                "return the JSON text of such a value, or change the type in the view"
            }
            Self::Text { .. } => "return the text of such a value, or change the type in the view",
            Self::Interrupt(interrupt) => interrupt.hint(),
            Self::Columns { .. }
            | Self::Column { .. }
            | Self::Surplus { .. }
            | Self::FailedOrder { .. }
            | Self::FailedRow { .. } => "return the declared outputs, with a value of the declared type for each row",
            Self::Skipped | Self::Busy(_) => "retry later",
        }
    }
}

// === impl Interrupt ===

impl Interrupt {
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "do less work, or raise 'time' for the plugin in 'plugins: overrides'",
            Self::Elapsed(_) => "retry when the machine is less busy",
            Self::Memory { .. } => "use less memory, or raise 'memory' for the plugin in 'plugins: overrides'",
            Self::Output { .. } => "return less, or raise 'output' for the plugin in 'plugins: overrides'",
            Self::Stack => "use a loop instead of a recursion",
            Self::Trap(_) => "return an error instead",
            Self::Panic(_) => "return an error instead of a panic",
            Self::Value(_) => "build the plugin with `larder plugin build`",
        }
    }
}

/// Adds a hint to a message, unless the message has one: the plugin's own messages may have hints.
pub(super) fn with_hint(message: &dyn fmt::Display, hint: &str) -> String {
    let message = message.to_string();
    if has_hint(&message) { message } else { format!("{message}. hint: {hint}") }
}

/// Returns whether a message has a hint.
pub(crate) fn has_hint(message: &str) -> bool {
    message.contains(". hint: ")
}

/// Returns the similar name in brackets, or a hint if there is none.
pub(super) fn nearest_or(nearest: Option<&String>, hint: &str) -> String {
    nearest.map_or_else(|| format!(". hint: {hint}"), |nearest| format!(" ({nearest})"))
}

pub(super) fn compile_hint(kill: CompileKill) -> &'static str {
    match kill {
        CompileKill::Time(_) => "raise 'plugins: compile_time_max'",
        CompileKill::Wall(_) => "retry when the machine is less busy, or raise 'plugins: compile_time_max'",
        CompileKill::Memory(_) | CompileKill::Output(_) => "raise 'plugins: compile_memory_max'",
        CompileKill::Signal(_) => "check the kernel log for an out-of-memory kill",
    }
}

/// Returns the hint for imports that Larder does not provide.
pub(super) fn import_hint(imports: &[String]) -> &'static str {
    if imports.iter().any(|import| import.starts_with("larder:transform/")) {
        "build the plugin with the `larder plugin build` of this version, or update Larder"
    } else {
        "remove the dependency that needs it"
    }
}

/// Returns the hint for a file that is too large. `marked` is whether the file declares its class.
pub(super) fn size_hint(scope: &LimitScope, marked: bool) -> String {
    if marked {
        format!("leave out dependencies, or raise '{}: component'", scope.setting())
    } else {
        "build a plugin that contains an interpreter with `larder plugin build`, which records its class".to_owned()
    }
}

/// Returns the hint for a component of a class with too many parts.
pub(super) fn contents_hint(class: PluginClass) -> &'static str {
    match class {
        PluginClass::Compiled => {
            "leave out dependencies. A plugin that contains an interpreter may have more: build it with `larder plugin build`"
        }
        PluginClass::Interpreted => "leave out dependencies",
    }
}
