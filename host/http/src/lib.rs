//! The HTTP server: Feast's endpoints, and Larder's own under `/v1`.
//!
//! [`Server`] accepts connections and distributes them over worker threads, each with its own single-threaded runtime.
//! A [`Router`] answers the requests of one listener according to the table [`ROUTES`]. Lookups and writes are passed
//! to the services of `larder-serving`.

mod accept;
mod admin;
mod arrow;
mod body;
mod catalog;
mod commands;
mod config;
mod connection;
mod decode;
mod diagnose;
#[cfg(any(test, feature = "fuzzing"))]
pub mod differential;
mod echo;
mod encode;
mod error;
mod fast_path;
mod framing;
mod invalid;
mod keyfile;
mod limited_io;
mod loads;
mod metrics;
mod plugin_version;
mod prefixed_io;
mod readiness;
mod request_body;
mod response;
mod rollout;
mod router;
mod routes;
mod server;
mod socket;
mod timer;
mod tls;
mod weight;
mod writes;

pub use self::{
    admin::{
        AdminEvent, CaptureCommand, CaptureReport, Control, DeleteCommand, DeployReport, EraseReport, PastVersion,
        PluginStatus, ResetCommand, RollbackCommand, SyncCommand,
    },
    catalog::{describe_catalog, describe_definitions},
    config::{HttpConfig, HttpLimits},
    decode::decode_request,
    encode::encode_answer,
    error::HttpError,
    keyfile::is_world_readable,
    plugin_version::PluginVersion,
    rollout::{PromoteCommand, RolledBackVersion, RolloutEnd, RolloutReport, RolloutStage, RolloutStatus},
    router::{ListenerRole, Router},
    routes::{ListenerKind, ROUTES, Route},
    server::{Listener, Server, ServerError},
    socket::SocketFile,
    tls::{Tls, TlsConfig, TlsError, TlsFile, TlsKeys},
    writes::Writes,
};
