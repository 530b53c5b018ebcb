//! The plugin runtime, one per process.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use larder_common::compute::Compute;

use super::{
    CallObserver, Component, LoadError, PluginError, PluginSettings, cache::Cache, compiler::Compiler, engine::Engines,
    shadow::ShadowThread,
};

/// The shared resources for running plugins: the engines, the timer that interrupts calls, the compiler, the cache of
/// compiled code, the threads for long calls, and the threads for batches that failed.
#[derive(Debug)]
pub struct PluginRuntime {
    pub(super) engines: Engines,
    cache: Option<Cache>,
    compiler: Compiler,
    compute: Compute,
    isolation: Compute,
    settings: PluginSettings,
    /// Started when two versions are compared for the first time.
    shadow: OnceLock<Arc<ShadowThread>>,
    observer: OnceLock<Arc<dyn CallObserver>>,
}

/// The maximum number of queued jobs for the isolation threads. Each derived view has at most one job with a permit, and
/// the jobs of requests that waited too long for the permit.
const ISOLATION_WAITING_MAX: usize = 1_024;

// === impl PluginRuntime ===

impl PluginRuntime {
    /// Sets up the engines and starts the threads.
    ///
    /// # Errors
    /// [`PluginError`] if address space for instances cannot be reserved, or a thread cannot be started.
    pub fn new(settings: PluginSettings) -> Result<Arc<Self>, PluginError> {
        let cache = settings.cache_dir.as_deref().and_then(|dir| Cache::open(dir, settings.cache_bytes_max));
        let engines = Engines::new(&settings)?;
        let start = |name: &str, waiting_max: usize| {
            Compute::start(name, settings.compute_threads, waiting_max).map_err(PluginError::Thread)
        };
        let compute = start("plugin-compute", settings.compute_waiting_max)?;
        let isolation = start("plugin-isolated", ISOLATION_WAITING_MAX)?;
        let (program, args) = (settings.compiler.clone(), settings.compiler_args.clone());
        let compiler = Compiler::new(program, args, settings.compile, settings.compile_threads);
        Ok(Arc::new(Self {
            engines,
            cache,
            compiler,
            compute,
            isolation,
            settings,
            shadow: OnceLock::new(),
            observer: OnceLock::new(),
        }))
    }

    /// Checks a file, compiles it in a child process unless the cache has its code, and calls it for its signature.
    /// Blocks during the compilation, which takes seconds for an interpreter, and at most [`CompileLimits::time`] of
    /// CPU time.
    ///
    /// # Errors
    /// The reason why the file cannot be loaded.
    ///
    /// [`CompileLimits::time`]: super::CompileLimits::time
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Component>, LoadError> {
        let loaded = self.load_with(Some(&self.compiler), bytes)?;
        loaded.ok_or_else(|| LoadError::Compiler("it produced no component".to_owned()))
    }

    /// Loads a file if its code is in the cache. Otherwise checks the file as far as possible without the compiler, and
    /// returns `None`.
    ///
    /// # Errors
    /// The reason why the file cannot be loaded.
    pub fn load_cached(&self, bytes: &[u8]) -> Result<Option<Arc<Component>>, LoadError> {
        self.load_with(None, bytes)
    }

    fn load_with(&self, compiler: Option<&Compiler>, bytes: &[u8]) -> Result<Option<Arc<Component>>, LoadError> {
        let loaded = Component::load(&self.engines, &self.settings, self.cache.as_ref(), compiler, bytes)?;
        Ok(loaded.map(Arc::new))
    }

    /// Stops running compilations and allows no further ones.
    pub fn stop_compiling(&self) {
        self.compiler.stop();
    }

    /// Returns the threads for long calls.
    #[must_use]
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// Returns the threads for batches that failed on other threads. [`Transform::isolation`] admits batches to them.
    ///
    /// [`Transform::isolation`]: super::Transform::isolation
    #[must_use]
    pub fn isolation(&self) -> &Compute {
        &self.isolation
    }

    /// Returns the thread that compares versions. Starts it if it is not running.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn shadow_thread(&self) -> io::Result<&Arc<ShadowThread>> {
        if let Some(thread) = self.shadow.get() {
            return Ok(thread);
        }
        let thread = ShadowThread::start(self.settings.shadow_cpu_percent)?;
        // If another caller started a thread meanwhile, the new one ends when it is dropped.
        Ok(self.shadow.get_or_init(|| thread))
    }

    /// Sets the observer of all batches. Has no effect if there is one already.
    pub fn set_observer(&self, observer: Arc<dyn CallObserver>) {
        // The error returns the second observer.
        let _ = self.observer.set(observer);
    }

    /// Returns the observer, if it observes a batch with or without failed rows.
    #[inline]
    pub(super) fn observer(&self, has_failed: bool) -> Option<&dyn CallObserver> {
        let observer = &**self.observer.get()?;
        (has_failed || observer.observes_good_calls()).then_some(observer)
    }

    /// Returns the settings.
    #[must_use]
    pub fn settings(&self) -> &PluginSettings {
        &self.settings
    }
}
