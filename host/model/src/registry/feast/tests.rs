//! The registry that Feast wrote of the golden repository, and registries that nobody should have written.

use super::{proto::*, *};
use crate::{
    codec::KeyVersion,
    model::{InputSource, OnError, SourceKind},
    registry::{Catalog, to_yaml, validate},
    yaml::Problems,
};

/// As Feast 0.67 wrote it.
const GOLDEN: &[u8] = include_bytes!("../../../../tests/golden/repo/data/registry.db");
const PROJECT: &str = "churn_prediction";

/// What a registry defines; and that it is the same when it was written as YAML and read again.
fn catalog(registry: &FeastRegistry, values: &FeastValues) -> Catalog {
    let definitions = registry.definitions("registry.db", PROJECT, values);
    let yaml = to_yaml(&definitions);
    let catalog = valid(definitions, "");
    let problems = Problems::default();
    let mut written = Definitions::default();
    written.read("written.yaml", &yaml, &problems);
    assert!(!problems.has_errors(), "{:?}\n{yaml}", problems.into_sorted());
    let expected =
        Catalog { unservable_views: BTreeMap::new(), unservable_services: BTreeMap::new(), ..catalog.clone() };
    assert_eq!(valid(written, &yaml), expected, "{yaml}");
    for (name, why) in catalog.unservable_views.iter().chain(&catalog.unservable_services) {
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

/// A registry of one project with what a test puts into it.
fn registry(fill: impl FnOnce(&mut Registry)) -> FeastRegistry {
    let mut registry = Registry { registry_schema_version: "1".into(), ..Registry::default() };
    registry.entities.push(entity("user", "user_id", 4));
    fill(&mut registry);
    FeastRegistry::parse(&registry.encode_to_vec()).unwrap()
}

fn entity(name: &str, join_key: &str, value_type: i32) -> Entity {
    let (name, join_key, project) = (name.into(), join_key.into(), PROJECT.into());
    Entity { spec: Some(EntitySpec { name, join_key, value_type, project, ..EntitySpec::default() }) }
}

fn field(name: &str, value_type: i32) -> FeatureSpec {
    FeatureSpec { name: name.into(), value_type, ..FeatureSpec::default() }
}

fn file(uri: &str) -> DataSource {
    let file_options = Some(FileOptions { uri: uri.into(), ..FileOptions::default() });
    DataSource { kind: BATCH_FILE, timestamp_field: "ts".into(), file_options, ..DataSource::default() }
}

fn view(name: &str, features: &[(&str, i32)]) -> FeatureViewSpec {
    FeatureViewSpec {
        name: name.into(),
        project: PROJECT.into(),
        entities: vec!["user".into()],
        entity_columns: vec![field("user_id", 4)],
        features: features.iter().map(|(name, number)| field(name, *number)).collect(),
        batch_source: Some(file("data/x.parquet")),
        ..FeatureViewSpec::default()
    }
}

fn put(registry: &mut Registry, spec: FeatureViewSpec) {
    registry.feature_views.push(FeatureView { spec: Some(spec) });
}

fn why<'c>(catalog: &'c Catalog, view: &str) -> &'c str {
    &catalog.unservable_views()[view]
}

#[test]
fn what_feast_wrote_is_read_whole() {
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
        (files.path.as_str(), files.timestamp_field.as_str()),
        ("data/customer_stats.parquet", "event_timestamp")
    );
    assert_eq!(files.created_timestamp_column.as_deref(), Some("created"));
    assert!(catalog.view("global_stats").unwrap().is_entityless());
    assert_eq!(catalog.view("driver_stats").unwrap().ttl, None, "a ttl of 0 is none");
    let mapped = catalog.view("mapped_stats").unwrap().files().unwrap();
    assert_eq!(mapped.field_mapping["val_src"], "mapped_value");
    let alias = catalog.service("fs_alias").unwrap();
    assert_eq!(alias.projections[1].prefix().as_ref(), "dest");
    assert_eq!(alias.projections[1].join_key_map["driver_id"].as_ref(), "dest_driver_id");
}

