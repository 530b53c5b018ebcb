//! Tests with the registry that Feast wrote for the golden repository, and with invalid registries.

use super::{proto::*, *};
use crate::{
    codec::KeyVersion,
    model::{InputSource, OnError, SourceKind},
    registry::{Catalog, to_yaml, validate},
    yaml::Problems,
};

/// A registry that Feast 0.67 wrote.
const GOLDEN: &[u8] = include_bytes!("../../../../tests/golden/repo/data/registry.db");
pub(super) const PROJECT: &str = "churn_prediction";

/// Returns the catalog of a registry. Checks that the served definitions are the same after they are written as YAML
/// and read again.
fn catalog(registry: &FeastRegistry, values: &FeastValues) -> Catalog {
    let mut definitions = registry.definitions("registry.db", PROJECT, &values.clone().into());
    // YAML cannot contain the time at which a view was created.
    definitions.views.iter_mut().for_each(|view| view.created = None);
    let yaml = to_yaml(&definitions);
    let catalog = valid(definitions, "");
    let problems = Problems::default();
    let mut written = Definitions::default();
    written.read("written.yaml", &yaml, &problems);
    assert!(!problems.has_errors(), "{:?}\n{yaml}", problems.into_sorted());
    let expected = Catalog {
        unservable_views: BTreeMap::new(),
        unmaterializable_views: BTreeMap::new(),
        unservable_services: BTreeMap::new(),
        ..catalog.clone()
    };
    assert_eq!(valid(written, &yaml), expected, "{yaml}");
    let left_out = catalog.unservable_views.iter().chain(&catalog.unservable_services);
    for (name, why) in left_out.chain(&catalog.unmaterializable_views) {
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(yaml.contains(&format!("{name}: {why}\n")), "{yaml}");
    }
    catalog
}

fn valid(definitions: Definitions, yaml: &str) -> Catalog {
    let problems = Problems::default();
    let catalog = validate(PROJECT, KeyVersion::V3, definitions, &problems);
    let problems: Vec<String> = problems.into_sorted().iter().map(ToString::to_string).collect();
    assert_eq!(problems, [""; 0], "{yaml}");
    catalog.unwrap()
}

fn golden(values: &FeastValues) -> Catalog {
    catalog(&FeastRegistry::parse(GOLDEN).unwrap(), values)
}

/// Creates a registry and lets the test fill it.
fn registry(fill: impl FnOnce(&mut Registry)) -> FeastRegistry {
    let mut registry = Registry { registry_schema_version: "1".into(), ..Registry::default() };
    registry.entities.push(entity("user", "user_id", 4));
    fill(&mut registry);
    FeastRegistry::parse(&registry.encode_to_vec()).unwrap()
}

pub(super) fn entity(name: &str, join_key: &str, value_type: i32) -> Entity {
    let (name, join_key, project) = (name.into(), join_key.into(), PROJECT.into());
    Entity { spec: Some(EntitySpec { name, join_key, value_type, project, ..EntitySpec::default() }) }
}

pub(super) fn field(name: &str, value_type: i32) -> FeatureSpec {
    FeatureSpec { name: name.into(), value_type, ..FeatureSpec::default() }
}

pub(super) fn file(uri: &str) -> DataSource {
    let file_options = Some(FileOptions { uri: uri.into(), ..FileOptions::default() });
    DataSource { kind: BATCH_FILE, timestamp_field: "ts".into(), file_options, ..DataSource::default() }
}

pub(super) fn view(name: &str, features: &[(&str, i32)]) -> FeatureViewSpec {
    FeatureViewSpec {
        name: name.into(),
        project: PROJECT.into(),
        entities: vec!["user".into()],
        entity_columns: vec![field("user_id", 4)],
        features: features.iter().map(|(name, number)| field(name, *number)).collect(),
        batch_source: Some(file("data/x.parquet")),
        online: true,
        ..FeatureViewSpec::default()
    }
}

fn put(registry: &mut Registry, spec: FeatureViewSpec) {
    registry.feature_views.push(FeatureView { spec: Some(spec), meta: None });
}

fn why<'c>(catalog: &'c Catalog, view: &str) -> &'c str {
    &catalog.unservable_views()[view]
}

