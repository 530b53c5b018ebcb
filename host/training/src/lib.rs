//! Builds training sets: joins entity rows with the feature values that were valid at their times.
//!
//! [`TrainingJob`] resolves the requested features as a lookup does, and reads the entity rows in parts that fit into memory.
//! For each part and each view, it reads the keys and times of the feature rows, finds the winner of each entity row
//! ([`kernel`]), and reads the winners' features. The answers for the entity rows are then made by the code that answers
//! lookups ([`larder_serving::HistoricalRows`]), so the rules about the age of rows, the conversions of values and the derived
//! features are the same.
//!
//! The parts are consecutive entity rows, and not rows with equal hashes of their keys: in both cases, each part reads the
//! keys and times of all feature rows, but consecutive rows need no temporary files, and the output has their order.
//!
//! The crate links the store, because answers refer to rows in its format, but does not open a store.

mod answer;
mod derived;
mod entities;
mod error;
mod found;
mod given;
mod history;
mod independence;
mod job;
mod joined;
pub mod kernel;
mod part;
mod pieces;
mod progress;
mod python_objects;
mod report;
mod run;
mod shuffle;
mod shuffle_columns;
mod times;
mod view_rows;

pub use self::{
    derived::DerivedJob,
    error::TrainingError,
    history::{History, TIME_COLUMN},
    job::{Limits, MEMORY_MIN, OpenSource, THREADS_MAX, TrainingJob, TrainingRequest},
    kernel::TooManyRows,
    progress::Progress,
    report::{DerivedReport, Report, ViewReport},
    shuffle::SharePart,
    shuffle_columns::{INTERNAL_PREFIX, feature_row_schema},
};
