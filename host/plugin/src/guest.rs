//! An instance of a component with its limits, and the classification of its failures.

use std::{sync::Arc, time::Duration};

use wasmtime::{Store, Trap};

use super::{
    Interrupt, PluginLimits,
    call_clock::{CallClock, Cost, Exceeded},
    engine::Engines,
    guest_state::GuestState,
    logs::PluginLog,
    world::{World, WorldPre},
};

/// An instance of a component.
pub(super) struct Guest {
    store: Store<GuestState>,
    world: World,
    /// The number of calls so far.
    pub(super) calls: u32,
}

/// The limits of a call into a guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The maximum CPU time.
    pub(super) time: Duration,
    /// The maximum size of the result in bytes.
    pub(super) output_bytes: usize,
}

/// The number of bytes added to the limit on a call's result. wasmtime counts a few bytes more than the size of each
/// value that a guest passes to the host.
const FUEL_SLACK: usize = 4_096;

// === impl Guest ===

impl Guest {
    /// Creates an instance. The component's initialization code runs with the limits of a call.
    pub(super) fn new(
        engines: &Engines,
        pre: &WorldPre,
        limits: &PluginLimits,
        log: &Arc<PluginLog>,
    ) -> Result<Self, wasmtime::Error> {
        let mut store = Store::new(pre.engine(), GuestState::new(limits, log));
        store.limiter(GuestState::limiter);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().clock().on_deadline()));
        store.data_mut().clock().start(limits.time);
        store.set_epoch_deadline(CallClock::first_deadline());
        store.set_hostcall_fuel(limits.output_bytes);
        let running = engines.run();
        let world = pre.instantiate(&mut store)?;
        drop(running);
        Ok(Self { store, world, calls: 0 })
    }

    /// Calls the instance. After an error, the instance must not be called again.
    pub(super) fn call<T>(
        &mut self,
        engines: &Engines,
        bounds: Bounds,
        call: impl FnOnce(&World, &mut Store<GuestState>) -> wasmtime::Result<T>,
    ) -> Result<T, Interrupt> {
        self.calls += 1;
        let state = self.store.data_mut();
        state.take_panic();
        state.clock().start(bounds.time);
        self.store.set_epoch_deadline(CallClock::first_deadline());
        self.store.set_hostcall_fuel(bounds.output_bytes.saturating_add(FUEL_SLACK));
        let running = engines.run();
        let result = call(&self.world, &mut self.store);
        drop(running);
        result.map_err(|error| self.interrupt(&error, bounds))
    }

    /// Returns the cost of the last call. Must be called right after it.
    pub(super) fn cost(&mut self) -> Cost {
        self.store.data_mut().clock().cost()
    }

    /// Returns the highest use of memory in bytes.
    pub(super) fn high_water(&self) -> usize {
        self.store.data().memory().high_water()
    }

    /// Returns the limit on memory, if the instance ever requested more.
    pub(super) fn memory_exceeded(&self) -> Option<usize> {
        self.store.data().memory().exceeded()
    }

    fn interrupt(&mut self, error: &wasmtime::Error, bounds: Bounds) -> Interrupt {
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => match self.store.data_mut().clock().exceeded() {
                Some(Exceeded::Elapsed(limit)) => Interrupt::Elapsed(limit),
                Some(Exceeded::Cpu(limit)) => Interrupt::Timeout(limit),
                None => Interrupt::Timeout(bounds.time),
            },
            Some(Trap::StackOverflow) => Interrupt::Stack,
            // A guest's allocator aborts if it gets no memory, so any other trap may be due to the memory limit.
            Some(trap) => match self.store.data().memory().exceeded() {
                Some(limit) => Interrupt::Memory { limit },
                None => match self.store.data_mut().take_panic() {
                    Some(panic) => Interrupt::Panic(panic),
                    None => Interrupt::Trap(trap_text(*trap)),
                },
            },
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

/// Returns why the initialization code of a component failed.
pub(super) fn instantiation_halt(error: &wasmtime::Error, limits: &PluginLimits) -> Interrupt {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Interrupt::Timeout(limits.time),
        Some(Trap::StackOverflow) => Interrupt::Stack,
        Some(trap) => Interrupt::Trap(trap_text(*trap)),
        None => Interrupt::Trap(format!("{error:#}")),
    }
}

/// Returns the reason of a trap, without wasmtime's prefixes.
fn trap_text(trap: Trap) -> String {
    let text = trap.to_string();
    let text = text.strip_prefix("wasm trap: ").unwrap_or(&text);
    text.strip_prefix("wasm ").unwrap_or(text).to_owned()
}
