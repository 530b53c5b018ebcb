//! HTTP: the only room that knows JSON and status codes.
//!
//! [`Server`] accepts connections and spreads them over worker threads, each with a runtime of its own, so that a
//! request stays on one core. [`Router`] answers: Feast's endpoints, and Larder's own under `/v1`.

mod admin;
mod catalog;
mod config;
mod decode;
mod encode;
mod error;
mod metrics;
mod router;
mod server;
mod timed;

pub use self::{
    admin::{AdminEvent, Control, SyncCommand},
    catalog::describe_catalog,
    config::{HttpConfig, HttpLimits},
    decode::decode_request,
    encode::encode_answer,
    error::HttpError,
    router::{Door, Router},
    server::{Listener, Server, ServerError},
};
