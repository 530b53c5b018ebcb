//! A plugin that can violate every rule that the host enforces. Its configuration selects the violation:
//!
//! ```json
//! {"mode": "spin", "after": 3, "amount": 1000}
//! ```
//!
//! The first `after` calls to `transform` in an instance (default 0) behave as in mode `good`. The table describes the
//! meaning of `amount`, which many modes ignore. With a small amount, the plugin stays within a limit, and with a large
//! amount, it exceeds the limit. With `"bad": 1000`, only calls with a row whose `x` is at least 1000 violate a rule.
//!
//! The plugin reads `x` (Float64). It returns `y` (Float64: twice `x`, or 0 if `x` is null), `flag` (Bool: whether `x`
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
//! | `memory` | allocates another `amount` MiB on every call (default 64), keeps it, and returns a valid result |
//! | `memory_politely` | grows its memory until the host rejects it, then returns a valid result |
//! | `recurse` | calls itself recursively, `amount` calls deep (default: endlessly) |
//! | `bad_realloc` | the function that allocates memory for arguments returns an address outside the memory |
//! | **wrong results** | |
//! | `wrong_column_count` | returns one column too few |
//! | `extra_column` | returns one column too many |
//! | `no_columns` | returns no columns |
//! | `wrong_type` | returns `y` as Int64 |
//! | `list_for_scalar` | returns `y` as Array(Float64) |
//! | `short_column`, `long_column` | returns `y` with one slot fewer, or one slot more, than there are rows |
//! | `short_ends`, `long_ends` | returns `text` with one slot fewer, or one slot more, than there are rows |
//! | `bad_ends` | returns `text` with ends that decrease |
//! | `ends_beyond` | returns `text` with ends beyond its data |
//! | `ends_short` | returns `text` with data after its last end |
//! | `bad_list_ends` | returns `items` with ends beyond its items |
//! | `bad_item_ends` | returns `words` in which the ends of the strings decrease |
//! | `bad_utf8`, `bad_item_utf8` | returns a `text`, or an item of `words`, that is not UTF-8 |
//! | `split_character` | returns `text` in which the first slot ends within a character |
//! | `bad_bool` | returns a `flag` of 2 |
//! | `bad_validity` | returns `text` with an empty validity bitmap |
//! | `stray_validity` | returns `text` with a validity bitmap that has bits beyond the rows |
//! | `null_in_non_nullable` | returns a null in `y`, which is declared as not nullable |
//! | `gigantic` | returns a `text` of `amount` bytes (default 5 MiB) in each row |
//! | **results that generated code would not return** | |
//! | `alias` | returns `amount` columns (default 100,000) that share one mebibyte, so 5 MB represent 100 GB |
//! | `huge_list` | returns a list of 2^32 - 1 columns |
//! | `bad_pointer` | returns the address of a result outside the memory |
//! | `bad_list_pointer` | returns columns with items outside the memory |
//! | `unaligned` | returns doubles at an odd address |
//! | `bad_tag` | returns a column with type tag 99, which does not exist |
//! | **log** | |
//! | `log_flood` | logs `amount` lines (default 10,000), then returns a valid result |
//! | `long_log_line` | logs one line of `amount` bytes (default 64 KiB), then returns a valid result |
//! | `log_control` | logs text that tries to forge other lines, with control characters and a text-direction override |
//! | **failures** | |
//! | `trap` | traps |
//! | `panic` | panics |
//! | `fault` | returns a fault |
//! | `gigantic_fault` | returns a fault with a message of `amount` bytes (default 5 MiB) |
//! | `fault_configure`, `trap_configure` | returns a fault, or traps, in `configure` |
//! | **not deterministic** | |
//! | `random` | returns the number of the call as `y` |
//! | `remember` | returns the last `x` of the previous call as `y` |
//!
//! Violations that happen before `configure` are Cargo features of the crate. Use one at a time:
//!
//! | feature | what it does |
//! |---------|--------------|
//! | `spin-describe` | `describe` does not return |
//! | `spin-start` | the initialization does not return, so no instance can be created |
//! | `changing-describe` | every call to `describe` in an instance returns a different version, beginning with 1.0.1 |
//! | `huge-describe` | `describe` returns 8 MiB of documentation |
//! | `foreign-import` | imports `larder-hostile:foreign/clock@0.1.0`, and calls it |
//! | `wrong-world` | exports `describe` and `transform` with other types, and no `configure` |
//!
//! All of these modes and features are for version 0.1 of the contract. With the Cargo feature `frames`, the crate is a
//! plugin for version 0.2, with other modes (`frames.rs` has the table), and with `batches`, it is one for version 0.3
//! (`batches.rs`).
//!
//! With the feature `list-input`, the plugins for versions 0.1 and 0.2 also read `list` (Array(Float64)). In mode `good`,
//! they return it as `items`, with an empty list for a null.
//!
//! There is no mode that grows WebAssembly tables, because stable Rust cannot do this: it compiles to a single table of
//! fixed size.

#![cfg_attr(not(target_arch = "wasm32"), expect(dead_code, reason = "the component's exports call it all"))]

#[cfg(all(feature = "batches", target_arch = "wasm32"))]
mod batches;
mod bindings;
#[cfg(not(any(feature = "wrong-world", feature = "frames", feature = "batches")))]
mod columns;
#[cfg(not(feature = "wrong-world"))]
mod config;
#[cfg(all(feature = "frames", target_arch = "wasm32"))]
mod frames;
#[cfg(all(not(feature = "wrong-world"), target_arch = "wasm32"))]
mod memory;
#[cfg(not(any(feature = "wrong-world", feature = "frames", feature = "batches")))]
mod modes;
#[cfg(all(any(feature = "frames", feature = "batches"), target_arch = "wasm32"))]
mod parts;
#[cfg(all(not(any(feature = "wrong-world", feature = "frames", feature = "batches")), target_arch = "wasm32"))]
mod raw;
#[cfg(not(any(feature = "wrong-world", feature = "batches")))]
mod signature;
