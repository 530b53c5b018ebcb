//! Feast's registry, `registry.db`, to the same raw definitions that YAML files are read into.
//!
//! The file is one protobuf message, `feast.core.Registry`, without a header. It says much that Larder does not need
//! and some things that it cannot do. What cannot be served is left out with the reason, and the rest is served: one
//! view on a data warehouse must not take the others with it.

mod proto;
mod views;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use prost::Message as _;

use self::views::Importer;
use super::Definitions;
use crate::model::AwsPlace;

/// A Feast registry that was read.
#[derive(Clone, Debug)]
pub struct FeastRegistry(proto::Registry);

/// Where the rows of imported views come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeastValues {
    /// From the views' batch sources: Parquet files.
    BatchSources,
    /// From the SQLite file that Feast's local provider keeps, as definitions write its path.
    OnlineStore(String),
    /// From tables in DynamoDB, each named by this template: `{project}` and `{table_name}` stand for what they say.
    DynamoDb {
        /// `table_name_template:` of `feature_store.yaml`.
        template: String,
        /// Where they are.
        place: AwsPlace,
        /// How often those without a stream are read anew.
        every: Option<Duration>,
    },
}

/// Why bytes are no registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRegistry {
    /// Not one byte.
    #[error("the file is empty: `feast apply` fills it")]
    Empty,
    /// Not the message, or cut off.
    #[error("this is no Feast registry, or a part of one: {0}")]
    Broken(String),
    /// A message that says nothing of what a registry has to say.
    #[error("this is no Feast registry: it has no schema version")]
    Foreign,
}

// === impl FeastRegistry ===

impl FeastRegistry {
    /// Reads a registry file.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoRegistry> {
        if bytes.is_empty() {
            return Err(NoRegistry::Empty);
        }
        let registry = proto::Registry::decode(bytes).map_err(|error| NoRegistry::Broken(error.to_string()))?;
        // Every registry has one; many a byte string that is no registry happens to decode.
        if registry.registry_schema_version.is_empty() { Err(NoRegistry::Foreign) } else { Ok(Self(registry)) }
    }

    /// The projects that something in it belongs to.
    #[must_use]
    pub fn projects(&self) -> BTreeSet<&str> {
        let Self(registry) = self;
        let entities = registry.entities.iter().filter_map(|entity| entity.spec.as_ref()).map(|spec| &*spec.project);
        let views = registry.feature_views.iter().filter_map(|view| view.spec.as_ref()).map(|spec| &*spec.project);
        entities.chain(views).filter(|project| !project.is_empty()).collect()
    }

    /// The definitions of a project. `file` stands in messages.
    #[must_use]
    pub fn definitions(&self, file: &str, project: &str, values: &FeastValues) -> Definitions {
        Importer::new(file, project, values).import(&self.0)
    }

    /// The source text of a project's on-demand views, by name, as far as the registry has it. It is Python, which
    /// nothing here runs.
    #[must_use]
    pub fn python(&self, project: &str) -> BTreeMap<String, String> {
        let specs = self.0.on_demand_feature_views.iter().filter_map(|view| view.spec.as_ref());
        specs
            .filter(|spec| spec.project == project)
            .filter_map(|spec| {
                let newer = spec.feature_transformation.as_ref().and_then(|body| body.user_defined_function.as_ref());
                let function = newer.or(spec.user_defined_function.as_ref())?;
                Some((spec.name.clone(), function.body_text.clone()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
