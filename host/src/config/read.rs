//! Converts a file's text to a [`Config`], section by section.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use larder_common::{files::FileStamps, telemetry::LogFormat};
use larder_http::{HttpConfig, HttpLimits};
use larder_model::{
    codec::{KeyVersion, ROW_BYTES_MAX},
    yaml::{Located, Node, Problems, Tree, nearest, parse},
};
use larder_serving::{ConnectionLimits, ServingLimits, TtlPolicy};
use larder_store::{HotCacheConfig, SpaceLimits, StoreConfig};
use larder_sync::{SanityLimits, SyncLimits};
use tracing_subscriber::EnvFilter;

use super::{
    BuildFeatures, BuildPart, Config, Environment, Flag, LogConfig, Origin, Sound, SyncConfig, access, aws,
    environment, feast, foreign, logging,
    patterns::{Pattern, resolve},
    plugins,
    section::Section,
    units::{HOUR, KIB, MIB, TIB, TIMEOUT_MIN, memory},
};

/// The default HTTP port, which is also the default of Feast's feature server.
const PORT: u16 = 6566;
/// The default gRPC port.
const GRPC_PORT: u16 = 6567;
const METRICS_PORT: u16 = 9566;
const FEATURES: &str = "features/*.yaml";
const DATA_DIR: &str = "data/store";
const ADMIN_SOCKET: &str = "admin.sock";

/// The minimum of `in_flight_bytes_max`. A smaller budget would reject ordinary requests.
const IN_FLIGHT_MIN: u64 = 16 * MIB;

const WORKERS_MAX: usize = 256;
const PROJECT_CHARS_MAX: usize = 200;

/// The log levels, most important first.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Reads a configuration. A value with an error is usually replaced by the default; a duration or a size outside its
/// range is kept. Returns `None` if the text is not YAML.
pub(super) fn read(
    file_name: &str,
    base_dir: &Path,
    text: &str,
    flags: &[Flag],
    env: Environment<'_>,
    build: BuildFeatures,
    problems: &Problems,
) -> Option<(Config, Sound)> {
    let count = || problems.error_count();
    let mut root = parse(file_name, text, problems)?;
    // If a file is empty or has only comments, all settings have their defaults.
    if root.tree == Tree::Null {
        root.tree = Tree::Map(Vec::new());
    }
    if let Tree::Map(entries) = &mut root.tree {
        foreign::refuse(file_name, entries, problems);
        environment::overlay(entries, flags, env);
    }

    let mut top = Section::top(&root, problems);
    let before = count();
    let project = project(&mut top);
    let key_version = key_version(&mut top);
    let naming_warnings = top.bool("naming_warnings", true);
    let feast = feast::feast(top.section("feast"), base_dir);
    let features = features(&mut top, base_dir, feast.is_some());
    let definitions = count() == before;
    let http = server(top.section("server"), base_dir);
    let grpc_listen = grpc(top.section("grpc"), &http, build);
    let metrics_listen = metrics(top.section("metrics"), &http, grpc_listen);
    let before = count();
    let aws = aws::aws(top.section("aws"), build);
    let sources = count() == before;
    let store = store(top.section("store"), base_dir);
    let admin_socket = admin(top.section("admin"), base_dir, &store, &http);
    let ttl = serving(top.section("serving"), text);
    let before = count();
    let plugins = plugins::plugins(top.section("plugins"), base_dir, &store, &http);
    let sound = Sound { definitions, sources, plugins: count() == before };
    let mut sync = sync(top.section("sync"));
    reload(top.section("reload"), &mut sync);
    let log = log(top.section("log"));
    let logging = logging::logging(top.section("logging"), base_dir, build);
    top.finish();

    let config = Config {
        origin: Origin::file(file_name),
        stamps_before: FileStamps::new(),
        build,
        base_dir: base_dir.to_path_buf(),
        project,
        key_version,
        feast,
        naming_warnings,
        features,
        http,
        grpc_listen,
        metrics_listen,
        admin_socket,
        aws,
        store,
        plugins,
        ttl,
        sync,
        log,
        logging,
    };
    Some((config, sound))
}

/// Reads the project's name, which appears in metrics and in the names of Feast's tables.
fn project(top: &mut Section<'_>) -> Option<String> {
    let name = top.text("project")?;
    let letters = name.value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let starts = name.value.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !(letters && starts && name.value.len() <= PROJECT_CHARS_MAX) {
        let help =
            format!("use up to {PROJECT_CHARS_MAX} letters, digits, '_' and '-', beginning with a letter or digit");
        top.error(&name.at, format!("'project' is '{}', which is not a valid name", name.value), help);
    }
    Some(name.value)
}

