//! The hostile plugin for version 0.2 of the contract, in which a result is one byte buffer. The signature is the same
//! as for version 0.1, and most modes are errors in the contents of the buffer. The configuration has the same form:
//! `{"mode": "cut", "after": 3}`.
//!
//! | mode | what it does |
//! |------|--------------|
//! | `good` | returns a valid result |
//! | `empty` | returns no bytes |
//! | `cut` | returns one 8-byte word too few |
//! | `odd` | returns half a word too few |
//! | `surplus` | returns one word too many |
//! | `more_rows` | returns outputs with one row more than requested |
//! | `stray_presence` | returns `text` with a presence bit beyond the rows |
//! | `null_in_non_nullable` | returns a null in `y`, which is declared as not nullable |
//! | `bad_bool` | returns a `flag` of 2 |
//! | `ends_fall`, `ends_beyond` | returns `text` with ends that decrease, or that are beyond its bytes |
//! | `list_ends_fall`, `list_ends_beyond` | returns such ends in `items` |
//! | `item_ends_fall`, `item_ends_beyond` | returns such ends for the strings in `words` |
//! | `bad_utf8`, `split_character` | returns `text` that is not UTF-8, or whose first row ends within a character |
//! | `ends_short` | returns `text` with ends before its last bytes |
//! | `gigantic` | returns a `text` of `amount` bytes (default 1.4 MB) in each row |
//! | `spin`, `trap`, `fault` | as in version 0.1 |
//! | `log` | writes a log line, then returns a valid result |

use std::{
    cell::{Cell, RefCell},
    hint::black_box,
};

use serde::Deserialize;

use crate::{
    bindings::{
        Context, Fault, Guest, Signature, export,
        larder::transform::host::{self, Level},
    },
    config::Config,
    memory,
    parts::{Parts, doubles, ends, head_len, lists},
    signature::signature,
};

struct Hostile;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Good,
    Empty,
    Cut,
    Odd,
    Surplus,
    MoreRows,
    StrayPresence,
    NullInNonNullable,
    BadBool,
    EndsFall,
    EndsBeyond,
    EndsShort,
    ListEndsFall,
    ListEndsBeyond,
    ItemEndsFall,
    ItemEndsBeyond,
    BadUtf8,
    SplitCharacter,
    Gigantic,
    Spin,
    Trap,
    Fault,
    Log,
}

thread_local! {
    static CONFIG: RefCell<Config<Mode>> = const { RefCell::new(Config { mode: Mode::Good, after: 0, bad: None, amount: None }) };
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

export!(Hostile with_types_in crate::bindings);

impl Guest for Hostile {
    fn describe() -> Signature {
        signature()
    }

    fn configure(config: String) -> Result<(), Fault> {
        let config = if config == "null" { r#"{"mode": "good"}"# } else { config.as_str() };
        CONFIG.set(serde_json::from_str(config).map_err(|error| Fault::BadConfig(error.to_string()))?);
        Ok(())
    }

    fn transform(_context: Context, rows: u32, inputs: Vec<u8>) -> Result<Vec<u8>, Fault> {
        CALLS.set(CALLS.get() + 1);
        let Config { mode, after, amount, .. } = CONFIG.with_borrow(Config::clone);
        let mode = if CALLS.get() > after { mode } else { Mode::Good };
        match mode {
            Mode::Spin => loop {
                black_box(mode);
            },
            Mode::Trap => core::arch::wasm32::unreachable(),
            Mode::Fault => return Err(Fault::Internal("the hostile plugin gives up".to_owned())),
            Mode::Log => host::log(Level::Warn, "a line of a frame"),
            _ => {}
        }
        let rows = rows as usize;
        let x = doubles(&inputs, 0, rows);
        let rows = if mode == Mode::MoreRows { rows + 1 } else { rows };
        let mut parts = Parts::good(rows, &x);
        if cfg!(feature = "list-input") {
            (parts.item_lists, parts.items) = lists(&inputs, head_len(rows), rows);
        }
        spoil(&mut parts, mode, rows, amount);
        let mut frame = parts.frame(None);
        match mode {
            Mode::Empty => frame.clear(),
            Mode::Cut => frame.truncate(frame.len() - 8),
            Mode::Odd => frame.truncate(frame.len() - 4),
            Mode::Surplus => frame.extend([0; 8]),
            _ => {}
        }
        Ok(frame)
    }
}

/// Corrupts the parts of a valid result.
fn spoil(parts: &mut Parts, mode: Mode, rows: usize, amount: Option<usize>) {
    match mode {
        Mode::StrayPresence => *parts.text_present.last_mut().unwrap() = 0x80,
        Mode::NullInNonNullable => parts.y_present[0] &= !1,
        Mode::BadBool => parts.flag[0] = 2,
        Mode::EndsFall => Parts::fall(&mut parts.text_ends),
        Mode::EndsBeyond => Parts::beyond(&mut parts.text_ends),
        Mode::EndsShort => *parts.text_ends.last_mut().unwrap() -= 1,
        Mode::ListEndsFall => Parts::fall(&mut parts.item_lists),
        Mode::ListEndsBeyond => Parts::beyond(&mut parts.item_lists),
        Mode::ItemEndsFall => Parts::fall(&mut parts.word_ends),
        Mode::ItemEndsBeyond => Parts::beyond(&mut parts.word_ends),
        Mode::BadUtf8 => parts.text.fill(0xff),
        Mode::SplitCharacter => parts.text_ends[0] = 1,
        Mode::Gigantic => {
            let each = amount.unwrap_or(1_400_000);
            parts.text = vec![b'x'; each * rows];
            parts.text_ends = ends((0..rows).map(|_| each));
        }
        _ => {}
    }
}

/// Allocates memory for the host. Replaces the function that `wit-bindgen` generates by default, which is turned off.
#[unsafe(export_name = "cabi_realloc")]
unsafe extern "C" fn realloc(old: *mut u8, old_len: usize, align: usize, len: usize) -> *mut u8 {
    // SAFETY: the host calls this export as the contract specifies.
    unsafe { memory::give(old, old_len, align, len) }
}
