//! Loads rows from sources into the store.
//!
//! [`sync_view`] syncs one view once: it reads the source in batches, decodes their columns, encodes rows, and commits
//! the rows together with the source's position. It blocks its thread. [`SyncEngine`] calls it, in the background of
//! the server or for a command, at most once at a time for each view. Rows that callers write arrive as a
//! [`larder_ingest::Frame`], and are encoded and committed without a source.

mod check;
mod encode;
mod engine;
mod erase;
mod error;
mod fetch;
mod limits;
mod load_plan;
mod metrics;
mod open_source;
mod run;
mod sample;
mod sanity;
mod scheduler;
mod slots;
#[cfg(feature = "aws")]
mod to_table;
mod write;
mod writer;

#[cfg(feature = "aws")]
pub use self::to_table::{TableReport, TableRun, TableStep, ToTableError, materialize_to_table};
pub use self::{
    check::{SourceProblem, check_source, likely_type, wider_type},
    engine::SyncEngine,
    erase::EraseError,
    error::SyncError,
    fetch::Fetcher,
    limits::SyncLimits,
    open_source::SyncSetting,
    run::{SyncRun, sync_view},
    sample::{Sample, sample_keys},
    sanity::SanityLimits,
    scheduler::SyncScheduler,
    slots::CONCURRENT_LOADS_MAX,
};
