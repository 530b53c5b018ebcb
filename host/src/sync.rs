//! Synchronisation: rows from a source into the store, and what came of it.
//!
//! [`sync_view`] is one run for one view: pull a batch, decode its columns, encode rows, commit them with the source's
//! position. It blocks its thread; [`SyncEngine`] runs it beside the server, one run per view at a time. What callers
//! write comes as a [`Frame`], and goes the same way without a source.

mod arrow_cell;
mod check;
mod decode;
mod encode;
mod engine;
mod erase;
mod error;
mod fetch;
mod guard;
mod metrics;
mod run;
mod sample;
mod slots;
mod table;
mod to_table;
mod turns;
mod write;

pub use self::{
    check::{SourceProblem, check_source, likely_type, wider_type},
    engine::{SyncEngine, SyncSetting},
    erase::EraseError,
    error::SyncError,
    fetch::{FETCH_ROUNDS, Fetched, Fetcher, fetch_all},
    guard::Guard,
    run::{Outcome, Progress, Skipped, SkippedValues, SyncLimits, SyncReport, SyncRequest, SyncRun, sync_view},
    sample::{Sample, sample_keys},
    slots::{ASKED_AT_ONCE_MAX, LOADS_AT_ONCE_MAX},
    table::decode_rows,
    to_table::{TableReport, TableRun, TableStep, ToTableError, materialize_to_table},
    turns::{LAST_COMMIT_WITHIN, Turns},
    write::{Frame, WriteError},
};