#[test]
fn an_on_demand_view_reads_what_its_python_reads() {
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
fn values_of_the_online_store_come_from_its_tables_and_files_stay_for_materialization() {
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
fn what_cannot_be_served_is_left_out_with_the_reason_and_the_rest_is_served() {
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
        put(registry, view("bad name", &[("a", 4)]));
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
    assert!(online.view("warehouse").is_some(), "Feast brings its rows to the online store");

    let catalog = catalog(&registry, &FeastValues::BatchSources);
    assert_eq!(catalog.views().len(), 1);
    assert_eq!(why(&catalog, "disabled"), "it is disabled in the registry");
    assert_eq!(
        why(&catalog, "newer"),
        "the type of its feature 'b' has the number 99, which this version of Larder does not know"
    );
    assert_eq!(why(&catalog, "bare"), "it has no features");
    assert_eq!(why(&catalog, "lost"), "its entity 'nobody' is not in the registry");
    assert_eq!(why(&catalog, "warehouse"), "its batch source is a RedshiftSource, and Larder reads Parquet files");
    assert_eq!(why(&catalog, "cloud"), "its batch source is gs://b/x, and Larder reads no gs://");
    assert!(why(&catalog, "bad name").starts_with("its name is not of letters"));
    assert!(catalog.service("fine").is_some());
    let services = catalog.unservable_services();
    assert_eq!(
        &*services["mixed"],
        "it selects from feature view 'warehouse', which is not served: its batch source is a RedshiftSource, and \
         Larder reads Parquet files"
    );
    assert_eq!(&*services["stale"], "it selects 'good:gone', which the view does not have (any more)");
}

#[test]
fn labels_are_pushed_and_never_loaded_from_files() {
    let registry = registry(|registry| {
        let spec = LabelViewSpec {
            name: "labels".into(),
            project: PROJECT.into(),
            entities: vec!["user".into()],
            features: vec![field("is_good", 4)],
            entity_columns: vec![field("user_id", 4)],
            source: Some(DataSource { kind: PUSH_SOURCE, name: "labels_push".into(), ..DataSource::default() }),
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
fn a_key_has_the_type_that_its_view_says() {
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

/// A registry with an on-demand view of the name, which reads `numbers` and these fields of the request.
fn on_demand(name: &str, feature: &str, request: &[(&str, i32)]) -> FeastRegistry {
    registry(|registry| {
        put(registry, view("numbers", &[("a", 4)]));
        let request_data_options =
            Some(RequestDataOptions { schema: request.iter().map(|(name, number)| field(name, *number)).collect() });
        let request = DataSource { request_data_options, ..DataSource::default() };
        let read = FeatureView { spec: Some(view("numbers", &[("a", 4)])) };
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
        registry.on_demand_feature_views.push(OnDemandFeatureView { spec: Some(spec) });
    })
}

#[test]
fn an_on_demand_view_that_no_plugin_can_be_is_left_out_and_the_rest_is_served() {
    for (feature, request, told) in [
        ("a-b", ("x", 4), "its feature 'a-b' has a name that no plugin can give"),
        ("c", ("x-y", 4), "its request field 'x-y' has a name that no plugin can read"),
        ("c", ("x", 20), "its request field 'x' is Map, which no plugin reads"),
    ] {
        let catalog = catalog(&on_demand("computed", feature, &[request]), &FeastValues::BatchSources);
        assert_eq!(why(&catalog, "computed"), told);
        assert!(catalog.view("numbers").is_some());
    }
}

#[test]
fn the_name_of_a_plugin_is_one_and_a_key_that_is_asked_for_is_a_key() {
    let registry = on_demand("2nd-look", "c", &[("x", 4), ("x", 4), ("user_id", 4)]);
    let catalog = catalog(&registry, &FeastValues::BatchSources);
    let view = catalog.derived_view("2nd-look").unwrap();
    assert_eq!(&*view.plugin, "_2nd_look");
    let inputs: Vec<&str> = view.inputs.iter().map(|input| &*input.name).collect();
    assert_eq!(inputs, ["x", "user_id", "a", "numbers__a"]);
    assert_eq!(view.inputs[1].from, InputSource::JoinKey("user_id".into()));
}

#[test]
fn a_ttl_that_is_longer_than_time_is_for_ever_and_parts_of_a_microsecond_are_none() {
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
fn an_empty_file_is_no_registry() {
    assert_eq!(FeastRegistry::parse(b"").unwrap_err(), NoRegistry::Empty);
}

#[test]
fn text_and_other_messages_are_no_registry() {
    for bytes in [&b"project: x\n"[..], b"SQLite format 3\0", &[0; 64], b"\x0a\x00"] {
        let error = FeastRegistry::parse(bytes).unwrap_err();
        assert!(matches!(error, NoRegistry::Broken(_) | NoRegistry::Foreign), "{bytes:?}");
    }
}

/// Cut between two fields, it is a registry of less: the parts before are there, and whole.
#[test]
fn a_truncated_registry_is_refused_or_has_less_and_never_panics() {
    let (mut refused, all) = (0, golden(&FeastValues::BatchSources));
    for length in 0..GOLDEN.len() {
        let Ok(registry) = FeastRegistry::parse(&GOLDEN[..length]) else {
            refused += 1;
            continue;
        };
        let part = catalog(&registry, &FeastValues::BatchSources);
        assert!(part.views().iter().all(|view| all.view(&view.name) == Some(view)), "{length} bytes");
    }
    assert!(refused * 100 > GOLDEN.len() * 99, "{refused} of {}", GOLDEN.len());
}

#[test]
fn fields_and_numbers_of_a_newer_feast_are_skipped() {
    let mut bytes = GOLDEN.to_vec();
    // Field 2000 of the registry, of four bytes of text.
    bytes.extend([0x82, 0x7d, 0x04, b'n', b'e', b'w', b'!']);
    assert_eq!(
        catalog(&FeastRegistry::parse(&bytes).unwrap(), &FeastValues::BatchSources),
        golden(&FeastValues::BatchSources)
    );
}
