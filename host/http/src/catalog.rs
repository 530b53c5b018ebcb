//! `GET /v1/catalog`: describes the served definitions for users and tools.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use larder_ingest::SourceStatus;
use larder_model::{
    codec::{Retyped, retyped},
    model::{
        DerivedView, Entity, Feature, FeatureService, FeatureView, InputSource, Micros, Rfc3339, ScalarType,
        SourceKind, Tags, ValueType,
    },
    registry::Catalog,
};
use larder_plugin_host::{Comparison, Field, Transform};
use larder_serving::{Authorization, Snapshot};
use larder_store::ViewId;
use serde_json::{Map, Value, json};

/// The definitions that are visible to a caller whose token is limited to feature services: the features and the keys
/// of these services. Sources and all other definitions are hidden.
#[derive(Debug, Default)]
struct Visible<'c> {
    /// The visible features of each view, stored or derived.
    features: BTreeMap<&'c str, BTreeSet<&'c str>>,
    /// The names of the entities of stored views.
    entities: BTreeSet<&'c str>,
    /// The join keys that are inputs of derived views.
    join_keys: BTreeSet<&'c str>,
}

/// The approximate memory of a feature, and of any other definition, as a tree of JSON values, in bytes.
const FEATURE_BYTES: usize = 1_536;
const DEFINITION_BYTES: usize = 4_096;

// === impl Visible ===

impl<'c> Visible<'c> {
    /// Returns the definitions that the caller may see, or `None` if the caller may see all definitions.
    fn to(authorization: &Authorization, catalog: &'c Catalog) -> Option<Self> {
        if authorization.is_unlimited() {
            return None;
        }
        let (mut visible, mut read) = (Self::default(), HashSet::new());
        for service in catalog.services().iter().filter(|service| authorization.permits_service(&service.name)) {
            for projection in &service.projections {
                let features = visible.features.entry(&projection.view).or_default();
                features.extend(projection.features.iter().map(|feature| &**feature));
                visible.add_keys(&projection.view, catalog, &mut read);
            }
        }
        Some(visible)
    }

    /// Adds the keys of a view; for a derived view, the keys of all views that it reads. Visits each of them once, as
    /// [`add_inputs`] does.
    fn add_keys(&mut self, view: &str, catalog: &'c Catalog, read: &mut HashSet<&'c str>) {
        if let Some(view) = catalog.view(view) {
            self.entities.extend(view.entities.iter().map(|name| &**name));
        }
        for input in catalog.derived_view(view).iter().flat_map(|view| &view.inputs) {
            match &input.from {
                InputSource::Feature { view, .. } => {
                    if read.insert(&**view) {
                        self.add_keys(view, catalog, read);
                    }
                }
                InputSource::JoinKey(key) => {
                    self.join_keys.insert(key);
                }
                InputSource::Request => {}
            }
        }
    }

    fn has_entity(&self, name: &str, join_key: &str) -> bool {
        self.entities.contains(name) || self.join_keys.contains(join_key)
    }

    fn has_feature(&self, view: &str, feature: &str) -> bool {
        self.features.get(view).is_some_and(|features| features.contains(feature))
    }
}

/// Returns the approximate memory that building the description of a snapshot takes, in bytes.
pub(super) fn catalog_bytes(snapshot: &Snapshot) -> usize {
    let catalog = snapshot.catalog();
    let text = |description: &str, tags: &Tags| {
        2 * description.len() + tags.iter().map(|(name, value)| 100 + 2 * (name.len() + value.len())).sum::<usize>()
    };
    let features = |features: &[Feature]| {
        features.iter().map(|feature| FEATURE_BYTES + text(&feature.description, &feature.tags)).sum::<usize>()
    };
    let entities = catalog.entities().iter().map(|entity| text(&entity.description, &entity.tags));
    let views = catalog.views().iter().map(|view| text(&view.description, &view.tags) + features(&view.features));
    let derived = catalog
        .derived_views()
        .iter()
        .map(|view| text(&view.description, &view.tags) + features(&view.features) + FEATURE_BYTES * view.inputs.len());
    let services = catalog.services().iter().map(|service| {
        let features: usize = service.projections.iter().map(|projection| projection.features.len()).sum();
        text(&service.description, &service.tags)
            + 256 * features
            + FEATURE_BYTES * service_inputs(service, catalog).len()
    });
    entities.chain(views).chain(derived).chain(services).map(|bytes| DEFINITION_BYTES + bytes).sum()
}

