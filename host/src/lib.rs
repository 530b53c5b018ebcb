//! Larder: a Feast-compatible online feature server.
//!
//! This crate is the program: its configuration, the setup of a server, and the command line. The layers below are
//! separate crates (`host/ARCHITECTURE.md`).

pub mod config;

pub mod app;

pub mod offline;

pub mod hints;

pub mod cli;
