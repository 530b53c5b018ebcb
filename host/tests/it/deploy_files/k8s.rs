//! Checks the manifests for fields that the API server would reject, containers that would not start, and unnecessary
//! restarts.

use std::{collections::BTreeSet, net::IpAddr, os::unix::fs::symlink, time::Duration};

use larder::config::{BuildFeatures, Config, load_definitions};
use larder_common::memory::default_budget;
use larder_fakeaws::FakeDynamo;
use larder_model::yaml::Problems;
use larder_sync::CONCURRENT_LOADS_MAX;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::fixture::{Setup, eventually, metric};

const DIR: &str = "configs/k8s";
const CONFIG_DIR: &str = "/etc/larder/";
const STORE_DIR: &str = "/var/lib/larder/";
/// The name of this release's image in the manifests.
const IMAGE: &str = concat!("larder:", env!("CARGO_PKG_VERSION"));

/// The fields of each type in the manifests, named as in the API's reference (1.30): the fields that the manifests must
/// have, then the optional fields that they use.
const SHAPES: [(&str, &[&str], &[&str]); 21] = [
    ("ConfigMap", &["apiVersion", "kind", "metadata", "data"], &[]),
    ("CronJob", &["apiVersion", "kind", "metadata", "spec"], &[]),
    ("DaemonSet", &["apiVersion", "kind", "metadata", "spec"], &[]),
    ("Deployment", &["apiVersion", "kind", "metadata", "spec"], &[]),
    ("Kustomization", &["apiVersion", "kind", "resources"], &["images"]),
    ("Service", &["apiVersion", "kind", "metadata", "spec"], &[]),
    ("ServiceAccount", &["apiVersion", "kind", "metadata"], &[]),
    ("ServiceMonitor", &["apiVersion", "kind", "metadata", "spec"], &[]),
    ("metadata", &[], &["name", "labels", "annotations"]),
    (
        "CronJob spec",
        &["schedule", "jobTemplate", "concurrencyPolicy"],
        &["timeZone", "startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"],
    ),
    ("Job spec", &["template", "backoffLimit", "activeDeadlineSeconds"], &[]),
    ("DaemonSet spec", &["selector", "template"], &["updateStrategy", "minReadySeconds"]),
    ("Deployment spec", &["selector", "template"], &["replicas", "strategy"]),
    ("Service spec", &["selector", "ports"], &["clusterIP", "internalTrafficPolicy", "publishNotReadyAddresses"]),
    ("ServiceMonitor spec", &["selector", "endpoints"], &[]),
    (
        "pod",
        &["serviceAccountName", "automountServiceAccountToken", "securityContext", "containers", "volumes"],
        &["initContainers", "nodeSelector", "restartPolicy", "terminationGracePeriodSeconds"],
    ),
    (
        "container",
        &["name", "image", "resources", "securityContext"],
        &[
            "args",
            "env",
            "lifecycle",
            "livenessProbe",
            "ports",
            "readinessProbe",
            "restartPolicy",
            "startupProbe",
            "volumeMounts",
        ],
    ),
    ("probe", &["httpGet"], &["failureThreshold", "periodSeconds", "timeoutSeconds"]),
    ("httpGet", &["path", "port"], &[]),
    ("mount", &["name", "mountPath"], &["readOnly"]),
    ("resources", &["requests", "limits"], &[]),
];

/// The kinds of objects in the manifests, and their API versions.
const KINDS: [(&str, &str); 8] = [
    ("ConfigMap", "v1"),
    ("CronJob", "batch/v1"),
    ("DaemonSet", "apps/v1"),
    ("Deployment", "apps/v1"),
    ("Kustomization", "kustomize.config.k8s.io/v1beta1"),
    ("Service", "v1"),
    ("ServiceAccount", "v1"),
    ("ServiceMonitor", "monitoring.coreos.com/v1"),
];

fn check_shape(value: &Value, shape: &str, at: &str) {
    let (_, required, optional) = SHAPES.iter().find(|(name, ..)| *name == shape).unwrap();
    let keys = value.as_object().unwrap_or_else(|| panic!("{at}: expected a mapping"));
    for key in *required {
        assert!(keys.contains_key(*key), "{at}: '{key}' is missing");
    }
    for key in keys.keys() {
        assert!(required.contains(&key.as_str()) || optional.contains(&key.as_str()), "{at}: unknown '{key}'");
    }
}

