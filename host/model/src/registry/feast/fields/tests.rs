//! Compares the table of fields with Feast's descriptors and with the effects of the fields.

use std::collections::{BTreeMap, BTreeSet};

use prost::{Message as _, encoding::encode_varint};

use super::*;
use crate::registry::feast::{FeastOptions, FeastRegistry, FeastValues, UnknownFields, proto, tests as registries};

/// The fields of Feast's descriptors: for each message and field number, the name and the type of the field.
type Descriptors = BTreeMap<&'static str, BTreeMap<u32, (&'static str, &'static str)>>;

fn descriptors() -> Descriptors {
    let mut all = Descriptors::new();
    for line in include_str!("../testdata/fields.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap();
        let (message, number, name) = (word(), word().parse().unwrap(), word());
        all.entry(message).or_default().insert(number, (name, word()));
    }
    all
}

/// Returns every message that can be reached from the registry, with the path of field numbers that leads to it.
fn reached() -> Vec<(Vec<u32>, &'static Message)> {
    let (mut all, mut next) = (Vec::new(), vec![(Vec::new(), &REGISTRY)]);
    while let Some((path, message)) = next.pop() {
        for field in message.fields {
            if let Effect::Inside(inner) | Effect::Files(inner) = field.effect {
                next.push(([&*path, &[field.number]].concat(), inner));
            }
        }
        all.push((path, message));
    }
    all
}

#[test]
fn table_has_all_descriptor_fields() {
    let descriptors = descriptors();
    for (_, message) in reached() {
        let known: BTreeMap<u32, &str> = message.fields.iter().map(|field| (field.number, field.name)).collect();
        let theirs: BTreeMap<u32, &str> =
            descriptors[message.name].iter().map(|(number, (name, _))| (*number, *name)).collect();
        assert_eq!(known, theirs, "{}: each field of the message needs an effect", message.name);
        for field in message.fields {
            let (_, kind) = descriptors[message.name][&field.number];
            if let Effect::Inside(inner) | Effect::Files(inner) = field.effect {
                assert_eq!(kind.trim_start_matches("repeated "), inner.name, "{}.{}", message.name, field.name);
            }
        }
    }
}

/// Returns a registry that contains every kind of definition and every message of the table.
fn full_registry() -> Vec<u8> {
    use proto::*;
    let mut registry = Registry { registry_schema_version: "1".into(), ..Registry::default() };
    registry.entities.push(registries::entity("user", "user_id", 4));
    let source = || DataSource {
        file_options: Some(FileOptions { uri: "data/x.parquet".into(), ..FileOptions::default() }),
        ..registries::file("x")
    };
    let push = |name: &str| DataSource { kind: PUSH_SOURCE, name: name.into(), ..DataSource::default() };
    let spec = FeatureViewSpec {
        batch_source: Some(source()),
        stream_source: Some(push("p")),
        ..registries::view("plain", &[("a", 4)])
    };
    registry.feature_views.push(FeatureView { spec: Some(spec.clone()), meta: Some(FeatureViewMeta::default()) });
    let spec = StreamFeatureViewSpec {
        name: "streamed".into(),
        project: spec.project,
        entities: spec.entities,
        features: spec.features,
        entity_columns: spec.entity_columns,
        batch_source: Some(source()),
        stream_source: Some(push("q")),
        online: true,
        ..StreamFeatureViewSpec::default()
    };
    let meta = Some(FeatureViewMeta::default());
    registry.stream_feature_views.push(StreamFeatureView { spec: Some(spec.clone()), meta });
    let spec = LabelViewSpec {
        name: "labels".into(),
        project: spec.project,
        entities: spec.entities,
        features: spec.features,
        entity_columns: spec.entity_columns,
        source: Some(push("r")),
        online: true,
        ..LabelViewSpec::default()
    };
    registry.label_views.push(LabelView { spec: Some(spec.clone()) });
    let select = |view: &str| Projection {
        feature_view_name: view.into(),
        feature_columns: vec![registries::field("a", 4)],
        ..Projection::default()
    };
    let read_view = FeatureView { spec: Some(registries::view("plain", &[("a", 4)])), meta: None };
    let schema = vec![registries::field("amount", 4)];
    let request = DataSource { request_data_options: Some(RequestDataOptions { schema }), ..DataSource::default() };
    // Each kind of source has its own on-demand view, so that the last source of each view is of that kind.
    for (name, source) in [
        ("of_request", SourceOf::Request(request)),
        ("of_view", SourceOf::View(Box::new(read_view))),
        ("of_projection", SourceOf::Projection(select("plain"))),
    ] {
        let spec = OnDemandFeatureViewSpec {
            name: name.into(),
            project: registries::PROJECT.into(),
            entities: spec.entities.clone(),
            entity_columns: spec.entity_columns.clone(),
            features: vec![registries::field("c", 4)],
            sources: [("s".into(), OnDemandSource { source: Some(source) })].into(),
            ..OnDemandFeatureViewSpec::default()
        };
        let meta = Some(OnDemandFeatureViewMeta::default());
        registry.on_demand_feature_views.push(OnDemandFeatureView { spec: Some(spec), meta });
    }
    let spec = FeatureServiceSpec {
        name: "service".into(),
        project: registries::PROJECT.into(),
        features: vec![select("plain")],
        ..FeatureServiceSpec::default()
    };
    registry.feature_services.push(FeatureService { spec: Some(spec) });
    registry.encode_to_vec()
}

