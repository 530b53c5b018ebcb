//! HTTP: the only room that knows JSON and status codes.
//!
//! [`Server`] accepts connections and spreads them over worker threads, each with a runtime of its own, so that a
//! request stays on one core. [`Router`] answers: Feast's endpoints, and Larder's own under `/v1`. [`Tls`] and
//! [`Tokens`] stand before the features, where that is wanted.

mod accept;
mod admin;
mod arrow;
mod auth;
mod body;
mod catalog;
mod commands;
mod config;
mod decode;
mod diagnose;
mod encode;
mod error;
mod fast_path;
mod framing;
mod invalid;
mod keyfile;
mod large;
mod limited_io;
mod loads;
mod metrics;
mod prefixed_io;
mod request_body;
mod router;
mod server;
mod socket;
mod timer;
mod tls;
mod writes;

pub use self::{
    admin::{
        AdminEvent, Control, DeleteCommand, DeployReport, EraseReport, PluginStatus, PluginVersion, PluginViewStatus,
        ResetCommand, SyncCommand,
    },
    auth::{AuthConfig, Denied, Scope, Token, TokenConfig, TokenError, Tokens},
    catalog::describe_catalog,
    config::{HttpConfig, HttpLimits},
    decode::decode_request,
    encode::encode_answer,
    error::HttpError,
    keyfile::is_read_by_all,
    router::{ListenerRole, Router},
    server::{Listener, Server, ServerError},
    socket::SocketFile,
    tls::{Tls, TlsConfig, TlsError, TlsFile, TlsKeys},
    writes::Writes,
};
