//! What a registry defines, one thing after the other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use super::{
    FeastValues,
    proto::{self, BATCH_FILE, PUSH_SOURCE, SourceOf},
};
use crate::{
    model::{AwsPlace, Gate, JOIN_KEY_DUMMY, ScalarType, TableSource, ValueType, WriteMode},
    registry::{
        Definitions, DerivedDefinition, EntityDefinition, FeatureDefinition, FilesDefinition, InputDefinition,
        InputFrom, OnErrorDefinition, ProjectionDefinition, ServiceDefinition, SourceDefinition, SourceFrom, Unread,
        Unservable, ViewDefinition,
        validate::{is_identifier, is_name, name_rule},
    },
    yaml::{Located, Place},
};

/// How often Feast's SQLite file is looked at. A look that finds nothing new costs microseconds.
const ONLINE_STORE_EVERY: Duration = Duration::from_secs(1);

/// Collects a project's definitions.
pub(super) struct Importer<'i> {
    at: Place,
    project: &'i str,
    values: &'i FeastValues,
    into: Definitions,
    /// Entities by name: the join key.
    join_keys: BTreeMap<String, String>,
    /// Features of the views so far, with their types: what on-demand views may read.
    features: BTreeMap<String, Vec<(String, ValueType)>>,
    /// Join keys of the views so far.
    keys_of: BTreeMap<String, Vec<String>>,
}

/// A view as both kinds of it say it.
struct Stored<'p> {
    name: &'p str,
    entities: &'p [String],
    entity_columns: &'p [proto::FeatureSpec],
    features: &'p [proto::FeatureSpec],
    ttl: Option<&'p proto::Span>,
    batch_source: Option<&'p proto::DataSource>,
    stream_source: Option<&'p proto::DataSource>,
    disabled: bool,
    /// Whether rows come by pushes only: there are no files to load them from.
    is_only_pushed: bool,
    description: &'p str,
    tags: &'p HashMap<String, String>,
}

/// Why something cannot be served.
type Why = String;

// === impl Importer ===

impl<'i> Importer<'i> {
    pub(super) fn new(file: &str, project: &'i str, values: &'i FeastValues) -> Self {
        let into = Definitions { imported: true, ..Definitions::default() };
        let (join_keys, features, keys_of) = Default::default();
        Self { at: Place::file(file), project, values, into, join_keys, features, keys_of }
    }

    pub(super) fn import(mut self, registry: &proto::Registry) -> Definitions {
        let project = self.project;
        let feature_views = registry.feature_views.iter().filter_map(|view| view.spec.as_ref());
        let stream_views = registry.stream_feature_views.iter().filter_map(|view| view.spec.as_ref());
        let label_views = registry.label_views.iter().filter_map(|view| view.spec.as_ref());
        let on_demand = registry.on_demand_feature_views.iter().filter_map(|view| view.spec.as_ref());
        let on_demand: Vec<_> = on_demand.filter(|spec| spec.project == project).collect();
        let views: Vec<Stored<'_>> = feature_views
            .filter(|spec| spec.project == project)
            .map(Stored::from)
            .chain(stream_views.filter(|spec| spec.project == project).map(Stored::from))
            .chain(label_views.filter(|spec| spec.project == project).map(Stored::from))
            // What is computed on writing is stored like any other view.
            .chain(on_demand.iter().copied().filter(|spec| spec.write_to_online_store).map(Stored::from))
            .collect();

        let entities = registry.entities.iter().filter_map(|entity| entity.spec.as_ref());
        self.entities(entities.filter(|spec| spec.project == project), &views);
        for view in &views {
            if let Err(why) = self.stored(view) {
                self.leave_out_view(view.name, why);
            }
        }
        for spec in on_demand.into_iter().filter(|spec| !spec.write_to_online_store) {
            if let Err(why) = self.derived(spec) {
                self.leave_out_view(&spec.name, why);
            }
        }
        let services = registry.feature_services.iter().filter_map(|service| service.spec.as_ref());
        for spec in services.filter(|spec| spec.project == project) {
            match self.service(spec) {
                Ok(service) => self.into.services.push(service),
                Err(why) => self.into.unservable_services.push(Unservable { name: spec.name.clone(), why }),
            }
        }
        self.into
    }

