//! A plugin that violates every rule that the host enforces. Its configuration selects the violation:
//!
//! ```json
//! {"mode": "spin", "after": 3, "amount": 1000}
//! ```
//!
//! The first `after` calls of `transform` in an instance (default 0) behave like `good`. The table describes `amount`;
//! many modes ignore it. A small amount stays within a limit, and a large one exceeds it.
//!
//! It reads `x` (Float64) and returns `y` (Float64, twice `x`, 0 if it is null, never null), `flag` (Bool, whether `x`
//! is above 0), `text` (String), `items` (Array(Float64)) and `words` (Array(String)).
//!
//! | mode | what it does |
//! |------|--------------|
//! | `good` | returns a valid result |
//! | **time** | |
//! | `spin` | `transform` does not return |
//! | `spin_configure` | `configure` does not return |
//! | `spin_realloc` | the function that allocates memory for arguments does not return; `configure` still does |
//! | `spin_post` | the function that the host calls after it has read a result does not return |
//! | `slow` | returns a valid result, after `amount` thousand rounds of work (default 10,000: about 10 ms) |
//! | **memory** | |
//! | `memory` | allocates `amount` MiB more on every call (default 64), writes to them, keeps them, and returns a valid result |
//! | `memory_politely` | grows its memory until the host refuses, then returns a valid result |
//! | `recurse` | calls itself `amount` deep (default: endlessly) |
//! | `bad_realloc` | the function that allocates memory for arguments returns an address outside the memory |
//! | **wrong results** | |
//! | `wrong_column_count` | one column too few |
//! | `extra_column` | one column too many |
//! | `no_columns` | no columns |
//! | `wrong_type` | `y` as Int64 |
//! | `list_for_scalar` | `y` as Array(Float64) |
//! | `short_column`, `long_column` | `y` with one slot fewer, or one more, than rows |
//! | `short_ends`, `long_ends` | `text` with one slot fewer, or one more, than rows |
//! | `bad_ends` | `text` with ends that decrease |
//! | `ends_beyond` | `text` with ends beyond its data |
//! | `ends_short` | `text` with data after its last end |
//! | `bad_list_ends` | `items` with ends beyond its items |
//! | `bad_item_ends` | `words` with ends of its texts that decrease |
//! | `bad_utf8`, `bad_item_utf8` | `text`, and an item of `words`, that is not UTF-8 |
//! | `split_character` | `text` whose first slot ends within a character |
//! | `bad_bool` | a `flag` of 2 |
//! | `bad_validity` | `text` with an empty bitmap |
//! | `stray_validity` | `text` with bits beyond its rows |
//! | `null_in_non_nullable` | a null in `y` |
//! | `gigantic` | `text` of `amount` bytes (default 5 MiB) per row |
//! | **wrong results, hand-written** | results that generated code would not return |
//! | `alias` | `amount` columns (default 100,000) that all refer to the same mebibyte: 100 GB from 5 MB |
//! | `huge_list` | a list of 2^32 - 1 columns |
//! | `bad_pointer` | a result outside the memory |
//! | `bad_list_pointer` | a list whose items are outside the memory |
//! | `unaligned` | doubles at an odd address |
//! | `bad_tag` | a column with type tag 99, which does not exist |
//! | **log** | |
//! | `log_flood` | `amount` lines (default 10,000), then a valid result |
//! | `long_log_line` | one line of `amount` bytes (default 64 KiB), then a valid result |
//! | `log_control` | lines that try to forge other lines: line feeds, escape sequences, a bell |
//! | **failures** | |
//! | `trap` | traps |
//! | `panic` | panics |
//! | `fault` | returns a fault |
//! | `gigantic_fault` | returns a fault with a message of `amount` bytes (default 5 MiB) |
//! | `fault_configure`, `trap_configure` | the same in `configure` |
//! | **not deterministic** | |
//! | `random` | `y` is the number of the call |
//! | `remember` | `y` is `x` of the last row of the previous call |
//!
//! Violations that happen before `configure` are features of the crate, one at a time:
//!
//! | feature | what it does |
//! |---------|--------------|
//! | `spin-describe` | `describe` does not return |
//! | `spin-start` | the initialization does not return, so no instance can be created |
//! | `changing-describe` | every call of `describe` in an instance returns another version; the first is 1.0.1 |
//! | `huge-describe` | `describe` returns 8 MiB of documentation |
//! | `foreign-import` | imports `larder-hostile:foreign/clock@0.1.0`, and calls it |
//! | `wrong-world` | exports `describe` and `transform` with other types, and no `configure` |
//!
//! All of this is for version 0.1 of the contract. With the feature `frames`, the crate is a plugin of version 0.2, with
//! its own modes (`frames.rs` has the table).
//!
//! There is no mode with growing WebAssembly tables: stable Rust cannot express them, and compiles to a single table of
//! fixed size.

#![cfg_attr(not(target_arch = "wasm32"), expect(dead_code, reason = "the component's exports call it all"))]

mod bindings;
#[cfg(not(any(feature = "wrong-world", feature = "frames")))]
mod columns;
#[cfg(not(feature = "wrong-world"))]
mod config;
#[cfg(all(feature = "frames", target_arch = "wasm32"))]
mod frames;
#[cfg(all(not(feature = "wrong-world"), target_arch = "wasm32"))]
mod memory;
#[cfg(not(any(feature = "wrong-world", feature = "frames")))]
mod modes;
#[cfg(all(not(any(feature = "wrong-world", feature = "frames")), target_arch = "wasm32"))]
mod raw;
#[cfg(not(feature = "wrong-world"))]
mod signature;
