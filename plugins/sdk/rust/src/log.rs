//! Lines for the host's log. In a plugin's own tests they go to standard error.
//!
//! The host cuts long lines, and drops and counts those beyond a rate: this is for what is rare.
//!
//! ```
//! use larder_plugin::log;
//!
//! let months = -3;
//! log::warn(format_args!("a tenure of {months} months"));
//! ```

use std::fmt::Display;

use crate::__private::host::Level;

/// For the author, while writing the plugin.
pub fn debug(message: impl Display) {
    write(Level::Debug, &message.to_string());
}

/// Worth knowing.
pub fn info(message: impl Display) {
    write(Level::Info, &message.to_string());
}

/// Worth a look.
pub fn warn(message: impl Display) {
    write(Level::Warn, &message.to_string());
}

/// Something went wrong.
pub fn error(message: impl Display) {
    write(Level::Error, &message.to_string());
}

#[cfg(target_arch = "wasm32")]
fn write(level: Level, message: &str) {
    crate::__private::host::log(level, message);
}

#[cfg(not(target_arch = "wasm32"))]
#[expect(clippy::print_stderr, reason = "the log of a test")]
fn write(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}

/// A panic traps, and a trap has no words: they go to the host first, in one line. A test's panics are the test's.
pub(crate) fn panics_go_to_the_host() {
    #[cfg(target_arch = "wasm32")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            std::panic::set_hook(Box::new(|panic| {
                let message = panic.payload_as_str().unwrap_or("(no message)");
                match panic.location() {
                    Some(place) => error(format_args!("panicked at {place}: {message}")),
                    None => error(format_args!("panicked: {message}")),
                }
            }));
        });
    }
}
