//! The plugins of a catalog's derived views.

use std::sync::Arc;

use larder_common::log_interval::LogInterval;
use larder_plugin_host::{PluginRuntime, Transform};

/// For each derived view of a catalog, its plugin, if it is loaded.
#[derive(Clone, Debug, Default)]
pub struct Transforms {
    /// The plugins, in the order of [`larder_model::registry::Catalog::derived_views`].
    by_view: Vec<Option<Arc<Transform>>>,
    /// For each derived view, the interval of the log line that its plugin is not loaded.
    missing: Vec<Arc<LogInterval>>,
    /// The runtime of the plugins; `None` until plugins are set.
    runtime: Option<Arc<PluginRuntime>>,
}

// === impl Transforms ===

impl Transforms {
    /// Creates the list of plugins, which must be in the order of the catalog's derived views.
    #[must_use]
    pub fn new(by_view: Vec<Option<Arc<Transform>>>, runtime: Arc<PluginRuntime>) -> Self {
        let missing = by_view.iter().map(|_| Arc::default()).collect();
        Self { by_view, missing, runtime: Some(runtime) }
    }

    /// Returns the plugin of the derived view with this index in the catalog, if it is loaded.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Arc<Transform>> {
        self.by_view.get(index)?.as_ref()
    }

    /// Returns the interval of the log line that the plugin of a derived view is not loaded.
    pub(super) fn missing(&self, index: usize) -> Option<&Arc<LogInterval>> {
        self.missing.get(index)
    }

    /// Returns the runtime of the plugins. Its compute threads run slow plugins.
    #[must_use]
    pub fn runtime(&self) -> Option<&Arc<PluginRuntime>> {
        self.runtime.as_ref()
    }
}
