//! The engines that run components, and the timer that interrupts their calls.
//!
//! There are two engines, because all slots of a pool have the same size: a Python interpreter needs more of everything
//! than compiled plugins.

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

use super::{PluginError, PluginLimits, PluginSettings};

/// The engines of a server.
#[derive(Debug)]
pub(super) struct Engines {
    native: Engine,
    python: Engine,
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

/// Keeps the timer running while it exists.
#[derive(Debug)]
pub(super) struct Running<'t>(&'t Shared);

/// The resolution of time limits.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// The number of ticks without a guest after which the thread sleeps: waking it costs a system call, a tick almost
/// nothing.
const IDLE_TICKS: u32 = 100;

/// The stack of a guest. It is part of the calling thread's stack, which is eight times as large.
const STACK_BYTES: usize = 256 << 10;

/// The maximum number of instances at a time. Unused slots take address space, but no memory.
const NATIVE_INSTANCES: u32 = 512;
const PYTHON_INSTANCES: u32 = 64;

/// The maximum contents of a component.
struct Shape {
    instances: u32,
    core_instances: u32,
    tables: u32,
    table_elements: usize,
}

// === impl Engines ===

impl Engines {
    pub(super) fn new(settings: &PluginSettings) -> Result<Self, PluginError> {
        // A component with imports has one or two adapters in addition to its module.
        let native = Shape { instances: NATIVE_INSTANCES, core_instances: 8, tables: 4, table_elements: 16_384 };
        // An interpreter is linked from dozens of modules, which share a table.
        let python = Shape { instances: PYTHON_INSTANCES, core_instances: 100, tables: 50, table_elements: 65_536 };
        let native = engine(&native, &settings.native)?;
        let python = engine(&python, &settings.python)?;
        let ticker = Ticker::start(vec![native.clone(), python.clone()])?;
        Ok(Self { native, python, ticker })
    }

    pub(super) fn of(&self, is_python: bool) -> &Engine {
        if is_python { &self.python } else { &self.native }
    }

    /// Starts the timer for a call.
    pub(super) fn run(&self) -> Running<'_> {
        self.ticker.run()
    }
}

fn engine(shape: &Shape, limits: &PluginLimits) -> Result<Engine, PluginError> {
    let failed = |error: wasmtime::Error| PluginError::Engine(format!("{error:#}"));
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(shape.instances)
        .total_core_instances(shape.instances * 8)
        .total_memories(shape.instances)
        .total_tables(shape.instances * 4)
        .max_core_instances_per_component(shape.core_instances)
        .max_memories_per_component(1)
        .max_tables_per_component(shape.tables)
        .table_elements(shape.table_elements)
        .max_memory_size(limits.memory_bytes)
        .max_core_instance_size(4 << 20)
        .max_component_instance_size(4 << 20)
        .max_unused_warm_slots(16);
    Engine::new(config().allocation_strategy(InstanceAllocationStrategy::Pooling(pool))).map_err(failed)
}

/// Creates the engine of the compiler's process. It compiles code for both engines, which differ only in the limits of
/// their instances, and does not run any: so it reserves no address space for instances.
pub(super) fn compiling() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

/// Returns the part of the configuration that affects code. wasmtime rejects code from a different configuration.
fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Off with the current crate features; if it were on, every call would pay for async tasks that are not used.
        .concurrency_support(false)
        .epoch_interruption(true)
        // NaN has the same bits on every machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .max_wasm_stack(STACK_BYTES)
        .memory_init_cow(true)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config
}

/// Returns the number of ticks for a time limit. The first tick may come immediately.
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
                // A caller between these two lines sees that the thread is parked and wakes it: `unpark` before `park`
                // counts.
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
