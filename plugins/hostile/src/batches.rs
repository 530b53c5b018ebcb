//! The hostile plugin for version 0.3 of the contract, in which a plugin reports the rows that it cannot compute. It
//! reads the time, and returns the same outputs as the plugin for version 0.2, except that `text` is the time in
//! microseconds, and that items of `words` may be null. `frames.rs` tests the contents of columns.
//!
//! | mode | what it does |
//! |------|--------------|
//! | `good` | returns a valid result |
//! | `fail` | reports the rows whose `x` is at least 1000 as failed |
//! | `fail_all` | reports all rows as failed |
//! | `failed_twice` | reports row 0 twice |
//! | `failed_order` | reports rows 1 and 0, in this order |
//! | `failed_beyond` | reports a row beyond the batch |
//! | `failed_value` | reports row 0, which has values |
//! | `failed_null` | returns a null in row 0 of `y`, which is declared as not nullable, without reporting it |
//! | `failed_flood` | reports row 0 with a message of `amount` bytes (default 5 MiB) |
//! | `null_item` | returns a null as the first item of each list in `words` |
//! | `null_item_value` | the same, with bytes in the slot of the null item |
//! | `stray_item` | returns presence bits beyond the items of `words` |
//! | `no_item_presence` | returns `words` without presence bits of the items |
//! | `batch_size` | returns the number of rows of the call as `y` |
//! | `row_number` | returns the index of the row in the call as `y` |
//! | `sum` | returns the sum of all `x` of the call as `y` |
//! | `fault`, `trap` | as in version 0.1 |

use std::cell::{Cell, RefCell};

use serde::Deserialize;

use crate::{
    bindings::{
        Batch, Guest, Signature, export,
        larder::transform::types::{DataType, FailedRow, Field, ScalarType},
    },
    config::Config,
    memory,
    parts::{Parts, doubles, ends, head_len, present},
};

struct Hostile;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Good,
    Fail,
    FailAll,
    FailedTwice,
    FailedOrder,
    FailedBeyond,
    FailedValue,
    FailedNull,
    FailedFlood,
    NullItem,
    NullItemValue,
    StrayItem,
    NoItemPresence,
    BatchSize,
    RowNumber,
    Sum,
    Fault,
    Trap,
}

thread_local! {
    static CONFIG: RefCell<Config<Mode>> = const { RefCell::new(Config { mode: Mode::Good, after: 0, bad: None, amount: None }) };
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

export!(Hostile with_types_in crate::bindings);

impl Guest for Hostile {
    fn describe() -> Signature {
        let field = |name: &str, scalar, is_list, nullable, doc: &str| Field {
            name: name.to_owned(),
            data_type: DataType { scalar, is_list },
            nullable,
            nullable_items: name == "words",
            doc: doc.to_owned(),
        };
        Signature {
            name: "hostile".to_owned(),
            version: "1.0.0".to_owned(),
            doc: "Violates every rule that the host enforces.".to_owned(),
            reads_time: true,
            inputs: vec![field("x", ScalarType::Float64, false, true, "Any number.")],
            outputs: vec![
                field("y", ScalarType::Float64, false, false, "Twice the number."),
                field("flag", ScalarType::Bool, false, true, "Whether it is above 0."),
                field("text", ScalarType::Utf8, false, true, "The time, in microseconds."),
                field("items", ScalarType::Float64, true, true, "A list with the number."),
                field("words", ScalarType::Utf8, true, true, "A list of two texts."),
            ],
        }
    }

    fn configure(config: String) -> Result<(), String> {
        let config = if config == "null" { r#"{"mode": "good"}"# } else { config.as_str() };
        CONFIG.set(serde_json::from_str(config).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn transform(rows: u32, inputs: Vec<u8>) -> Result<Batch, String> {
        CALLS.set(CALLS.get() + 1);
        let Config { mode, after, amount, .. } = CONFIG.with_borrow(Config::clone);
        let mode = if CALLS.get() > after { mode } else { Mode::Good };
        match mode {
            Mode::Trap => core::arch::wasm32::unreachable(),
            Mode::Fault => return Err("the hostile plugin gives up".to_owned()),
            _ => {}
        }
        let rows = rows as usize;
        let times: Vec<i64> = doubles(&inputs, 0, rows).into_iter().map(|bits| bits.to_bits() as i64).collect();
        let x = doubles(&inputs, head_len(rows), rows);
        let mut parts = Parts::good(rows, &x);
        let texts: Vec<String> = times.iter().map(i64::to_string).collect();
        (parts.text, parts.text_ends) = (texts.concat().into(), ends(texts.iter().map(String::len)));
        match mode {
            Mode::BatchSize => parts.y = vec![rows as f64; rows],
            Mode::RowNumber => parts.y = (0..rows).map(|row| row as f64).collect(),
            Mode::Sum => parts.y = vec![x.iter().sum(); rows],
            _ => {}
        }
        let failed = failed_rows(mode, rows, &x, amount.unwrap_or(5 << 20));
        let with_values = matches!(mode, Mode::FailedValue);
        let null_rows = failed.iter().map(|failed| failed.row as usize).filter(|row| *row < rows && !with_values);
        let null_rows: Vec<usize> = if mode == Mode::FailedNull { vec![0] } else { null_rows.collect() };
        let mut words = present(parts.word_ends.len());
        match mode {
            Mode::NullItem | Mode::NullItemValue => {
                (0..rows).for_each(|row| words[2 * row / 8] &= !(1 << (2 * row % 8)));
                if mode == Mode::NullItem {
                    parts.word_ends = ends((0..rows).flat_map(|_| [0, 4]));
                    parts.words = "well".repeat(rows).into();
                }
            }
            Mode::StrayItem => *words.last_mut().unwrap() = 0x80,
            _ => {}
        }
        let outputs = parts.with_nulls(&null_rows).frame((mode != Mode::NoItemPresence).then_some(&words));
        Ok(Batch { outputs, failed })
    }
}

/// Returns the failed rows that a mode reports.
fn failed_rows(mode: Mode, rows: usize, x: &[f64], amount: usize) -> Vec<FailedRow> {
    let failed = |row: usize| FailedRow { row: row as u32, message: format!("x is {}", x.get(row).unwrap_or(&0.0)) };
    match mode {
        Mode::Fail => (0..rows).filter(|row| x[*row] >= 1_000.0).map(failed).collect(),
        Mode::FailAll => (0..rows).map(failed).collect(),
        Mode::FailedTwice => vec![failed(0), failed(0)],
        Mode::FailedOrder => vec![failed(1), failed(0)],
        Mode::FailedBeyond => vec![failed(rows)],
        Mode::FailedValue => vec![failed(0)],
        Mode::FailedFlood => vec![FailedRow { row: 0, message: "x".repeat(amount) }],
        _ => Vec::new(),
    }
}

/// Allocates memory for the host. Replaces the function that `wit-bindgen` generates by default, which is turned off.
#[unsafe(export_name = "cabi_realloc")]
unsafe extern "C" fn realloc(old: *mut u8, old_len: usize, align: usize, len: usize) -> *mut u8 {
    // SAFETY: the host calls this export as the contract specifies.
    unsafe { memory::give(old, old_len, align, len) }
}
