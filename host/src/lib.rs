//! Larder: the feature store's edge.
//!
//! The rooms, from the ground up; each uses only those on floors below it (`host/ARCHITECTURE.md`).

pub mod aws;
pub mod clock;
pub mod files;
pub mod memory;
pub mod plugin;
pub mod private;
pub mod source;
pub mod store;
pub mod sync;
pub mod telemetry;

pub mod serving;

pub mod grpc;
pub mod http;

pub mod config;

pub mod app;

pub mod cli;