fn documents(file: &str) -> Vec<Value> {
    let text = read(&format!("{DIR}/{file}"));
    serde_yaml::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn manifests() -> Vec<(String, Value)> {
    let files = names(DIR, ".yaml").into_iter();
    files.flat_map(|file| documents(&file).into_iter().map(move |document| (file.clone(), document))).collect()
}

/// An object that creates pods, with the template of the pod.
struct Workload {
    file: String,
    kind: String,
    whole: Value,
    labels: Value,
    pod: Value,
}

fn workloads() -> Vec<Workload> {
    let found = manifests().into_iter().filter_map(|(file, whole)| {
        let kind = text(&whole["kind"]).to_owned();
        let template = match kind.as_str() {
            "Deployment" | "DaemonSet" => &whole["spec"]["template"],
            "CronJob" => &whole["spec"]["jobTemplate"]["spec"]["template"],
            _ => return None,
        };
        let (labels, pod) = (template["metadata"]["labels"].clone(), template["spec"].clone());
        Some(Workload { file, kind, whole, labels, pod })
    });
    let found: Vec<Workload> = found.collect();
    let kinds: BTreeSet<&str> = found.iter().map(|workload| workload.kind.as_str()).collect();
    assert_eq!(kinds, BTreeSet::from(["CronJob", "DaemonSet", "Deployment"]));
    found
}

impl Workload {
    fn containers(&self) -> impl Iterator<Item = &Value> {
        let all = [&self.pod["initContainers"], &self.pod["containers"]];
        all.into_iter().filter_map(Value::as_array).flatten()
    }

    /// Returns the container of Larder.
    fn larder(&self) -> &Value {
        self.containers().find(|container| container["name"] == "larder").unwrap()
    }

    fn argument(&self, flag: &str) -> &str {
        let arguments = list(&self.larder()["args"]);
        let at = arguments.iter().position(|argument| argument == flag).unwrap();
        text(&arguments[at + 1])
    }

    fn config(&self, files: &Mounted) -> Config {
        files.config(self.argument("--config").strip_prefix(CONFIG_DIR).unwrap())
    }

    fn serves(&self) -> bool {
        self.kind != "CronJob"
    }

    /// Returns the volume that contains a path of Larder's container, and its mount point.
    fn volume_of(&self, path: &str) -> (&Value, &str) {
        let mut mounts = list(&self.larder()["volumeMounts"]).iter();
        let mount = mounts.rfind(|mount| Path::new(path).starts_with(text(&mount["mountPath"])));
        let mount = mount.unwrap_or_else(|| panic!("{}: {path} is in no volume", self.file));
        let volumes = list(&self.pod["volumes"]).iter();
        let volume = volumes.into_iter().find(|volume| volume["name"] == mount["name"]);
        (volume.unwrap(), text(&mount["mountPath"]))
    }
}

/// The ConfigMap as a kubelet mounts it in a volume.
struct Mounted(TempDir);

impl Mounted {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("..2026_11_25");
        fs::create_dir(&data).unwrap();
        symlink("..2026_11_25", dir.path().join("..data")).unwrap();
        let [map] = documents("configmap.yaml").try_into().unwrap();
        for (name, content) in map["data"].as_object().unwrap() {
            fs::write(data.join(name), text(content)).unwrap();
            symlink(Path::new("..data").join(name), dir.path().join(name)).unwrap();
        }
        Self(dir)
    }

    fn config(&self, name: &str) -> Config {
        let (path, problems) = (self.0.path().join(name), Problems::default());
        let content = fs::read_to_string(&path).unwrap();
        let config = Config::parse(name, self.0.path(), &content, &|_: &str| None, &problems);
        let problems: Vec<String> = problems.into_sorted().iter().map(ToString::to_string).collect();
        assert_eq!(problems, Vec::<String>::new(), "{name}");
        config.unwrap()
    }
}

/// Parses a Kubernetes quantity of bytes.
fn bytes(quantity: &Value) -> u64 {
    let quantity = text(quantity);
    let number = quantity.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &quantity[number.len()..] {
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        unit => panic!("{quantity}: unit '{unit}'"),
    };
    number.parse::<u64>().unwrap() * unit
}

