//! Converts a registry's definitions: first the entities, then the views, then the services.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use super::{
    Audit, FeastOptions, FeastValues, UnknownFields,
    fields::Finding,
    proto::{self, BATCH_FILE, PUSH_SOURCE, SourceOf},
    stored::{AGGREGATED, Stored},
};
use crate::{
    model::{AwsPlace, Gate, JOIN_KEY_DUMMY, NestedType, ScalarType, TableSource, ValueType, WriteMode},
    registry::{
        Definitions, DerivedDefinition, EntityDefinition, FeatureDefinition, FilesDefinition, InputDefinition,
        InputFrom, OnErrorDefinition, ProjectionDefinition, ServiceDefinition, SourceDefinition, SourceFrom, Unread,
        Unservable, ViewDefinition,
        validate::{FEATURES_MAX, TABLE_NAME_RULE, is_identifier, is_name, is_pattern, is_table_name, name_rule},
    },
    yaml::{Located, Place},
};

/// The interval at which Feast's SQLite file is polled. A poll that finds no change takes microseconds.
const ONLINE_STORE_EVERY: Duration = Duration::from_secs(1);

/// Collects a project's definitions.
pub(super) struct Importer<'i> {
    at: Place,
    project: &'i str,
    options: &'i FeastOptions,
    into: Definitions,
    /// The join key of each entity, by the entity's name.
    join_keys: BTreeMap<String, String>,
    /// Entities with settings that Larder does not support, by name, with the reason.
    bad_entities: BTreeMap<String, Why>,
    /// For each view that was converted so far, its features with their types. On-demand views can read these features.
    features: BTreeMap<String, Vec<(String, ValueType)>>,
    /// For each stored view that was converted so far, its join keys.
    keys_of: BTreeMap<String, Vec<String>>,
}

/// The reason why a definition cannot be served.
type Why = String;

const DISABLED: &str = "it is disabled in the registry";

// === impl Importer ===

impl<'i> Importer<'i> {
    pub(super) fn new(file: &str, project: &'i str, options: &'i FeastOptions) -> Self {
        let into = Definitions { imported: true, ..Definitions::default() };
        let (join_keys, bad_entities, features, keys_of) = Default::default();
        Self { at: Place::file(file), project, options, into, join_keys, bad_entities, features, keys_of }
    }

    pub(super) fn import(mut self, registry: &proto::Registry, audit: &Audit) -> Definitions {
        let project = self.project;
        let on_demand: Vec<_> = audit
            .of(proto::ON_DEMAND_FEATURE_VIEWS, &registry.on_demand_feature_views)
            .filter_map(|(view, findings)| Some((view.spec.as_ref()?, view.meta.as_ref(), findings)))
            .filter(|(spec, _, _)| spec.project == project)
            .collect();
        let views = audit.of(proto::FEATURE_VIEWS, &registry.feature_views).filter_map(Stored::of_view);
        let views = views
            .chain(
                audit
                    .of(proto::STREAM_FEATURE_VIEWS, &registry.stream_feature_views)
                    .filter_map(Stored::of_stream_view),
            )
            .chain(audit.of(proto::LABEL_VIEWS, &registry.label_views).filter_map(Stored::of_label_view))
            .filter(|view| view.project == project)
            // A view whose values are computed when rows are written is stored like any other view.
            .chain(
                on_demand
                    .iter()
                    .filter(|(spec, _, _)| spec.write_to_online_store)
                    .map(|(spec, meta, findings)| Stored::of_on_demand_view(spec, *meta, findings)),
            );
        let views: Vec<Stored<'_>> = views.collect();

        let entities = audit.of(proto::ENTITIES, &registry.entities);
        let entities = entities.filter_map(|(entity, findings)| Some((entity.spec.as_ref()?, findings)));
        self.entities(entities.filter(|(spec, _)| spec.project == project), &views);
        for view in &views {
            if let Err(why) = self.stored(view) {
                self.leave_out_view(view.name, why);
            }
        }
        for (spec, meta, findings) in on_demand.into_iter().filter(|(spec, _, _)| !spec.write_to_online_store) {
            if let Err(why) = self.derived(spec, meta.map_or(0, |meta| meta.state), findings) {
                self.leave_out_view(&spec.name, why);
            }
        }
        for (service, findings) in audit.of(proto::FEATURE_SERVICES, &registry.feature_services) {
            let Some(spec) = service.spec.as_ref().filter(|spec| spec.project == project) else { continue };
            match self.service(spec, findings) {
                Ok(service) => self.into.services.push(service),
                Err(why) => self.into.unservable_services.push(Unservable { name: spec.name.clone(), why }),
            }
        }
        self.into
    }

