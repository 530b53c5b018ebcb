//! The plugins of a catalog's derived views.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use larder_common::log_interval::LogInterval;
use larder_plugin_host::{Comparison, PluginRuntime, Transform};

use super::canary::{Canaries, Canary, CanarySet};

/// For each derived view of a catalog, its plugin, if it is loaded.
#[derive(Clone, Debug, Default)]
pub struct Transforms {
    /// The plugins, in the order of [`larder_model::registry::Catalog::derived_views`].
    by_view: Vec<Option<ViewPlugin>>,
    canaries: Canaries,
    missing: MissingPlugins,
    /// The runtime of the plugins; `None` until plugins are set.
    runtime: Option<Arc<PluginRuntime>>,
}

/// The plugin of a derived view.
#[derive(Clone, Debug)]
pub struct ViewPlugin {
    /// The live version.
    pub live: Arc<Transform>,
    /// The comparison of the live version with another one, if there is one.
    pub comparison: Option<Arc<Comparison>>,
}

/// The intervals of the log lines about derived views whose plugin is not loaded, by the name of the view. They outlive
/// changes to plugins and definitions, so that a change does not repeat a line.
#[derive(Clone, Debug, Default)]
pub struct MissingPlugins(Arc<Mutex<HashMap<Arc<str>, Arc<LogInterval>>>>);

// === impl MissingPlugins ===

impl MissingPlugins {
    /// Returns the interval of a view.
    fn interval(&self, view: &Arc<str>) -> Arc<LogInterval> {
        // The map is consistent after every statement, so the map behind a poisoned lock is valid.
        let mut intervals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(intervals.entry(Arc::clone(view)).or_default())
    }
}

// === impl Transforms ===

impl Transforms {
    /// Creates the list of plugins, which must be in the order of the catalog's derived views. `canaries` are versions that
    /// compute a part of the requests instead of the live versions. Canaries beyond the 64th one are not used.
    #[must_use]
    pub fn new(
        by_view: Vec<Option<ViewPlugin>>,
        canaries: Vec<Canary>,
        missing: MissingPlugins,
        runtime: Arc<PluginRuntime>,
    ) -> Self {
        Self { by_view, canaries: Canaries::new(canaries), missing, runtime: Some(runtime) }
    }

    /// Returns the live plugin of the derived view with this index in the catalog, if it is loaded.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Arc<Transform>> {
        Some(&self.by_view.get(index)?.as_ref()?.live)
    }

    /// Returns the plugin of a derived view for requests that use these canaries.
    pub(super) fn get_for(&self, index: usize, canaries: CanarySet) -> Option<&Arc<Transform>> {
        self.canaries.get(index, canaries).or_else(|| self.get(index))
    }

    /// Returns the comparison of the live version of a derived view with another one.
    #[must_use]
    pub fn comparison(&self, index: usize) -> Option<&Arc<Comparison>> {
        self.by_view.get(index)?.as_ref()?.comparison.as_ref()
    }

    /// Returns the canaries.
    pub(super) fn canaries(&self) -> &Canaries {
        &self.canaries
    }

    /// Returns the interval of the log line that the plugin of a derived view is not loaded.
    pub(super) fn missing(&self, view: &Arc<str>) -> Arc<LogInterval> {
        self.missing.interval(view)
    }

    /// Returns the runtime of the plugins. Its compute threads run slow plugins.
    #[must_use]
    pub fn runtime(&self) -> Option<&Arc<PluginRuntime>> {
        self.runtime.as_ref()
    }
}
