//! Tests each limit on plugins, with guests that obey the limit and guests that violate it.
//!
//! The view's configuration selects the mode of the hostile guest. `plugins/hostile/src/lib.rs` has a table of the
//! modes. A violation fails the call and discards the instance, so the next call succeeds.

use std::{
    fs,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use larder_model::model::{DerivedInput, DerivedView, Feature, InputSource, OnError, ValueRef, ValueType};
use larder_plugin_host::{
    CallError, Component, Incompatibility, Inputs, Interrupt, LoadError, NeedsIsolation, OnFailure, Outputs,
    PluginLimits, PluginRuntime, PluginSettings, Transform,
};

use crate::guests::{compiler, guest, guest_with};

const MIB: usize = 1 << 20;

/// Returns settings with enough time for a debug build on a busy machine.
fn settings() -> PluginSettings {
    let default = PluginSettings::default();
    let compiled = PluginLimits { time: Duration::from_millis(300), ..default.compiled };
    PluginSettings { compiled, compiler: compiler(), ..default }
}

pub(crate) fn runtime() -> &'static Arc<PluginRuntime> {
    static RUNTIME: OnceLock<Arc<PluginRuntime>> = OnceLock::new();
    RUNTIME.get_or_init(|| PluginRuntime::new(settings()).unwrap())
}

fn hostile() -> Arc<Component> {
    runtime().load(&fs::read(guest("hostile")).unwrap()).unwrap()
}

pub(crate) fn view(config: &str) -> DerivedView {
    let types = [
        ("y", "Float64"),
        ("flag", "Bool"),
        ("text", "String"),
        ("items", "Array(Float64)"),
        ("words", "Array(String)"),
    ];
    let feature = |(name, value_type): (&str, &str)| Feature {
        name: name.into(),
        value_type: value_type.parse().unwrap(),
        description: String::new(),
        tags: Default::default(),
    };
    DerivedView {
        name: "hostile_view".into(),
        plugin: "hostile".into(),
        inputs: vec![input("x", "Float64")],
        features: types.map(feature).into(),
        config: config.into(),
        on_error: OnError::Null,
        description: String::new(),
        tags: Default::default(),
    }
}

fn input(name: &str, value_type: &str) -> DerivedInput {
    DerivedInput { name: name.into(), value_type: value_type.parse::<ValueType>().unwrap(), from: InputSource::Request }
}