    fn leave_out_view(&mut self, name: &str, why: Why) {
        self.into.unservable_views.push(Unservable { name: name.to_owned(), why });
    }

    /// Returns the first unsupported setting as an error. If `in_files` is true, checks only the settings for producing
    /// rows; otherwise, checks only the other settings.
    fn check(&self, findings: &[Finding], in_files: bool) -> Result<(), Why> {
        let counts = |finding: &&Finding| {
            finding.in_files == in_files
                && !(finding.is_unknown && self.options.unknown_fields == UnknownFields::Ignore)
        };
        match findings.iter().find(counts) {
            None => Ok(()),
            Some(Finding { why, is_unknown: true, .. }) => Err(format!(
                "{why}: the field may change values. hint: if it does not, set 'feast: {{unknown_fields: ignore}}'"
            )),
            Some(Finding { why, .. }) => Err(why.clone()),
        }
    }

    /// Checks a new view for errors that would otherwise make all definitions invalid.
    fn check_new(&self, name: &str, features: &[proto::FeatureSpec]) -> Result<(), Why> {
        check_name(name)?;
        if name.contains(':') {
            return Err("its name has a colon, so references cannot name its features".to_owned());
        }
        if self.features.contains_key(name) {
            return Err("another feature view has the same name".to_owned());
        }
        if features.len() > FEATURES_MAX {
            return Err(format!("it has {} features, but at most {FEATURES_MAX} are allowed", features.len()));
        }
        let mut seen = BTreeSet::new();
        match features.iter().find(|feature| !seen.insert(&feature.name)) {
            Some(twice) => Err(format!("its feature '{}' is defined twice", twice.name)),
            None => Ok(()),
        }
    }

    /// Returns the name of a view's table in an online store.
    fn table_name(&self, view: &Stored<'_>) -> String {
        if self.options.versioned_tables && view.version > 0 {
            format!("{}_v{}", view.name, view.version)
        } else {
            view.name.to_owned()
        }
    }

    fn located<T>(&self, value: T) -> Located<T> {
        Located { value, at: self.at.clone() }
    }

