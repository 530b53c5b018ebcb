//! YAML text to a tree that knows its lines, and a collector of mistakes.
//!
//! Definitions and configuration are read here and not by `derive(Deserialize)`, because a user who mistyped three
//! keys wants to hear about three keys, each with its file, its line and the name that was probably meant: serde
//! stops at the first. A [`Table`] hands out a mapping's values by key, notes what it was asked for, and at the end
//! complains about the keys that nobody asked for.

mod json;
mod node;
mod problem;
mod table;

pub use self::{
    node::{Node, Tree, parse},
    problem::{Located, Place, Problem, Problems, Severity, nearest, nearest_name},
    table::Table,
};
