//! The request of a training set, for the command line and for manifests.

use clap::ValueEnum;
use larder_serving::{Selection, TtlPolicy};
use larder_training::{TrainingRequest, kernel::Visibility};
use serde::{Deserialize, Serialize};

/// The request of a training set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRequest {
    /// The feature service, if one was requested.
    pub service: Option<String>,
    /// The requested features in the form `view:feature`, unless a service was requested.
    pub features: Vec<String>,
    /// See [`TrainingRequest::time_column`].
    pub time_column: String,
    /// When a feature row is visible.
    pub known_at: KnownAt,
    /// How to treat expired values.
    pub ttl: Ttl,
    /// See [`TrainingRequest::full_feature_names`].
    pub full_feature_names: bool,
    /// See [`TrainingRequest::event_timestamps`].
    pub event_timestamps: bool,
    /// See [`TrainingRequest::strict`].
    pub strict: bool,
}

/// When a feature row is visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KnownAt {
    /// From its event time on
    #[default]
    Event,
    /// From the later of its event time and its created time on
    Created,
}

/// How to treat a value that is older than its view's `ttl` at the time of the entity row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ttl {
    /// Replace the value with null
    #[default]
    Null,
    /// Keep the value, and add a column NAME__status after each feature
    Mark,
    /// Keep the value
    Ignore,
}

// === impl SetRequest ===

impl SetRequest {
    /// Returns the request of a training job.
    #[must_use]
    pub fn to_training(&self) -> TrainingRequest<'_> {
        TrainingRequest {
            selection: match &self.service {
                Some(service) => Selection::Service(service.into()),
                None => Selection::Features(self.features.iter().map(|feature| feature.as_str().into()).collect()),
            },
            full_feature_names: self.full_feature_names,
            time_column: &self.time_column,
            visibility: match self.known_at {
                KnownAt::Event => Visibility::Event,
                KnownAt::Created => Visibility::Created,
            },
            ttl: match self.ttl {
                Ttl::Null => TtlPolicy::Null,
                Ttl::Mark => TtlPolicy::Mark,
                Ttl::Ignore => TtlPolicy::Ignore,
            },
            event_timestamps: self.event_timestamps,
            strict: self.strict,
        }
    }
}