fn seconds(value: &Value) -> Duration {
    Duration::from_secs(value.as_u64().unwrap_or(0))
}

#[test]
fn manifests_have_only_known_fields() {
    let mut found = BTreeSet::new();
    for (file, document) in manifests() {
        let kind = text(&document["kind"]);
        let version = KINDS.iter().find(|(name, _)| *name == kind).map(|(_, version)| *version);
        assert_eq!(document["apiVersion"].as_str(), version, "{file}: {kind}");
        let at = format!("{file}: {kind}");
        check_shape(&document, kind, &at);
        found.insert(kind.to_owned());
        if kind != "Kustomization" {
            check_shape(&document["metadata"], "metadata", &at);
            assert!(document["metadata"]["name"].is_string(), "{at}: it has no name");
        }
        if document.get("spec").is_some() {
            check_shape(&document["spec"], &format!("{kind} spec"), &at);
        }
        // YAML parses some unquoted texts as numbers or booleans, but the API only accepts texts.
        let maps = ["labels", "annotations"].into_iter().filter_map(|key| document["metadata"][key].as_object());
        for (key, value) in maps.chain(document["data"].as_object()).flatten() {
            assert!(value.is_string(), "{at}: {key} must be text");
        }
    }
    assert_eq!(found.len(), KINDS.len(), "{found:?}");
    for workload in workloads() {
        let Workload { file, whole, labels, pod, .. } = &workload;
        check_shape(pod, "pod", file);
        if !workload.serves() {
            check_shape(&whole["spec"]["jobTemplate"]["spec"], "Job spec", file);
            assert_eq!(whole["spec"]["concurrencyPolicy"], "Forbid");
            assert_eq!(whole["spec"]["schedule"], "17 */6 * * *");
        }
        for (label, value) in labels.as_object().unwrap() {
            assert!(value.is_string(), "{file}: {label} must be text");
        }
        for container in workload.containers() {
            let at = format!("{file}: {}", text(&container["name"]));
            check_shape(container, "container", &at);
            check_shape(&container["resources"], "resources", &at);
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                if let Some(probe) = container.get(probe) {
                    check_shape(probe, "probe", &at);
                    check_shape(&probe["httpGet"], "httpGet", &at);
                }
            }
            for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                check_shape(mount, "mount", &at);
            }
        }
    }
}

#[test]
fn references_between_manifests_resolve() {
    for workload in workloads() {
        let Workload { file, whole, labels, pod, kind } = &workload;
        if workload.serves() {
            for (label, value) in whole["spec"]["selector"]["matchLabels"].as_object().unwrap() {
                assert_eq!(labels[label], *value, "{file}: the selector of {kind} does not match its pods");
            }
        }
        let account = documents(file).into_iter().find(|document| document["kind"] == "ServiceAccount").unwrap();
        assert_eq!(account["metadata"]["name"], pod["serviceAccountName"], "{file}");
        let role = text(&account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]).to_owned();
        assert!(role.starts_with("arn:aws:iam::111122223333:role/larder-"), "{role}");
        assert_eq!(
            role.ends_with("/larder-materialize"),
            !workload.serves(),
            "{file}: only the job has the role that writes"
        );
        let volumes: BTreeSet<&str> = list(&pod["volumes"]).iter().map(|volume| text(&volume["name"])).collect();
        let mounts = workload.containers().filter_map(|container| container["volumeMounts"].as_array()).flatten();
        let mounted: BTreeSet<&str> = mounts.map(|mount| text(&mount["name"])).collect();
        assert_eq!(mounted, volumes, "{file}");
        for volume in list(&pod["volumes"]) {
            if let Some(map) = volume.get("configMap") {
                assert_eq!(map["name"], documents("configmap.yaml")[0]["metadata"]["name"], "{file}");
            }
            assert!(volume.get("hostPath").is_none(), "{file}");
        }
        assert_eq!(workload.larder()["image"], IMAGE, "{file}");
    }
    let kustomization = &documents("kustomization.yaml")[0];
    let listed: BTreeSet<&str> = list(&kustomization["resources"]).iter().map(text).collect();
    let mut files: BTreeSet<String> = names(DIR, ".yaml").into_iter().collect();
    files.remove("kustomization.yaml");
    // This example is deployed instead of the sidecar, so the list does not include it.
    assert!(files.remove("daemonset.yaml") && read(&format!("{DIR}/kustomization.yaml")).contains("daemonset.yaml"));
    assert_eq!(listed, files.iter().map(String::as_str).collect());
    assert_eq!(kustomization["images"][0]["name"], "larder");
    assert_eq!(kustomization["images"][0]["newTag"], env!("CARGO_PKG_VERSION"));

    let monitoring = documents("servicemonitor.yaml");
    let of = |kind: &str| monitoring.iter().find(|document| document["kind"] == kind).unwrap();
    let (service, monitor) = (of("Service"), of("ServiceMonitor"));
    for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(service["metadata"]["labels"][label], *value, "the monitor does not find its service");
    }
    let (port, endpoint) = (&service["spec"]["ports"][0], &monitor["spec"]["endpoints"][0]);
    assert_eq!((&endpoint["port"], &endpoint["path"]), (&port["name"], &json!("/metrics")));
    let files = Mounted::new();
    for workload in workloads().iter().filter(|workload| workload.serves()) {
        for (label, value) in service["spec"]["selector"].as_object().unwrap() {
            assert_eq!(workload.labels[label], *value, "{}: its metrics are not scraped", workload.file);
        }
        let opened = workload.config(&files).metrics_listen.unwrap().port();
        assert_eq!(port["targetPort"], opened, "{}", workload.file);
    }
}

