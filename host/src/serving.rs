//! Serving: from a request's words to the values that answer it.
//!
//! A request's shape (which features, which columns, which names) is resolved once per catalog into a [`Plan`], which
//! is cached; answering is then keys, lookups and an [`Answer`] that an encoder walks. This room knows neither JSON
//! nor status codes: the HTTP room, and others later, translate.

mod answer;
mod config;
mod error;
mod keys;
mod metrics;
mod plan;
mod request;
mod snapshot;

pub use self::{
    answer::{Answer, Cell, EchoedValue, Status},
    config::TtlPolicy,
    error::RequestError,
    plan::{EntityColumn, FeatureColumn, Plan, ViewRead},
    request::{EntityValue, OnlineRequest, Selection},
    snapshot::{ServingLimits, Snapshot},
};
