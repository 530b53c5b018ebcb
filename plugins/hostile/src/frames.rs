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

/// The parts of the buffer, before they are joined. The modes corrupt them.
struct Parts {
    y_present: Vec<u8>,
    y: Vec<f64>,
    flag: Vec<u8>,
    text_present: Vec<u8>,
    text_ends: Vec<u32>,
    item_lists: Vec<u32>,
    word_lists: Vec<u32>,
    text: Vec<u8>,
    items: Vec<f64>,
    word_ends: Vec<u32>,
    words: Vec<u8>,
}

const SAID: &str = "äl well";
const WORDS_SAID: [&str; 2] = ["all", "well"];

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
        let x = inputs[presence_len(rows)..].chunks_exact(8).map(|x| f64::from_bits(bits(x))).collect::<Vec<_>>();
        let rows = if mode == Mode::MoreRows { rows + 1 } else { rows };
        let mut parts = Parts::good(rows, &x);
        parts.spoil(mode, rows, amount);
        let mut frame = parts.frame();
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

fn bits(word: &[u8]) -> u64 {
    word.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

fn presence_len(rows: usize) -> usize {
    rows.div_ceil(64) * 8
}

fn present(rows: usize) -> Vec<u8> {
    let mut presence = vec![0; presence_len(rows)];
    (0..rows).for_each(|row| presence[row / 8] |= 1 << (row % 8));
    presence
}

/// Returns the ends of items with these lengths: the sums of the lengths up to each item.
fn ends(lengths: impl Iterator<Item = usize>) -> Vec<u32> {
    let end = |sum: &mut usize, len: usize| {
        *sum += len;
        Some(*sum as u32)
    };
    lengths.scan(0, end).collect()
}

impl Parts {
    fn good(rows: usize, x: &[f64]) -> Self {
        let x: Vec<f64> = (0..rows).map(|row| x.get(row).copied().unwrap_or(0.0)).collect();
        Self {
            y_present: present(rows),
            y: x.iter().map(|x| 2.0 * x).collect(),
            flag: x.iter().map(|x| u8::from(*x > 0.0)).collect(),
            text_present: present(rows),
            text_ends: ends((0..rows).map(|_| SAID.len())),
            item_lists: ends((0..rows).map(|_| 1)),
            word_lists: ends((0..rows).map(|_| WORDS_SAID.len())),
            text: SAID.repeat(rows).into(),
            items: x,
            word_ends: ends((0..rows).flat_map(|_| WORDS_SAID.map(str::len))),
            words: WORDS_SAID.concat().repeat(rows).into(),
        }
    }

    /// Makes ends decrease. The last end stays valid, so that there is no other error.
    fn fall(ends: &mut [u32]) {
        if let [first, .., last] = ends {
            *first = *last + 1;
        }
    }

    fn beyond(ends: &mut [u32]) {
        ends.iter_mut().for_each(|end| *end = u32::MAX);
    }

    fn spoil(&mut self, mode: Mode, rows: usize, amount: Option<usize>) {
        match mode {
            Mode::StrayPresence => *self.text_present.last_mut().unwrap() = 0x80,
            Mode::NullInNonNullable => self.y_present[0] &= !1,
            Mode::BadBool => self.flag[0] = 2,
            Mode::EndsFall => Self::fall(&mut self.text_ends),
            Mode::EndsBeyond => Self::beyond(&mut self.text_ends),
            Mode::EndsShort => *self.text_ends.last_mut().unwrap() -= 1,
            Mode::ListEndsFall => Self::fall(&mut self.item_lists),
            Mode::ListEndsBeyond => Self::beyond(&mut self.item_lists),
            Mode::ItemEndsFall => Self::fall(&mut self.word_ends),
            Mode::ItemEndsBeyond => Self::beyond(&mut self.word_ends),
            Mode::BadUtf8 => self.text.fill(0xff),
            Mode::SplitCharacter => self.text_ends[0] = 1,
            Mode::Gigantic => {
                let each = amount.unwrap_or(1_400_000);
                self.text = vec![b'x'; each * rows];
                self.text_ends = ends((0..rows).map(|_| each));
            }
            _ => {}
        }
    }

    fn frame(&self) -> Vec<u8> {
        let doubles = |of: &[f64]| of.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let ends = |of: &[u32]| of.iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<u8>>();
        let rows = present(self.y.len());
        // The vector is allocated at its final size. A vector that grows needs twice its size, for which there is not
        // enough memory in mode `gigantic`.
        let mut frame = Vec::with_capacity(self.text.len() + 256 * self.y.len() + 4_096);
        for part in [
            // The heads of `y`, `flag`, `text`, `items` and `words`.
            &self.y_present[..],
            &doubles(&self.y),
            &rows,
            &self.flag,
            &self.text_present,
            &ends(&self.text_ends),
            &rows,
            &ends(&self.item_lists),
            &rows,
            &ends(&self.word_lists),
            // The tails of `text`, `items` and `words`.
            &self.text,
            &doubles(&self.items),
            &ends(&self.word_ends),
            &self.words,
        ] {
            frame.extend_from_slice(part);
            frame.resize(frame.len().next_multiple_of(8), 0);
        }
        frame
    }
}

/// Allocates memory for the host. Replaces the function that `wit-bindgen` generates by default, which is turned off.
#[unsafe(export_name = "cabi_realloc")]
unsafe extern "C" fn realloc(old: *mut u8, old_len: usize, align: usize, len: usize) -> *mut u8 {
    // SAFETY: the host calls this export as the contract specifies.
    unsafe { memory::give(old, old_len, align, len) }
}
