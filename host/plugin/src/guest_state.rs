//! The host's state for an instance: its log, the clock of its current call, and the limit on its memory.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use super::{PluginLimits, bindings::Level, call_clock::CallClock, logs::PluginLog};

/// The host's state for an instance.
#[derive(Debug)]
pub(super) struct GuestState {
    memory: MemoryLimit,
    clock: CallClock,
    log: Arc<PluginLog>,
    /// The message of a panic that the plugin logged during the current call.
    panic: Option<String>,
}

/// The limits on the memory and tables of an instance, and its highest use of memory.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    bytes_max: usize,
    table_elements_max: usize,
    /// The highest use so far.
    high_water: usize,
    /// Whether the instance requested more than its limits.
    rejected: bool,
}

/// The maximum number of elements of a table. The elements are function pointers; a plugin needs one for each function
/// in a vtable.
const TABLE_ELEMENTS_MAX: usize = 65_536;

/// The maximum number of characters of the message of a panic.
const PANIC_CHARS_MAX: usize = 1_000;

// === impl GuestState ===

impl GuestState {
    /// Creates the state of a new instance.
    pub(super) fn new(limits: &PluginLimits, log: &Arc<PluginLog>) -> Self {
        let memory = MemoryLimit::new(limits.memory_bytes);
        Self { memory, clock: CallClock::new(), log: Arc::clone(log), panic: None }
    }

    /// Returns the limit on memory.
    pub(super) fn memory(&self) -> &MemoryLimit {
        &self.memory
    }

    /// Returns the clock of the current call.
    pub(super) fn clock(&mut self) -> &mut CallClock {
        &mut self.clock
    }

    /// Returns the limiter. wasmtime calls it before memory or a table grows.
    pub(super) fn limiter(&mut self) -> &mut dyn ResourceLimiter {
        &mut self.memory
    }

    /// Writes a log line of the plugin.
    pub(super) fn write(&mut self, level: Level, message: &str) {
        // The Rust kit logs the message of a panic before the call traps.
        if level == Level::Error && message.starts_with("panicked") {
            self.panic = Some(message.chars().take(PANIC_CHARS_MAX).collect());
        }
        self.log.write(level, message);
    }

    /// Returns the message of a panic that the plugin logged during the current call, and starts the next call.
    pub(super) fn take_panic(&mut self) -> Option<String> {
        self.panic.take()
    }
}

// === impl MemoryLimit ===

impl MemoryLimit {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, table_elements_max: TABLE_ELEMENTS_MAX, high_water: 0, rejected: false }
    }

    /// Returns the highest use of memory in bytes.
    pub(super) fn high_water(&self) -> usize {
        self.high_water
    }

    /// Returns the limit in bytes, if the instance requested more than its limits.
    pub(super) fn exceeded(&self) -> Option<usize> {
        self.rejected.then_some(self.bytes_max)
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, _current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.bytes_max;
        self.rejected |= !fits;
        if fits {
            self.high_water = self.high_water.max(desired);
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.table_elements_max;
        self.rejected |= !fits;
        Ok(fits)
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::{Instance, Module, Store};

    use super::*;
    use crate::{PluginClass, PluginSettings, engine::Engines};

    #[test]
    fn panic_of_current_call_is_kept() {
        let limits = PluginSettings::default().compiled;
        let log = Arc::new(PluginLog::new("p", "1.0.0", "v", &limits));
        let mut state = GuestState::new(&limits, &log);
        state.write(Level::Error, "an error");
        state.write(Level::Info, "panicked at src/lib.rs:1:2: no");
        assert_eq!(state.take_panic(), None);
        state.write(Level::Error, "panicked at src/lib.rs:1:2: yes");
        assert_eq!(state.take_panic().as_deref(), Some("panicked at src/lib.rs:1:2: yes"));
        assert_eq!(state.take_panic(), None, "the next call");
        state.write(Level::Error, &format!("panicked: {}", "ü".repeat(2 * PANIC_CHARS_MAX)));
        assert_eq!(state.take_panic().unwrap().chars().count(), PANIC_CHARS_MAX);
    }

    /// A module that Rust compilers do not produce. It has a table, and exports a function `grow`. The function adds
    /// the given number of empty elements to the table, and returns the previous number of elements, or -1 if it
    /// failed.
    const GROWING: &[u8] = b"\0asm\x01\0\0\0\
        \x01\x06\x01\x60\x01\x7f\x01\x7f\
        \x03\x02\x01\0\
        \x04\x04\x01\x70\0\x01\
        \x07\x08\x01\x04grow\0\0\
        \x0a\x0b\x01\x09\0\xd0\x70\x20\0\xfc\x0f\0\x0b";

    #[test]
    fn table_growth_stops_at_its_limit() {
        let engines = Engines::new(&PluginSettings::default()).unwrap();
        for class in PluginClass::ALL {
            let engine = engines.of(class);
            let limits = PluginLimits { memory_bytes: 0, ..PluginSettings::default().compiled };
            let log = Arc::new(PluginLog::new("?", "?", "?", &limits));
            let mut store = Store::new(engine, GuestState::new(&limits, &log));
            store.limiter(GuestState::limiter);
            store.set_epoch_deadline(1_000_000);
            let module = Module::new(engine, GROWING).unwrap();
            let instance = Instance::new(&mut store, &module, &[]).unwrap();
            let grow = instance.get_typed_func::<i32, i32>(&mut store, "grow").unwrap();
            let mut grow_by = |count: i32| grow.call(&mut store, count).unwrap();
            assert_eq!(grow_by(10_000), 1);
            assert_eq!(grow_by(1_000_000_000), -1);
            assert_eq!(grow_by(i32::try_from(TABLE_ELEMENTS_MAX).unwrap()), -1);
            assert_eq!(grow_by(1), 10_001, "failed growth changes nothing");
            assert_eq!(store.data().memory().exceeded(), Some(0));
        }
    }
}
