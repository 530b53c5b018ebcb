//! Exports that are written by hand. A result is memory that the host reads. This module writes results that generated
//! code would not write.
//!
//! ```text
//!  result<list<column>, fault>: 0 tag (0 = ok) | 4 address of the columns | 8 number of columns
//!  column, 44 bytes: 0 tag of values | 4 tag of scalars | 8 address of items | 12 number of items | .. | 32 validity tag
//! ```

use std::cell::Cell;

use crate::{
    bindings, memory,
    modes::{Hostile, Mode, amount, begin, mode, next_mode, spin},
};

/// The number of 32-bit words in a column, and the indexes of some of them.
const COLUMN_WORDS: usize = 11;
const SCALARS_TAG: usize = 1;
const ITEMS_AT: usize = 2;
const ITEMS_LEN: usize = 3;
/// The tag of `float64s` among the scalars.
const FLOAT64S: u32 = 4;
const MIB: u32 = 1 << 20;

thread_local! {
    /// Whether this module wrote the result of the call, so that generated code must not free it.
    static BY_HAND: Cell<bool> = const { Cell::new(false) };
    /// Whether `configure` was called. Before, memory is allocated correctly.
    static CONFIGURED: Cell<bool> = const { Cell::new(false) };
}

#[unsafe(export_name = "describe")]
unsafe extern "C" fn describe() -> *mut u8 {
    // SAFETY: the host calls this export as the contract specifies.
    unsafe { bindings::_export_describe_cabi::<Hostile>() }
}

#[unsafe(export_name = "cabi_post_describe")]
unsafe extern "C" fn post_describe(result: *mut u8) {
    // SAFETY: as above, with what `describe` returned.
    unsafe { bindings::__post_return_describe::<Hostile>(result) }
}

#[unsafe(export_name = "configure")]
unsafe extern "C" fn configure(text: *mut u8, len: usize) -> *mut u8 {
    // SAFETY: as above; the text was written to memory from `cabi_realloc`.
    let result = unsafe { bindings::_export_configure_cabi::<Hostile>(text, len) };
    CONFIGURED.set(true);
    result
}

#[unsafe(export_name = "cabi_post_configure")]
unsafe extern "C" fn post_configure(result: *mut u8) {
    // SAFETY: as above, with what `configure` returned.
    unsafe { bindings::__post_return_configure::<Hostile>(result) }
}

#[unsafe(export_name = "transform")]
unsafe extern "C" fn transform(as_of: i64, rows: i32, inputs: *mut u8, len: usize) -> *mut u8 {
    begin();
    BY_HAND.set(true);
    match mode() {
        Mode::Alias => alias(amount().unwrap_or(100_000)),
        Mode::HugeList => result(inputs as u32, u32::MAX),
        Mode::BadPointer => std::ptr::without_provenance_mut(0xffff_fff0),
        Mode::BadListPointer => columns([FLOAT64S, 0xffff_ff00, 1], 5),
        Mode::Unaligned => columns([FLOAT64S, 1025, 1], 5),
        Mode::BadTag => columns([99, 1024, 1], 5),
        _ => {
            BY_HAND.set(false);
            // SAFETY: as above; the columns were written to memory from `cabi_realloc`.
            unsafe { bindings::_export_transform_cabi::<Hostile>(as_of, rows, inputs, len) }
        }
    }
}

#[unsafe(export_name = "cabi_post_transform")]
unsafe extern "C" fn post_transform(result: *mut u8) {
    if mode() == Mode::SpinPost {
        spin();
    }
    if !BY_HAND.get() {
        // SAFETY: as above, with what generated code returned.
        unsafe { bindings::__post_return_transform::<Hostile>(result) }
    }
}

/// Allocates memory for the host, which calls this before every call with arguments. Replaces the function that
/// `wit-bindgen` generates by default.
#[unsafe(export_name = "cabi_realloc")]
unsafe extern "C" fn realloc(old: *mut u8, old_len: usize, align: usize, len: usize) -> *mut u8 {
    if CONFIGURED.get() {
        match next_mode() {
            Mode::SpinRealloc => spin(),
            Mode::BadRealloc => return std::ptr::without_provenance_mut(0xffff_0000),
            _ => {}
        }
    }
    // SAFETY: as above, and as the host calls it.
    unsafe { memory::give(old, old_len, align, len) }
}

#[cfg(feature = "spin-start")]
#[unsafe(export_name = "_initialize")]
extern "C" fn initialize() {
    spin();
}

/// Returns `count` columns that all refer to the same mebibyte of doubles.
fn alias(count: usize) -> *mut u8 {
    let shared = vec![1.0_f64; MIB as usize / 8].leak();
    columns([FLOAT64S, shared.as_ptr() as u32, MIB / 8], count)
}

/// Returns `count` columns that all have the same scalars.
fn columns([tag, at, len]: [u32; 3], count: usize) -> *mut u8 {
    let mut words = vec![0_u32; count * COLUMN_WORDS];
    for column in words.chunks_exact_mut(COLUMN_WORDS) {
        column[SCALARS_TAG] = tag;
        column[ITEMS_AT] = at;
        column[ITEMS_LEN] = len;
    }
    let words = words.leak();
    result(words.as_ptr() as u32, u32::try_from(count).unwrap_or(u32::MAX))
}

/// Returns an `ok` result with the list at this address.
fn result(at: u32, len: u32) -> *mut u8 {
    vec![0, at, len].leak().as_mut_ptr().cast()
}
