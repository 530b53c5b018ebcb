//! Training sets from Parquet files, compared with a naive join, and the errors of bad input.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod choice;
mod files;
mod naive;
mod rules;
