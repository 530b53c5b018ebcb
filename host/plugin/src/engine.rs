//! The engines that run components, and the clock that ends their calls.
//!
//! There are two engines, for a pool's slots have one size: a Python interpreter needs more of everything than what a
//! compiler writes.

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

/// The engines of a host.
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
    /// Guests that run.
    running: AtomicUsize,
    /// Whether the thread sleeps, and has to be woken.
    parked: AtomicBool,
    /// Whether the host is done with it.
    over: AtomicBool,
}

/// While this lives, time counts.
#[derive(Debug)]
pub(super) struct Running<'t>(&'t Shared);

/// How often time is looked at.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// How many ticks without a guest before the thread sleeps: waking it costs a system call, ticking next to nothing.
const IDLE_TICKS: u32 = 100;

/// Stack of a guest. It is taken from the calling thread's, which has eight times as much.
const STACK_BYTES: usize = 256 << 10;

/// Instances that a host has at a time. Slots are address space and no memory while nobody uses them.
const NATIVE_INSTANCES: u32 = 512;
const PYTHON_INSTANCES: u32 = 64;

/// What a component may consist of.
struct Shape {
    instances: u32,
    core_instances: u32,
    tables: u32,
    table_elements: usize,
}

// === impl Engines ===

impl Engines {
    pub(super) fn new(settings: &PluginSettings) -> Result<Self, PluginError> {
        // A component with imports has an adapter or two beside its module.
        let native = Shape { instances: NATIVE_INSTANCES, core_instances: 8, tables: 4, table_elements: 16_384 };
        // An interpreter is linked of some dozens of modules, which share a table.
        let python = Shape { instances: PYTHON_INSTANCES, core_instances: 100, tables: 50, table_elements: 65_536 };
        let native = engine(&native, &settings.native)?;
        let python = engine(&python, &settings.python)?;
        let ticker = Ticker::start(vec![native.clone(), python.clone()])?;
        Ok(Self { native, python, ticker })
    }

    pub(super) fn of(&self, is_python: bool) -> &Engine {
        if is_python { &self.python } else { &self.native }
    }

    /// Lets time count.
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

/// The engine of the compiler's process. It compiles code for both engines, which differ only in the limits of their
/// instances, and does not run any: so it reserves no address space for instances.
pub(super) fn compiling() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

/// The part of the configuration that affects code. wasmtime rejects code from a different configuration.
fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Off as long as the crate's features are what they are; on, every call would pay for tasks that nobody wants.
        .concurrency_support(false)
        .epoch_interruption(true)
        // The same bits on every machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .max_wasm_stack(STACK_BYTES)
        .memory_init_cow(true)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config
}

/// The ticks after which a limit of time is over. The first one may come at once.
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
                // Who comes between these two lines sees that it sleeps, and wakes it: `unpark` before `park` counts.
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
