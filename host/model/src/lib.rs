//! The base crate of Larder: the definitions, values and formats that the server, its tests and its fuzzers share.
//!
//! The crate has four modules. Each module uses only the modules that are listed before it:
//!
//! * [`model`]: value types, values, entities, feature views and feature services, in standard feature store terms;
//! * [`codec`]: byte formats (entity keys and ids as Feast writes them, and the row format of the online store), and
//!   the conversion of values;
//! * [`yaml`]: parses YAML text into a tree with line numbers, and collects errors;
//! * [`registry`]: converts raw definitions to a validated, immutable [`registry::Catalog`].
//!
//! This crate does no I/O, reads no clock and has no unsafe code.

#![forbid(unsafe_code)]

pub mod codec;
pub mod model;
pub mod registry;
pub mod yaml;