/// Loads the guest in a mode. In each instance, the first four calls succeed, so the test calls of a new instance succeed.
fn in_mode(mode: &str, amount: Option<u64>) -> Arc<Transform> {
    let amount = amount.map(|amount| format!(r#", "amount": {amount}"#)).unwrap_or_default();
    let config = format!(r#"{{"mode": "{mode}", "after": 4{amount}}}"#);
    Transform::bind(runtime(), &hostile(), &view(&config)).unwrap_or_else(|error| panic!("{mode}: {error}"))
}

fn inputs(transform: &Transform, rows: usize) -> Inputs {
    let mut frame = transform.input_batch(0, rows);
    #[expect(clippy::cast_precision_loss, reason = "few rows")]
    frame.column(|column| column.extend((0..rows).map(|row| ValueRef::Float64(row as f64))));
    frame.finish()
}

/// Computes a batch, without a search for the rows that fail. Returns the error of the first row that failed.
pub(crate) fn call(transform: &Transform, rows: usize) -> Result<Outputs, CallError> {
    let outputs = transform.try_call(&inputs(transform, rows), OnFailure::FailCall).unwrap();
    match outputs.failed().first() {
        Some(failed) => Err((*failed.error).clone()),
        None => Ok(outputs),
    }
}

/// Returns the indexes of the rows that failed.
fn failed_rows(outputs: &Outputs) -> Vec<usize> {
    outputs.failed().iter().map(|failed| failed.row).collect()
}

/// Returns the error of the first call after the test calls. Checks that the next call, in another instance, succeeds.
fn violation(mode: &str, amount: Option<u64>) -> CallError {
    let transform = in_mode(mode, amount);
    let error = call(&transform, 3).expect_err(mode);
    let outputs = call(&transform, 3).unwrap_or_else(|error| panic!("{mode}, after the failure: {error}"));
    assert_eq!(outputs.output(0).get(2), ValueRef::Float64(4.0), "{mode}");
    error
}

fn obeyed(mode: &str, amount: u64) {
    let transform = in_mode(mode, Some(amount));
    for _ in 0..3 {
        let outputs = call(&transform, 3).unwrap_or_else(|error| panic!("{mode} {amount}: {error}"));
        assert_eq!(outputs.output(0).get(2), ValueRef::Float64(4.0), "{mode}");
    }
}

#[test]
fn a_good_call_has_every_output() {
    let outputs = call(&in_mode("good", None), 3).unwrap();
    assert_eq!(outputs.len(), 5);
    assert_eq!(outputs.output(1).get(0), ValueRef::Bool(false));
    assert_eq!(outputs.output(1).get(2), ValueRef::Bool(true));
    assert!(matches!(outputs.output(3).get(1), ValueRef::List(_)));
}

/// Returns the error of rows that violate a rule in every instance. Checks that another row succeeds. A call that takes
/// too much time or memory in a used instance is repeated in another one.
fn violation_by_rows(mode: &str, amount: Option<u64>) -> CallError {
    let amount = amount.map(|amount| format!(r#", "amount": {amount}"#)).unwrap_or_default();
    let config = format!(r#"{{"mode": "{mode}", "bad": 1{amount}}}"#);
    let transform = Transform::bind(runtime(), &hostile(), &view(&config)).unwrap();
    let error = call(&transform, 3).expect_err(mode);
    let outputs = call(&transform, 1).unwrap_or_else(|error| panic!("{mode}, after the failure: {error}"));
    assert_eq!(outputs.output(0).get(0), ValueRef::Float64(0.0), "{mode}");
    error
}

#[test]
fn time_is_limited() {
    obeyed("slow", 1);
    assert!(matches!(violation_by_rows("spin", None), CallError::Interrupt(Interrupt::Timeout(_))));
    for mode in ["spin_realloc", "spin_post"] {
        let transform = in_mode(mode, None);
        let outputs = transform.try_call(&inputs(&transform, 1), OnFailure::FailCall).unwrap();
        assert!(matches!(*outputs.failed()[0].error, CallError::Interrupt(Interrupt::Timeout(_))), "{mode}");
        assert!(call(&transform, 3).is_ok(), "{mode}, after the failure");
    }
    assert!(matches!(violation_by_rows("slow", Some(100_000_000)), CallError::Interrupt(Interrupt::Timeout(_))));
}

#[test]
fn memory_is_limited() {
    obeyed("memory", 2);
    assert_eq!(violation_by_rows("memory", Some(32)), CallError::Interrupt(Interrupt::Memory { limit: 16 * MIB }));
    // The fifth call of each instance requests too much. It is repeated in a new instance.
    assert!(call(&in_mode("memory", Some(32)), 3).is_ok());
    // It is not a violation if a guest requests too much memory and handles the failed allocation.
    let polite = in_mode("memory_politely", None);
    assert!(call(&polite, 3).is_ok());
}

#[test]
fn the_stack_is_limited() {
    obeyed("recurse", 100);
    let error = violation("recurse", None);
    assert!(matches!(error, CallError::Interrupt(Interrupt::Stack | Interrupt::Trap(_))), "{error:?}");
}

#[test]
fn result_size_is_limited() {
    obeyed("gigantic", 1_000_000);
    assert_eq!(violation("gigantic", Some(2_000_000)), CallError::Interrupt(Interrupt::Output { limit: 4 * MIB }));
    for mode in ["alias", "huge_list", "gigantic_fault"] {
        let error = violation(mode, None);
        assert!(
            matches!(error, CallError::Interrupt(Interrupt::Output { .. } | Interrupt::Value(_))),
            "{mode}: {error:?}"
        );
    }
}

#[test]
fn every_malformed_result_is_reported() {
    let cases = [
        ("wrong_column_count", "it returned 4 columns, but declares 5"),
        ("extra_column", "it returned 6 columns, but declares 5"),
        ("no_columns", "it returned 0 columns, but declares 5"),
        ("wrong_type", "output 'y' is Int64, but was declared as Float64"),
        ("list_for_scalar", "output 'y' is Array(Float64), but was declared as Float64"),
        ("short_column", "output 'y' has 2 slots for 3 rows"),
        ("long_column", "output 'y' has 4 slots for 3 rows"),
        ("short_ends", "output 'text' has 2 slots for 3 rows"),
        ("long_ends", "output 'text' has 4 slots for 3 rows"),
        ("bad_ends", "output 'text' has ends that decrease or do not match its data"),
        ("ends_beyond", "output 'text' has ends that decrease or do not match its data"),
        ("ends_short", "output 'text' has ends that decrease or do not match its data"),
        ("bad_list_ends", "output 'items' has ends that decrease or do not match its data"),
        ("bad_item_ends", "output 'words' has ends that decrease or do not match its data"),
        ("bad_utf8", "output 'text' has text that is not UTF-8"),
        ("bad_item_utf8", "output 'words' has text that is not UTF-8"),
        ("split_character", "output 'text' has text that is not UTF-8"),
        ("bad_bool", "output 'flag' has a bool that is neither 0 nor 1"),
        ("bad_validity", "output 'text' has a validity bitmap that does not match 3 rows"),
        ("stray_validity", "output 'text' has a validity bitmap that does not match 3 rows"),
        ("null_in_non_nullable", "output 'y' has a null, but was declared not nullable"),
    ];
    for (mode, expected) in cases {
        let error = violation(mode, None);
        assert_eq!((error.kind(), error.to_string().as_str()), ("bad_output", expected), "{mode}");
    }
    for mode in ["bad_pointer", "bad_list_pointer", "unaligned", "bad_tag", "bad_realloc"] {
        assert!(matches!(violation(mode, None), CallError::Interrupt(_)), "{mode}");
    }
}

#[test]
fn traps_panics_and_faults_are_classified() {
    assert_eq!(violation("trap", None).kind(), "trap");
    assert_eq!(violation("panic", None).kind(), "trap");
    let faulty = in_mode("fault", None);
    let error = call(&faulty, 3).unwrap_err();
    assert_eq!(error.kind(), "fault");
    // The contract allows plugins to return a fault, so the instance is reused, and the next call returns the same
    // fault.
    assert_eq!(call(&faulty, 3).unwrap_err(), error);
}

#[test]
fn configure_is_under_the_same_limits() {
    let rejected = |mode: &str| {
        let config = format!(r#"{{"mode": "{mode}"}}"#);
        *Transform::bind(runtime(), &hostile(), &view(&config)).expect_err(mode).why
    };
    assert!(matches!(rejected("spin_configure"), Incompatibility::Configure(Interrupt::Timeout(_))));
    assert!(matches!(rejected("trap_configure"), Incompatibility::Configure(Interrupt::Trap(_))));
    assert!(matches!(rejected("fault_configure"), Incompatibility::Config { .. }));
    assert!(matches!(rejected("no such mode"), Incompatibility::Config { .. }));
    // A plugin that fails in a test call is also rejected.
    assert!(matches!(rejected("spin"), Incompatibility::TestCall { .. }));
    assert!(matches!(rejected("bad_utf8"), Incompatibility::TestCall { .. }));
}

#[test]
fn log_flood_is_limited() {
    for (mode, amount) in [("log_flood", 10_000), ("long_log_line", 1 << 20), ("log_control", 1)] {
        obeyed(mode, amount);
    }
}

#[test]
fn describe_and_initialization_are_limited() {
    let rejected = |features: &str| runtime().load(&fs::read(guest_with("hostile", features)).unwrap()).unwrap_err();
    assert!(matches!(rejected("spin-describe"), LoadError::Describe(Interrupt::Timeout(_))));
    assert!(matches!(rejected("spin-start"), LoadError::Describe(Interrupt::Timeout(_))));
    assert!(matches!(rejected("changing-describe"), LoadError::Unsteady));
    assert!(matches!(rejected("huge-describe"), LoadError::Describe(Interrupt::Output { .. })));
    let foreign = rejected("foreign-import").to_string();
    assert!(foreign.contains("imports larder-hostile:foreign/clock@0.1.0"), "{foreign}");
    let wrong = rejected("wrong-world");
    assert!(matches!(&wrong, LoadError::Exports(missing) if missing == &["configure"]), "{wrong}");
}

#[test]
fn file_size_and_format_are_checked() {
    let good = fs::read(guest("hostile")).unwrap();
    let limited = |bytes: u64| {
        let compiled = PluginLimits { component_bytes: bytes, ..settings().compiled };
        PluginRuntime::new(PluginSettings { compiled, ..settings() }).unwrap()
    };
    let bytes = good.len() as u64;
    assert!(limited(bytes).load(&good).is_ok());
    let error = limited(bytes - 1).load(&good).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the file has more than {} bytes, which is the limit for compiled plugins. hint: leave out dependencies, or \
             raise 'plugins: limits: component'",
            bytes - 1
        )
    );

    let rejected = |bytes: &[u8]| runtime().load(bytes).unwrap_err();
    assert!(matches!(rejected(b""), LoadError::NotWasm));
    assert!(matches!(rejected(b"name: churn"), LoadError::NotWasm));
    assert!(matches!(rejected(b"\0asm\x01\0\0\0"), LoadError::CoreModule));
    assert!(matches!(rejected(&good[..good.len() / 2]), LoadError::Broken(_)));
    assert!(matches!(rejected(b"\0asm\x0d\0\x01\0"), LoadError::Exports(_)));
}

#[test]
fn large_batch_is_split() {
    let compiled = PluginLimits { rows_per_call: 100, ..settings().compiled };
    let small = PluginRuntime::new(PluginSettings { compiled, ..settings() }).unwrap();
    let component = small.load(&fs::read(guest("hostile")).unwrap()).unwrap();
    let split = Transform::bind(&small, &component, &view(r#"{"mode": "good"}"#)).unwrap();
    let whole = in_mode("good", None);
    for rows in [0, 1, 100, 101, 1_000] {
        let (split, whole) = (call(&split, rows).unwrap(), call(&whole, rows).unwrap());
        for (split, whole) in split.iter().zip(whole.iter()) {
            assert_eq!(split.column(), whole.column(), "{rows} rows");
        }
    }
}

/// Loads the guest in a mode that affects only calls with one of the rows `bad`. Returns it with inputs.
fn bad_rows(mode: &str, bad: &[usize], rows: usize) -> (Arc<Transform>, Inputs) {
    // Each row in mode `slow` takes about 100 ms, which is a third of the limit.
    let config = format!(r#"{{"mode": "{mode}", "bad": 1000000, "amount": 100000}}"#);
    let transform = Transform::bind(runtime(), &hostile(), &view(&config)).unwrap();
    // From this call, the cost of a batch is known.
    assert!(transform.call(&inputs(&transform, rows)).failed().is_empty());
    let mut frame = transform.input_batch(0, rows);
    #[expect(clippy::cast_precision_loss, reason = "few rows")]
    let value = |row: usize| if bad.contains(&row) { 1_000_000.0 } else { row as f64 };
    frame.column(|column| column.extend((0..rows).map(|row| ValueRef::Float64(value(row)))));
    (transform, frame.finish())
}

#[test]
fn only_bad_rows_fail() {
    const SETS: [&[usize]; 5] = [&[3, 4, 50], &[0], &[99], &[17], &[]];
    // Timeouts and allocations take long, so these modes are tested with one set.
    for (mode, kind, sets) in
        [("fault", "fault", 5), ("trap", "trap", 5), ("spin", "timeout", 1), ("memory", "memory", 1)]
    {
        for bad in &SETS[..sets] {
            let bad = *bad;
            let (transform, inputs) = bad_rows(mode, bad, 100);
            let outputs = transform.call(&inputs);
            assert_eq!(failed_rows(&outputs), bad, "{mode}");
            for failed in outputs.failed() {
                assert_eq!(failed.error.kind(), kind, "{mode}: {}", failed.error);
            }
            for row in 0..100 {
                #[expect(clippy::cast_precision_loss, reason = "few rows")]
                let expected = if bad.contains(&row) { ValueRef::Null } else { ValueRef::Float64(row as f64 * 2.0) };
                assert_eq!(outputs.output(0).get(row), expected, "{mode}, row {row}");
                assert_eq!(outputs.is_failed(row), bad.contains(&row), "{mode}, row {row}");
            }
        }
    }
}

#[test]
fn failed_calls_of_a_batch_are_limited() {
    const ROWS: usize = 4_096;
    let bad: Vec<usize> = (0..ROWS).collect();
    for (mode, kind) in [("fault", "fault"), ("trap", "trap")] {
        let (transform, inputs) = bad_rows(mode, &bad, ROWS);
        let outputs = transform.call(&inputs);
        assert_eq!(failed_rows(&outputs), bad, "{mode}");
        assert_eq!(outputs.failed()[0].error.kind(), kind);
        // The next call is not affected.
        let (_, good) = bad_rows(mode, &[], ROWS);
        assert!(transform.call(&good).failed().is_empty(), "{mode}");
    }
    // A row that uses all of its time costs more than a trap, so fewer of them are tried.
    let (transform, inputs) = bad_rows("spin", &bad[..64], 64);
    let started = Instant::now();
    assert_eq!(transform.call(&inputs).failed().len(), 64);
    let limit = settings().compiled.time;
    assert!(started.elapsed() < limit * 64, "{:?}", started.elapsed());
}

#[test]
fn failure_on_serving_thread_needs_isolation() {
    let escalate = |mode: &str, bad: &[usize]| {
        let (transform, inputs) = bad_rows(mode, bad, 100);
        transform.try_call(&inputs, OnFailure::Escalate).map(|outputs| failed_rows(&outputs))
    };
    assert_eq!(escalate("trap", &[]), Ok(vec![]));
    assert_eq!(escalate("trap", &[5]), Err(NeedsIsolation));
    assert_eq!(escalate("spin", &[5]), Err(NeedsIsolation));
    // A fault costs little, so few of them are handled at once.
    assert_eq!(escalate("fault", &[5]), Ok(vec![5]));
    assert_eq!(escalate("fault", &(0..100).collect::<Vec<_>>()), Err(NeedsIsolation));
}

#[test]
fn row_after_wait_has_whole_limit() {
    let (transform, inputs) = bad_rows("spin", &[5], 100);
    let outputs = transform.try_call(&inputs, OnFailure::FailCall).unwrap();
    assert_eq!(failed_rows(&outputs), [5], "a call that takes too long is divided");
    match &*outputs.failed()[0].error {
        CallError::Interrupt(Interrupt::Timeout(limit)) => assert_eq!(*limit, settings().compiled.time),
        error => panic!("{error}"),
    }
}

#[test]
fn single_slow_row_has_all_of_the_time() {
    // The row takes far longer than the other rows, but less than the limit.
    let (transform, inputs) = bad_rows("slow", &[5], 100);
    assert_eq!(transform.try_call(&inputs, OnFailure::Escalate).unwrap_err(), NeedsIsolation);
    assert_eq!(failed_rows(&transform.call(&inputs)), [0; 0]);
}

#[test]
fn batch_is_divided_by_measured_cost() {
    // A row takes about a third of the limit, so the batch would take three times the limit in one call.
    let (transform, inputs) = bad_rows("slow", &(0..10).collect::<Vec<_>>(), 10);
    assert_eq!(failed_rows(&transform.call(&inputs)), [0; 0]);
    // From now on, the cost is known.
    assert_eq!(transform.try_call(&inputs, OnFailure::Escalate).map(|outputs| outputs.failed().len()), Ok(0));
}

#[test]
fn time_limit_ignores_load_of_machine() {
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let threads = 3 * std::thread::available_parallelism().unwrap().get();
    let spin = |stop: Arc<std::sync::atomic::AtomicBool>| {
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::hint::spin_loop()
            }
        }
    };
    let load: Vec<_> = (0..threads).map(|_| std::thread::spawn(spin(Arc::clone(&stop)))).collect();
    // Each row takes about a third of the limit of CPU time, so it takes longer than the limit while other threads run.
    let (transform, inputs) = bad_rows("slow", &(0..5).collect::<Vec<_>>(), 5);
    let started = Instant::now();
    let outputs = transform.call(&inputs);
    let elapsed = started.elapsed();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    load.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(failed_rows(&outputs), [0; 0], "after {elapsed:?}");
}

/// Returns the resident memory of this process in bytes.
fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

#[test]
fn traps_leave_nothing_behind() {
    // `make soak` runs this test with a hundred thousand traps.
    let traps: usize = std::env::var("LARDER_TRAPS").ok().map_or(5_000, |traps| traps.parse().unwrap());
    // Each instance succeeds in four calls and traps in the fifth.
    let transform = in_mode("trap", None);
    let mut met = 0;
    let mut run = |until: usize| {
        while met < until {
            met += usize::from(call(&transform, 1).is_err());
        }
    };
    run(traps / 10);
    let before = resident_bytes();
    run(traps);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 8 * MIB, "{grown} bytes more after {traps} traps");
}

#[test]
fn what_takes_long_is_known_to() {
    let (quick, slow) = (in_mode("good", None), in_mode("slow", Some(20_000)));
    for transform in [&slow, &quick] {
        assert!(transform.call(&inputs(transform, 1)).failed().is_empty());
    }
    assert!(slow.is_long(1), "some milliseconds");
    let _ = call(&in_mode("spin", None), 1);
}

/// A compute pool has many threads, of which few run at a time.
#[test]
fn calls_on_many_threads_share_an_instance() {
    let transform = in_mode("good", None);
    for _ in 0..40 {
        thread::scope(|scope| scope.spawn(|| call(&transform, 1).unwrap()).join().unwrap());
    }
    assert!(format!("{transform:?}").contains("warm: 1"), "{transform:?}");
}

#[test]
fn larger_view_is_compatible() {
    let mut wrong = view(r#"{"mode": "good"}"#);
    wrong.inputs[0] = input("x", "UnixTimestamp");
    assert!(matches!(
        *Transform::bind(runtime(), &hostile(), &wrong).unwrap_err().why,
        Incompatibility::InputType { .. }
    ));
    // A view is compatible if it has more inputs than the plugin reads, or fewer features than the plugin computes.
    let mut more = view(r#"{"mode": "good"}"#);
    more.inputs.insert(0, input("unused", "String"));
    more.features.truncate(1);
    let transform = Transform::bind(runtime(), &hostile(), &more).unwrap();
    assert_eq!((transform.inputs(), transform.outputs()), (&[1][..], &[0][..]));
}
