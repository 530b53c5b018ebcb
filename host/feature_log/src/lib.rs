//! The feature log: writes the values that requests for feature services received to Parquet files.
//!
//! A snapshot passes the answers of sampled requests to a queue ([`larder_serving::AnswerQueue`]). The thread of the
//! [`FeatureLog`] takes them from it, converts them to columns, and writes files to a directory or to S3. The columns are
//! those of Feast's log of features, followed by Larder's own columns, from which `larder verify --parity` explains
//! differences.

mod file;
mod load_times;
mod metrics;
mod record;
mod schema;
mod settings;
mod target;
mod writer;

pub use self::{
    load_times::LastLoad,
    schema::{
        COMPONENT_PREFIX, DEFINITIONS, LOADED_PREFIX, LOG_DATE, LOG_TIMESTAMP, LogColumn, LogSchema, Origin,
        READ_PREFIX, REQUEST_ID, SERVICE_KEY, TTL, VERSION_KEY, ttl_name,
    },
    settings::{FeatureLogSettings, LogTarget, Roll},
    writer::FeatureLog,
};
