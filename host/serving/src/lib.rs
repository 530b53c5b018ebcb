//! Serving: from a request's words to the values that answer it.
//!
//! A request's shape (which features, which columns, which names) is resolved once per catalog into a [`Plan`], which
//! is cached; answering is then keys, lookups, one call for each plugin, and an [`Answer`] that an encoder walks. This room knows neither JSON
//! nor status codes: the HTTP room, and others later, translate.

mod answer;
mod config;
mod convert;
mod derive;
mod error;
mod keys;
mod metrics;
mod plan;
mod renew;
mod request;
mod resources;
mod response_budget;
mod snapshot;
mod transforms;

pub use self::{
    answer::{Answer, Cell, EchoedValue, ReadText, Status},
    config::TtlPolicy,
    derive::typed_column,
    error::{Cut, LISTED_MAX, RequestError},
    plan::{ColumnFrom, EntityColumn, FeatureColumn, Plan, RequestInput, Step, StepInput, ViewRead},
    renew::RenewDefinitions,
    request::{EntityValue, OnlineRequest, Selection},
    resources::Resources,
    response_budget::ResponseBudget,
    snapshot::{PlannedRequest, ServingLimits, Snapshot},
    transforms::Transforms,
};