#[test]
fn golden_registry_is_read_completely() {
    let catalog = golden(&FeastValues::BatchSources);
    assert!(catalog.unservable_views().is_empty() && catalog.unservable_services().is_empty());
    let names: Vec<&str> = catalog.views().iter().map(|view| &*view.name).collect();
    assert_eq!(
        names,
        ["customer_stats", "driver_stats", "expired_stats", "global_stats", "mapped_stats", "pair_stats"]
    );
    let customer = catalog.view("customer_stats").unwrap();
    assert_eq!(customer.push_source.as_deref(), Some("customer_push"));
    assert_eq!(customer.ttl.unwrap().as_secs(), 86_400);
    assert_eq!(customer.features.len(), 17);
    let Some(SourceKind::Files(files)) = customer.source.as_ref().map(|source| &source.from) else { panic!() };
    assert_eq!(
        (files.path.as_str(), files.timestamp_field.as_deref().unwrap_or_default()),
        ("data/customer_stats.parquet", "event_timestamp")
    );
    assert_eq!(files.created_timestamp_column.as_deref(), Some("created"));
    assert!(catalog.view("global_stats").unwrap().is_entityless());
    assert_eq!(catalog.view("driver_stats").unwrap().ttl, None, "a ttl of 0 means no ttl");
    let mapped = catalog.view("mapped_stats").unwrap().files().unwrap();
    assert_eq!(mapped.field_mapping["val_src"], "mapped_value");
    let alias = catalog.service("fs_alias").unwrap();
    assert_eq!(alias.projections[1].prefix().as_ref(), "dest");
    assert_eq!(alias.projections[1].join_key_map["driver_id"].as_ref(), "dest_driver_id");
}

#[test]
fn on_demand_view_inputs_equal_python() {
    let catalog = golden(&FeastValues::BatchSources);
    let view = catalog.derived_view("odfv_python").unwrap();
    assert_eq!((&*view.plugin, &view.on_error), ("odfv_python", &OnError::Fail));
    let inputs: Vec<&str> = view.inputs.iter().map(|input| &*input.name).collect();
    assert_eq!(
        inputs,
        [
            "amount",
            "hour",
            "driver_id",
            "conv_rate",
            "driver_stats__conv_rate",
            "avg_daily_trips",
            "driver_stats__avg_daily_trips"
        ]
    );
    assert_eq!(view.inputs[2].from, InputSource::JoinKey("driver_id".into()));
    let python = FeastRegistry::parse(GOLDEN).unwrap().python(PROJECT);
    assert!(python["odfv_python"].contains("conv_x_amount"), "{python:?}");
}

#[test]
fn online_store_values_come_from_tables() {
    let catalog = golden(&FeastValues::OnlineStore("data/online_store.db".into()));
    let view = catalog.view("driver_stats").unwrap();
    let expected =
        SourceKind::FeastSqlite { path: "data/online_store.db".into(), table: "churn_prediction_driver_stats".into() };
    assert_eq!(view.source.as_ref().unwrap().from, expected);
    assert_eq!(view.files().unwrap().path, "data/driver_stats.parquet");
}

#[test]
fn other_projects_are_not_served() {
    let registry = registry(|registry| {
        put(registry, view("mine", &[("a", 4)]));
        put(registry, FeatureViewSpec { project: "another".into(), ..view("theirs", &[("a", 4)]) });
    });
    assert_eq!(registry.projects(), ["another", PROJECT].into());
    let catalog = catalog(&registry, &FeastValues::BatchSources);
    assert!(catalog.view("mine").is_some() && catalog.view("theirs").is_none());
}

