//! Configuration: `larder.yaml`, the environment over it, and the definition files that it names.
//!
//! [`Config::load`] reads the one file, [`load_definitions`] the others, [`load_access`] those with keys and tokens.
//! All tell every mistake at once, with its place; what they return is valid. This room parses and nests: each other
//! room owns its bounds and their defaults, and `configs/larder.yaml` explains every key. A Feast repository stands in
//! for definition files: [`FeastRepo`].

mod access;
mod aws;
mod definitions;
mod environment;
mod error;
mod feast;
mod foreign;
mod patterns;
mod plugins;
mod read;
mod section;
mod types;

pub use self::{
    access::{LoadedAccess, access_files, load_access, read_tls, read_tokens},
    definitions::{
        CheckedDefinitions, LoadedDefinitions, RemoteRegistry, check_definitions, load_definitions,
        load_definitions_with, watched_files,
    },
    environment::{Environment, process_environment},
    error::ConfigError,
    feast::{FEAST_VALUES_FROM, FeastConfig, FeastRepo, FeastValuesFrom, RegistryAt, RegistryCache, RegistryNeed},
    patterns::matching_files,
    types::{CheckedConfig, Config, LogConfig, Origin, PluginConfig, Sound, SyncConfig},
};

#[cfg(test)]
mod tests;