/// Returns all definitions of a registry, converted in three ways: with rows from files, with rows from an online store
/// that has a table for each version of a view, and the latter with on-demand views whose values are computed when rows
/// are written.
fn served(bytes: &[u8]) -> Vec<String> {
    let Ok(registry) = FeastRegistry::parse(bytes) else { return vec!["no registry".to_owned()] };
    let mut stored = proto::Registry::decode(bytes).unwrap();
    stored.on_demand_feature_views.iter_mut().filter_map(|view| view.spec.as_mut()).for_each(|spec| {
        spec.write_to_online_store = true;
    });
    let stored = FeastRegistry::parse(&stored.encode_to_vec()).unwrap();
    let batch = FeastOptions::from(FeastValues::BatchSources);
    let online = FeastOptions { versioned_tables: true, ..FeastValues::OnlineStore("x.db".into()).into() };
    [(&registry, &batch), (&registry, &online), (&stored, &online)]
        .map(|(registry, options)| format!("{:#?}", registry.definitions("registry.db", registries::PROJECT, options)))
        .to_vec()
}

/// Appends a field to the last message on a path, and returns the changed bytes. Adds missing messages on the path.
/// `value` is the wire type of the field, in one byte, followed by the encoded value, with its length first if the type
/// needs one. `choose` selects one of several on-demand views by name.
pub(in crate::registry::feast) fn with(
    bytes: &[u8],
    path: &[u32],
    number: u32,
    value: &[u8],
    choose: Option<&str>,
) -> Vec<u8> {
    let Some((first, path)) = path.split_first() else {
        return [bytes, &key(number, value), value_bytes(value)].concat();
    };
    let is_meant =
        |inner: &[u8]| choose.is_none_or(|name| inner.windows(name.len()).any(|part| part == name.as_bytes()));
    let mut fields: Vec<(u32, Value<'_>)> = wire::fields(bytes).collect();
    let place = fields
        .iter()
        .rposition(|(number, value)| number == first && matches!(value, Value::Bytes(inner) if is_meant(inner)));
    let place = place.unwrap_or_else(|| {
        fields.push((*first, Value::Bytes(&[])));
        fields.len() - 1
    });
    let mut out = Vec::new();
    for (at, (field, inner)) in fields.into_iter().enumerate() {
        match inner {
            Value::Bytes(inner) if at == place => put(&mut out, field, &with(inner, path, number, value, None)),
            Value::Bytes(inner) => put(&mut out, field, inner),
            Value::Varint(varint) => {
                encode_varint(u64::from(field << 3), &mut out);
                encode_varint(varint, &mut out);
            }
            other => panic!("{other:?}"),
        }
    }
    out
}

fn put(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    encode_varint(u64::from(number << 3 | 2), out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Encodes the key of a field: its number and its wire type, which is the first byte of `value`.
fn key(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_varint(u64::from(number << 3 | u32::from(value[0])), &mut out);
    out
}

fn value_bytes(value: &[u8]) -> &[u8] {
    &value[1..]
}

/// Returns the name of the on-demand view with the kind of source that is on a path.
fn choose(path: &[u32]) -> Option<&'static str> {
    match path {
        [8, 1, 4, 2, 1, ..] => Some("of_view"),
        [8, 1, 4, 2, 2, ..] => Some("of_request"),
        [8, ..] => Some("of_projection"),
        _ => None,
    }
}

/// Returns encoded sample values of a type, for [`with`]. At least one of them differs from the current value of the
/// field.
fn samples(kind: &str) -> Vec<Vec<u8>> {
    let varint = |number: u64| {
        let mut out = vec![0];
        encode_varint(number, &mut out);
        out
    };
    let bytes = |bytes: &[u8]| {
        let mut out = vec![2];
        encode_varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
        out
    };
    let mut entry = Vec::new();
    put(&mut entry, 1, b"user_id");
    put(&mut entry, 2, b"odd");
    match kind.trim_start_matches("repeated ") {
        "string" => vec![bytes(b"odd")],
        "bytes" => vec![bytes(&[1])],
        "int64" | "int32" | "enum" => vec![varint(2), varint(1)],
        "bool" => vec![varint(0), varint(1)],
        "google.protobuf.Duration" => vec![bytes(&[0x08, 77])],
        map if map.ends_with("Entry") => vec![bytes(&entry)],
        _ => vec![bytes(&[])],
    }
}

#[test]
fn every_field_has_its_declared_effect() {
    let (base, descriptors) = (full_registry(), descriptors());
    let before = served(&base);
    for definitions in &before {
        for complete in ["unservable_views: []", "unservable_services: []"] {
            assert!(definitions.contains(complete), "{definitions}");
        }
    }
    let mut tried = BTreeSet::new();
    for (path, message) in reached() {
        for field in message.fields {
            let (_, kind) = descriptors[message.name][&field.number];
            let what = format!("{path:?} {}.{}", message.name, field.name);
            let after =
                samples(kind).into_iter().map(|value| served(&with(&base, &path, field.number, &value, choose(&path))));
            let after: Vec<Vec<String>> = after.collect();
            match field.effect {
                Effect::Read => assert!(after.iter().any(|after| *after != before), "{what} has no effect"),
                Effect::Unused(why) => {
                    assert!(!why.is_empty(), "{what}");
                    for after in after {
                        assert!(after == before, "{what} has an effect");
                    }
                }
                Effect::Refused(why) => {
                    for after in after {
                        assert!(after.iter().any(|after| after.contains(why)), "{what} is served");
                    }
                }
                Effect::Inside(_) | Effect::Files(_) => {}
            }
            tried.insert(what);
        }
    }
    assert!(tried.len() > 200, "{tried:?}");
}

#[test]
fn unknown_fields_are_rejected_or_ignored() {
    let base = full_registry();
    let before = served(&base);
    for (path, message) in reached().into_iter().filter(|(path, _)| !path.is_empty()) {
        let bytes = with(&base, &path, 1_234, &[0, 1], choose(&path));
        let registry = FeastRegistry::parse(&bytes).unwrap();
        let options = FeastOptions::from(FeastValues::BatchSources);
        let definitions = format!("{:#?}", registry.definitions("registry.db", registries::PROJECT, &options));
        let reason = format!("it sets field 1234 of {}, which this version of Larder does not support", message.name);
        assert!(definitions.contains(&reason), "{path:?}: {definitions}");
        let options = FeastOptions { unknown_fields: UnknownFields::Ignore, ..options };
        let definitions = format!("{:#?}", registry.definitions("registry.db", registries::PROJECT, &options));
        assert!(definitions == before[0], "{path:?}: {definitions}");
    }
    let bytes = with(&base, &[], 1_234, &[0, 1], None);
    let registry = FeastRegistry::parse(&bytes).unwrap();
    assert_eq!(
        registry.unknown_fields(),
        ["it sets field 1234 of feast.core.Registry, which this version of Larder does not support"]
    );
}