#[test]
fn unservable_definitions_are_left_out() {
    let registry = registry(|registry| {
        put(registry, view("good", &[("a", 4)]));
        put(registry, FeatureViewSpec { disabled: true, ..view("disabled", &[("a", 4)]) });
        put(registry, view("newer", &[("a", 4), ("b", 99)]));
        put(registry, view("bare", &[]));
        put(registry, FeatureViewSpec { entities: vec!["nobody".into()], ..view("lost", &[("a", 4)]) });
        let class = "feast.infra.offline_stores.redshift_source.RedshiftSource".to_owned();
        let redshift = DataSource { kind: 5, data_source_class_type: class, ..DataSource::default() };
        put(registry, FeatureViewSpec { batch_source: Some(redshift), ..view("warehouse", &[("a", 4)]) });
        put(registry, FeatureViewSpec { batch_source: Some(file("gs://b/x")), ..view("cloud", &[("a", 4)]) });
        put(registry, FeatureViewSpec { batch_source: Some(file("data/*.parquet")), ..view("parts", &[("a", 4)]) });
        put(registry, view("bad\nname", &[("a", 4)]));
        let select = |view: &str, feature: &str| Projection {
            feature_view_name: view.into(),
            feature_columns: vec![field(feature, 4)],
            ..Projection::default()
        };
        let mut service = |name: &str, features: Vec<Projection>| {
            let (name, project) = (name.into(), PROJECT.into());
            let spec = FeatureServiceSpec { name, project, features, ..FeatureServiceSpec::default() };
            registry.feature_services.push(FeatureService { spec: Some(spec) });
        };
        service("fine", vec![select("good", "a")]);
        service("mixed", vec![select("good", "a"), select("warehouse", "a")]);
        service("stale", vec![select("good", "gone")]);
    });
    let online = catalog(&registry, &FeastValues::OnlineStore("x.db".into()));
    assert!(online.view("warehouse").is_some(), "Feast writes its rows to the online store");

    let catalog = catalog(&registry, &FeastValues::BatchSources);
    assert_eq!(catalog.views().len(), 1);
    assert_eq!(why(&catalog, "disabled"), "it is disabled in the registry");
    assert_eq!(
        why(&catalog, "newer"),
        "the type of its feature 'b' has the number 99, which this version of Larder does not support"
    );
    assert_eq!(why(&catalog, "bare"), "it has no features");
    assert_eq!(why(&catalog, "lost"), "its entity 'nobody' is not in the registry");
    assert_eq!(why(&catalog, "warehouse"), "its batch source is a RedshiftSource, but Larder only reads Parquet files");
    assert_eq!(why(&catalog, "cloud"), "its batch source is gs://b/x, but Larder does not support gs://");
    assert_eq!(
        why(&catalog, "parts"),
        "its batch source is data/*.parquet, but Larder does not support patterns in paths"
    );
    assert!(why(&catalog, "bad\nname").starts_with("its name is not valid: "));
    assert!(catalog.service("fine").is_some());
    let services = catalog.unservable_services();
    assert_eq!(
        &*services["mixed"],
        "it selects from feature view 'warehouse', which is not served: its batch source is a RedshiftSource, but \
         Larder only reads Parquet files"
    );
    assert_eq!(&*services["stale"], "it selects 'good:gone', which the view does not have");
}

#[test]
fn labels_are_never_loaded_from_files() {
    let registry = registry(|registry| {
        let spec = LabelViewSpec {
            name: "labels".into(),
            project: PROJECT.into(),
            entities: vec!["user".into()],
            features: vec![field("is_good", 4)],
            entity_columns: vec![field("user_id", 4)],
            source: Some(DataSource { kind: PUSH_SOURCE, name: "labels_push".into(), ..DataSource::default() }),
            online: true,
            ..LabelViewSpec::default()
        };
        registry.label_views.push(LabelView { spec: Some(spec) });
    });
    let online = catalog(&registry, &FeastValues::OnlineStore("x.db".into()));
    let (online, files) = (online.view("labels").unwrap(), catalog(&registry, &FeastValues::BatchSources));
    assert!(online.source.is_some() && online.files().is_none(), "{online:?}");
    let view = files.view("labels").unwrap();
    assert_eq!((view.source.as_ref(), view.push_source.as_deref()), (None, Some("labels_push")));
}

#[test]
fn views_declare_their_key_types() {
    let registry = registry(|registry| {
        registry.entities.push(entity("untyped", "open_id", 0));
        put(registry, FeatureViewSpec { entity_columns: vec![field("user_id", 3)], ..view("narrow", &[("a", 4)]) });
        put(registry, view("wide", &[("a", 4)]));
        let (entities, entity_columns) = (vec!["untyped".into()], vec![field("open_id", 4)]);
        put(registry, FeatureViewSpec { entities, entity_columns, ..view("open", &[("a", 4)]) });
    });
    let catalog = catalog(&registry, &FeastValues::BatchSources);
    let key = |view: &str| catalog.view(view).unwrap().join_keys[0].value_type;
    use crate::model::ScalarType::{Int32, Int64};
    assert_eq!((key("narrow"), key("wide"), key("open")), (Int32, Int64, Int64));
    assert_eq!(catalog.join_keys()["open_id"], Int64);
}

