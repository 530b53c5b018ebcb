//! The engines that run components, and the timer that interrupts their calls.
//!
//! There are two engines, because all slots of an instance pool have the same size, and an interpreter needs much larger
//! slots than a compiled plugin.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::{
    PluginClass, PluginError, PluginSettings,
    function_cache::FunctionCache,
    shape::{Shape, TABLE_ELEMENTS_MAX},
};

/// The engines of a server.
#[derive(Debug)]
pub(super) struct Engines {
    compiled: Engine,
    interpreted: Engine,
    ticker: Ticker,
}

/// A thread that advances the engines' epochs each millisecond while a guest runs, and sleeps otherwise.
#[derive(Debug)]
struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Shared {
    /// The number of running guests.
    running: AtomicUsize,
    /// Whether the thread is parked and must be woken.
    parked: AtomicBool,
    /// Whether the server is shutting the thread down.
    over: AtomicBool,
}

/// Represents a running guest. The timer runs while this value exists.
#[derive(Debug)]
pub(super) struct Running<'t>(&'t Shared);

/// The interval between ticks of the timer, which is the resolution of time limits.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// The number of ticks without a running guest after which the thread sleeps. It does not sleep earlier, because waking
/// the thread costs a system call, and a tick costs almost nothing.
const IDLE_TICKS: u32 = 100;

/// The maximum stack of a guest in bytes. A guest runs on the stack of the thread that calls it, which has 2 MiB by
/// default.
const STACK_BYTES: usize = 256 << 10;

// === impl Engines ===

impl Engines {
    pub(super) fn new(settings: &PluginSettings) -> Result<Self, PluginError> {
        let compiled = engine(PluginClass::Compiled, settings)?;
        let interpreted = engine(PluginClass::Interpreted, settings)?;
        let ticker = Ticker::start(vec![compiled.clone(), interpreted.clone()])?;
        Ok(Self { compiled, interpreted, ticker })
    }

    /// Returns the engine for plugins of a class.
    pub(super) fn of(&self, class: PluginClass) -> &Engine {
        match class {
            PluginClass::Compiled => &self.compiled,
            PluginClass::Interpreted => &self.interpreted,
        }
    }

    /// Starts the timer for a call.
    pub(super) fn run(&self) -> Running<'_> {
        self.ticker.run()
    }
}

fn engine(class: PluginClass, settings: &PluginSettings) -> Result<Engine, PluginError> {
    let failed = |error: wasmtime::Error| PluginError::Engine(format!("{error:#}"));
    let shape = Shape::of(class);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(shape.instances)
        .total_core_instances(shape.instances * shape.core_instances)
        .total_memories(shape.instances * shape.memories)
        .total_tables(shape.instances * shape.tables)
        .max_core_instances_per_component(shape.core_instances)
        .max_memories_per_component(shape.memories)
        .max_memories_per_module(shape.memories)
        .max_tables_per_component(shape.tables)
        .max_tables_per_module(shape.tables)
        .table_elements(TABLE_ELEMENTS_MAX)
        // The limits of a plugin are enforced when its memory grows. A slot has to suffice for each plugin.
        .max_memory_size(settings.highest_limits(class).memory_bytes)
        .max_core_instance_size(4 << 20)
        .max_component_instance_size(4 << 20)
        .max_unused_warm_slots(16);
    Engine::new(config().allocation_strategy(InstanceAllocationStrategy::Pooling(pool))).map_err(failed)
}

/// Creates the engine of the compiler's process. Both engines of the server can load the code that it compiles, because
/// they differ only in the limits of their instances. The engine does not run code, so it reserves no address space for
/// instances. With more than one thread, it uses rayon's global pool. With `functions`, it compiles only functions that
/// are not in this cache.
pub(super) fn compiling(threads: usize, functions: Option<Arc<FunctionCache>>) -> wasmtime::Result<Engine> {
    let mut config = config();
    config.parallel_compilation(threads > 1);
    if let Some(functions) = functions {
        config.enable_incremental_compilation(functions)?;
    }
    Engine::new(&config)
}

/// Returns the part of the configuration that affects compiled code. wasmtime rejects code that was compiled with a
/// different configuration.
fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // With the current crate features, this is off by default. If it were on, each call would be slower because of
        // async tasks, which plugins do not use.
        .concurrency_support(false)
        .epoch_interruption(true)
        // A computed NaN has the same bits on every machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .max_wasm_stack(STACK_BYTES)
        .memory_init_cow(true)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config
}

/// Returns the number of ticks for a time limit. One tick is added, because the first tick may come immediately.
pub(super) fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1) + 1
}

// === impl Ticker ===

impl Ticker {
    fn start(engines: Vec<Engine>) -> Result<Self, PluginError> {
        let shared = Arc::new(Shared::default());
        let ticking = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("plugin-epochs".to_owned())
            .spawn(move || ticking.tick(&engines))
            .map_err(PluginError::Thread)?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    fn run(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Shared {
    fn tick(&self, engines: &[Engine]) {
        let mut idle = 0;
        while !self.over.load(Ordering::SeqCst) {
            if self.running.load(Ordering::SeqCst) > 0 {
                idle = 0;
            } else {
                idle += 1;
            }
            if idle > IDLE_TICKS {
                // A guest may start between the check below and `park`. Its caller then sees `parked` and calls
                // `unpark`, after which `park` returns immediately.
                self.parked.store(true, Ordering::SeqCst);
                if self.running.load(Ordering::SeqCst) == 0 && !self.over.load(Ordering::SeqCst) {
                    thread::park();
                }
                self.parked.store(false, Ordering::SeqCst);
                idle = 0;
            }
            thread::sleep(TICK);
            engines.iter().for_each(Engine::increment_epoch);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