    fn leave_out_view(&mut self, name: &str, why: Why) {
        self.into.unservable_views.push(Unservable { name: name.to_owned(), why });
    }

    fn located<T>(&self, value: T) -> Located<T> {
        Located { value, at: self.at.clone() }
    }

    /// The entities. Their type may be left open: then it is what the views say of their key, and text where none does,
    /// as in Feast.
    fn entities<'p>(&mut self, specs: impl Iterator<Item = &'p proto::EntitySpec>, views: &[Stored<'_>]) {
        let columns = || views.iter().flat_map(|view| view.entity_columns);
        let mut types: BTreeMap<&str, ValueType> = BTreeMap::new();
        for spec in specs {
            let join_key = if spec.join_key.is_empty() { &spec.name } else { &spec.join_key };
            if join_key == JOIN_KEY_DUMMY {
                continue;
            }
            self.join_keys.insert(spec.name.clone(), join_key.clone());
            let of_views =
                || columns().filter(|column| column.name == *join_key).find_map(|column| value_type(column.value_type));
            let named = value_type(spec.value_type).or_else(of_views);
            let named = named.filter(|named| named.can_be_join_key()).unwrap_or(ValueType::Scalar(ScalarType::String));
            // Entities may share a key, and here a key has one type; views say where theirs is another.
            let value_type = *types.entry(join_key).or_insert(named);
            let entity = EntityDefinition {
                name: self.located(spec.name.clone()),
                join_key: Some(self.located(join_key.clone())),
                value_type: self.located(value_type),
                description: spec.description.trim().to_owned(),
                tags: sorted(&spec.tags),
            };
            self.into.entities.push(entity);
        }
    }

    fn stored(&mut self, view: &Stored<'_>) -> Result<(), Why> {
        if view.disabled {
            return Err("it is disabled in the registry".to_owned());
        }
        check_name(view.name)?;
        let (mut entities, mut join_keys) = (Vec::new(), Vec::new());
        for entity in view.entities {
            if let Some(join_key) = self.join_keys.get(entity) {
                entities.push(self.located(entity.clone()));
                join_keys.push(join_key.clone());
            } else if entity != "__dummy" {
                return Err(format!("its entity '{entity}' is not in the registry"));
            }
        }
        let mut key_types = BTreeMap::new();
        for column in view.entity_columns.iter().filter(|column| join_keys.contains(&column.name)) {
            let value_type = known_type("the type of its key", column)?;
            if !value_type.can_be_join_key() {
                return Err(format!("its key '{}' is {value_type}, which Feast cannot serialize", column.name));
            }
            key_types.insert(column.name.clone(), self.located(value_type));
        }
        let features = view.features.iter().filter(|feature| !join_keys.contains(&feature.name));
        let features = features.map(|feature| self.feature(feature)).collect::<Result<Vec<_>, _>>()?;
        if features.is_empty() {
            return Err("it has no features".to_owned());
        }

        let files =
            view.batch_source.map_or_else(|| Err("it has no batch source".to_owned()), |source| self.files(source));
        let (source, batch_source) = match self.values {
            FeastValues::BatchSources if view.is_only_pushed => (None, None),
            FeastValues::BatchSources => {
                (Some(SourceDefinition { from: SourceFrom::Files(files?), every: None, cron: None }), None)
            }
            FeastValues::DynamoDb { template, place, every } => {
                let table = template.replace("{project}", self.project).replace("{table_name}", view.name);
                let table = TableSource::feast(table, place.clone());
                let from = SourceFrom::DynamoDb { at: self.at.clone(), table };
                (Some(SourceDefinition { from, every: *every, cron: None }), files.ok())
            }
            FeastValues::OnlineStore(path) => {
                let table = Some(format!("{}_{}", self.project, view.name));
                let from = SourceFrom::FeastSqlite { path: self.located(path.clone()), table };
                // Without files nothing can be materialized; what Feast materialized is served all the same.
                (Some(SourceDefinition { from, every: Some(ONLINE_STORE_EVERY), cron: None }), files.ok())
            }
        };
        let push = view.stream_source.filter(|source| source.kind == PUSH_SOURCE);
        let types = features.iter().map(|feature| (feature.name.value.clone(), feature.value_type)).collect();
        self.features.insert(view.name.to_owned(), types);
        self.keys_of.insert(view.name.to_owned(), join_keys);
        self.into.views.push(ViewDefinition {
            name: self.located(view.name.to_owned()),
            entities,
            key_types,
            features,
            unread_features: Unread::default(),
            ttl: view.ttl.and_then(duration),
            source,
            batch_source,
            push_source: push.map(|source| self.located(source.name.clone())),
            mode: WriteMode::Upsert,
            description: view.description.trim().to_owned(),
            tags: sorted(view.tags),
        });
        Ok(())
    }