/// Creates a registry with an on-demand view with this name. The view reads `numbers` and these fields of the request.
fn on_demand(name: &str, feature: &str, request: &[(&str, i32)]) -> FeastRegistry {
    registry(|registry| {
        put(registry, view("numbers", &[("a", 4)]));
        let request_data_options =
            Some(RequestDataOptions { schema: request.iter().map(|(name, number)| field(name, *number)).collect() });
        let request = DataSource { request_data_options, ..DataSource::default() };
        let read = FeatureView { spec: Some(view("numbers", &[("a", 4)])), meta: None };
        let source = |source| OnDemandSource { source: Some(source) };
        let spec = OnDemandFeatureViewSpec {
            name: name.into(),
            project: PROJECT.into(),
            features: vec![field(feature, 4)],
            sources: [
                ("numbers".into(), source(SourceOf::View(Box::new(read)))),
                ("r".into(), source(SourceOf::Request(request))),
            ]
            .into(),
            ..OnDemandFeatureViewSpec::default()
        };
        registry.on_demand_feature_views.push(OnDemandFeatureView { spec: Some(spec), meta: None });
    })
}

#[test]
fn unsupported_on_demand_view_is_left_out() {
    for (feature, request, reason) in [
        ("a-b", ("x", 4), "its feature 'a-b' has a name that plugins cannot use"),
        ("c", ("x-y", 4), "its request field 'x-y' has a name that plugins cannot use"),
        ("c", ("x", 20), "its request field 'x' is Map, which plugins cannot read"),
    ] {
        let catalog = catalog(&on_demand("computed", feature, &[request]), &FeastValues::BatchSources);
        assert_eq!(why(&catalog, "computed"), reason);
        assert!(catalog.view("numbers").is_some());
    }
}

#[test]
fn plugin_and_input_names_are_valid() {
    let registry = on_demand("2nd-look", "c", &[("x", 4), ("x", 4), ("user_id", 4)]);
    let catalog = catalog(&registry, &FeastValues::BatchSources);
    let view = catalog.derived_view("2nd-look").unwrap();
    assert_eq!(&*view.plugin, "_2nd_look");
    let inputs: Vec<&str> = view.inputs.iter().map(|input| &*input.name).collect();
    assert_eq!(inputs, ["x", "user_id", "a", "numbers__a"]);
    assert_eq!(view.inputs[1].from, InputSource::JoinKey("user_id".into()));
}

#[test]
fn extreme_ttls_are_normalized() {
    let registry = registry(|registry| {
        let ttl = |seconds, nanos| Some(Span { seconds, nanos });
        put(registry, FeatureViewSpec { ttl: ttl(i64::MAX, 0), ..view("long", &[("a", 4)]) });
        put(registry, FeatureViewSpec { ttl: ttl(90_061, 2_003_004), ..view("odd", &[("a", 4)]) });
    });
    let catalog = catalog(&registry, &FeastValues::BatchSources);
    assert_eq!(catalog.view("long").unwrap().ttl, None);
    assert_eq!(catalog.view("odd").unwrap().ttl, Some(std::time::Duration::from_micros(90_061_002_003)));
}

#[test]
fn empty_file_has_no_definitions() {
    let registry = FeastRegistry::parse(b"").unwrap();
    assert!(registry.projects().is_empty());
    assert!(catalog(&registry, &FeastValues::BatchSources).views().is_empty());
}

/// Feast sets the schema version only when it creates the file.
#[test]
fn registry_that_began_empty_is_read() {
    let version_id = "0b1fb6a6-5a0b-4a49-8b0e-1df9a0a6f5d0".to_owned();
    let mut registry = Registry { version_id, ..Registry::default() };
    registry.entities.push(entity("user", "user_id", 4));
    put(&mut registry, view("mine", &[("a", 4)]));
    let registry = FeastRegistry::parse(&registry.encode_to_vec()).unwrap();
    assert!(catalog(&registry, &FeastValues::BatchSources).view("mine").is_some());
}

