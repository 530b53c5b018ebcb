//! Larder's ground floor: what the host, its tests and its fuzzers all agree on.
//!
//! Four rooms, each using only those before it:
//!
//! * [`model`]: value types, values, entities, feature views, feature services: the field's own vocabulary;
//! * [`codec`]: bytes: entity keys and ids as Feast writes them, and the row format of the online store;
//! * [`yaml`]: YAML text to a tree that knows its lines, and a collector of mistakes;
//! * [`registry`]: definitions (raw, as written) to a [`registry::Catalog`] (validated, immutable).
//!
//! This crate does no I/O, reads no clock and has no unsafe code.

#![forbid(unsafe_code)]

pub mod codec;
pub mod model;
pub mod registry;
pub mod yaml;
