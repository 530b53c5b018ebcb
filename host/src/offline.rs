//! Builds training sets from a configuration, for `larder training-set`, `larder backfill`, `larder verify --parity` and the
//! Python package.
//!
//! This needs neither a running server nor the server's store. The views' Parquet files are read, and the plugins in the plugin
//! directory are called.

mod backfill;
mod entity_files;
mod error;
mod file_writer;
mod location;
mod manifest;
mod new_file;
mod output;
mod request;
mod row_batches;
mod target;
mod warnings;

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, OnceLock},
};

use arrow::datatypes::SchemaRef;
use larder_common::{clock::SystemClock, files::read_regular};
use larder_model::{
    model::{DerivedView, FeatureView, InputSource},
    registry::Catalog,
};
use larder_plugin_host::{PluginRuntime, Transform};
use larder_serving::{DerivedPlan, HistoricalPlan, MissingPlugins, Step, Transforms, ViewPlugin};
use larder_source::{ParquetFiles, ParquetLimits, S3Parquet, Source, Wanted};
use larder_sync::SyncSetting;
use larder_training::{DerivedJob, Limits, TrainingError, TrainingJob, TrainingRequest};

use self::target::Target;
pub use self::{
    backfill::{Backfill, BackfillFile},
    entity_files::{EntityFiles, EntityRows},
    error::OfflineError,
    file_writer::OutputFile,
    location::{Location, NotAnObject},
    manifest::{Derived, Entities, EntityFile, FORMAT, Inputs, Manifest, SourceFile, View},
    new_file::PathLock,
    output::{FILE_BYTES, Output, TrainingWriter, Written, WrittenFiles},
    request::{KnownAt, SetRequest, Ttl},
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
        let transforms = self.transforms(request, &entities)?;
        self.job_with(&transforms, request, limits, entities)
    }

    /// Prepares a training set with the plugins that [`Project::transforms`] returned for its request.
    ///
    /// # Errors
    /// [`OfflineError::Training`].
    pub fn job_with<'a>(
        &'a self,
        transforms: &Transforms,
        request: &'a TrainingRequest<'a>,
        limits: Limits,
        entities: SchemaRef,
    ) -> Result<TrainingJob<'a>, OfflineError> {
        let open = |view: &FeatureView, choose: &dyn Fn(Wanted) -> Wanted| self.setting.open_files(view, choose);
        Ok(TrainingJob::new(self.catalog(), transforms, Box::new(open), request, limits, entities)?)
    }

    /// Prepares the derived features of a frame with these columns, with the plugins that [`Project::transforms_of_derived`]
    /// returned for its request.
    ///
    /// # Errors
    /// [`OfflineError::Training`].
    pub fn derived_job<'a>(
        &self,
        transforms: &Transforms,
        request: &'a TrainingRequest<'a>,
        limits: Limits,
        frame: SchemaRef,
    ) -> Result<DerivedJob<'a>, OfflineError> {
        Ok(DerivedJob::new(self.catalog(), transforms, request, limits, frame)?)
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
    pub fn transforms(&self, request: &TrainingRequest<'_>, entities: &SchemaRef) -> Result<Transforms, OfflineError> {
        request.check_entities(entities)?;
        let (selection, full, names) = (&request.selection, request.full_feature_names, names(entities));
        let needed = HistoricalPlan::new(self.catalog(), &Transforms::default(), selection, full, &names);
        self.load_plugins(needed.map_err(TrainingError::from)?.plan.steps.as_slice())
    }

    /// As [`Project::transforms`], for the derived features of a frame, which has no join keys.
    ///
    /// # Errors
    /// As [`Project::transforms`].
    pub fn transforms_of_derived(
        &self,
        request: &TrainingRequest<'_>,
        frame: &SchemaRef,
    ) -> Result<Transforms, OfflineError> {
        request.check_entities(frame)?;
        let (selection, full, names) = (&request.selection, request.full_feature_names, names(frame));
        let needed = DerivedPlan::new(self.catalog(), &Transforms::default(), selection, full, &names);
        self.load_plugins(needed.map_err(TrainingError::from)?.historical.plan.steps.as_slice())
    }

    /// Loads the plugins of derived views, and of the derived views that they read.
    fn load_plugins(&self, steps: &[Step]) -> Result<Transforms, OfflineError> {
        if steps.is_empty() || self.config.plugins.dir.is_none() {
            return Ok(Transforms::default());
        }
        let runtime = self.runtime()?;
        let mut names: HashSet<Arc<str>> = HashSet::new();
        steps.iter().for_each(|step| self.add_derived(&step.view, &mut names));
        let transform = |view: &Arc<DerivedView>| {
            if names.contains(&view.name) { self.transform(runtime, view) } else { Ok(None) }
        };
        let plugin = |view: &Arc<DerivedView>| -> Result<_, OfflineError> {
            Ok(transform(view)?.map(|live| ViewPlugin { live, comparison: None }))
        };
        let by_view = self.catalog().derived_views().iter().map(plugin).collect::<Result<_, _>>()?;
        Ok(Transforms::new(by_view, Vec::new(), MissingPlugins::default(), Arc::clone(runtime)))
    }

    /// Adds the names of a derived view and of the derived views that it reads. The plan without plugins does not have the
    /// latter, because a plugin decides which inputs it reads.
    fn add_derived(&self, view: &DerivedView, names: &mut HashSet<Arc<str>>) {
        if !names.insert(Arc::clone(&view.name)) {
            return;
        }
        for input in &view.inputs {
            if let InputSource::Feature { view, .. } = &input.from
                && let Some(derived) = self.catalog().derived_view(view)
            {
                self.add_derived(derived, names);
            }
        }
    }

    /// Opens Parquet files with all of their columns: a file, a directory, or an `s3://` URL of an object or a prefix. Does not
    /// access them.
    #[must_use]
    pub fn parquet(&self, path: &Path) -> Box<dyn Source> {
        let (limits, clock) = (ParquetLimits::of(self.setting.limits.commit_bytes), Arc::clone(&self.setting.clock));
        match path.to_str().filter(|path| path.starts_with("s3://")) {
            Some(url) => Box::new(S3Parquet::of_all_columns(Arc::clone(&self.setting.aws), url, limits, clock)),
            None => Box::new(ParquetFiles::of_all_columns(path.to_owned(), limits, clock)),
        }
    }

    /// Opens entity rows: a Parquet file, a directory of them, or an `s3://` URL of an object or a prefix.
    ///
    /// # Errors
    /// [`OfflineError::Entities`] and [`OfflineError::EntityColumns`].
    pub fn entities(&self, path: &Path) -> Result<EntityFiles, OfflineError> {
        EntityFiles::open(path, self.parquet(path))
    }

    /// Starts to write a training set. See [`TrainingWriter::create`].
    ///
    /// # Errors
    /// Errors of [`TrainingWriter::create`].
    pub fn create_output(&self, output: &Output, schema: SchemaRef) -> Result<TrainingWriter, OfflineError> {
        TrainingWriter::create(output, schema, &self.setting.aws)
    }

    /// Checks that neither an output nor its manifest is in the files of entity rows, or in the files of one of these views.
    ///
    /// # Errors
    /// [`OfflineError::Output`].
    pub fn check_output<'v>(
        &self,
        at: &Location,
        views: impl Iterator<Item = &'v str>,
        entities: Option<&EntityFiles>,
    ) -> Result<(), OfflineError> {
        let views: Vec<_> = views.filter_map(|name| self.catalog().view(name)).collect();
        for at in [at, &Manifest::location_for(at)] {
            let error = |why: String| Err(OfflineError::Output { at: at.clone(), why });
            let target = Target::of(at)?;
            if entities.is_some_and(|entities| target.is_in(&entities.path().to_string_lossy(), Path::new(""))) {
                return error("it is in the files of the entity rows".to_owned());
            }
            for (view, files) in views.iter().filter_map(|view| Some((view, view.files()?))) {
                if target.is_in(&files.path, &self.setting.base_dir) {
                    return error(format!("it is in the files of feature view '{}'", view.name));
                }
            }
        }
        Ok(())
    }

    fn runtime(&self) -> Result<&Arc<PluginRuntime>, OfflineError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = PluginRuntime::new(self.config.plugins.settings.clone().without_requests())
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

fn names(columns: &SchemaRef) -> Vec<&str> {
    columns.fields().iter().map(|field| field.name().as_str()).collect()
}