#[test]
fn transformed_views_are_not_loaded() {
    let registry = registry(|registry| {
        let transformed =
            |name: &str| FeatureViewSpec { feature_transformation: Some(vec![]), ..view(name, &[("a", 4)]) };
        put(registry, transformed("batch"));
        put(registry, FeatureViewSpec { source_views: vec![vec![]], ..view("joined", &[("a", 4)]) });
        put(registry, FeatureViewSpec { online: false, ..view("training", &[("a", 4)]) });
        let FeatureViewSpec { project, entities, features, entity_columns, batch_source, .. } = view("x", &[("a", 4)]);
        let stream = StreamFeatureViewSpec {
            project,
            entities,
            features,
            entity_columns,
            batch_source,
            online: true,
            ..StreamFeatureViewSpec::default()
        };
        for spec in [
            StreamFeatureViewSpec { name: "udf".into(), user_defined_function: Some(vec![]), ..stream.clone() },
            StreamFeatureViewSpec { name: "newer_udf".into(), feature_transformation: Some(vec![]), ..stream.clone() },
            StreamFeatureViewSpec { name: "aggregated".into(), aggregations: vec![vec![]], ..stream.clone() },
            StreamFeatureViewSpec { name: "offline".into(), online: false, ..stream.clone() },
            StreamFeatureViewSpec { name: "plain".into(), ..stream },
        ] {
            registry.stream_feature_views.push(StreamFeatureView { spec: Some(spec), meta: None });
        }
    });
    let online = catalog(&registry, &FeastValues::OnlineStore("x.db".into()));
    for (view, reason) in [
        ("batch", "it has a transformation"),
        ("joined", "it combines other feature views"),
        ("udf", "it has a transformation"),
        ("newer_udf", "it has a transformation"),
        ("aggregated", "it has aggregations"),
    ] {
        let files = catalog(&registry, &FeastValues::BatchSources);
        assert!(why(&files, view).starts_with(reason), "{view}: {}", why(&files, view));
        // The rows that Feast wrote to the online store are served.
        let served = online.view(view).unwrap();
        assert!(served.source.is_some() && served.files().is_none(), "{served:?}");
        assert!(online.unmaterializable_views()[view].starts_with(reason));
    }
    for view in ["training", "offline"] {
        assert!(why(&online, view).starts_with("it has online=False"));
    }
    assert!(online.view("plain").unwrap().files().is_some());
}

/// Returns a registry whose last view has a file format: an empty message in a field of `feast.core.FileFormat`.
fn with_format(registry: &Registry, format: u32) -> FeastRegistry {
    let path = [proto::FEATURE_VIEWS, 1, 7, 11, 1];
    let bytes = fields::tests::with(&registry.encode_to_vec(), &path, format, &[2, 0], None);
    FeastRegistry::parse(&bytes).unwrap()
}

#[test]
fn delta_and_unknown_formats_are_unsupported() {
    let mut registry = Registry { registry_schema_version: "1".into(), ..Registry::default() };
    registry.entities.push(entity("user", "user_id", 4));
    put(&mut registry, view("delta", &[("a", 4)]));
    let delta = with_format(&registry, 2);
    let files = catalog(&delta, &FeastValues::BatchSources);
    assert_eq!(why(&files, "delta"), "it is a Delta table, but Larder only reads Parquet files");
    let online = catalog(&delta, &FeastValues::OnlineStore("x.db".into()));
    assert!(online.view("delta").unwrap().files().is_none());
    let parquet = with_format(&registry, 1);
    assert!(catalog(&parquet, &FeastValues::BatchSources).view("delta").is_some());
    let newer = with_format(&registry, 3);
    assert!(why(&catalog(&newer, &FeastValues::BatchSources), "delta").contains("field 3 of feast.core.FileFormat"));
}

