//! Implements the modes that can be written without unsafe code.

use std::{
    cell::{Cell, RefCell},
    hint::black_box,
};

use serde::Deserialize;

use crate::{
    bindings::{
        Column, Context, Fault, Guest, Signature,
        larder::transform::{
            host::{self, Level},
            types::{Scalars, Values, VarBytes},
        },
    },
    columns::{FLAG, ITEMS, TEXT, WORDS, Y, good, lists, numbers, scalars, texts},
    config::Config,
    signature::signature,
};

pub(crate) struct Hostile;

/// The modes. The table in the crate's documentation describes each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    Good,
    Spin,
    SpinConfigure,
    SpinRealloc,
    SpinPost,
    Slow,
    Memory,
    MemoryPolitely,
    Recurse,
    BadRealloc,
    WrongColumnCount,
    ExtraColumn,
    NoColumns,
    WrongType,
    ListForScalar,
    ShortColumn,
    LongColumn,
    ShortEnds,
    LongEnds,
    BadEnds,
    EndsBeyond,
    EndsShort,
    BadListEnds,
    BadItemEnds,
    BadUtf8,
    BadItemUtf8,
    SplitCharacter,
    BadBool,
    BadValidity,
    StrayValidity,
    NullInNonNullable,
    Gigantic,
    Alias,
    HugeList,
    BadPointer,
    BadListPointer,
    Unaligned,
    BadTag,
    LogFlood,
    LongLogLine,
    LogControl,
    Trap,
    Panic,
    Fault,
    GiganticFault,
    FaultConfigure,
    TrapConfigure,
    Random,
    Remember,
}

const MIB: usize = 1 << 20;

