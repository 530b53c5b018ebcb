//! The host's state for an instance: its log, the clock of its current call, and the limit on its memory.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use super::{PluginLimits, bindings::Level, call_clock::CallClock, logs::PluginLog, shape::TABLE_ELEMENTS_MAX};

/// The host's state for an instance.
#[derive(Debug)]
pub(super) struct GuestState {
    memory: MemoryLimit,
    clock: CallClock,
    log: Arc<PluginLog>,
    /// The message of a panic that the plugin logged during the current call.
    panic: Option<String>,
}

/// The limits on the memories and tables of an instance, and its use of memory. An instance can have several memories and
/// tables, which never shrink.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    bytes_max: usize,
    /// The size of all memories in bytes.
    bytes: usize,
    /// The number of elements of all tables.
    table_elements: usize,
    /// Whether the instance requested more than its limits.
    rejected: bool,
}

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
        Self { bytes_max, bytes: 0, table_elements: 0, rejected: false }
    }

    /// Returns the highest use of memory in bytes.
    pub(super) fn high_water(&self) -> usize {
        self.bytes
    }

    /// Returns whether a memory or table may grow to `desired`. `max` is the maximum that its module declares: growth beyond it
    /// fails, so it must not count.
    fn admit(&mut self, fits: bool, desired: usize, max: Option<usize>) -> bool {
        self.rejected |= !fits;
        fits && max.is_none_or(|max| desired <= max)
    }

    /// Returns the limit in bytes, if the instance requested more than its limits.
    pub(super) fn exceeded(&self) -> Option<usize> {
        self.rejected.then_some(self.bytes_max)
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, max: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_add(desired.saturating_sub(current));
        let is_admitted = self.admit(bytes <= self.bytes_max, desired, max);
        if is_admitted {
            self.bytes = bytes;
        }
        Ok(is_admitted)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // The instance requested more than a memory can have, or the machine has no memory left. If `memory_growing` has
        // counted this growth, the instance can get less than its limit.
        self.rejected = true;
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, max: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.table_elements.saturating_add(desired.saturating_sub(current));
        let is_admitted = self.admit(elements <= TABLE_ELEMENTS_MAX, desired, max);
        if is_admitted {
            self.table_elements = elements;
        }
        Ok(is_admitted)
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

    /// A module with two memories of one page each. Its functions `a` and `b` grow one of them by a number of pages, and return
    /// the previous number of pages, or -1 if the growth failed.
    const TWO_MEMORIES: &[u8] = b"\0asm\x01\0\0\0\
        \x01\x06\x01\x60\x01\x7f\x01\x7f\
        \x03\x03\x02\0\0\
        \x05\x05\x02\0\x01\0\x01\
        \x07\x09\x02\x01a\0\0\x01b\0\x01\
        \x0a\x0f\x02\x06\0\x20\0\x40\0\x0b\x06\0\x20\0\x40\x01\x0b";
    const PAGE: usize = 64 << 10;

    /// Creates an instance of a module. The class and the limit on memory are those of a plugin.
    fn instance(
        engines: &Engines,
        class: PluginClass,
        memory_bytes: usize,
        module: &[u8],
    ) -> wasmtime::Result<(Store<GuestState>, Instance)> {
        let engine = engines.of(class);
        let limits = PluginLimits { memory_bytes, ..PluginSettings::default().compiled };
        let log = Arc::new(PluginLog::new("?", "?", "?", &limits));
        let mut store = Store::new(engine, GuestState::new(&limits, &log));
        store.limiter(GuestState::limiter);
        store.set_epoch_deadline(1_000_000);
        let instance = Instance::new(&mut store, &Module::new(engine, module).unwrap(), &[])?;
        Ok((store, instance))
    }

    #[test]
    fn memories_of_instance_share_limit() {
        let engines = Engines::new(&PluginSettings::default()).unwrap();
        for class in PluginClass::ALL {
            assert!(instance(&engines, class, 2 * PAGE - 1, TWO_MEMORIES).is_err(), "one page each");
            let (mut store, instance) = instance(&engines, class, 10 * PAGE, TWO_MEMORIES).unwrap();
            let [a, b] = ["a", "b"].map(|name| instance.get_typed_func::<i32, i32>(&mut store, name).unwrap());
            assert_eq!(a.call(&mut store, 5).unwrap(), 1);
            assert_eq!(store.data().memory().high_water(), 7 * PAGE);
            assert_eq!(b.call(&mut store, 3).unwrap(), 1, "exactly the limit");
            assert_eq!(store.data().memory().exceeded(), None);
            assert_eq!(b.call(&mut store, 1).unwrap(), -1);
            assert_eq!(store.data().memory().exceeded(), Some(10 * PAGE));
            assert_eq!(store.data().memory().high_water(), 10 * PAGE);
            assert_eq!(a.call(&mut store, 0).unwrap(), 6, "failed growth changes nothing");
        }
    }

    #[test]
    fn impossible_growth_exceeds_limit() {
        let engines = Engines::new(&PluginSettings::default()).unwrap();
        let (mut store, instance) = instance(&engines, PluginClass::Compiled, 10 * PAGE, TWO_MEMORIES).unwrap();
        let grow = instance.get_typed_func::<i32, i32>(&mut store, "a").unwrap();
        assert_eq!(grow.call(&mut store, 65_536).unwrap(), -1, "4 GiB");
        assert_eq!(store.data().memory().exceeded(), Some(10 * PAGE));
    }

    #[test]
    fn table_growth_stops_at_its_limit() {
        let engines = Engines::new(&PluginSettings::default()).unwrap();
        for class in PluginClass::ALL {
            let (mut store, instance) = instance(&engines, class, 0, GROWING).unwrap();
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