#[test]
fn versioned_views_have_own_tables() {
    let registry = registry(|registry| {
        for (name, current_version_number) in [("first", 0), ("third", 3)] {
            let meta = Some(FeatureViewMeta { current_version_number, state: 4, created_timestamp: None });
            registry.feature_views.push(FeatureView { spec: Some(view(name, &[("a", 4)])), meta });
        }
    });
    let table = |versioned_tables: bool, name: &str| {
        let options = FeastOptions { versioned_tables, ..FeastValues::OnlineStore("x.db".into()).into() };
        let definitions = registry.definitions("registry.db", PROJECT, &options);
        let view = definitions.views.iter().find(|view| view.name.value == name).unwrap();
        match &view.source.as_ref().unwrap().from {
            crate::registry::SourceFrom::FeastSqlite { table, .. } => table.clone().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(table(true, "first"), "churn_prediction_first");
    assert_eq!(table(true, "third"), "churn_prediction_third_v3");
    assert_eq!(table(false, "third"), "churn_prediction_third");
}

#[test]
fn unusual_names_are_imported() {
    let odd = ["Größe in cm", "a,b", "x[0].y", "it's \"quoted\"", " a ", "%", "日本", "a:b@v2", "-1", "__"];
    let long = "n".repeat(5_000);
    let registry = registry(|registry| {
        let features: Vec<(&str, i32)> = odd.iter().copied().chain([&*long]).map(|name| (name, 4)).collect();
        for name in odd.iter().filter(|name| !name.contains(':')).copied().chain([&*long]) {
            put(registry, view(name, &features));
            let selected = Projection {
                feature_view_name: name.into(),
                feature_columns: features.iter().map(|(name, number)| field(name, *number)).collect(),
                ..Projection::default()
            };
            let (name, project) = (name.into(), PROJECT.into());
            let spec = FeatureServiceSpec { name, project, features: vec![selected], ..FeatureServiceSpec::default() };
            registry.feature_services.push(FeatureService { spec: Some(spec) });
        }
        put(registry, view("with:colon", &[("a", 4)]));
    });
    let catalog = catalog(&registry, &FeastValues::BatchSources);
    assert_eq!(catalog.unservable_views().len(), 1);
    assert_eq!(why(&catalog, "with:colon"), "its name has a colon, so references cannot name its features");
    assert_eq!((catalog.views().len(), catalog.services().len()), (odd.len(), odd.len()));
}

#[test]
fn bad_definition_does_not_affect_others() {
    let registry = registry(|registry| {
        registry.entities.push(entity("bad\tname", "key", 4));
        registry.entities.push(entity("bad_key", "a\tb", 4));
        put(registry, FeatureViewSpec { entities: vec!["bad_key".into()], ..view("keyed", &[("a", 4)]) });
        put(registry, view("twice", &[("a", 4), ("a", 4)]));
        put(registry, view("good", &[("a", 4)]));
        put(registry, view("good", &[("b", 4)]));
        let mapped = [("x".to_owned(), "a".to_owned()), ("y".to_owned(), "a".to_owned())].into();
        let batch_source = Some(DataSource { field_mapping: mapped, ..file("x") });
        put(registry, FeatureViewSpec { batch_source, ..view("mapped", &[("a", 4)]) });
    });
    let files = catalog(&registry, &FeastValues::BatchSources);
    assert_eq!(files.views().len(), 1);
    assert!(why(&files, "keyed").starts_with("its entity 'bad_key' is not served: its name is not valid"));
    assert_eq!(why(&files, "twice"), "its feature 'a' is defined twice");
    assert_eq!(why(&files, "mapped"), "its batch source maps two columns to 'a'");
    let place = AwsPlace::default();
    let tables = FeastValues::DynamoDb { template: "{project} {table_name}".into(), place, every: None };
    let tables = catalog(&registry, &tables);
    assert!(why(&tables, "good").starts_with("'churn_prediction good' is not a valid DynamoDB table name"));
}

#[test]
fn bytes_without_registry_are_rejected() {
    for bytes in [&b"project: x\n"[..], b"SQLite format 3\0", &[0; 64], b"\x0a\x00"] {
        let error = FeastRegistry::parse(bytes).unwrap_err();
        assert!(matches!(error, InvalidRegistry::Broken(_) | InvalidRegistry::Foreign), "{bytes:?}");
    }
}

/// A registry that is truncated between two fields is valid, and has the definitions before that point.
#[test]
fn truncated_registry_never_panics() {
    let (mut rejected, all) = (0, golden(&FeastValues::BatchSources));
    for length in 0..GOLDEN.len() {
        let Ok(registry) = FeastRegistry::parse(&GOLDEN[..length]) else {
            rejected += 1;
            continue;
        };
        let part = catalog(&registry, &FeastValues::BatchSources);
        assert!(part.views().iter().all(|view| all.view(&view.name) == Some(view)), "{length} bytes");
    }
    assert!(rejected * 100 > GOLDEN.len() * 99, "{rejected} of {}", GOLDEN.len());
}

#[test]
fn unknown_registry_fields_are_ignored() {
    let mut bytes = GOLDEN.to_vec();
    // Field 2000 of the registry, with four bytes of text.
    bytes.extend([0x82, 0x7d, 0x04, b'n', b'e', b'w', b'!']);
    assert_eq!(
        catalog(&FeastRegistry::parse(&bytes).unwrap(), &FeastValues::BatchSources),
        golden(&FeastValues::BatchSources)
    );
}