#[test]
fn configuration_and_definitions_are_valid() {
    let files = Mounted::new();
    for name in ["larder.yaml", "larder-node.yaml"] {
        let config =
            Config::load(&files.0.path().join(name), &|_: &str| None).unwrap_or_else(|error| panic!("{error}"));
        let loaded = load_definitions(&config).unwrap_or_else(|error| panic!("{error}"));
        assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
        let catalog = &loaded.catalog;
        for view in catalog.views() {
            let table = view.table().unwrap_or_else(|| panic!("{} is served from a table", view.name));
            assert_eq!(
                table.table,
                format!("{}.{}", catalog.project(), view.name),
                "the table has the name that Feast and the job use"
            );
            assert!(view.files().is_some(), "{}: the job has nothing to read", view.name);
        }
        // A token's service must exist.
        for token in config.http.auth.iter().flat_map(|auth| &auth.tokens) {
            for service in token.services.iter().flatten() {
                assert!(catalog.service(&service.value).is_some(), "{name}: {}", service.value);
            }
        }
    }
    let keys: BTreeSet<String> = documents("configmap.yaml")[0]["data"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, BTreeSet::from(["features.yaml", "larder-node.yaml", "larder.yaml"].map(str::to_owned)));
}

#[test]
fn containers_have_minimal_permissions() {
    for workload in workloads() {
        let Workload { file, pod, .. } = &workload;
        assert_eq!(pod["automountServiceAccountToken"], false, "{file}");
        let of_pod = json!({
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": { "type": "RuntimeDefault" },
        });
        assert_eq!(pod["securityContext"], of_pod, "{file}");
        let of_container = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
        });
        for container in workload.containers() {
            assert_eq!(container["securityContext"], of_container, "{file}: {}", container["name"]);
            assert!(container["resources"]["limits"]["memory"].is_string(), "{file}: {}", container["name"]);
        }
        for mount in list(&workload.larder()["volumeMounts"]) {
            let is_written = mount["mountPath"] == STORE_DIR.trim_end_matches('/');
            assert_eq!(mount["readOnly"] != true, is_written, "{file}: {mount}");
        }
    }
}