    /// Adds the entities. If an entity has no type, it gets the type of its join key in the first view with that key,
    /// or else `String`, as in Feast. A type that a join key cannot have also becomes `String`.
    fn entities<'p>(
        &mut self,
        specs: impl Iterator<Item = (&'p proto::EntitySpec, &'p [Finding])>,
        views: &[Stored<'_>],
    ) {
        let columns = || views.iter().flat_map(|view| view.entity_columns);
        let mut types: BTreeMap<&str, ValueType> = BTreeMap::new();
        for (spec, findings) in specs {
            let join_key = if spec.join_key.is_empty() { &spec.name } else { &spec.join_key };
            if join_key == JOIN_KEY_DUMMY {
                continue;
            }
            if self.join_keys.contains_key(&spec.name) {
                continue;
            }
            let checked = check_name(&spec.name).and_then(|()| check_name(join_key));
            if let Err(why) = checked.and_then(|()| self.check(findings, false)) {
                self.bad_entities.insert(spec.name.clone(), why);
                continue;
            }
            self.join_keys.insert(spec.name.clone(), join_key.clone());
            let of_views =
                || columns().filter(|column| column.name == *join_key).find_map(|column| value_type(column.value_type));
            let named = value_type(spec.value_type).or_else(of_views);
            let named = named.filter(|named| named.can_be_join_key()).unwrap_or(ValueType::Scalar(ScalarType::String));
            // Several entities may share a join key, which has the same type in all of them. A view can declare another
            // type for the key.
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
            return Err(DISABLED.to_owned());
        }
        if !view.online {
            return Err("it has online=False in the registry: Feast does not serve it".to_owned());
        }
        check_state(view.state)?;
        self.check_new(view.name, view.features)?;
        self.check(view.findings, false)?;
        let (mut entities, mut join_keys) = (Vec::new(), Vec::new());
        for entity in view.entities {
            if let Some(join_key) = self.join_keys.get(entity) {
                entities.push(self.located(entity.clone()));
                join_keys.push(join_key.clone());
            } else if let Some(why) = self.bad_entities.get(entity) {
                return Err(format!("its entity '{entity}' is not served: {why}"));
            } else if entity != "__dummy" {
                return Err(format!("its entity '{entity}' is not in the registry"));
            }
        }
        // Feast's log of features has the keys in the order of the view's columns.
        let column = |entity: &Located<String>| {
            let key = self.join_keys.get(&entity.value);
            view.entity_columns.iter().position(|column| Some(&column.name) == key).unwrap_or(usize::MAX)
        };
        entities.sort_by_key(column);
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

        let files = self.check(view.findings, true).and_then(|()| self.view_files(view));
        let push = view.stream_source.filter(|source| source.kind == PUSH_SOURCE);
        let table = || self.table_name(view);
        let source = match &self.options.values {
            FeastValues::BatchSources if view.is_only_pushed || (push.is_some() && view.batch_source.is_none()) => None,
            FeastValues::BatchSources => Some((SourceFrom::Files(files.clone()?), None)),
            FeastValues::DynamoDb { template, place, every } => {
                let table = template.replace("{project}", self.project).replace("{table_name}", &table());
                if !is_table_name(&table) {
                    return Err(format!("'{table}' is not a valid DynamoDB table name: {TABLE_NAME_RULE}"));
                }
                let table = TableSource::feast(table, place.clone());
                Some((SourceFrom::DynamoDb { at: self.at.clone(), table }, *every))
            }
            FeastValues::OnlineStore(path) => {
                let table = Some(format!("{}_{}", self.project, table()));
                Some((SourceFrom::FeastSqlite { path: self.located(path.clone()), table }, Some(ONLINE_STORE_EVERY)))
            }
        };
        let source = source.map(|(from, every)| SourceDefinition { from, every, cron: None });
        // Without files, the view cannot be materialized. Rows that Feast wrote are still served.
        let batch_source = match (&self.options.values, files) {
            (FeastValues::BatchSources, Ok(_)) => None,
            (_, Ok(files)) => Some(files),
            (_, Err(why)) => {
                self.into.unmaterializable_views.push(Unservable { name: view.name.to_owned(), why });
                None
            }
        };
        let types = features.iter().map(|feature| (feature.name.value.clone(), feature.value_type)).collect();
        self.features.insert(view.name.to_owned(), types);
        self.keys_of.insert(view.name.to_owned(), join_keys);
        self.into.views.push(ViewDefinition {
            name: self.located(view.name.to_owned()),
            entities,
            key_types,
            features,
            unread_features: Unread::default(),
            ttl: view.ttl.and_then(proto::Span::duration),
            source,
            batch_source,
            push_source: push.map(|source| self.located(source.name.clone())),
            mode: WriteMode::Upsert,
            description: view.description.trim().to_owned(),
            tags: sorted(view.tags),
            created: view.created,
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

    /// Returns the files from which a view's rows can be loaded, or the reason why they cannot be.
    fn view_files(&self, view: &Stored<'_>) -> Result<FilesDefinition, Why> {
        if let Some(unloadable_because) = view.unloadable_because {
            return Err(unloadable_because.to_owned());
        }
        view.batch_source.map_or_else(|| Err("it has no batch source".to_owned()), |source| self.files(source))
    }

    fn files(&self, source: &proto::DataSource) -> Result<FilesDefinition, Why> {
        let uri = source.file_options.as_ref().map_or("", |options| options.uri.as_str());
        if source.kind != BATCH_FILE || uri.is_empty() {
            let class = source.data_source_class_type.rsplit('.').next().filter(|class| !class.is_empty());
            let kind = class.map_or_else(|| format!("of type {}", source.kind), |class| format!("a {class}"));
            return Err(format!("its batch source is {kind}, but Larder only reads Parquet files"));
        }
        let path = uri.strip_prefix("file://").unwrap_or(uri);
        if let Some((scheme, _)) = path.split_once("://")
            && scheme != "s3"
        {
            return Err(format!("its batch source is {uri}, but Larder does not support {scheme}://"));
        }
        if is_pattern(path) {
            return Err(format!("its batch source is {uri}, but Larder does not support patterns in paths"));
        }
        if source.timestamp_field.is_empty() {
            return Err("its batch source has no timestamp field".to_owned());
        }
        let mut targets = BTreeSet::new();
        if let Some(twice) = source.field_mapping.values().find(|target| !targets.insert(*target)) {
            return Err(format!("its batch source maps two columns to '{twice}'"));
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

    /// Converts an on-demand view to a derived view. The plugin has the name of the view, with `_` in place of
    /// characters that are not allowed, and before a leading digit. The inputs are the same as for the Python function:
    /// the request data, the join keys, and each feature of the sources. A feature is available as `view__feature`, and
    /// also as `feature` if that name is unambiguous.
    fn derived(&mut self, spec: &proto::OnDemandFeatureViewSpec, state: i32, findings: &[Finding]) -> Result<(), Why> {
        if spec.disabled {
            return Err(DISABLED.to_owned());
        }
        check_state(state)?;
        self.check_new(&spec.name, &spec.features)?;
        self.check(findings, false)?;
        self.check(findings, true)?;
        if !spec.aggregations.is_empty() {
            return Err(AGGREGATED.to_owned());
        }
        let features = spec.features.iter().map(|feature| self.feature(feature)).collect::<Result<Vec<_>, _>>()?;
        let scalar_map = ValueType::Nested(NestedType::ScalarMap);
        if let Some(nested) = features.iter().find(|feature| feature.value_type == scalar_map) {
            return Err(format!(
                "its feature '{}' is {}, which plugins cannot compute",
                nested.name.value, nested.value_type
            ));
        }
        if let Some(feature) = features.iter().find(|feature| !is_identifier(&feature.name.value)) {
            return Err(format!("its feature '{}' has a name that plugins cannot use", feature.name.value));
        }
        let mut inputs: Vec<InputDefinition> = Vec::new();
        let mut read: Vec<(String, String)> = Vec::new();
        let mut keys = BTreeSet::new();
        // Sorted by name, so that the order is stable.
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
                None => return Err("it reads a source of an unknown kind".to_owned()),
            };
            let Some(known) = self.features.get(view) else {
                return Err(format!("it reads feature view '{view}', which is not served{}", self.why_not(view)));
            };
            for feature in features {
                // Names that are not features of the served view are left out, such as entities, which old registries
                // list among the features.
                if known.iter().any(|(name, _)| *name == feature) {
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
            has_errors: false,
            config: "null".to_owned(),
            // As in Feast, a failed computation fails the request.
            on_error: OnErrorDefinition::Fail,
            description: spec.description.trim().to_owned(),
            tags: sorted(&spec.tags),
        });
        let types = self.into.derived.last().into_iter().flat_map(|view| &view.features);
        let types = types.map(|feature| (feature.name.value.clone(), feature.value_type)).collect();
        self.features.insert(spec.name.clone(), types);
        Ok(())
    }

    /// Converts an input from the request. If the input has the name of a join key, it reads the join key, because a
    /// request has only one column with that name.
    fn request(&self, field: &proto::FeatureSpec) -> Result<InputDefinition, Why> {
        let value_type = known_type("the type of its request field", field)?;
        if matches!(value_type, ValueType::Nested(_)) {
            return Err(format!("its request field '{}' is {value_type}, which plugins cannot read", field.name));
        }
        if !is_identifier(&field.name) {
            return Err(format!("its request field '{}' has a name that plugins cannot use", field.name));
        }
        if self.join_keys.values().any(|key| *key == field.name) {
            let key = self.located(field.name.clone());
            return Ok(InputDefinition { name: key.clone(), from: InputFrom::Key(key) });
        }
        let from = InputFrom::Request(self.located(value_type));
        Ok(InputDefinition { name: self.located(field.name.clone()), from })
    }

    /// Returns why a view is not served, as the end of a sentence.
    fn why_not(&self, view: &str) -> String {
        let left_out = self.into.unservable_views.iter().find(|left_out| left_out.name == *view);
        format!(": {}", left_out.map_or("it is not in the registry", |left_out| left_out.why.as_str()))
    }

    fn service(&self, spec: &proto::FeatureServiceSpec, findings: &[Finding]) -> Result<ServiceDefinition, Why> {
        check_name(&spec.name)?;
        self.check(findings, false)?;
        if spec.features.is_empty() {
            return Err("it selects no features".to_owned());
        }
        let mut projections = Vec::new();
        for projection in &spec.features {
            let view = &projection.feature_view_name;
            let Some(known) = self.features.get(view) else {
                let why = self.why_not(view);
                return Err(format!("it selects from feature view '{view}', which is not served{why}"));
            };
            let mut features = Vec::new();
            for column in &projection.feature_columns {
                if self.keys_of.get(view).is_some_and(|keys| keys.contains(&column.name)) {
                    continue;
                }
                if !known.iter().any(|(name, _)| *name == column.name) {
                    return Err(format!("it selects '{view}:{}', which the view does not have", column.name));
                }
                features.push(self.located(column.name.clone()));
            }
            let alias = Some(&projection.feature_view_name_alias).filter(|alias| !alias.is_empty());
            alias.map_or(Ok(()), |alias| check_name(alias))?;
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

/// Checks whether Feast serves a view in this state. Feast serves a view only after its first materialization. A view
/// that is being materialized may already have rows from before, so Larder serves it.
fn check_state(state: i32) -> Result<(), Why> {
    let name = match state {
        1 => "CREATED",
        2 => "GENERATED",
        _ => return Ok(()),
    };
    Err(format!("its state in the registry is {name}: Feast serves a view only after it has been materialized"))
}

fn sorted(tags: &HashMap<String, String>) -> BTreeMap<String, String> {
    tags.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn known_type(what: &str, spec: &proto::FeatureSpec) -> Result<ValueType, Why> {
    value_type(spec.value_type).ok_or_else(|| {
        format!(
            "{what} '{}' has the number {}, which this version of Larder does not support",
            spec.name, spec.value_type
        )
    })
}

/// Returns the type with a number of `feast.types.ValueType.Enum`; `None` for 0, which means no type, and for unknown
/// numbers.
fn value_type(number: i32) -> Option<ValueType> {
    ValueType::from_feast_number(number)
}

/// Checks the rule that applies to the names of all definitions.
fn check_name(name: &str) -> Result<(), Why> {
    if is_name(name) { Ok(()) } else { Err(format!("its name is not valid: {}", name_rule(name))) }
}