    fn feature(&self, spec: &proto::FeatureSpec) -> Result<FeatureDefinition, Why> {
        check_name(&spec.name).map_err(|why| format!("its feature '{}': {why}", spec.name))?;
        Ok(FeatureDefinition {
            name: self.located(spec.name.clone()),
            value_type: known_type("the type of its feature", spec)?,
            description: spec.description.trim().to_owned(),
            tags: sorted(&spec.tags),
        })
    }

    fn files(&self, source: &proto::DataSource) -> Result<FilesDefinition, Why> {
        let uri = source.file_options.as_ref().map_or("", |options| options.uri.as_str());
        if source.kind != BATCH_FILE || uri.is_empty() {
            let class = source.data_source_class_type.rsplit('.').next().filter(|class| !class.is_empty());
            let kind = class.map_or_else(|| format!("of type {}", source.kind), |class| format!("a {class}"));
            return Err(format!("its batch source is {kind}, and Larder reads Parquet files"));
        }
        let path = uri.strip_prefix("file://").unwrap_or(uri);
        if let Some((scheme, _)) = path.split_once("://")
            && scheme != "s3"
        {
            return Err(format!("its batch source is {uri}, and Larder reads no {scheme}://"));
        }
        if source.timestamp_field.is_empty() {
            return Err("its batch source has no timestamp field".to_owned());
        }
        let mapping = source.field_mapping.iter().map(|(column, name)| (column.clone(), self.located(name.clone())));
        Ok(FilesDefinition {
            path: self.located(path.to_owned()),
            place: AwsPlace {
                region: None,
                endpoint: source
                    .file_options
                    .as_ref()
                    .map(|options| options.s3_endpoint_override.clone())
                    .filter(|endpoint| !endpoint.is_empty()),
            },
            gate: Gate::Open,
            timestamp_field: source.timestamp_field.clone(),
            created_timestamp_column: Some(source.created_timestamp_column.clone()).filter(|name| !name.is_empty()),
            field_mapping: mapping.collect(),
        })
    }

