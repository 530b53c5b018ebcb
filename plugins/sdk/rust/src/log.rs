//! Lines for the host's log. In a plugin's own tests they go to standard error.

use std::{fmt::Display, sync::Once};

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
fn write(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}

/// A panic traps, and a trap has no words: they go to the host first.
pub(crate) fn panics_go_to_the_host() {
    static ONCE: Once = Once::new();
    if cfg!(target_arch = "wasm32") {
        ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| error(panic))));
    }
}
