//! Builds training sets from a configuration, for `larder training-set`, `larder backfill`, `larder verify --parity` and the
//! Python package.
//!
//! This needs neither a running server nor the server's store. The views' Parquet files are read, and the plugins in the plugin
//! directory are called.

mod backfill;
mod entity_files;
mod error;
mod manifest;
mod output;
mod request;
mod warnings;

use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use larder_common::{clock::SystemClock, files::read_regular};
use larder_model::{
    model::{DerivedView, FeatureView},
    registry::Catalog,
};
use larder_plugin_host::{PluginRuntime, Transform};
use larder_serving::{HistoricalPlan, MissingPlugins, Transforms};
use larder_source::{Source, Wanted};
use larder_sync::SyncSetting;
use larder_training::{Limits, TrainingError, TrainingJob, TrainingRequest};

pub use self::{
    backfill::{Backfill, BackfillFile},
    entity_files::EntityFiles,
    error::OfflineError,
    manifest::{Derived, Entities, FORMAT, Inputs, Manifest, OutputFile, SourceFile, View},
    output::TrainingWriter,
    request::{KnownAt, SetRequest, TIME_COLUMN, Ttl},
    warnings::Warning,
};
use crate::config::{Config, LoadedDefinitions, load_definitions};

/// The definitions, files and plugins of a configuration.
#[derive(Debug)]
pub struct Project {
    config: Config,
    definitions: LoadedDefinitions,
    setting: SyncSetting,
    runtime: OnceLock<Arc<PluginRuntime>>,
}

// === impl Project ===

impl Project {
    /// Loads the definitions that a configuration names.
    ///
    /// # Errors
    /// [`OfflineError::Config`].
    pub fn load(config: Config) -> Result<Self, OfflineError> {
        let definitions = load_definitions(&config)?;
        let setting = config.sync_setting(Arc::new(SystemClock));
        Ok(Self { config, definitions, setting, runtime: OnceLock::new() })
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the definitions.
    #[must_use]
    pub fn definitions(&self) -> &LoadedDefinitions {
        &self.definitions
    }

    /// Prepares a training set for entity rows with these columns. Loads the plugins that it needs.
    ///
    /// # Errors
    /// [`OfflineError::Plugin`] and [`OfflineError::Training`].
    pub fn job<'a>(
        &'a self,
        request: &'a TrainingRequest<'a>,
        limits: Limits,
        entities: SchemaRef,
    ) -> Result<TrainingJob<'a>, OfflineError> {
        let open = |view: &FeatureView, choose: &dyn Fn(Wanted) -> Wanted| self.setting.open_files(view, choose);
        let transforms = self.transforms(request, &entities)?;
        Ok(TrainingJob::new(self.catalog(), &transforms, Box::new(open), request, limits, entities)?)
    }

    /// Opens the files of a view. `choose` may exclude columns and row groups.
    fn files(
        &self,
        view: &FeatureView,
        choose: impl FnOnce(Wanted) -> Wanted,
    ) -> Result<Box<dyn Source>, OfflineError> {
        let no_files = || TrainingError::NoFiles(view.name.to_string());
        Ok(self.setting.open_files(view, choose).ok_or_else(no_files)?)
    }

    fn catalog(&self) -> &Catalog {
        &self.definitions.catalog
    }

    /// Loads the plugins of the derived views that a request needs. A plugin without a file is not loaded.
    ///
    /// # Errors
    /// [`OfflineError::Plugin`], and [`OfflineError::Training`] if the request cannot be resolved.
    pub(crate) fn transforms(
        &self,
        request: &TrainingRequest<'_>,
        entities: &SchemaRef,
    ) -> Result<Transforms, OfflineError> {
        request.check_entities(entities)?;
        let names: Vec<&str> = entities.fields().iter().map(|field| field.name().as_str()).collect();
        let (selection, full) = (&request.selection, request.full_feature_names);
        let needed = HistoricalPlan::new(self.catalog(), &Transforms::default(), selection, full, &names);
        let needed = needed.map_err(TrainingError::from)?.plan;
        if needed.steps.is_empty() || self.config.plugins.dir.is_none() {
            return Ok(Transforms::default());
        }
        let runtime = self.runtime()?;
        let transform = |view: &Arc<DerivedView>| {
            let is_needed = needed.steps.iter().any(|step| step.view.name == view.name);
            if is_needed { self.transform(runtime, view) } else { Ok(None) }
        };
        let by_view = self.catalog().derived_views().iter().map(transform).collect::<Result<_, _>>()?;
        Ok(Transforms::new(by_view, MissingPlugins::default(), Arc::clone(runtime)))
    }

    fn runtime(&self) -> Result<&Arc<PluginRuntime>, OfflineError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = PluginRuntime::new(self.config.plugins.settings.clone())
            .map_err(|why| OfflineError::PluginRuntime(why.to_string()))?;
        Ok(self.runtime.get_or_init(|| runtime))
    }

    fn transform(
        &self,
        runtime: &Arc<PluginRuntime>,
        view: &Arc<DerivedView>,
    ) -> Result<Option<Arc<Transform>>, OfflineError> {
        let Some(dir) = &self.config.plugins.dir else { return Ok(None) };
        let path = dir.join(format!("{}.wasm", view.plugin));
        let error = |why: String| OfflineError::Plugin { path: path.clone(), why };
        if !path.try_exists().map_err(|why| error(why.to_string()))? {
            return Ok(None);
        }
        let bytes = read_regular(&path, self.config.plugins.settings.component_bytes_max());
        let bytes = bytes.map_err(|why| error(why.to_string()))?;
        let component = runtime.load(&bytes).map_err(|why| error(why.to_string()))?;
        Transform::bind(runtime, &component, view).map(Some).map_err(|why| error(why.to_string()))
    }
}
