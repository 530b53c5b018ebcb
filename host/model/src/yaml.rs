//! Parses YAML into a tree with line numbers, and collects errors.
//!
//! Definitions and configuration are not read with `derive(Deserialize)`, because serde stops at the first error. A
//! user who mistyped three keys should get three errors, each with the file, the line and the most similar valid name.
//! A [`Table`] returns the values of a mapping by key and records which keys were read. At the end, it reports all
//! other keys as errors.

mod json;
mod node;
mod problem;
mod table;

pub use self::{
    node::{Node, Tree, parse},
    problem::{Located, Place, Problem, Problems, Severity, nearest, nearest_name},
    table::{Table, parse_bytes},
};
