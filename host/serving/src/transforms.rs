//! What computes a catalog's derived views.

use std::sync::Arc;

use larder_plugin_host::{PluginRuntime, Transform};

/// For each derived view of a catalog its plugin, if it is there.
#[derive(Clone, Debug, Default)]
pub struct Transforms {
    /// In the order of [`larder_model::registry::Catalog::derived_views`].
    by_view: Vec<Option<Arc<Transform>>>,
    /// Where long work is done; none in a host without plugins.
    runtime: Option<Arc<PluginRuntime>>,
}

// === impl Transforms ===

impl Transforms {
    /// Those of the derived views, in the order of the catalog.
    #[must_use]
    pub fn new(by_view: Vec<Option<Arc<Transform>>>, runtime: Arc<PluginRuntime>) -> Self {
        Self { by_view, runtime: Some(runtime) }
    }

    /// What computes a derived view, by its place in the catalog.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&Arc<Transform>> {
        self.by_view.get(place)?.as_ref()
    }

    /// Where long work is done.
    #[must_use]
    pub fn runtime(&self) -> Option<&Arc<PluginRuntime>> {
        self.runtime.as_ref()
    }
}