thread_local! {
    static CONFIG: RefCell<Config<Mode>> = const { RefCell::new(Config { mode: Mode::Good, after: 0, bad: None, amount: None }) };
    /// The number of calls of `transform` in this instance so far, including the current call.
    static CALLS: Cell<u32> = const { Cell::new(0) };
    /// For mode `remember`: the value of `x` in the last row of the previous call.
    static LAST: Cell<f64> = const { Cell::new(0.0) };
    /// For mode `memory`: the memory that was allocated and is kept.
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Guest for Hostile {
    fn describe() -> Signature {
        if cfg!(feature = "spin-describe") {
            spin();
        }
        let mut signature = signature();
        if cfg!(feature = "changing-describe") {
            CALLS.set(CALLS.get() + 1);
            signature.version = format!("1.0.{}", CALLS.get());
        }
        if cfg!(feature = "huge-describe") {
            signature.doc = "words ".repeat(8 * MIB / 6);
        }
        #[cfg(feature = "foreign-import")]
        {
            signature.doc = format!("It is {}.", crate::bindings::larder_hostile::foreign::clock::now());
        }
        signature
    }

    fn configure(config: String) -> Result<(), Fault> {
        // If the view has no configuration, the mode is `good`.
        let config = if config == "null" { r#"{"mode": "good"}"# } else { config.as_str() };
        let config: Config<Mode> = serde_json::from_str(config).map_err(|error| Fault::BadConfig(error.to_string()))?;
        match config.mode {
            Mode::SpinConfigure => spin(),
            Mode::TrapConfigure => trap(),
            Mode::FaultConfigure => return Err(Fault::BadConfig("no configuration is good enough".to_owned())),
            _ => {}
        }
        CONFIG.set(config);
        Ok(())
    }

    fn transform(_context: Context, rows: u32, inputs: Vec<Column>) -> Result<Vec<Column>, Fault> {
        // The host limits `rows` to the size of a batch.
        let rows = rows as usize;
        let x = numbers(&inputs);
        let bad = CONFIG.with_borrow(|config| config.bad);
        let bad_rows = bad.map_or(1, |bad| x.iter().filter(|x| **x >= bad).count());
        let (mode, amount) = (if bad_rows == 0 { Mode::Good } else { mode() }, amount());
        let mut columns = good(rows, x);
        if let Some(list) = inputs.get(1) {
            columns[ITEMS].values.clone_from(&list.values);
        }
        let last = LAST.replace(x.last().copied().unwrap_or(0.0));
        match mode {
            Mode::Spin => spin(),
            Mode::Slow => work(amount.unwrap_or(10_000) * bad_rows),
            Mode::Memory => take(amount.unwrap_or(64)),
            Mode::MemoryPolitely => grow(),
            Mode::Recurse => {
                black_box(recurse(amount.unwrap_or(usize::MAX)));
            }
            Mode::LogFlood => {
                (0..amount.unwrap_or(10_000)).for_each(|i| host::log(Level::Info, &format!("line {i}")));
            }
            Mode::LongLogLine => host::log(Level::Warn, &"long ".repeat(amount.unwrap_or(64 << 10) / 5)),
            Mode::LogControl => {
                host::log(
                    Level::Error,
                    "one line\n2026-01-01 ERROR another line\r\x1b[2J\x1b[31mred\x07 \u{202e}backwards",
                );
            }
            Mode::Trap => trap(),
            Mode::Panic => panic!("the hostile plugin panics"),
            Mode::Fault => return Err(Fault::Internal("the hostile plugin gives up".to_owned())),
            Mode::GiganticFault => return Err(Fault::Internal("sorry ".repeat(amount.unwrap_or(5 * MIB) / 6))),
            Mode::Random => columns[Y] = scalars(Scalars::Float64s(vec![f64::from(CALLS.get()); rows])),
            Mode::Remember => columns[Y] = scalars(Scalars::Float64s(vec![last; rows])),
            mode => spoil(mode, rows, amount, &mut columns),
        }
        Ok(columns)
    }
}

/// Counts a call of `transform`.
pub(crate) fn begin() {
    CALLS.set(CALLS.get().saturating_add(1));
}

/// Returns the mode of the current call, which is `good` for the first `after` calls.
pub(crate) fn mode() -> Mode {
    mode_of_call(CALLS.get())
}

/// Returns the mode of call `call`, counted from 1.
pub(crate) fn mode_of_call(call: u32) -> Mode {
    CONFIG.with_borrow(|config| if call > config.after { config.mode } else { Mode::Good })
}

/// Returns the mode of the next call.
pub(crate) fn next_mode() -> Mode {
    mode_of_call(CALLS.get().saturating_add(1))
}

pub(crate) fn amount() -> Option<usize> {
    CONFIG.with_borrow(|config| config.amount)
}

/// Corrupts valid columns. Does nothing for modes that do not change columns, which other functions implement.
fn spoil(mode: Mode, rows: usize, amount: Option<usize>, columns: &mut Vec<Column>) {
    match mode {
        Mode::WrongColumnCount => columns.truncate(WORDS),
        Mode::ExtraColumn => columns.push(scalars(Scalars::Float64s(vec![0.0; rows]))),
        Mode::NoColumns => columns.clear(),
        Mode::WrongType => columns[Y] = scalars(Scalars::Int64s(vec![1; rows])),
        Mode::ListForScalar => columns.swap(Y, ITEMS),
        Mode::ShortColumn => columns[Y] = scalars(Scalars::Float64s(vec![0.0; rows.saturating_sub(1)])),
        Mode::LongColumn => columns[Y] = scalars(Scalars::Float64s(vec![0.0; rows + 1])),
        Mode::ShortEnds => columns[TEXT] = scalars(Scalars::Strings(texts(rows.saturating_sub(1), |_| "short"))),
        Mode::LongEnds => columns[TEXT] = scalars(Scalars::Strings(texts(rows + 1, |_| "long"))),
        Mode::BadEnds => {
            // A single end cannot decrease, so if there is only one row, its end is beyond the data instead.
            let ends = (0..rows).map(|row| if row + 1 == rows { 1 } else { 3 });
            let ends: Vec<u32> = if rows == 1 { vec![3] } else { ends.collect() };
            columns[TEXT] = scalars(Scalars::Strings(VarBytes { ends, data: b"a".to_vec() }));
        }
        Mode::EndsBeyond => var(&mut columns[TEXT]).ends.fill(u32::MAX),
        Mode::EndsShort => var(&mut columns[TEXT]).data.extend_from_slice(b"after the end"),
        Mode::BadListEnds => {
            columns[ITEMS] = lists(vec![u32::MAX; rows], Scalars::Float64s(vec![0.0; rows]));
        }
        Mode::BadItemEnds => var(&mut columns[WORDS]).ends.reverse(),
        Mode::BadUtf8 => var(&mut columns[TEXT]).data.fill(0xff),
        Mode::BadItemUtf8 => var(&mut columns[WORDS]).data.fill(0xc0),
        Mode::SplitCharacter => {
            // Each row has the text "é". The first slot ends within the character, so the next slot begins with the
            // rest of it.
            let mut texts = texts(rows, |_| "é");
            if let Some(first) = texts.ends.first_mut() {
                *first -= 1;
            }
            if rows == 1 {
                texts.data.pop();
            }
            columns[TEXT] = scalars(Scalars::Strings(texts));
        }
        Mode::BadBool => columns[FLAG] = scalars(Scalars::Bools(vec![2; rows])),
        Mode::BadValidity => columns[TEXT].validity = Some(Vec::new()),
        Mode::StrayValidity => {
            let mut bitmap = vec![0xff; rows.div_ceil(8)];
            if rows.is_multiple_of(8) {
                bitmap.push(1);
            }
            columns[TEXT].validity = Some(bitmap);
        }
        Mode::NullInNonNullable => {
            let mut bitmap = vec![0xff; rows.div_ceil(8)];
            if !rows.is_multiple_of(8)
                && let Some(last) = bitmap.last_mut()
            {
                *last = (1 << (rows % 8)) - 1;
            }
            if let Some(first) = bitmap.first_mut() {
                *first &= !1;
            }
            columns[Y].validity = Some(bitmap);
            if let Values::Scalars(Scalars::Float64s(values)) = &mut columns[Y].values
                && let Some(first) = values.first_mut()
            {
                *first = 0.0;
            }
        }
        Mode::Gigantic => {
            let text = "x".repeat(amount.unwrap_or(5 * MIB));
            columns[TEXT] = scalars(Scalars::Strings(texts(rows, |_| &text)));
        }
        _ => {}
    }
}

/// Returns the strings of a column of strings, or of a column of lists of strings.
fn var(column: &mut Column) -> &mut VarBytes {
    let scalars = match &mut column.values {
        Values::Scalars(scalars) => scalars,
        Values::Lists(lists) => &mut lists.items,
    };
    match scalars {
        Scalars::Strings(var) => var,
        _ => panic!("'text' and 'words' are texts"),
    }
}

pub(crate) fn spin() -> ! {
    let mut rounds = 0_u64;
    loop {
        rounds = black_box(rounds.wrapping_add(1));
    }
}

/// Keeps the processor busy, for about a microsecond per thousand rounds.
fn work(thousands: usize) {
    let mut state = 1_u64;
    for _ in 0..thousands.saturating_mul(1_000) {
        state = black_box(state ^ (state << 1));
    }
}

/// Allocates memory and keeps it. If an allocation fails, the allocator aborts the instance.
fn take(mebibytes: usize) {
    for _ in 0..mebibytes {
        let chunk = vec![1_u8; MIB];
        KEPT.with_borrow_mut(|kept| kept.push(black_box(chunk)));
    }
}

/// Grows the memory until the host rejects it. This does not abort the instance, because the result is checked.
fn grow() {
    #[cfg(target_arch = "wasm32")]
    while core::arch::wasm32::memory_grow(0, 16) != usize::MAX {}
}

#[expect(unconditional_recursion, reason = "it exhausts the stack on purpose")]
#[inline(never)]
fn endless(depth: usize) -> usize {
    let frame = black_box([depth; 16]);
    frame[depth % 16] + endless(black_box(depth + 1))
}

#[inline(never)]
fn recurse(depth: usize) -> usize {
    if depth == usize::MAX {
        return endless(0);
    }
    let frame = black_box([depth; 16]);
    if depth == 0 { 0 } else { frame[depth % 16] + recurse(black_box(depth - 1)) }
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    panic!("a trap");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configure(mode: &str) -> Result<(), Fault> {
        Hostile::configure(format!(r#"{{"mode": "{mode}"}}"#))
    }

    /// Returns the names of the modes in the table of the crate's documentation.
    fn modes() -> Vec<&'static str> {
        let table = include_str!("lib.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        let names = table.filter_map(|line| line.split(" |").next());
        let names = names.flat_map(|names| names.split(", ").map(|name| name.trim_matches('`')));
        names.filter(|name| !name.contains('-') && *name != "feature").collect()
    }

    #[test]
    fn every_mode_in_the_table_exists() {
        let modes = modes();
        assert_eq!(modes.len(), 49, "{modes:?}");
        for mode in modes {
            let config: Result<Config<Mode>, _> = serde_json::from_str(&format!(r#"{{"mode": "{mode}"}}"#));
            assert!(config.is_ok(), "{mode}: {config:?}");
        }
    }

    #[test]
    fn unknown_mode_error_lists_known_modes() {
        let Err(Fault::BadConfig(message)) = configure("polite") else { panic!("there is no such mode") };
        assert!(message.contains("unknown variant `polite`") && message.contains("`spin`"), "{message}");
    }

    #[test]
    fn corrupting_modes_change_columns() {
        let by_hand = ["spin_realloc", "spin_post", "bad_realloc", "alias", "huge_list", "bad_pointer", "unaligned"];
        let not_columns = ["bad_tag", "bad_list_pointer", "good", "slow", "memory", "memory_politely", "recurse"];
        let prefixes = ["log", "spin", "trap", "panic", "fault", "gigantic_fault", "random", "remember", "long_log"];
        for mode in modes() {
            if by_hand.contains(&mode)
                || not_columns.contains(&mode)
                || prefixes.iter().any(|prefix| mode.starts_with(prefix))
            {
                continue;
            }
            let parsed: Mode = serde_json::from_str(&format!("\"{mode}\"")).unwrap();
            for rows in [1, 2, 8, 9] {
                let mut columns = good(rows, &[]);
                let before = format!("{columns:?}");
                spoil(parsed, rows, Some(100), &mut columns);
                assert_ne!(format!("{columns:?}"), before, "{mode}, {rows} rows");
            }
        }
    }

    #[test]
    fn violation_begins_after_configured_calls() {
        Hostile::configure(r#"{"mode": "no_columns", "after": 1}"#.to_owned()).unwrap();
        let call = || {
            CALLS.set(CALLS.get() + 1);
            Hostile::transform(Context { as_of: 0 }, 1, Vec::new()).unwrap().len()
        };
        assert_eq!((call(), call()), (5, 0));
    }
}