#[test]
fn probes_match_listeners_and_restarts() {
    let files = Mounted::new();
    for workload in workloads() {
        let (file, larder) = (&workload.file, workload.larder());
        if !workload.serves() {
            assert!(larder.get("livenessProbe").is_none(), "{file}: a job has no listeners");
            continue;
        }
        let config = workload.config(&files);
        let metrics = config.metrics_listen.unwrap();
        let any = IpAddr::from([0, 0, 0, 0]);
        assert_eq!(metrics.ip(), any, "{file}: kubelet and Prometheus connect from outside of the pod");
        for (probe, path) in [("startupProbe", "/health"), ("readinessProbe", "/ready"), ("livenessProbe", "/health")] {
            let asked = &larder[probe]["httpGet"];
            assert_eq!((&asked["path"], &asked["port"]), (&json!(path), &json!(metrics.port())), "{file}: {probe}");
        }
        // Before the server responds, it may have to check a store of several hundred gigabytes, which takes a second
        // per gigabyte.
        let of = |key: &str| larder["startupProbe"][key].as_u64().unwrap();
        assert!(of("periodSeconds") * of("failureThreshold") >= 300, "{file}");
        let named = list(&larder["ports"]).iter().map(|port| port["containerPort"].as_u64().unwrap());
        let opened = [Some(metrics), Some(config.http.listen)].into_iter().flatten();
        let opened = opened.filter(|address| !address.ip().is_loopback()).map(|address| u64::from(address.port()));
        assert_eq!(named.collect::<BTreeSet<_>>(), opened.collect(), "{file}: ports that are reachable from outside");
        // A listener that is reachable from outside the pod must use TLS and tokens.
        if !config.http.listen.ip().is_loopback() {
            assert!(config.http.tls.is_some() && config.http.auth.is_some() && !config.http.insecure, "{file}");
        }
        for service in documents(file).iter().filter(|document| document["kind"] == "Service") {
            assert_eq!(service["spec"]["ports"][0]["targetPort"], config.http.listen.port(), "{file}");
            assert_eq!(service["spec"]["internalTrafficPolicy"], "Local", "{file}");
            for (label, value) in service["spec"]["selector"].as_object().unwrap() {
                assert_eq!(workload.labels[label], *value, "{file}");
            }
        }
    }
    let sidecar = workloads().into_iter().find(|workload| workload.kind == "Deployment").unwrap();
    let [larder] = list(&sidecar.pod["initContainers"]) else { panic!("one sidecar") };
    assert_eq!((&larder["name"], &larder["restartPolicy"]), (&json!("larder"), &json!("Always")));
    let config = sidecar.config(&files);
    let url = format!("http://{}", config.http.listen);
    let model = &sidecar.pod["containers"][0];
    assert_eq!(model["env"][0], json!({ "name": "LARDER_URL", "value": url }));
}

