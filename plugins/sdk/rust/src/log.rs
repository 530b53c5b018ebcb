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

/// Makes panics log their messages before they trap, because traps have none. Has no effect on panics in tests.
pub(crate) fn log_panics() {
    #[cfg(target_arch = "wasm32")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            std::panic::set_hook(Box::new(|panic| {
                let message = panic.payload_as_str().unwrap_or("(no message)");
                match panic.location() {
                    Some(location) => error(format_args!("panicked at {location}: {message}")),
                    None => error(format_args!("panicked: {message}")),
                }
            }));
        });
    }
}