fn key_version(top: &mut Section<'_>) -> Option<KeyVersion> {
    let number = top.int("entity_key_version", i64::MIN..=i64::MAX)?;
    let version = KeyVersion::from_number(number.value);
    if version.is_none() {
        let help = "set it to 'entity_key_serialization_version' of Feast's feature_store.yaml".to_owned();
        top.error(&number.at, format!("'entity_key_version' is {}, but must be 3 or 2", number.value), help);
    }
    version
}

fn features(top: &mut Section<'_>, base_dir: &Path, is_feast: bool) -> Vec<Located<String>> {
    let Some(node) = top.get("features") else {
        // With a Feast repository, definition files are optional, so there is no default pattern.
        let default = (!is_feast).then(|| Located { value: FEATURES.to_owned(), at: top.at().clone() });
        return default.into_iter().collect();
    };
    if node.tree == Tree::List(Vec::new()) {
        top.error(&node.at, "'features' is an empty list", format!("list definition files, for example [{FEATURES}]"));
    }
    let patterns = top.texts("features");
    for pattern in &patterns {
        if let Err(why) = Pattern::new(base_dir, &pattern.value) {
            top.error(&pattern.at, format!("'features' has '{}': {why}", pattern.value), None);
        }
    }
    patterns
}

fn server(mut section: Section<'_>, base_dir: &Path) -> HttpConfig {
    let listen = section.address("listen", loopback(PORT));
    let insecure = section.bool("insecure", false);
    let writes = section.bool("writes", true);
    let tls = access::tls(&mut section, base_dir);
    let auth = access::auth(&mut section, base_dir);
    // If `tls` has an error, the user intended to turn TLS on, so the address is not checked.
    if tls.as_ref().is_ok_and(Option::is_none) {
        section.check_reach("listen", &listen, insecure, Some("set 'tls'"));
    }
    let tls = tls.unwrap_or_default();
    let unix_socket = if section.is_off("unix_socket") { None } else { section.path("unix_socket", base_dir) };
    if let Some(socket) = &unix_socket {
        section.check_socket("unix_socket", socket);
    }
    let workers = workers(&mut section);
    let limits = limits(section.section("server.limits"));
    section.finish();
    let unix_socket = unix_socket.map(|socket| socket.value);
    HttpConfig { listen: listen.value, unix_socket, insecure, tls, auth, writes, workers, limits }
}

fn workers(section: &mut Section<'_>) -> usize {
    let auto = || thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let at_most = |count: &usize| (1..=WORKERS_MAX).contains(count);
    let Some(node) = section.get("workers") else { return auto() };
    let written = match &node.tree {
        Tree::Text(word) if word == "auto" => Some(auto()),
        Tree::Int(count) => usize::try_from(*count).ok().filter(at_most),
        _ => None,
    };
    written.unwrap_or_else(|| {
        section.error(&node.at, format!("'workers' must be auto, or a number between 1 and {WORKERS_MAX}"), None);
        auto()
    })
}

fn limits(mut section: Section<'_>) -> HttpLimits {
    let HttpLimits { connection, request, answer_bytes_max, drain_delay, .. } = HttpLimits::default();
    // The keys are read in the order in which messages list them.
    let connection = ConnectionLimits {
        connections_max: section.count("connections_max", 1..=1_000_000, connection.connections_max),
        header_timeout: section.duration("header_timeout", TIMEOUT_MIN..=HOUR, connection.header_timeout),
        body_timeout: section.duration("body_timeout", TIMEOUT_MIN..=HOUR, connection.body_timeout),
        write_timeout: section.duration("write_timeout", TIMEOUT_MIN..=HOUR, connection.write_timeout),
        body_bytes_max: memory(section.bytes("body_bytes_max", 1_024..=1_024 * MIB, connection.body_bytes_max as u64)),
        ..connection
    };
    let mut limits = HttpLimits {
        connection,
        request: ServingLimits {
            rows_max: section.count("rows_max", 1..=1_000_000, request.rows_max),
            features_max: section.count("features_max", 1..=100_000, request.features_max),
            values_max: section.count("values_max", 1..=100_000_000, request.values_max),
        },
        answer_bytes_max: memory(section.bytes("answer_bytes_max", 64 * KIB..=TIB, answer_bytes_max as u64)),
        in_flight_bytes_max: bytes_or(&mut section, "in_flight_bytes_max", "auto", IN_FLIGHT_MIN..=TIB).map(memory),
        drain_delay: section.duration("drain_delay", Duration::ZERO..=HOUR, drain_delay),
    };
    // If `drain_timeout` is zero, requests in progress are dropped immediately.
    limits.connection.drain_timeout =
        section.duration("drain_timeout", Duration::ZERO..=HOUR, connection.drain_timeout);
    section.finish();
    limits
}

