//! Serving: lookups of features and writes of rows, for all protocols.
//!
//! The HTTP and gRPC servers call [`LookupService`] and [`WriteService`]. Both require an [`Authorization`].
//!
//! The shape of a request is everything except its values. It is resolved to a [`Plan`], which is cached for later
//! requests of the same shape. To answer a request with a plan, Larder encodes the keys, looks up the rows, and calls
//! one plugin for each derived view. The result is an [`Answer`]. The servers convert answers to JSON, Arrow or
//! protobuf, and errors to status codes. The answers of sampled requests are also passed to the log of features
//! ([`LoggedServices`]).

mod access;
mod answer;
mod answer_log;
mod answer_queue;
mod canary;
mod config;
mod convert;
mod current;
mod derive;
mod error;
mod historical;
mod keys;
mod limits;
mod logged;
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
    answer_queue::{AnswerQueue, DROPPED_ROWS, LoggedAnswer},
    canary::Canary,
    config::TtlPolicy,
    current::CurrentSnapshot,
    derive::{fill_typed, request_value},
    error::{Cut, LISTED_MAX, RequestError},
    historical::{DerivedInput, DerivedPlan, HistoricalPlan, HistoricalRows},
    limits::{ConnectionLimits, ServingLimits},
    logged::{LoggedService, LoggedServices, definitions_digest},
    lookup_error::LookupError,
    lookup_service::{Attempt, Lookup, LookupResponse, LookupService, Protocol, THREAD_BODY_BYTES_MAX, Unfinished},
    plan::{ColumnFrom, EntityColumn, FeatureColumn, Plan, RequestInput, Step, StepInput, ViewRead},
    readiness::Readiness,
    renew::RenewDefinitions,
    request::{EntityValue, OnlineRequest, Selection},
    resources::{OffloadError, Resources, offload},
    response_budget::ResponseBudget,
    snapshot::{Awaited, Snapshot},
    transforms::{MissingPlugins, Transforms, ViewPlugin},
    write_service::{CONCURRENT_WRITES_MAX, WriteAccess, WriteFailure, WriteService},
};
