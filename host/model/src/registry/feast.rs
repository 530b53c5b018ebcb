//! Converts Feast's registry, `registry.db`, to the same raw definitions that YAML files are read into.
//!
//! The file is one protobuf message, `feast.core.Registry`, without a header. It contains settings that Larder does not
//! need, and others that Larder does not support. `fields.rs` lists the effect of each field, or the reason why Larder
//! does not read it. Definitions that cannot be served are left out, with the reason. All other definitions are served.
//! For example, a view on a data warehouse does not prevent Larder from serving other views.

mod fields;
mod proto;
mod stored;
mod views;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use prost::Message as _;

use self::{
    fields::{Effect, Finding},
    views::Importer,
};
use super::Definitions;
use crate::model::AwsPlace;

/// A parsed Feast registry.
#[derive(Clone, Debug)]
pub struct FeastRegistry {
    registry: proto::Registry,
    audit: Audit,
    unknown_fields: Vec<String>,
}

/// The unsupported settings of each definition. A key is the number of a field of the registry that lists definitions.
/// Its value has an item for each definition in that list, in the order of the list.
#[derive(Clone, Debug, Default)]
struct Audit(BTreeMap<u32, Vec<Vec<Finding>>>);

/// How a registry's definitions are converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeastOptions {
    /// The source of the rows.
    pub values: FeastValues,
    /// Whether each version of a view has its own table in the online store (`enable_online_feature_view_versioning`).
    pub versioned_tables: bool,
    /// How to treat definitions with fields of a newer Feast.
    pub unknown_fields: UnknownFields,
}

/// How to treat definitions that set fields which this version of Larder does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// The definitions are not served, because an unknown field may change values.
    #[default]
    Refuse,
    /// The definitions are served as if the fields were not set.
    Ignore,
}

/// Where the rows of imported views come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeastValues {
    /// From the views' batch sources: Parquet files.
    BatchSources,
    /// From the SQLite file of Feast's local provider. The path is copied to the definitions.
    OnlineStore(String),
    /// From tables in DynamoDB. The name of each table is the template, with `{project}` and `{table_name}` replaced.
    DynamoDb {
        /// `table_name_template:` of `feature_store.yaml`.
        template: String,
        /// The region and endpoint.
        place: AwsPlace,
        /// How often tables without a stream are read again.
        every: Option<Duration>,
    },
}

/// The error for bytes that are not a registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRegistry {
    /// The bytes are not a protobuf message of this type, or are truncated.
    #[error("this is not a Feast registry, or it is truncated: {0}")]
    Broken(String),
    /// The message has neither a schema version nor a version ID. Every registry has at least one of them.
    #[error("this is not a Feast registry: it has neither a schema version nor a version id")]
    Foreign,
}

// === impl FeastRegistry ===

impl FeastRegistry {
    /// Parses a registry file. As in Feast, an empty file is a registry without definitions.
    ///
    /// # Errors
    /// If the bytes are not a registry.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidRegistry> {
        let registry = proto::Registry::decode(bytes).map_err(|error| InvalidRegistry::Broken(error.to_string()))?;
        // Many byte strings that are not a registry decode without an error. Feast writes a version ID each time it
        // writes the file. It also writes the schema version, unless an empty file existed before.
        let is_registry = !registry.registry_schema_version.is_empty() || is_uuid(&registry.version_id);
        if !is_registry && !bytes.is_empty() {
            return Err(InvalidRegistry::Foreign);
        }
        Ok(Self { registry, audit: Audit::of_registry(bytes), unknown_fields: fields::unknown_in_registry(bytes) })
    }

    /// Returns the names of the projects that have definitions.
    #[must_use]
    pub fn projects(&self) -> BTreeSet<&str> {
        let registry = &self.registry;
        let mut projects = BTreeSet::new();
        macro_rules! add {
            ($($definitions:ident),*) => {$(
                let specs = registry.$definitions.iter().filter_map(|definition| definition.spec.as_ref());
                projects.extend(specs.map(|spec| &*spec.project));
            )*};
        }
        add!(entities, feature_views, stream_feature_views, label_views, on_demand_feature_views, feature_services);
        projects.remove("");
        projects
    }

    /// Returns a message for each field of the registry itself that this version of Larder does not know. For example,
    /// a newer Feast may have a list for a new kind of definition.
    #[must_use]
    pub fn unknown_fields(&self) -> &[String] {
        &self.unknown_fields
    }

    /// Returns the definitions of a project. `file` is used in messages.
    #[must_use]
    pub fn definitions(&self, file: &str, project: &str, options: &FeastOptions) -> Definitions {
        Importer::new(file, project, options).import(&self.registry, &self.audit)
    }

    /// Returns the Python source text of a project's on-demand views, by the name of the view. Leaves out views without
    /// a Python function in the registry. Larder does not run the text.
    #[must_use]
    pub fn python(&self, project: &str) -> BTreeMap<String, String> {
        let specs = self.registry.on_demand_feature_views.iter().filter_map(|view| view.spec.as_ref());
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

// === impl FeastOptions ===

impl From<FeastValues> for FeastOptions {
    fn from(values: FeastValues) -> Self {
        Self { values, versioned_tables: false, unknown_fields: UnknownFields::default() }
    }
}

// === impl Audit ===

impl Audit {
    fn of_registry(bytes: &[u8]) -> Self {
        let mut all: BTreeMap<u32, Vec<Vec<Finding>>> = BTreeMap::new();
        for (number, value) in wire::fields(bytes) {
            let field = fields::REGISTRY.fields.iter().find(|field| field.number == number);
            if let (Some(Effect::Inside(message)), wire::Value::Bytes(bytes)) = (field.map(|field| field.effect), value)
            {
                all.entry(number).or_default().push(fields::audit(message, bytes));
            }
        }
        Self(all)
    }

    /// Pairs each definition with its unsupported settings.
    fn of<'a, T>(&'a self, number: u32, definitions: &'a [T]) -> impl Iterator<Item = (&'a T, &'a [Finding])> {
        let findings = self.0.get(&number).map(Vec::as_slice).unwrap_or_default();
        let findings = findings.iter().map(Vec::as_slice).chain(std::iter::repeat(&[][..]));
        definitions.iter().zip(findings)
    }
}

/// Returns whether a string is a UUID in the format of Python's `uuid4`.
fn is_uuid(text: &str) -> bool {
    let is_part = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.bytes().enumerate().all(is_part)
}

#[cfg(test)]
mod tests;