    /// An on-demand view as a derived one: a plugin of its name computes it. Python sees each feature that it declares
    /// as `feature` and as `view__feature`, the keys, and what the caller sends; so may the plugin.
    fn derived(&mut self, spec: &proto::OnDemandFeatureViewSpec) -> Result<(), Why> {
        if spec.disabled {
            return Err("it is disabled in the registry".to_owned());
        }
        check_name(&spec.name)?;
        let features = spec.features.iter().map(|feature| self.feature(feature)).collect::<Result<Vec<_>, _>>()?;
        if let Some(nested) = features.iter().find(|feature| matches!(feature.value_type, ValueType::Nested(_))) {
            return Err(format!(
                "its feature '{}' is {}, which no plugin computes",
                nested.name.value, nested.value_type
            ));
        }
        if let Some(feature) = features.iter().find(|feature| !is_identifier(&feature.name.value)) {
            return Err(format!("its feature '{}' has a name that no plugin can give", feature.name.value));
        }
        let mut inputs: Vec<InputDefinition> = Vec::new();
        let mut read: Vec<(String, String)> = Vec::new();
        let mut keys = BTreeSet::new();
        // By name, so that the order is the same each time.
        for source in spec.sources.iter().collect::<BTreeMap<_, _>>().into_values() {
            let (view, features) = match &source.source {
                Some(SourceOf::Request(source)) => {
                    for field in source.request_data_options.iter().flat_map(|options| &options.schema) {
                        let input = self.request(field)?;
                        if !inputs.iter().any(|known| known.name.value == input.name.value) {
                            inputs.push(input);
                        }
                    }
                    continue;
                }
                Some(SourceOf::View(view)) => {
                    let Some(spec) = &view.spec else { continue };
                    (&spec.name, spec.features.iter().map(|feature| feature.name.clone()).collect::<Vec<_>>())
                }
                Some(SourceOf::Projection(projection)) => {
                    let columns = projection.feature_columns.iter().map(|feature| feature.name.clone());
                    (&projection.feature_view_name, columns.collect())
                }
                None => return Err("it reads a source of a kind that is not known".to_owned()),
            };
            let Some(known) = self.features.get(view) else {
                return Err(format!("it reads feature view '{view}', which is not served"));
            };
            for feature in features {
                // Entities stand among the features of old registries. What plugins cannot read they cannot be given.
                let readable = |(name, value_type): &(String, ValueType)| {
                    *name == feature && !matches!(value_type, ValueType::Nested(_))
                };
                if known.iter().any(readable) {
                    read.push((view.clone(), feature));
                }
            }
            keys.extend(self.keys_of.get(view).into_iter().flatten().cloned());
        }
        let mut taken: BTreeSet<String> = inputs.iter().map(|input| input.name.value.clone()).collect();
        for key in keys {
            if is_identifier(&key) && taken.insert(key.clone()) {
                inputs
                    .push(InputDefinition { name: self.located(key.clone()), from: InputFrom::Key(self.located(key)) });
            }
        }
        for (view, feature) in &read {
            let alone = read.iter().filter(|(_, other)| other == feature).count() == 1;
            let full = format!("{view}__{feature}");
            for name in [alone.then(|| feature.clone()), Some(full)].into_iter().flatten() {
                if is_identifier(&name) && taken.insert(name.clone()) {
                    let from = InputFrom::Feature(self.located(view.clone()), self.located(feature.clone()));
                    inputs.push(InputDefinition { name: self.located(name), from });
                }
            }
        }
        let mut plugin: String = spec.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if plugin.starts_with(|c: char| c.is_ascii_digit()) {
            plugin.insert(0, '_');
        }
        self.into.derived.push(DerivedDefinition {
            name: self.located(spec.name.clone()),
            plugin: (plugin != spec.name).then(|| self.located(plugin)),
            inputs,
            features,
            unread_features: Unread::default(),
            config: "null".to_owned(),
            // As in Feast: what cannot be computed fails the request.
            on_error: OnErrorDefinition::Fail,
            description: spec.description.trim().to_owned(),
            tags: sorted(&spec.tags),
        });
        let types = self.into.derived.last().into_iter().flat_map(|view| &view.features);
        let types = types.map(|feature| (feature.name.value.clone(), feature.value_type)).collect();
        self.features.insert(spec.name.clone(), types);
        Ok(())
    }

    /// What an on-demand view wants of the caller. A join key is read as such: a request has one column of a name.
    fn request(&self, field: &proto::FeatureSpec) -> Result<InputDefinition, Why> {
        let value_type = known_type("the type of its request field", field)?;
        if matches!(value_type, ValueType::Nested(_)) {
            return Err(format!("its request field '{}' is {value_type}, which no plugin reads", field.name));
        }
        if !is_identifier(&field.name) {
            return Err(format!("its request field '{}' has a name that no plugin can read", field.name));
        }
        if self.join_keys.values().any(|key| *key == field.name) {
            let key = self.located(field.name.clone());
            return Ok(InputDefinition { name: key.clone(), from: InputFrom::Key(key) });
        }
        let from = InputFrom::Request(self.located(value_type));
        Ok(InputDefinition { name: self.located(field.name.clone()), from })
    }