/// Describes all definitions of a snapshot that the caller may see, with their freshness. Ages are relative to `now`.
#[must_use]
pub fn describe_catalog(snapshot: &Snapshot, now: Micros, authorization: &Authorization) -> Value {
    let catalog = snapshot.catalog();
    let visible = Visible::to(authorization, catalog);
    let sees_all = visible.is_none();
    let sees_view = |name: &str| visible.as_ref().is_none_or(|visible| visible.features.contains_key(name));
    let features = |view: &str, features: &[Feature]| -> Vec<Value> {
        let seen = features
            .iter()
            .filter(|feature| visible.as_ref().is_none_or(|visible| visible.has_feature(view, &feature.name)));
        seen.map(feature).collect()
    };
    let entities = catalog
        .entities()
        .iter()
        .filter(|entity| visible.as_ref().is_none_or(|visible| visible.has_entity(&entity.name, &entity.join_key)));
    let entities = entities.map(entity);
    let views = catalog.views().iter().zip(snapshot.view_ids()).enumerate();
    let views = views.filter(|(_, (view, _))| sees_view(&view.name)).map(|(index, (view, id))| {
        let source = snapshot.source(index).filter(|_| sees_all);
        let status = snapshot.store().status(*id);
        let freshness = status.as_ref().map(|status| status.freshness).unwrap_or_default();
        let time = |time: Option<Micros>| time.map(|time| Rfc3339::of(time).as_str().to_owned());
        let age = |time: Option<Micros>| time.map(|time| now.saturating_sub(time) / 1_000_000);
        json!({
            "name": &*view.name, "description": view.description, "tags": tags(&view.tags),
            "entities": view.entities.iter().map(|name| &**name).collect::<Vec<_>>(),
            "join_keys": view.join_keys.iter().map(|key| &*key.name).collect::<Vec<_>>(),
            "ttl_seconds": view.ttl.map(|ttl| ttl.as_secs()),
            "source": view.source.as_ref().filter(|_| sees_all).map(|source| match &source.from {
                SourceKind::Files(files) => &files.path,
                SourceKind::DynamoDb(table) => &table.table,
                SourceKind::FeastSqlite { path, .. } => path,
            }),
            "staleness_bound_seconds": source.and_then(SourceStatus::staleness).map(|bound| bound.as_secs_f64()),
            "caveat": source.and_then(SourceStatus::caveat),
            "features": features(&view.name, &view.features),
            "retyped_features": retyped_features(snapshot, view, *id, |feature| {
                visible.as_ref().is_none_or(|visible| visible.has_feature(&view.name, feature))
            }),
            "rows": status.as_ref().map_or(0, |status| status.rows),
            "damaged": status.as_ref().is_some_and(|status| status.is_damaged),
            "rows_lost": status.as_ref().map_or(0, |status| status.rows_lost),
            "loaded": freshness.last_success.is_some(),
            "last_success": time(freshness.last_success),
            "last_success_age_seconds": age(freshness.last_success),
            "newest_event": time(freshness.newest_event),
            "newest_event_age_seconds": age(freshness.newest_event),
        })
    });
    let derived = catalog.derived_views().iter().enumerate().filter(|(_, view)| sees_view(&view.name));
    let derived = derived.map(|(index, view): (usize, &Arc<DerivedView>)| {
        let component = snapshot.transforms().get(index).map(|transform| transform.component()).filter(|_| sees_all);
        // All callers may see join keys and the inputs that a request has to send.
        let inputs = view.inputs.iter().filter(|input| sees_all || !matches!(input.from, InputSource::Feature { .. }));
        let inputs = inputs.map(|input| {
            let from = match &input.from {
                InputSource::Feature { view, feature } => format!("{view}:{feature}"),
                InputSource::Request => "request".to_owned(),
                InputSource::JoinKey(key) => format!("key {key}"),
            };
            let doc = component.and_then(|component| doc_of(&component.signature().inputs, &input.name));
            let mut described = json!({ "name": &*input.name, "type": input.value_type.to_string(), "from": from });
            doc.into_iter().for_each(|doc| described["doc"] = doc.into());
            described
        });
        let mut features = features(&view.name, &view.features);
        for (value, feature) in features.iter_mut().zip(&view.features) {
            let doc = component.and_then(|component| doc_of(&component.signature().outputs, &feature.name));
            doc.into_iter().for_each(|doc| value["doc"] = doc.into());
        }
        let comparison = snapshot.transforms().comparison(index).filter(|_| sees_all);
        json!({
            "name": &*view.name, "description": view.description, "tags": tags(&view.tags),
            "plugin": sees_all.then_some(&*view.plugin),
            "plugin_version": component.map(|component| component.signature().version.clone()),
            "plugin_digest": component.map(|component| component.digest().to_string()),
            "plugin_doc": component.map(|component| component.signature().doc.clone()),
            "comparison": comparison.map(|comparison| describe_comparison(comparison)),
            "inputs": inputs.collect::<Vec<_>>(),
            "features": features,
        })
    });
    let in_scope = catalog.services().iter().filter(|service| authorization.permits_service(&service.name));
    let services = in_scope.map(|feature_service| service(feature_service, catalog));
    let unservable = |left_out: &BTreeMap<Arc<str>, Arc<str>>, is_seen: &dyn Fn(&str) -> bool| -> Map<String, Value> {
        let left_out = left_out.iter().filter(|(name, _)| is_seen(name));
        left_out.map(|(name, why)| (name.to_string(), Value::from(&**why))).collect()
    };
    json!({
        "unservable": {
            "feature_views": unservable(catalog.unservable_views(), &|_| sees_all),
            "feature_services": unservable(catalog.unservable_services(), &|name| authorization.permits_service(name)),
        },
        "unmaterializable": { "feature_views": unservable(catalog.unmaterializable_views(), &|name| sees_view(name)) },
        "project": catalog.project(),
        "entities": entities.collect::<Vec<_>>(),
        "feature_views": views.collect::<Vec<_>>(),
        "derived_views": derived.collect::<Vec<_>>(),
        "feature_services": services.collect::<Vec<_>>(),
    })
}

