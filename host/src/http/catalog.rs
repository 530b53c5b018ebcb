//! `/v1/catalog`: what is served, for people and tools.

use larder_model::model::{Feature, InputSource, Micros, Rfc3339, SourceKind, Tags};
use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

use super::Scope;
use crate::{serving::Snapshot, source::Source};

/// Everything that a snapshot serves, with how fresh it is, and of the services those in scope. `now` makes ages of
/// times.
#[must_use]
pub fn describe_catalog(snapshot: &Snapshot, now: Micros, scope: &Scope) -> Value {
    let catalog = snapshot.catalog();
    let entities = catalog.entities().iter().map(|entity| {
        json!({
            "name": &*entity.name, "join_key": &*entity.join_key,
            "type": larder_model::model::ValueType::Scalar(entity.value_type).to_string(),
            "description": entity.description, "tags": tags(&entity.tags),
        })
    });
    let views = catalog.views().iter().zip(snapshot.view_ids()).enumerate().map(|(index, (view, id))| {
        let source = snapshot.source(index);
        let status = snapshot.store().status(*id);
        let freshness = status.as_ref().map(|status| status.freshness).unwrap_or_default();
        let time = |time: Option<Micros>| time.map(|time| Rfc3339::of(time).as_str().to_owned());
        let age = |time: Option<Micros>| time.map(|time| now.saturating_sub(time) / 1_000_000);
        json!({
            "name": &*view.name, "description": view.description, "tags": tags(&view.tags),
            "entities": view.entities.iter().map(|name| &**name).collect::<Vec<_>>(),
            "join_keys": view.join_keys.iter().map(|key| &*key.name).collect::<Vec<_>>(),
            "ttl_seconds": view.ttl.map(|ttl| ttl.as_secs()),
            "source": view.source.as_ref().map(|source| match &source.from {
                SourceKind::Files(files) => &files.path,
                SourceKind::DynamoDb(table) => &table.table,
                SourceKind::FeastSqlite { path, .. } => path,
            }),
            "staleness_bound_seconds": source.and_then(Source::staleness).map(|bound| bound.as_secs_f64()),
            "caveat": source.and_then(Source::caveat),
            "features": features(&view.features),
            "rows": status.as_ref().map_or(0, |status| status.rows),
            "loaded": freshness.last_success.is_some(),
            "last_success": time(freshness.last_success),
            "last_success_age_seconds": age(freshness.last_success),
            "newest_event": time(freshness.newest_event),
            "newest_event_age_seconds": age(freshness.newest_event),
        })
    });
    let derived = catalog.derived_views().iter().enumerate().map(|(place, view)| {
        let component = snapshot.transforms().get(place).map(|transform| transform.component());
        let inputs = view.inputs.iter().map(|input| {
            let from = match &input.from {
                InputSource::Feature { view, feature } => format!("{view}:{feature}"),
                InputSource::Request => "request".to_owned(),
                InputSource::JoinKey(key) => format!("key {key}"),
            };
            json!({ "name": &*input.name, "type": input.value_type.to_string(), "from": from })
        });
        json!({
            "name": &*view.name, "description": view.description, "tags": tags(&view.tags),
            "plugin": &*view.plugin,
            "plugin_version": component.map(|component| component.signature().version.clone()),
            "plugin_digest": component.map(|component| component.digest().to_string()),
            "inputs": inputs.collect::<Vec<_>>(),
            "features": features(&view.features),
        })
    });
    let in_scope = catalog.services().iter().filter(|service| scope.has(&service.name));
    let services = in_scope.map(|service| {
        let features: Vec<String> = service
            .projections
            .iter()
            .flat_map(|projection| {
                projection.features.iter().map(move |feature| format!("{}:{feature}", projection.prefix()))
            })
            .collect();
        json!({
            "name": &*service.name, "description": service.description, "tags": tags(&service.tags),
            "features": features,
        })
    });
    let unservable = |left_out: &BTreeMap<Arc<str>, Arc<str>>| -> Map<String, Value> {
        left_out.iter().map(|(name, why)| (name.to_string(), Value::from(&**why))).collect()
    };
    json!({
        "unservable": {
            "feature_views": unservable(catalog.unservable_views()),
            "feature_services": unservable(catalog.unservable_services()),
        },
        "unmaterializable": { "feature_views": unservable(catalog.unmaterializable_views()) },
        "project": catalog.project(),
        "entities": entities.collect::<Vec<_>>(),
        "feature_views": views.collect::<Vec<_>>(),
        "derived_views": derived.collect::<Vec<_>>(),
        "feature_services": services.collect::<Vec<_>>(),
    })
}

fn features(features: &[Feature]) -> Vec<Value> {
    let feature = |feature: &Feature| {
        json!({
            "name": &*feature.name, "type": feature.value_type.to_string(),
            "description": feature.description, "tags": tags(&feature.tags),
        })
    };
    features.iter().map(feature).collect()
}

fn tags(tags: &Tags) -> Value {
    tags.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect::<Map<_, _>>().into()
}
