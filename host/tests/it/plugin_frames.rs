//! Plugins for version 0.2 of the contract, which return their results as bytes. The hostile guest returns invalid
//! bytes of every kind.
//!
//! Both versions of the contract share the code for limits on time, memory and the stack. `plugin_limits.rs` tests
//! these limits.

use std::{
    fs,
    io::{self, Write},
    sync::{Arc, Mutex, OnceLock},
};

use larder_model::model::ValueRef;
use larder_plugin_host::{CallError, Component, Interrupt, Transform};

use crate::{
    guests::{guest, guest_with},
    plugin_limits::{call, runtime, view},
};

fn hostile() -> &'static Arc<Component> {
    static HOSTILE: OnceLock<Arc<Component>> = OnceLock::new();
    HOSTILE.get_or_init(|| runtime().load(&fs::read(guest_with("hostile", "frames")).unwrap()).unwrap())
}

/// Loads the guest in a mode. In each instance, the first four calls succeed, so the test calls of a new instance succeed.
fn in_mode(mode: &str, more: &str) -> Arc<Transform> {
    let config = format!(r#"{{"mode": "{mode}", "after": 4{more}}}"#);
    Transform::bind(runtime(), hostile(), &view(&config)).unwrap_or_else(|error| panic!("{mode}: {error}"))
}

/// Returns the error of the first call after the test calls. Checks that the next call, in another instance, succeeds.
fn violation(mode: &str, rows: usize) -> CallError {
    let transform = in_mode(mode, "");
    let error = call(&transform, rows).expect_err(mode);
    let outputs = call(&transform, rows).unwrap_or_else(|error| panic!("{mode}, after the failure: {error}"));
    assert_eq!(outputs.output(0).get(1), ValueRef::Float64(2.0), "{mode}");
    error
}

#[test]
fn both_contract_versions_are_served() {
    let first = runtime().load(&fs::read(guest("hostile")).unwrap()).unwrap();
    assert_eq!((first.contract(), hostile().contract()), ("0.1", "0.2"));
    assert_eq!(first.signature(), hostile().signature());
    for rows in [1, 3, 64, 65, 4_096, 5_000] {
        let (first, second) = (Transform::bind(runtime(), &first, &view("null")).unwrap(), in_mode("good", ""));
        let (first, second) = (call(&first, rows).unwrap(), call(&second, rows).unwrap());
        for index in [0, 1, 3, 4] {
            let of = |outputs: &larder_plugin_host::Outputs, row| outputs.output(index).get(row).to_value();
            (0..rows).for_each(|row| assert_eq!(of(&first, row), of(&second, row), "row {row} of {rows}"));
        }
        assert_eq!(second.output(2).get(rows - 1), ValueRef::Bytes("äl well".as_bytes()));
    }
}

#[test]
fn every_malformed_frame_is_reported() {
    let cases = [
        ("empty", "output 'y' is truncated: the returned bytes end before it does"),
        ("cut", "output 'words' is truncated: the returned bytes end before it does"),
        ("odd", "output 'words' is truncated: the returned bytes end before it does"),
        ("surplus", "it returned 8 bytes more than its outputs take"),
        ("stray_presence", "output 'text' has a validity bitmap that does not match 3 rows"),
        ("null_in_non_nullable", "output 'y' has a null, but was declared not nullable"),
        ("bad_bool", "output 'flag' has a bool that is neither 0 nor 1"),
        ("ends_fall", "output 'text' has ends that decrease or do not match its data"),
        ("ends_beyond", "output 'text' is truncated: the returned bytes end before it does"),
        ("ends_short", "output 'text' has padding that is not zero: are its ends too small?"),
        ("list_ends_fall", "output 'items' has ends that decrease or do not match its data"),
        ("list_ends_beyond", "output 'items' is truncated: the returned bytes end before it does"),
        ("item_ends_fall", "output 'words' has ends that decrease or do not match its data"),
        ("item_ends_beyond", "output 'words' is truncated: the returned bytes end before it does"),
        ("bad_utf8", "output 'text' has text that is not UTF-8"),
        ("split_character", "output 'text' has text that is not UTF-8"),
    ];
    for (mode, expected) in cases {
        let error = violation(mode, 3);
        assert_eq!((error.kind(), error.to_string().as_str()), ("bad_output", expected), "{mode}");
    }
    // An additional row shifts the later parts of the frame, so different parts can be the first invalid one. The frame
    // is always rejected.
    for rows in [2, 3, 8, 64] {
        assert_eq!(violation("more_rows", rows).kind(), "bad_output", "{rows} rows");
    }
}

#[test]
fn frame_has_the_column_limits() {
    let obeyed = in_mode("gigantic", r#", "amount": 1000000"#);
    assert!(call(&obeyed, 3).is_ok());
    assert_eq!(violation("gigantic", 3), CallError::Interrupt(Interrupt::Output { limit: 4 << 20 }));
    // A call with several rows would be divided.
    let spinning = in_mode("spin", "");
    assert!(matches!(call(&spinning, 1).unwrap_err(), CallError::Interrupt(Interrupt::Timeout(_))));
    assert!(call(&spinning, 3).is_ok(), "in another instance");
    assert_eq!(violation("trap", 3).kind(), "trap");
    let faulty = in_mode("fault", "");
    let error = call(&faulty, 3).unwrap_err();
    assert_eq!((error.kind(), error), ("fault", CallError::Fault("the hostile plugin gives up".to_owned())));
}

/// Captures the log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn log_line_keeps_its_level() {
    let (lines, transform) = (Lines::default(), in_mode("log", ""));
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || call(&transform, 3)).unwrap();
    let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let ours: Vec<&str> = lines.lines().filter(|line| line.contains("a line of a frame")).collect();
    assert!(matches!(ours[..], [line] if line.contains("WARN")), "{lines}");
}