/// Returns the description of an input or output of a plugin; `None` if it has none.
fn doc_of<'s>(fields: &'s [Field], name: &str) -> Option<&'s str> {
    fields.iter().find(|field| field.name == name).map(|field| &*field.doc).filter(|doc| !doc.is_empty())
}

/// Describes the comparison of the live version of a plugin with another one, without values of rows.
fn describe_comparison(comparison: &Comparison) -> Value {
    let version = |transform: &Transform| transform.component().signature().version.clone();
    let diff = comparison.report().diff;
    let features = diff.outputs.iter().map(|output| {
        json!({
            "name": output.name, "equal": output.equal, "within_tolerance": output.within_tolerance,
            "different": output.different, "null_to_value": output.null_to_value, "value_to_null": output.value_to_null,
            "largest_difference": output.largest,
        })
    });
    json!({
        "old": version(comparison.old()), "new": version(comparison.new_version()), "rows": diff.rows,
        "failed_old": diff.failed_old, "failed_new": diff.failed_new, "features": features.collect::<Vec<_>>(),
    })
}

/// Describes all definitions of a catalog in the form of [`describe_catalog`], without the parts that only a server knows.
#[must_use]
pub fn describe_definitions(catalog: &Catalog) -> Value {
    let features = |features: &[Feature]| features.iter().map(feature).collect::<Vec<_>>();
    let views = catalog.views().iter().map(|view| {
        json!({
            "name": &*view.name, "description": view.description, "tags": tags(&view.tags),
            "join_keys": view.join_keys.iter().map(|key| &*key.name).collect::<Vec<_>>(),
            "ttl_seconds": view.ttl.map(|ttl| ttl.as_secs()),
            "features": features(&view.features),
        })
    });
    let derived = catalog.derived_views().iter().map(|view| {
        json!({
            "name": &*view.name, "description": view.description, "tags": tags(&view.tags), "plugin": &*view.plugin,
            "features": features(&view.features),
        })
    });
    json!({
        "project": catalog.project(),
        "entities": catalog.entities().iter().map(entity).collect::<Vec<_>>(),
        "feature_views": views.collect::<Vec<_>>(),
        "derived_views": derived.collect::<Vec<_>>(),
        "feature_services": catalog.services().iter().map(|one| service(one, catalog)).collect::<Vec<_>>(),
    })
}

fn entity(entity: &Entity) -> Value {
    json!({
        "name": &*entity.name, "join_key": &*entity.join_key,
        "type": ValueType::Scalar(entity.value_type).to_string(),
        "description": entity.description, "tags": tags(&entity.tags),
    })
}

fn service(service: &FeatureService, catalog: &Catalog) -> Value {
    let references = service.projections.iter().flat_map(|projection| {
        projection.features.iter().map(move |feature| format!("{}:{feature}", projection.prefix()))
    });
    json!({
        "name": &*service.name, "description": service.description, "tags": tags(&service.tags),
        "features": references.collect::<Vec<_>>(), "inputs": service_inputs(service, catalog),
    })
}

fn feature(feature: &Feature) -> Value {
    json!({
        "name": &*feature.name, "type": feature.value_type.to_string(),
        "description": feature.description, "tags": tags(&feature.tags),
    })
}