/// Reads a size in bytes. Returns `None` if the key is absent or if its value is `word`.
fn bytes_or(section: &mut Section<'_>, key: &'static str, word: &str, within: RangeInclusive<u64>) -> Option<u64> {
    let is_word = matches!(&section.get(key)?.tree, Tree::Text(text) if text == word);
    let least = *within.start();
    (!is_word).then(|| section.bytes(key, within, least))
}

/// Reads `grpc`. The listener is off by default, so that no port is opened unintentionally.
fn grpc(mut section: Section<'_>, http: &HttpConfig, build: BuildFeatures) -> Option<SocketAddr> {
    let off = section.is_off("listen") || section.get("listen").is_none();
    let listen = if off { None } else { Some(section.address("listen", loopback(GRPC_PORT))) };
    let insecure = section.bool("insecure", false);
    if let Some(listen) = &listen {
        section.check_reach("listen", listen, insecure, None);
        check_port(&section, listen, "server", http.listen);
        section.require(build, BuildPart::Grpc, "listen", &listen.at);
    }
    section.finish();
    listen.map(|listen| listen.value)
}

fn metrics(mut section: Section<'_>, http: &HttpConfig, grpc: Option<SocketAddr>) -> Option<SocketAddr> {
    let off = section.is_off("listen");
    let listen = if off { None } else { Some(section.address("listen", loopback(METRICS_PORT))) };
    let insecure = section.bool("insecure", false);
    if let Some(listen) = &listen {
        section.check_reach("listen", listen, insecure, None);
        check_port(&section, listen, "server", http.listen);
        if let Some(grpc) = grpc {
            check_port(&section, listen, "grpc", grpc);
        }
    }
    section.finish();
    listen.map(|listen| listen.value)
}

/// Rejects an address that another section uses.
fn check_port(section: &Section<'_>, listen: &Located<SocketAddr>, other: &str, taken: SocketAddr) {
    // With port 0, each listener gets a different free port.
    if listen.value == taken && taken.port() != 0 {
        let message = format!("'listen' is {taken}, which '{other}: listen' also uses");
        section.error(&listen.at, message, "use another port".to_owned());
    }
}

fn store(mut section: Section<'_>, base_dir: &Path) -> StoreConfig {
    let data_dir = section.path("data_dir", base_dir).map(|path| path.value);
    let default = StoreConfig::new(data_dir.unwrap_or_else(|| resolve(base_dir, DATA_DIR)));
    // With fewer pages, every lookup reads from disk more than once.
    let page_cache = section.bytes("page_cache", MIB..=TIB, default.page_cache_bytes_max as u64);
    let hot_cache = section.bytes("hot_cache", 0..=TIB, default.hot.bytes_max);
    let space = SpaceLimits {
        free_bytes_min: bytes_or(&mut section, "free_bytes_min", "auto", 0..=1_024 * TIB),
        file_bytes_max: bytes_or(&mut section, "file_bytes_max", "off", MIB..=1_024 * TIB),
    };
    let check_on_open = section.bool("check_on_open", default.check_on_open);
    section.finish();
    StoreConfig {
        page_cache_bytes_max: memory(page_cache),
        hot: HotCacheConfig { bytes_max: hot_cache },
        space,
        check_on_open,
        ..default
    }
}

fn admin(mut section: Section<'_>, base_dir: &Path, store: &StoreConfig, http: &HttpConfig) -> PathBuf {
    let beside_store = Located { value: store.data_dir.join(ADMIN_SOCKET), at: section.at().clone() };
    let socket = section.path("socket", base_dir).unwrap_or(beside_store);
    section.check_socket("socket", &socket);
    if http.unix_socket.as_ref() == Some(&socket.value) {
        section.error(&socket.at, "'socket' is the same path as 'server: unix_socket'", "use another path".to_owned());
    }
    section.finish();
    socket.value
}

