//! Writes lines to the host's log. In a plugin's unit tests, the lines go to standard error.
//!
//! The host truncates long lines. Lines beyond a rate limit are dropped and counted, so do not log for every row.
//!
//! ```
//! use larder_plugin::log;
//!
//! let months = -3;
//! log::warn(format_args!("a tenure of {months} months"));
//! ```

use std::fmt::Display;

use crate::__private::host::Level;

/// Logs a message for development.
pub fn debug(message: impl Display) {
    write(Level::Debug, &message.to_string());
}

/// Logs information.
pub fn info(message: impl Display) {
    write(Level::Info, &message.to_string());
}

/// Logs a warning.
pub fn warn(message: impl Display) {
    write(Level::Warn, &message.to_string());
}

/// Logs an error.
pub fn error(message: impl Display) {
    write(Level::Error, &message.to_string());
}

#[cfg(target_arch = "wasm32")]
fn write(level: Level, message: &str) {
    crate::__private::host::log(level, message);
}

#[cfg(not(target_arch = "wasm32"))]
#[expect(clippy::print_stderr, reason = "standard error is the log of a test")]
fn write(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}

/// The message of the standard library's panic if a function asks for the time, and the target has no clock.
const NO_CLOCK: &str = "time not implemented on this platform";

/// Makes panics log their messages before they trap, because traps have none. Has no effect on panics in tests.
pub(crate) fn log_panics() {
    #[cfg(target_arch = "wasm32")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            std::panic::set_hook(Box::new(|panic| {
                error(panic_line(panic.payload_as_str(), panic.location().map(|location| location as _)));
            }));
        });
    }
}

/// Returns the log line of a panic.
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "only tests call it"))]
fn panic_line(message: Option<&str>, location: Option<&dyn Display>) -> String {
    let message = message.unwrap_or("(no message)");
    let hint =
        if message == NO_CLOCK { ". hint: plugins have no clock; take `&Context` and use `context.as_of`" } else { "" };
    match location {
        Some(location) => format!("panicked at {location}: {message}{hint}"),
        None => format!("panicked: {message}{hint}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_panic_has_a_hint() {
        let line = panic_line(Some("time not implemented on this platform"), Some(&"src/lib.rs:1:2"));
        assert_eq!(
            line,
            "panicked at src/lib.rs:1:2: time not implemented on this platform. hint: plugins have no clock; take \
             `&Context` and use `context.as_of`"
        );
    }

    #[test]
    fn other_panic_has_no_hint() {
        assert_eq!(panic_line(Some("division by zero"), Some(&"a:1:2")), "panicked at a:1:2: division by zero");
        assert_eq!(panic_line(None, None), "panicked: (no message)");
    }
}
