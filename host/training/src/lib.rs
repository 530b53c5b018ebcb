//! Builds training sets: joins entity rows with the feature values that were valid at their times.
//!
//! [`training_set`] resolves the requested features as a lookup does. For each view, it reads the keys and times of the
//! feature rows, finds the winner of each entity row ([`kernel`]), and reads the winners' features. The answers for the
//! entity rows are then made by the code that answers lookups ([`larder_serving::HistoricalRows`]), so the rules about the age
//! of rows, the conversions of values and the derived features are the same.
//!
//! The crate links the store, because answers refer to rows in its format, but does not open a store.

mod entities;
mod error;
pub mod kernel;
mod report;
mod set;
mod view_rows;

pub use self::{
    error::TrainingError,
    report::{DerivedReport, Report, ViewReport},
    set::{OpenSource, TrainingRequest, TrainingSet, training_set},
};
