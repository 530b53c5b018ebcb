//! Larder: the feature store's edge.
//!
//! This crate is the program: its configuration, how a server is put together, and the command line. The layers below
//! are crates of their own (`host/ARCHITECTURE.md`).

pub mod config;

pub mod app;

pub mod cli;