#[test]
fn resources_suffice_for_the_configuration() {
    let files = Mounted::new();
    for workload in workloads() {
        let (file, larder, config) = (&workload.file, workload.larder(), workload.config(&files));
        // The limit must be 20 % above the memory that docs/src/guides/tune.md computes.
        let (requests, limits) = (&larder["resources"]["requests"], &larder["resources"]["limits"]);
        let caches = config.store.page_cache_bytes_max as u64 + config.store.hot.bytes_max;
        let http = &config.http;
        let in_flight = http
            .limits
            .in_flight_bytes_max
            .map_or_else(|| default_budget(Some(bytes(&limits["memory"]))), |max| max as u64);
        let connection = if http.tls.is_some() { 128 << 10 } else { 64 << 10 };
        let serving = in_flight + http.limits.connection.connections_max as u64 * connection;
        let serving = if workload.serves() { serving } else { 0 };
        // A view of these definitions has at most three columns and a time column. The job runs one load at a time.
        let load = 3 * config.sync.limits.commit_bytes as u64 + 4 * (6 << 20);
        let loads = if workload.serves() { CONCURRENT_LOADS_MAX as u64 } else { 1 };
        assert!(!workload.serves() || !http.writes, "{file}: loads that callers request are not included");
        let needed = caches + loads * load + (400 << 20) + serving;
        assert!(bytes(&limits["memory"]) >= needed * 6 / 5, "{file}: {} MiB and a fifth are needed", needed >> 20);
        assert_eq!(requests["memory"], limits["memory"], "{file}");

        // All files that Larder writes are in one volume with a size limit. They are in a subdirectory, because the
        // kubelet owns the top directory of the volume.
        let mut written = vec![config.store.data_dir.to_str().unwrap().to_owned()];
        if !workload.serves() {
            written.push(workload.argument("--work-dir").to_owned());
        }
        for path in &written {
            assert!(path.strip_prefix(STORE_DIR).is_some_and(|below| !below.is_empty()), "{file}: {path}");
            let (volume, _) = workload.volume_of(path);
            assert_eq!(volume["emptyDir"]["sizeLimit"], requests["ephemeral-storage"], "{file}");
        }
        assert!(
            config.plugins.dir.is_none_or(|dir| dir.starts_with(STORE_DIR)),
            "{file}: plugins are deployed into it"
        );
        let tls = config.http.tls.iter().flat_map(|tls| [&tls.cert, &tls.key]);
        let tokens = config.http.auth.iter().flat_map(|auth| &auth.tokens).map(|token| &token.file);
        for path in tls.chain(tokens) {
            let (volume, _) = workload.volume_of(path.value.to_str().unwrap());
            assert_eq!(volume["secret"]["defaultMode"], 0o440, "{file}: {}", path.value.display());
        }
        let (volume, at) = workload.volume_of(workload.argument("--config"));
        assert!(volume.get("configMap").is_some() && Path::new(at) == Path::new(CONFIG_DIR), "{file}");

        let limits = config.http.limits;
        let mut until_killed = limits.drain_delay + limits.connection.drain_timeout;
        if workload.kind == "Deployment" {
            assert_eq!(limits.drain_delay, Duration::ZERO, "a sidecar is stopped after its clients");
            let before = seconds(&workload.pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]);
            assert!(before >= Duration::from_secs(3), "{file}: an update of endpoints takes some seconds");
            // The time for which the model server drains.
            until_killed += before + Duration::from_secs(25);
        }
        if workload.kind == "DaemonSet" {
            assert!(limits.drain_delay >= Duration::from_secs(3), "{file}: an update of endpoints takes some seconds");
        }
        if workload.serves() {
            let grace = seconds(&workload.pod["terminationGracePeriodSeconds"]);
            assert!(grace >= until_killed + Duration::from_secs(5), "{file}: {grace:?} for {until_killed:?}");
        } else {
            assert_eq!(workload.pod["restartPolicy"], "OnFailure", "the work directory is lost with the pod");
        }
    }
}

#[test]
fn probes_do_not_depend_on_aws() {
    let definitions = documents("configmap.yaml")[0]["data"]["features.yaml"].clone();
    let dynamo = FakeDynamo::start();
    dynamo.create_table("churn.customer_usage", &[("entity_id", "S")], Some("NEW_IMAGE"));
    dynamo.put(
        "churn.customer_usage",
        json!({
            "entity_id": { "S": "ab" }, "event_ts": { "S": "2026-11-23 09:00:00+00:00" }, "values": { "M": {} },
        }),
    );
    let aws = |url: &str| {
        format!(
            "aws: {{dynamodb_endpoint: \"{url}\", connect_timeout: 200ms, attempt_timeout: 300ms, operation_timeout: 1s}}\n"
        )
    };
    // If AWS is unavailable and no data was ever loaded, the server responds but is not ready, because it has no data
    // to serve.
    let unreachable = Setup::with(text(&definitions)).config(&aws("http://127.0.0.1:9")).unready().start();
    assert_eq!((unreachable.get("/health").status, unreachable.get("/ready").status), (200, 503));
    drop(unreachable);
    // If AWS is unavailable but data was loaded before, the server is ready, also right after a restart.
    let host = Setup::with(text(&definitions)).config(&aws(&dynamo.url())).start();
    let errors = || metric("larder_sync_errors_total{");
    let before = errors();
    drop(dynamo);
    eventually("a sync fails", || errors() > before);
    assert_eq!((host.get("/health").status, host.get("/ready").status), (200, 200));
    let host = host.restart();
    eventually("ready", || host.get("/ready").status == 200);
    assert_eq!(host.get("/health").status, 200);
}

/// Returns the instructions of a Dockerfile, without comments and with joined continuation lines.
fn instructions() -> Vec<(String, String)> {
    let file = read(&format!("{DIR}/Dockerfile"));
    let lines = file.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty());
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let split = joined.lines().map(|line| line.split_once(' ').unwrap());
    split.map(|(name, rest)| (name.to_owned(), rest.trim().to_owned())).collect()
}

