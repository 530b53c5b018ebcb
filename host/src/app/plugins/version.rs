//! A version of a plugin.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use larder_http::{DeployReport, PluginVersion};
use larder_model::model::DerivedView;
use larder_plugin_host::{Acceptance, Component, Digest, Signature, Transform};

use super::error::DeployError;

/// A version of a plugin, bound to the derived views that name the plugin.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) component: Arc<Component>,
    pub(super) transforms: BTreeMap<Arc<str>, Arc<Transform>>,
    /// The definitions of the views when the version was bound to them.
    pub(super) views: BTreeMap<Arc<str>, Arc<DerivedView>>,
}

/// A version of a plugin's history that a rollback restores.
#[derive(Debug)]
pub(in crate::app) struct ChosenVersion {
    pub(super) component: Arc<Component>,
    /// The file from which the version was loaded; `None` if the version was in memory already.
    pub(super) bytes: Option<Vec<u8>>,
    /// Whether a file in the plugin directory that waits for the end of a rollout is not replaced.
    pub(super) keeps_waiting_file: bool,
}

// === impl Version ===

impl Version {
    pub(super) fn set_in_service(&self, is_in_service: bool) {
        self.transforms.values().for_each(|transform| transform.set_in_service(is_in_service));
    }

    pub(super) fn digest(&self) -> &Digest {
        self.component.digest()
    }

    /// Returns a version that is not bound to any view yet.
    pub(super) fn unbound(component: Arc<Component>) -> Self {
        Self { component, transforms: BTreeMap::new(), views: BTreeMap::new() }
    }

    /// Returns whether this is the version of a component.
    pub(super) fn is(&self, component: &Component) -> bool {
        self.component.digest() == component.digest()
    }

    /// Runs the acceptance checks for each view. `live` is the version that serves these views now.
    pub(super) fn accept(&self, live: Option<&Self>) -> Result<(), DeployError> {
        let Signature { name, version, .. } = self.component.signature();
        for (view, transform) in &self.transforms {
            let live = live.and_then(|live| live.transforms.get(view)).map(|live| &**live);
            let accepted = transform.accept(live).map_err(|rejection| DeployError::Rejected {
                plugin: name.clone(),
                version: version.clone(),
                view: view.to_string(),
                rejection: Box::new(rejection),
            })?;
            if let Some((row, error)) = accepted.first_failed {
                let Acceptance { generated, served, failed, .. } = accepted;
                tracing::warn!(plugin = name, version, %view, generated, served, failed, first = %row, %error, "rows failed in the acceptance checks");
            }
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> PluginVersion {
        let signature = self.component.signature();
        PluginVersion {
            version: signature.version.clone(),
            digest: self.component.digest().to_string(),
            language: self.component.language().to_string(),
            bytes: self.component.bytes(),
            doc: signature.doc.clone(),
        }
    }

    pub(super) fn report(&self, replaced: Option<&Self>, took: Duration) -> DeployReport {
        let signature = self.component.signature();
        DeployReport {
            plugin: signature.name.clone(),
            version: signature.version.clone(),
            digest: self.component.digest().to_string(),
            replaced: replaced.map(|version| version.component.signature().version.clone()),
            views: self.transforms.keys().map(ToString::to_string).collect(),
            compiled: self.component.was_compiled(),
            seconds: took.as_secs_f64(),
            overridden: None,
            dropped: None,
        }
    }
}

// === impl ChosenVersion ===

impl ChosenVersion {
    /// Returns a version that is in memory.
    pub(super) fn in_memory(component: &Arc<Component>) -> Self {
        Self { component: Arc::clone(component), bytes: None, keeps_waiting_file: false }
    }
}
