//! Serving: lookups of features and writes of rows, for all protocols.
//!
//! Servers call [`LookupService`] and [`WriteService`]; both require an [`Authorization`]. A request's shape
//! (everything except its values) is resolved to a [`Plan`], which is cached. An [`Answer`] then needs only keys,
//! lookups and one plugin call for each derived view. JSON, protobuf and status codes belong to the servers.

mod access;
mod answer;
mod config;
mod convert;
mod current;
mod derive;
mod error;
mod keys;
mod limits;
mod lookup_error;
mod lookup_service;
mod metrics;
mod plan;
mod readiness;
mod renew;
mod request;
mod resources;
mod response_budget;
mod snapshot;
mod transforms;
mod write_service;

pub use self::{
    access::{AuthConfig, Authenticator, Authorization, Denied, Scope, Token, TokenConfig, TokenError},
    answer::{Answer, Cell, EchoedValue, ReadText, Status},
    config::TtlPolicy,
    current::CurrentSnapshot,
    derive::fill_typed,
    error::{Cut, LISTED_MAX, RequestError},
    limits::{ConnectionLimits, ServingLimits},
    lookup_error::LookupError,
    lookup_service::{Attempt, Lookup, LookupResponse, LookupService, Protocol, THREAD_BODY_BYTES_MAX, Unfinished},
    plan::{ColumnFrom, EntityColumn, FeatureColumn, Plan, RequestInput, Step, StepInput, ViewRead},
    readiness::Readiness,
    renew::RenewDefinitions,
    request::{EntityValue, OnlineRequest, Selection},
    resources::{OffloadError, Resources, offload},
    response_budget::ResponseBudget,
    snapshot::Snapshot,
    transforms::Transforms,
    write_service::{CONCURRENT_WRITES_MAX, WriteAccess, WriteFailure, WriteService},
};