#[test]
fn image_uses_our_rust_and_nonroot() {
    let manifest = read("Cargo.toml");
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"')).unwrap();
    let instructions = instructions();
    let all = |name: &str| -> Vec<&str> {
        instructions.iter().filter(|(found, _)| found == name).map(|(_, rest)| rest.as_str()).collect()
    };
    // Bookworm is Debian 12, so both images have the same glibc.
    let stages = [format!("rust:{rust}-bookworm AS build"), "gcr.io/distroless/cc-debian12:nonroot".to_owned()];
    assert_eq!(all("FROM"), stages);
    assert!(all("ADD").is_empty(), "the build downloads an unverified archive");
    let run = all("RUN").join("\n");
    assert!(
        run.contains("cargo build --release --locked -p larder ") && !run.contains("curl") && !run.contains("wget")
    );
    let last = instructions.iter().rposition(|(name, _)| name == "FROM").unwrap();
    let in_last = |name: &str| -> Vec<&str> {
        instructions[last..].iter().filter(|(found, _)| found == name).map(|(_, rest)| rest.as_str()).collect()
    };
    assert!(in_last("RUN").is_empty(), "there is no shell");
    assert!(
        in_last("COPY").iter().all(|copy| copy.starts_with("--from=build ")),
        "the image has only files of the build"
    );
    assert_eq!(in_last("USER"), ["65532:65532"]);
    assert_eq!(in_last("VOLUME"), [STORE_DIR.trim_end_matches('/')]);
    assert_eq!(in_last("ENTRYPOINT"), ["[\"/usr/local/bin/larder\"]"]);
    assert_eq!(in_last("ENV"), [format!("LARDER_CONFIG={CONFIG_DIR}larder.yaml")]);
    let default = Mounted::new().config("larder.yaml");
    let ports = [default.http.listen.port(), default.metrics_listen.unwrap().port()].map(|port| port.to_string());
    assert_eq!(in_last("EXPOSE"), [ports.join(" ")]);
}

/// Returns the Cargo features of the image.
fn image_features() -> BuildFeatures {
    let run = instructions().into_iter().filter(|(name, _)| name == "RUN").map(|(_, rest)| rest).collect::<String>();
    let (_, list) = run.split_once("--no-default-features --features ").unwrap();
    let list = list.split_whitespace().next().unwrap();
    assert!(read("Makefile").contains(&format!("\nIMAGE_FEATURES = {list}\n")), "it is not checked");
    let names: BTreeSet<&str> = list.split(',').collect();
    let has = |name: &str| names.contains(name);
    BuildFeatures { aws: has("aws"), sqlite: has("sqlite"), grpc: has("grpc"), tools: has("tools") }
}

#[test]
fn image_has_features_of_manifests() {
    let (build, files) = (image_features(), Mounted::new());
    assert!(!build.tools, "a server needs no tools");
    // The guides deploy Feast's SQLite store and gRPC with this image, too.
    assert!(build.sqlite && build.grpc);
    for workload in workloads() {
        let config = Config { build, ..workload.config(&files) };
        let loaded = load_definitions(&config).unwrap_or_else(|error| panic!("{}: {error}", workload.file));
        assert!(!loaded.catalog.views().is_empty());
        assert!(build.aws || text(&workload.larder()["args"][0]) != "materialize", "{}", workload.file);
    }
}

#[test]
fn build_context_contains_all_inputs() {
    let ignored = read(&format!("{DIR}/Dockerfile.dockerignore"));
    let lines: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(lines[0], "*", "only listed files are copied: no stores, keys, .git");
    let manifest = read("Cargo.toml");
    let (_, members) = manifest.split_once("members = [").unwrap();
    let members = members.split(']').next().unwrap().split(',').map(str::trim).filter(|member| !member.is_empty());
    let members = members.map(|member| member.trim_matches('"').split('/').next().unwrap());
    // Besides the crates, the build needs files that are compiled in: the contracts, and the files that `init` and
    // `plugin new` write.
    for needed in members.chain(["Cargo.toml", "Cargo.lock", "configs", "plugins", "wit"]) {
        assert!(lines.contains(&format!("!{needed}").as_str()), "{needed}");
        assert!(top().join(needed).try_exists().unwrap(), "{needed}");
    }
}
