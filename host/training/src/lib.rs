//! Builds training sets: joins entity rows with the feature values that were valid at their times.

pub mod kernel;