fn serving(mut section: Section<'_>, text: &str) -> TtlPolicy {
    const WORDS: [(&str, TtlPolicy); 3] =
        [("mark", TtlPolicy::Mark), ("null", TtlPolicy::Null), ("ignore", TtlPolicy::Ignore)];
    let ttl = match section.get_or_null("ttl") {
        Some(node) if node.tree == Tree::Null => {
            // YAML parses the word `null` as a null value. A key with an empty value, for example from a template that
            // lacks the value, is parsed the same way. It must not select the policy `null`, which withholds values.
            if !stands_at(text, node, "null") {
                section.error(&node.at, "'ttl' is empty, expected one of mark, null, ignore", None);
            }
            Some(TtlPolicy::Null)
        }
        _ => section.word("ttl", &WORDS),
    };
    section.finish();
    ttl.unwrap_or_default()
}

fn sync(mut section: Section<'_>) -> SyncConfig {
    let default = SyncConfig::default();
    let config = SyncConfig {
        on_start: section.bool("on_start", default.on_start),
        limits: SyncLimits {
            commit_rows: section.count("commit_rows", 1..=16_777_216, default.limits.commit_rows),
            // The limit must allow one row.
            commit_bytes: memory(section.bytes(
                "commit_bytes",
                ROW_BYTES_MAX as u64..=4_096 * MIB,
                default.limits.commit_bytes as u64,
            )),
            retry: section.duration("retry", TIMEOUT_MIN..=HOUR, default.limits.retry),
            sanity: sanity_limits(&mut section, default.limits.sanity),
            future_tolerance: section.duration(
                "future_tolerance",
                Duration::ZERO..=3_650 * 24 * HOUR,
                default.limits.future_tolerance,
            ),
        },
        ..default
    };
    section.finish();
    config
}

fn sanity_limits(section: &mut Section<'_>, default: SanityLimits) -> SanityLimits {
    let mut number = |key, within, default: u64| section.count(key, within, memory(default)) as u64;
    SanityLimits {
        bad_percent_max: number("bad_percent_max", 0..=100, default.bad_percent_max),
        shrink_percent_max: number("shrink_percent_max", 0..=100, default.shrink_percent_max),
        growth_max: number("growth_max", 1..=1_000_000, default.growth_max),
    }
}

fn reload(mut section: Section<'_>, sync: &mut SyncConfig) {
    sync.reload_every = section.duration("every", Duration::ZERO..=HOUR, sync.reload_every);
    sync.registry_every = section.duration("registry_every", TIMEOUT_MIN..=24 * HOUR, sync.registry_every);
    section.finish();
}

fn log(mut section: Section<'_>) -> LogConfig {
    let default = LogConfig::default();
    let level = section.text("level");
    if let Some(level) = &level
        && let Err((why, help)) = check_filter(&level.value)
    {
        section.error(&level.at, format!("'level' is '{}': {why}", level.value), help);
    }
    let format = section.word("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    section.finish();
    LogConfig { level: level.map_or(default.level, |level| level.value), format: format.unwrap_or(default.format) }
}

/// Checks a log level or a filter. A directive of the filter that is a single word must be a level: the parser of
/// filters takes a mistyped level for the name of a module, and only lines of that module would be logged.
fn check_filter(filter: &str) -> Result<(), (String, Option<String>)> {
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    for directive in filter.split(',').map(str::trim) {
        if !directive.contains(['=', '[', ']', '{', '}']) && !is_level(directive) {
            let levels = LEVELS.join(", ");
            let help = nearest(directive, LEVELS).unwrap_or_else(|| "for example info,larder_sync=debug".to_owned());
            return Err((format!("expected one of {levels}, or a filter by module"), Some(help)));
        }
    }
    EnvFilter::try_new(filter).map(|_| ()).map_err(|error| (error.to_string(), None))
}

/// Returns whether the text at the position of a value begins with this word.
fn stands_at(text: &str, node: &Node, word: &str) -> bool {
    let place = |number: u32| usize::try_from(number).ok()?.checked_sub(1);
    let line = place(node.at.line).and_then(|line| text.lines().nth(line));
    let (Some(line), Some(column)) = (line, place(node.at.column)) else { return false };
    let written: String = line.chars().skip(column).collect();
    written.starts_with(word)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