/// Describes the columns that a request for a service needs, sorted by name. They are the join keys, under the names
/// that the service uses for them, and the request inputs of derived views.
fn service_inputs(service: &FeatureService, catalog: &Catalog) -> Vec<Value> {
    let (mut inputs, mut read) = (BTreeMap::new(), HashSet::new());
    for projection in &service.projections {
        add_inputs(&projection.view, &projection.join_key_map, catalog, &mut inputs, &mut read);
    }
    let input = |(name, (value_type, from)): (Arc<str>, (ValueType, String))| {
        let value_type = value_type.to_string();
        json!({ "name": &*name, "type": value_type, "from": from })
    };
    inputs.into_iter().map(input).collect()
}

/// Adds the columns that a view needs. For a derived view, also adds the columns of all views that it reads. Visits
/// each of these views once, because the number of paths through a chain of derived views can grow exponentially.
/// `read` has the names of the views that were visited so far.
fn add_inputs<'c>(
    view: &str,
    join_key_map: &BTreeMap<Arc<str>, Arc<str>>,
    catalog: &'c Catalog,
    inputs: &mut BTreeMap<Arc<str>, (ValueType, String)>,
    read: &mut HashSet<&'c str>,
) {
    let key_input = |column: &Arc<str>, key: &Arc<str>, value_type| {
        (Arc::clone(column), (ValueType::Scalar(value_type), format!("key {key}")))
    };
    // A view without entities has an internal key, which requests do not contain.
    if let Some(view) = catalog.view(view).filter(|view| !view.is_entityless()) {
        let column = |key| join_key_map.get(key).unwrap_or(key);
        inputs.extend(view.join_keys.iter().map(|key| key_input(column(&key.name), &key.name, key.value_type)));
    }
    for input in catalog.derived_view(view).iter().flat_map(|view| &view.inputs) {
        match &input.from {
            InputSource::Feature { view, .. } => {
                if read.insert(&**view) {
                    add_inputs(view, &BTreeMap::new(), catalog, inputs, read);
                }
            }
            InputSource::JoinKey(key) => {
                let value_type = catalog.join_keys().get(key).copied().unwrap_or(ScalarType::String);
                inputs.extend([key_input(key, key, value_type)]);
            }
            InputSource::Request => {
                inputs.insert(Arc::clone(&input.name), (input.value_type, "request".to_owned()));
            }
        }
    }
}

/// Describes the features that have a different type in stored rows: the types, and how the stored values are served.
fn retyped_features(
    snapshot: &Snapshot,
    view: &FeatureView,
    id: ViewId,
    is_visible: impl Fn(&str) -> bool,
) -> Vec<Value> {
    let schemas = snapshot.store().schemas(id).unwrap_or_default();
    let describe = |feature: Retyped| {
        json!({
            "name": &*feature.feature, "stored_type": feature.stored.to_string(), "type": feature.declared.to_string(),
            "served": if feature.conversion.is_some() { "converted" } else { "not_found" },
        })
    };
    let retyped = retyped(&view.features, &schemas).into_iter();
    retyped.filter(|feature| is_visible(&feature.feature)).map(describe).collect()
}

fn tags(tags: &Tags) -> Value {
    tags.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use larder_model::{
        codec::KeyVersion,
        registry::{Definitions, validate},
        yaml::Problems,
    };

    use super::*;

    #[test]
    fn chain_of_views_is_described_in_linear_time() {
        let mut text = "entities: [{name: user, type: String}]
feature_views:
  - {name: v0, entities: [user], push_source: p, features: [{name: a, type: Int64}, {name: b, type: Int64}]}
derived_views:
"
        .to_owned();
        for n in 1..=40 {
            let before = n - 1;
            text += &format!(
                "  - {{name: v{n}, inputs: ['v{before}:a', 'v{before}:b', {{name: r{n}, request: Float64}}], features: \
                 [{{name: a, type: Int64}}, {{name: b, type: Int64}}]}}\n"
            );
        }
        text += "feature_services: [{name: last, features: [v40]}]\n";
        let (problems, mut definitions) = (Problems::default(), Definitions::default());
        definitions.read("chain.yaml", &text, &problems);
        let catalog = validate("p", KeyVersion::V3, definitions, &problems);
        let catalog = catalog.unwrap_or_else(|| panic!("{:?}", problems.into_sorted()));
        // 2^40 paths lead from the last view to the first.
        let inputs = service_inputs(catalog.service("last").unwrap(), &catalog);
        assert_eq!(inputs.len(), 41);
        assert_eq!(inputs[40], json!({ "name": "user", "type": "String", "from": "key user" }));
        let mut visible = Visible::default();
        visible.add_keys("v40", &catalog, &mut HashSet::new());
        assert!(visible.has_entity("user", "user"));
    }
}
