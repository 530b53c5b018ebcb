//! All integration tests. They are in one binary, because linking is slow.
//!
//! A [`fixture::Fixture`] is a complete server in the test's process, with its own port, directory and manual clock.
//! Tests send requests over a plain socket, so that requests can also be invalid. A [`binary::Home`] runs the program
//! itself, to test signals, exit codes and kills.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod allocations;
mod arrow;
mod backfill;
mod bad_input;
mod binary;
mod bounds;
mod certificates;
mod cli;
mod deploy;
mod deploy_files;
mod derived;
mod dice;
mod distributed;
mod docs;
mod dynamo;
mod fast_path;
mod feast_repo;
mod feast_sdk;
mod fixture;
mod generations;
mod golden;
mod grpc;
mod grpc_client;
mod guests;
mod http;
mod idle;
mod import;
mod kill;
mod lifecycle;
mod logging;
mod materialize;
mod mixed_rows;
mod moto;
mod names;
mod outputs;
mod parquet;
mod plugin_batches;
mod plugin_captures;
mod plugin_compile;
mod plugin_frames;
mod plugin_javascript;
mod plugin_languages;
mod plugin_limits;
mod plugin_lists;
mod plugin_mistakes;
mod plugin_overrides;
mod plugin_python;
mod plugin_server;
mod plugin_tools;
mod plugin_types;
mod process;
mod python_package;
mod retyped;
mod rollout;
mod s3;
mod security;
mod store_health;
mod training_directory;
mod training_memory;
mod training_peers;
mod training_runs;
mod training_s3;
mod training_set;
mod venv;
mod wire;
mod writes;
