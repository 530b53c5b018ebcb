//! Configuration: `larder.yaml`, environment variables that override it, and the definition files that it names.
//!
//! [`Config::load`] reads the configuration file, [`load_definitions`] reads the definition files, and [`load_access`]
//! reads the files of keys and tokens. Each function reports all errors at once, with their positions, and returns only
//! valid results. This module parses the sections and checks the range of each value; most defaults are in the crates
//! that use the settings. `configs/larder.yaml` explains every key. Definitions can also come from a Feast repository:
//! [`FeastRepo`].

mod access;
mod aws;
mod build;
mod definitions;
mod environment;
mod error;
mod feast;
mod foreign;
mod load;
mod logging;
mod patterns;
mod plugins;
mod read;
mod rollout;
mod section;
mod types;
mod units;

pub use self::{
    access::{LoadedAccess, access_files, load_access, read_tls, read_tokens},
    build::{BuildFeatures, BuildPart},
    definitions::{
        CheckedDefinitions, LoadedDefinitions, RemoteRegistry, check_definitions, load_definitions,
        load_definitions_with, watched_files,
    },
    environment::{Environment, Flag, process_environment},
    error::ConfigError,
    feast::{FEAST_VALUES_FROM, FeastConfig, FeastRepo, FeastValuesFrom, RegistryAt, RegistryCache, RegistryNeed},
    logging::{LoggingConfig, check_logging},
    patterns::matching_files,
    rollout::{RolloutConfig, Rollouts},
    types::{CheckedConfig, Config, LogConfig, Origin, PluginConfig, Sound, SyncConfig},
};

#[cfg(test)]
mod tests;
