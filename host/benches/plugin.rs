//! Measures the cost of plugins. Run it with `make bench-plugin`. The figures are medians of one run, in some cases
//! with a 99th percentile or a range. Figures that are compared are measured alternately.
//!
//! `make` builds the plugins and passes their paths in environment variables: `LARDER_BENCH_NOOP`, `_FLOATS`,
//! `_FLOATS_PYTHON`, `_COSINE_PYTHON`, `_CHURN` and `_HOSTILE`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark that cannot go on panics, and prints")]

use std::{
    env, fs,
    hint::black_box,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use larder_model::model::{DerivedInput, DerivedView, Feature, InputSource, OnError, ScalarType, ValueRef, ValueType};
use larder_plugin_host::{Component, Field, PluginLimits, PluginRuntime, PluginSettings, Transform};

const ROWS: [usize; 4] = [1, 32, 100, 1_000];
/// Modes of `plugins/hostile`. The first mode is well-behaved.
const HOSTILE_MODES: [&str; 9] =
    ["good", "spin", "memory", "recurse", "gigantic", "alias", "trap", "log_flood", "wrong_type"];
/// The number of items of the lists of `plugins/bench/cosine-python`.
const ITEMS: usize = 128;
/// How long each figure is measured in all.
const EACH: Duration = Duration::from_millis(1_000);
/// The number of rounds in which figures that are compared alternate.
const ROUNDS: u32 = 9;

fn main() {
    // `cargo test` runs benchmarks with this argument, to check that they start.
    if env::args().any(|argument| argument == "--test") {
        return;
    }
    let (noop, floats, python) = (plugin("NOOP"), plugin("FLOATS"), plugin("FLOATS_PYTHON"));
    let cache = tempfile::tempdir().unwrap();
    let runtime = runtime(Some(cache.path().into()));
    let [noop, rust, script] = [&noop, &floats, &python].map(|file| runtime.load(file).unwrap());

    println!("microseconds per call, median (p99); 8 float64 columns in, 8 out\n");
    println!("{:<34} {:>16}", "no-op, 1 row", show(&mut calls(&bind(&runtime, &noop), 1, EACH)));
    let (rust_transform, python_transform) = (bind(&runtime, &rust), bind(&runtime, &script));
    for rows in ROWS {
        compare_with_host(&rust_transform, rows);
    }
    for rows in ROWS {
        println!("{:<34} {:>16}", format!("Python, {rows} rows"), show(&mut calls(&python_transform, rows, EACH)));
    }
    show_own_cost("floats-python", "plugin.compute.function(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)");
    let cosine = bind(&runtime, &runtime.load(&plugin("COSINE_PYTHON")).unwrap());
    for rows in [1, 100] {
        let name = format!("Python, cosine of {ITEMS} floats, {rows} rows");
        println!("{name:<42} {:>8}", show(&mut list_calls(&cosine, rows)));
    }
    show_own_cost("cosine-python", &format!("plugin.cosine.function([0.5] * {ITEMS}, [1.5] * {ITEMS})"));

    println!("\nonce per version, milliseconds, median");
    for (name, file, component) in [("Rust", &floats, &rust), ("Python", &python, &script)] {
        let fresh = self::runtime(None);
        let compile = Instant::now();
        fresh.load(file).unwrap();
        println!("{:<34} {:>16.2}", format!("{name}: check, compile, describe"), millis(compile.elapsed()));
        let cached = median(&mut times(20, || runtime.load(file).unwrap()));
        println!("{:<34} {:>16.2}", format!("{name}: the same from cached code"), millis(cached));
        let bound = median(&mut times(20, || bind(&runtime, component)));
        println!("{:<34} {:>16.3}", format!("{name}: instantiate, configure, try"), millis(bound));
    }
    measure_request();
    measure_next_to_hostile();
}

/// Measures requests for one customer over HTTP: requests for stored features only, and requests that also need the
/// four features of the churn plugin.
fn measure_request() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Demo::start(dir.path(), &file("CHURN"));
    let mut client = demo.connect();
    let stored: Vec<String> = [
        "behavior_features:tenure_months",
        "behavior_features:monthly_charges",
        "behavior_features:total_charges",
        "behavior_features:support_tickets_30d",
        "behavior_features:data_usage_gb",
        "demographics_features:age",
        "demographics_features:senior_citizen",
        "contract_features:contract_type",
    ]
    .map(|name| format!("\"customer_{name}\""))
    .into();
    let derived = ["charges_per_tenure_month", "tickets_per_month", "is_high_value", "contract_risk"]
        .map(|name| format!("\"customer_derived_features:{name}\""));
    let body = |features: &[String], more: &str| {
        format!(r#"{{"features":[{}],"entities":{{"customer_id":["CUST_000123"]{more}}}}}"#, features.join(","))
    };
    let without = body(&stored, "");
    let with = body(&[stored.as_slice(), derived.as_slice()].concat(), r#","discount_percent":[10.0]"#);
    println!("\nHTTP, one connection, one customer, microseconds, p50 of 20,000 each, alternately");
    let mut ratios = Vec::new();
    for round in 1..=5 {
        let (mut plain, mut more) = (Vec::new(), Vec::new());
        for _ in 0..20_000 {
            plain.push(client.measure(&without));
            more.push(client.measure(&with));
        }
        let (plain, more) = (median(&mut plain), median(&mut more));
        ratios.push(micros(more) - micros(plain));
        println!("round {round}: 8 stored {:.1}, with 4 derived {:.1}", micros(plain), micros(more));
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "{:<34} {:>16}",
        "the churn plugin adds",
        format!("{:.1} ({:.1}..{:.1})", ratios[2], ratios[0], ratios[4])
    );
}

/// Measures lookups of a stored feature on one connection, while a second connection requests features of a hostile
/// plugin without a pause. The baseline is the same measurement with a well-behaved plugin.
fn measure_next_to_hostile() {
    let dir = tempfile::tempdir().unwrap();
    for part in ["features", "plugins"] {
        fs::create_dir(dir.path().join(part)).unwrap();
    }
    fs::copy(file("HOSTILE"), dir.path().join("plugins/hostile.wasm")).unwrap();
    let views: String = HOSTILE_MODES.iter().map(|mode| hostile_view(mode)).collect();
    fs::write(dir.path().join("features/hostile.yaml"), format!("derived_views:\n{views}")).unwrap();
    let demo = Demo::start(dir.path(), &file("CHURN"));
    let stored =
        r#"{"features":["customer_behavior_features:monthly_charges"],"entities":{"customer_id":["CUST_000123"]}}"#;

    println!(
        "\nHTTP, one connection, one stored feature, microseconds, p50 (p99) of 60 x 500, while another connection requests"
    );
    let mut times_by_mode = HOSTILE_MODES.map(|_| Vec::new());
    // Each round uses new connections, because two connections may happen to share a server thread, which costs more
    // than any plugin.
    for _ in 0..60 {
        for (mode, times) in HOSTILE_MODES.iter().zip(&mut times_by_mode) {
            let stop = AtomicBool::new(false);
            let (mut client, mut other) = (demo.connect(), demo.connect());
            thread::scope(|scope| {
                scope.spawn(|| {
                    let body = format!(r#"{{"features":["hostile_{mode}:y"],"entities":{{"x":[1.0,2.0,3.0]}}}}"#);
                    while !stop.load(Ordering::Relaxed) {
                        other.post(&body);
                    }
                });
                times.extend((0..500).map(|_| client.measure(stored)));
                stop.store(true, Ordering::Relaxed);
            });
        }
    }
    for (mode, times) in HOSTILE_MODES.iter().zip(&mut times_by_mode) {
        let name = if *mode == "good" { "a well-behaved plugin" } else { mode };
        println!("{name:<34} {:>16}", show(times));
    }
}

fn hostile_view(mode: &str) -> String {
    format!(
        r#"
  - name: hostile_{mode}
    plugin: hostile
    config: {{mode: {mode}, after: 4}}
    inputs: [{{name: x, request: Float64}}]
    features:
      - {{name: y, type: Float64}}
      - {{name: flag, type: Bool}}
      - {{name: text, type: String}}
      - {{name: items, type: Array(Float64)}}
      - {{name: words, type: Array(String)}}
"#
    )
}

fn file(name: &str) -> PathBuf {
    let variable = format!("LARDER_BENCH_{name}");
    env::var(&variable).unwrap_or_else(|_| panic!("{variable} is not set: run `make bench-plugin`")).into()
}

fn plugin(name: &str) -> Vec<u8> {
    fs::read(file(name)).unwrap()
}

fn runtime(cache_dir: Option<PathBuf>) -> Arc<PluginRuntime> {
    let default = PluginSettings::default();
    // 1,000 rows in Python take milliseconds, and the machine may be busy.
    let interpreted = PluginLimits { time: Duration::from_secs(5), ..default.interpreted };
    let compiled = PluginLimits { time: Duration::from_secs(1), ..default.compiled };
    let compiler = env!("CARGO_BIN_EXE_larder").into();
    PluginRuntime::new(PluginSettings { cache_dir, compiler, compiled, interpreted, ..default }).unwrap()
}

fn bind(runtime: &Arc<PluginRuntime>, component: &Arc<Component>) -> Arc<Transform> {
    let signature = component.signature();
    let value_type = |field: &Field| {
        let scalar = ScalarType::from(field.column_type.scalar);
        if field.column_type.is_list { ValueType::List(scalar) } else { ValueType::Scalar(scalar) }
    };
    let view = DerivedView {
        name: "bench".into(),
        plugin: signature.name.as_str().into(),
        inputs: signature
            .inputs
            .iter()
            .map(|field| DerivedInput {
                name: field.name.as_str().into(),
                value_type: value_type(field),
                from: InputSource::Request,
            })
            .collect(),
        features: signature
            .outputs
            .iter()
            .map(|field| Feature {
                name: field.name.as_str().into(),
                value_type: value_type(field),
                description: String::new(),
                tags: Default::default(),
            })
            .collect(),
        config: "null".into(),
        on_error: OnError::Fail,
        description: String::new(),
        tags: Default::default(),
    };
    Transform::bind(runtime, component, &view).unwrap()
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn number(row: usize, column: usize) -> f64 {
    (row * 8 + column) as f64 * 0.37 + 1.0
}

/// Measures calls of the plugin and the same loop in the host alternately, and prints the ratio of their times.
fn compare_with_host(transform: &Transform, rows: usize) {
    let each = EACH / ROUNDS;
    let (mut guest, mut host, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mut calls, mut loops) = (calls(transform, rows, each), native(rows, each));
        ratios.push(micros(median(&mut calls)) / micros(median(&mut loops)));
        guest.append(&mut calls);
        host.append(&mut loops);
    }
    ratios.sort_by(f64::total_cmp);
    let [least, middle, most] = [0, ratios.len() / 2, ratios.len() - 1].map(|index| ratios[index]);
    let name = format!("Rust, {rows} rows");
    println!("{name:<34} {:>16}   {middle:.1} ({least:.1}..{most:.1}) times as long as in the host", show(&mut guest));
    println!("{:<34} {:>16}", format!("the same loop in the host, rows: {rows}"), show(&mut host));
}

/// Returns the values of the eight inputs.
fn columns(rows: usize) -> [Vec<f64>; 8] {
    std::array::from_fn(|index| (0..rows).map(|row| number(row, index)).collect())
}

/// Measures calls with this many rows. The times include filling the frame from the columns, because a server does this
/// for each call.
fn calls(transform: &Transform, rows: usize, each: Duration) -> Vec<Duration> {
    let columns = columns(rows);
    let call = || {
        let mut frame = transform.input_batch(0, rows);
        for values in columns.iter().take(frame.column_count()) {
            let values = black_box(values).iter().copied();
            frame.column(|column| column.extend(values.map(ValueRef::Float64)));
        }
        transform.call(&frame.finish())
    };
    for_a_while(call, each)
}

/// Measures calls with this many rows of two lists.
fn list_calls(transform: &Transform, rows: usize) -> Vec<Duration> {
    let list: Vec<f64> = (0..ITEMS).map(|item| number(item, 0)).collect();
    let call = || {
        let mut frame = transform.input_batch(0, rows);
        for _ in 0..frame.column_count() {
            frame.column(|column| {
                (0..rows).for_each(|_| column.push_list(list.iter().copied().map(ValueRef::Float64)));
            });
        }
        transform.call(&frame.finish())
    };
    for_a_while(call, EACH)
}

/// Prints the cost of a Python function in this machine's CPython, without a plugin. The function may need a later
/// version of Python.
fn show_own_cost(project: &str, call: &str) {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/bench/").to_owned() + project;
    let script = format!(
        "import timeit, plugin; print(min(timeit.repeat({call:?}, globals=globals(), number=20000, repeat=9)) / 0.02)"
    );
    let output = Command::new("python3").args(["-c", &script]).current_dir(dir).output().unwrap();
    let [micros, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let cost = match micros.trim().parse::<f64>() {
        Ok(micros) => format!("{micros:.2}"),
        Err(_) => format!("not measured: {}", errors.trim().lines().last().unwrap_or_default()),
    };
    println!("{:<42} {cost:>8}", format!("the same function in CPython, {project}"));
}

/// Measures the arithmetic of `plugins/bench/floats` in the host, without a plugin.
fn native(rows: usize, each: Duration) -> Vec<Duration> {
    let columns = columns(rows);
    let call = || {
        let [a, b, c, d, e, f, g, h] = [0, 1, 2, 3, 4, 5, 6, 7].map(|index| black_box(&columns[index]));
        let mut out: [Vec<Option<f64>>; 8] = std::array::from_fn(|_| Vec::with_capacity(rows));
        for i in 0..rows {
            out[0].push(Some(a[i] + b[i]));
            out[1].push(Some(c[i] - d[i]));
            out[2].push(Some(e[i] * f[i]));
            out[3].push(if h[i] == 0.0 { None } else { Some(g[i] / h[i]) });
            out[4].push(Some(if a[i] > h[i] { a[i] } else { h[i] }));
            out[5].push(if b[i] < 0.0 { None } else { Some(b[i].sqrt()) });
            out[6].push(Some(c[i] * 0.01 + 1.0));
            out[7].push(Some((d[i] + e[i]) / 2.0));
        }
        out
    };
    for_a_while(call, each)
}

fn for_a_while<T>(mut call: impl FnMut() -> T, each: Duration) -> Vec<Duration> {
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed() < each || times.len() < 20 {
        let call_started = Instant::now();
        black_box(call());
        times.push(call_started.elapsed());
    }
    // The first calls only warm up caches.
    let warm_up = times.len() / 10;
    times.split_off(warm_up)
}

fn times<T>(count: usize, mut call: impl FnMut() -> T) -> Vec<Duration> {
    let one = |_| {
        let started = Instant::now();
        let done = call();
        let took = started.elapsed();
        drop(done);
        took
    };
    (0..count).map(one).collect()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn show(times: &mut [Duration]) -> String {
    let middle = median(times);
    format!("{:.2} ({:.2})", micros(middle), micros(times[times.len() * 99 / 100]))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A running `larder demo` with the churn plugin.
struct Demo {
    program: Child,
    address: SocketAddr,
}

/// A connection to the demo.
struct Client(BufReader<TcpStream>);

impl Demo {
    fn start(dir: &std::path::Path, churn: &std::path::Path) -> Self {
        let mut program = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(["demo", "--customers", "1000", "--listen", "127.0.0.1:0", "--dir"])
            .arg(dir)
            .arg("--plugin")
            .arg(churn)
            .env("LARDER_METRICS_LISTEN", "off")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let address: SocketAddr = lines
            .find_map(|line| Some(line.ok()?.strip_prefix("Serving on http://")?.split(". ").next()?.parse().unwrap()))
            .unwrap();
        // Reads the rest of the output, so that the program never blocks on a full pipe.
        thread::spawn(move || lines.for_each(drop));
        Self { program, address }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(BufReader::new(stream))
    }
}

impl Client {
    /// Measures a request, and checks that no value in the response is `INVALID`.
    fn measure(&mut self, body: &str) -> Duration {
        let started = Instant::now();
        let answer = self.post(body);
        let took = started.elapsed();
        assert!(!answer.windows(7).any(|part| part == b"INVALID"), "{}", String::from_utf8_lossy(&answer));
        took
    }

    fn post(&mut self, body: &str) -> Vec<u8> {
        let request = format!(
            "POST /get-online-features HTTP/1.1\r\nhost: larder\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line).unwrap();
        assert!(line.contains("200"), "{line}");
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = bytes.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).unwrap();
        answer
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.program.kill().unwrap();
        self.program.wait().unwrap();
    }
}