    fn service(&self, spec: &proto::FeatureServiceSpec) -> Result<ServiceDefinition, Why> {
        check_name(&spec.name)?;
        if spec.features.is_empty() {
            return Err("it selects nothing".to_owned());
        }
        let mut projections = Vec::new();
        for projection in &spec.features {
            let view = &projection.feature_view_name;
            let Some(known) = self.features.get(view) else {
                let left_out = self.into.unservable_views.iter().find(|left_out| left_out.name == *view);
                let why = left_out.map_or("it is not in the registry", |left_out| left_out.why.as_str());
                return Err(format!("it selects from feature view '{view}', which is not served: {why}"));
            };
            let mut features = Vec::new();
            for column in &projection.feature_columns {
                if self.keys_of.get(view).is_some_and(|keys| keys.contains(&column.name)) {
                    continue;
                }
                if !known.iter().any(|(name, _)| *name == column.name) {
                    return Err(format!(
                        "it selects '{view}:{}', which the view does not have (any more)",
                        column.name
                    ));
                }
                features.push(self.located(column.name.clone()));
            }
            let alias = Some(&projection.feature_view_name_alias).filter(|alias| !alias.is_empty());
            let keys = self.keys_of.get(view);
            let mapped = projection.join_key_map.iter();
            let mapped = mapped.filter(|(key, _)| keys.is_some_and(|keys| keys.contains(key)));
            projections.push(ProjectionDefinition {
                view: self.located(view.clone()),
                features: Some(features),
                alias: alias.map(|alias| self.located(alias.clone())),
                join_key_map: mapped.map(|(key, column)| (key.clone(), self.located(column.clone()))).collect(),
            });
        }
        Ok(ServiceDefinition {
            name: self.located(spec.name.clone()),
            projections,
            unread_projections: Unread::default(),
            description: spec.description.trim().to_owned(),
            tags: sorted(&spec.tags),
        })
    }
}

// === impl Stored ===

macro_rules! from_view_spec {
    ($($spec:ty),*) => {$(
        impl<'p> From<&'p $spec> for Stored<'p> {
            fn from(spec: &'p $spec) -> Self {
                Self {
                    name: &spec.name,
                    entities: &spec.entities,
                    entity_columns: &spec.entity_columns,
                    features: &spec.features,
                    ttl: spec.ttl.as_ref(),
                    batch_source: spec.batch_source.as_ref(),
                    stream_source: spec.stream_source.as_ref(),
                    disabled: spec.disabled,
                    is_only_pushed: false,
                    description: &spec.description,
                    tags: &spec.tags,
                }
            }
        }
    )*};
}

from_view_spec!(proto::FeatureViewSpec, proto::StreamFeatureViewSpec);

impl<'p> From<&'p proto::LabelViewSpec> for Stored<'p> {
    fn from(spec: &'p proto::LabelViewSpec) -> Self {
        Self {
            name: &spec.name,
            entities: &spec.entities,
            entity_columns: &spec.entity_columns,
            features: &spec.features,
            ttl: spec.ttl.as_ref(),
            // There is one, for training; Feast brings nothing of it online.
            batch_source: None,
            stream_source: spec.source.as_ref(),
            disabled: false,
            is_only_pushed: true,
            description: &spec.description,
            tags: &spec.tags,
        }
    }
}

impl<'p> From<&'p proto::OnDemandFeatureViewSpec> for Stored<'p> {
    fn from(spec: &'p proto::OnDemandFeatureViewSpec) -> Self {
        Self {
            name: &spec.name,
            entities: &spec.entities,
            entity_columns: &spec.entity_columns,
            features: &spec.features,
            ttl: None,
            batch_source: None,
            stream_source: None,
            disabled: spec.disabled,
            is_only_pushed: false,
            description: &spec.description,
            tags: &spec.tags,
        }
    }
}

/// In whole microseconds, as in Feast; what is too long to stand beside an instant is for ever.
fn duration(span: &proto::Span) -> Option<Duration> {
    let (seconds, nanos) = (u64::try_from(span.seconds).ok()?, u32::try_from(span.nanos).ok()?);
    let micros = i64::try_from(Duration::new(seconds, nanos.min(999_999_999)).as_micros()).ok()?;
    Some(Duration::from_micros(micros.unsigned_abs())).filter(|duration| !duration.is_zero())
}

fn sorted(tags: &HashMap<String, String>) -> BTreeMap<String, String> {
    tags.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn known_type(what: &str, spec: &proto::FeatureSpec) -> Result<ValueType, Why> {
    value_type(spec.value_type).ok_or_else(|| {
        format!("{what} '{}' has the number {}, which this version of Larder does not know", spec.name, spec.value_type)
    })
}

/// The type with a number of `feast.types.ValueType.Enum`; none for 0, which stands for no type, and for numbers that
/// are not known.
fn value_type(number: i32) -> Option<ValueType> {
    ValueType::from_feast_number(number)
}

/// The rule that all names here have: those of views and features become labels of metrics.
fn check_name(name: &str) -> Result<(), Why> {
    if is_name(name) { Ok(()) } else { Err(format!("its name is not of {}", name_rule())) }
}
