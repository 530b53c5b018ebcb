//! What a host needs to run plugins, once per process.

use std::sync::Arc;

use super::{Component, Compute, LoadError, PluginError, PluginSettings, cache::Cache, engine::Engines};

/// Engines, the clock that ends calls, the cache of compiled code, and threads for long work.
#[derive(Debug)]
pub struct PluginRuntime {
    pub(super) engines: Engines,
    cache: Option<Cache>,
    compute: Compute,
    settings: PluginSettings,
}

// === impl PluginRuntime ===

impl PluginRuntime {
    /// Sets up the engines and starts the threads.
    ///
    /// # Errors
    /// When the operating system refuses memory maps, threads, or the cache's directory.
    pub fn new(settings: PluginSettings) -> Result<Arc<Self>, PluginError> {
        let cache = settings.cache_dir.as_deref().map(Cache::open).transpose()?;
        let engines = Engines::new(&settings)?;
        let compute = Compute::start("plugin-compute", settings.compute_threads, settings.compute_waiting_max)?;
        Ok(Arc::new(Self { engines, cache, compute, settings }))
    }

    /// Checks a file, compiles it or finds its code in the cache, and asks it what it is. Blocks, for seconds where a
    /// Python plugin is compiled.
    ///
    /// # Errors
    /// Why the file is no plugin.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Component>, LoadError> {
        Component::load(&self.engines, &self.settings, self.cache.as_ref(), bytes).map(Arc::new)
    }

    /// The threads for long work.
    #[must_use]
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// What it was set up with.
    #[must_use]
    pub fn settings(&self) -> &PluginSettings {
        &self.settings
    }
}
