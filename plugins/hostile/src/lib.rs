//! A guest that tries everything that a host has to survive. Its configuration says what, and when:
//!
//! ```json
//! {"mode": "spin", "after": 3, "amount": 1000}
//! ```
//!
//! The first `after` calls of `transform` in an instance (default 0) are answered as `good` would answer. `amount` is
//! as the table has it; many modes have none. Small amounts keep a limit that large ones break.
//!
//! It reads `x` (Float64) and returns `y` (Float64, twice `x`, 0 where there is none, never null), `flag` (Bool,
//! whether `x` is above 0), `text` (String), `items` (Array(Float64)) and `words` (Array(String)).
//!
//! | mode | what it does |
//! |------|--------------|
//! | `good` | answers |
//! | **time** | |
//! | `spin` | `transform` does not return |
//! | `spin_configure` | `configure` does not return |
//! | `spin_realloc` | the function by which the host gets memory for arguments does not return; `configure` still does |
//! | `spin_post` | the function that the host calls when it has read a result does not return |
//! | `slow` | answers, after `amount` thousand rounds of work (default 10,000: some 10 ms) |
//! | **memory** | |
//! | `memory` | takes `amount` MiB more on every call (default 64), touches them, keeps them, and answers |
//! | `memory_politely` | grows its memory until it is refused, and answers then |
//! | `recurse` | calls itself `amount` deep (default: no end) |
//! | `bad_realloc` | the function by which the host gets memory for arguments returns a place beyond all memory |
//! | **wrong results** | |
//! | `wrong_column_count` | a column too few |
//! | `extra_column` | a column too many |
//! | `no_columns` | no column |
//! | `wrong_type` | `y` as Int64 |
//! | `list_for_scalar` | `y` as Array(Float64) |
//! | `short_column`, `long_column` | `y` with one slot less, one more than there are rows |
//! | `short_ends`, `long_ends` | `text` with one slot less, one more |
//! | `bad_ends` | `text` with ends that fall |
//! | `ends_beyond` | `text` with ends beyond its data |
//! | `ends_short` | `text` with data after its last end |
//! | `bad_list_ends` | `items` with ends beyond its items |
//! | `bad_item_ends` | `words` with ends of its texts that fall |
//! | `bad_utf8`, `bad_item_utf8` | `text`, and an item of `words`, that is not UTF-8 |
//! | `split_character` | `text` whose first slot ends amid a character |
//! | `bad_bool` | a `flag` of 2 |
//! | `bad_validity` | `text` with an empty bitmap |
//! | `stray_validity` | `text` with bits beyond its rows |
//! | `null_in_non_nullable` | a null in `y` |
//! | `gigantic` | `text` of `amount` bytes (default 5 MiB) per row |
//! | **wrong results, by hand** | what no compiler of a plugin would write |
//! | `alias` | `amount` columns (default 100,000) that all claim the same mebibyte: 100 GB of 5 MB |
//! | `huge_list` | a list of 2^32 - 1 columns |
//! | `bad_pointer` | a result that lies beyond the memory |
//! | `bad_list_pointer` | a list whose items lie beyond the memory |
//! | `unaligned` | doubles that begin at an odd address |
//! | `bad_tag` | a column of the 99th type |
//! | **log** | |
//! | `log_flood` | `amount` lines (default 10,000), then answers |
//! | `long_log_line` | one line of `amount` bytes (default 64 KiB), then answers |
//! | `log_control` | lines that forge other lines: line feeds, escape sequences, a bell |
//! | **ends** | |
//! | `trap` | traps |
//! | `panic` | panics |
//! | `fault` | returns a fault |
//! | `gigantic_fault` | returns a fault with `amount` bytes of words (default 5 MiB) |
//! | `fault_configure`, `trap_configure` | the same in `configure` |
//! | **not the same twice** | |
//! | `random` | `y` is the number of the call |
//! | `remember` | `y` is what `x` was in the last row of the call before |
//!
//! What is evil before there is a configuration is a feature of the crate, one at a time:
//!
//! | feature | what it does |
//! |---------|--------------|
//! | `spin-describe` | `describe` does not return |
//! | `spin-start` | initialisation does not return: no instance comes to be |
//! | `changing-describe` | every call of `describe` in an instance says another version; the first is 1.0.1 |
//! | `huge-describe` | `describe` returns 8 MiB of documentation |
//! | `foreign-import` | imports `larder-hostile:foreign/clock@0.1.0`, and calls it |
//! | `wrong-world` | exports `describe` and `transform` of other types, and no `configure` |
//!
//! All this is of version 0.1 of the contract. With the feature `frames` it is a guest of version 0.2, with modes of its
//! own (`frames.rs` has the table).
//!
//! Not here: tables that grow. There is no word for it in stable Rust, and one table of known size in what it compiles.

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
