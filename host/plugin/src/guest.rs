//! An instance of a component with its limits, and the classification of its failures.

use std::{sync::Arc, time::Duration};

use wasmtime::{ResourceLimiter, Store, Trap};

use super::{
    Interrupt, PluginLimits,
    bindings::Level,
    engine::{Engines, ticks},
    logs::PluginLog,
    world::{World, WorldPre},
};

/// The host's state for an instance.
#[derive(Debug)]
pub(super) struct GuestState {
    memory: MemoryLimit,
    log: Arc<PluginLog>,
}

/// The current and the maximum memory of an instance.
#[derive(Debug)]
struct MemoryLimit {
    bytes_max: usize,
    table_elements_max: usize,
    /// The highest use so far.
    high_water: usize,
    /// Whether the instance requested more than its limit.
    refused: bool,
}

/// An instance.
pub(super) struct Guest {
    store: Store<GuestState>,
    world: World,
    /// The number of calls so far.
    pub(super) calls: u32,
}

/// The limits of a call into a guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) time: Duration,
    /// The maximum size of the result in bytes.
    pub(super) output_bytes: usize,
}

/// The maximum number of elements of all tables: function pointers, of which a plugin has one for each function in a
/// vtable.
const TABLE_ELEMENTS_MAX: usize = 65_536;
/// Every value that a guest passes counts as some bytes more than its size.
const FUEL_SLACK: usize = 4_096;

// === impl Guest ===

impl Guest {
    /// Creates an instance. Its initialization has the limits of a call.
    pub(super) fn new(
        engines: &Engines,
        pre: &WorldPre,
        limits: &PluginLimits,
        log: &Arc<PluginLog>,
    ) -> Result<Self, wasmtime::Error> {
        let memory = MemoryLimit {
            bytes_max: limits.memory_bytes,
            table_elements_max: TABLE_ELEMENTS_MAX,
            high_water: 0,
            refused: false,
        };
        let mut store = Store::new(pre.engine(), GuestState { memory, log: Arc::clone(log) });
        store.limiter(|state| &mut state.memory);
        store.set_epoch_deadline(ticks(limits.time));
        store.set_hostcall_fuel(limits.output_bytes);
        let running = engines.run();
        let world = pre.instantiate(&mut store)?;
        drop(running);
        Ok(Self { store, world, calls: 0 })
    }

    /// Calls the instance. After an error it must not be called again.
    pub(super) fn call<T>(
        &mut self,
        engines: &Engines,
        bounds: Bounds,
        call: impl FnOnce(&World, &mut Store<GuestState>) -> wasmtime::Result<T>,
    ) -> Result<T, Interrupt> {
        self.calls += 1;
        self.store.set_epoch_deadline(ticks(bounds.time));
        self.store.set_hostcall_fuel(bounds.output_bytes.saturating_add(FUEL_SLACK));
        let running = engines.run();
        let result = call(&self.world, &mut self.store);
        drop(running);
        result.map_err(|error| self.interrupt(&error, bounds))
    }

    /// Returns the highest use of memory in bytes.
    pub(super) fn high_water(&self) -> usize {
        self.store.data().memory.high_water
    }

    fn interrupt(&self, error: &wasmtime::Error, bounds: Bounds) -> Interrupt {
        let memory = &self.store.data().memory;
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Interrupt::Timeout(bounds.time),
            Some(Trap::StackOverflow) => Interrupt::Stack,
            // An allocator that gets no memory aborts.
            Some(_) if memory.refused => Interrupt::Memory { limit: memory.bytes_max },
            Some(trap) => Interrupt::Trap(trap.to_string()),
            None => {
                let message = format!("{:#}", error);
                if message.contains("fuel") {
                    Interrupt::Output { limit: bounds.output_bytes }
                } else {
                    Interrupt::Value(message)
                }
            }
        }
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("calls", &self.calls).finish_non_exhaustive()
    }
}

/// Returns why an instance could not be created: because of the component, or of the pool.
pub(super) fn instantiation_halt(error: &wasmtime::Error, limits: &PluginLimits) -> Interrupt {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Interrupt::Timeout(limits.time),
        Some(Trap::StackOverflow) => Interrupt::Stack,
        Some(trap) => Interrupt::Trap(trap.to_string()),
        None => Interrupt::Trap(format!("{error:#}")),
    }
}

// === impl GuestState ===

impl GuestState {
    /// Writes a log line of the plugin.
    pub(super) fn write(&self, level: Level, message: &str) {
        self.log.write(level, message);
    }
}

// === impl MemoryLimit ===

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, _current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.bytes_max;
        self.refused |= !fits;
        if fits {
            self.high_water = self.high_water.max(desired);
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.table_elements_max;
        self.refused |= !fits;
        Ok(fits)
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::{Instance, Module};

    use super::*;
    use crate::PluginSettings;

    /// A module that Rust compilers do not produce: a table, and an exported `grow` that adds this many empty slots to
    /// it, and returns the previous number, or -1.
    const GROWING: &[u8] = b"\0asm\x01\0\0\0\
        \x01\x06\x01\x60\x01\x7f\x01\x7f\
        \x03\x02\x01\0\
        \x04\x04\x01\x70\0\x01\
        \x07\x08\x01\x04grow\0\0\
        \x0a\x0b\x01\x09\0\xd0\x70\x20\0\xfc\x0f\0\x0b";

    #[test]
    fn table_growth_stops_at_its_limit() {
        let engines = Engines::new(&PluginSettings::default()).unwrap();
        for is_python in [false, true] {
            let engine = engines.of(is_python);
            let memory =
                MemoryLimit { bytes_max: 0, table_elements_max: TABLE_ELEMENTS_MAX, high_water: 0, refused: false };
            let log = Arc::new(PluginLog::new("?", "?", "?", &PluginSettings::default().native));
            let mut store = Store::new(engine, GuestState { memory, log });
            store.limiter(|state| &mut state.memory);
            store.set_epoch_deadline(1_000_000);
            let module = Module::new(engine, GROWING).unwrap();
            let instance = Instance::new(&mut store, &module, &[]).unwrap();
            let grow = instance.get_typed_func::<i32, i32>(&mut store, "grow").unwrap();
            let mut grow_by = |count: i32| grow.call(&mut store, count).unwrap();
            assert_eq!(grow_by(10_000), 1);
            assert_eq!(grow_by(1_000_000_000), -1);
            assert_eq!(grow_by(i32::try_from(TABLE_ELEMENTS_MAX).unwrap()), -1);
            assert_eq!(grow_by(1), 10_001, "what was refused has changed nothing");
            assert!(store.data().memory.refused);
        }
    }
}
