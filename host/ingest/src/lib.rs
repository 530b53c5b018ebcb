//! Interfaces between the servers, which receive requests, and the sync engine, which writes and fetches rows for these
//! requests.
//!
//! A server writes through a [`RowWriter`], and lookups fetch missing rows through a [`RowFetcher`]. `larder-sync`
//! implements both. Neither the servers nor the lookup path depends on `larder-sync`, on a source or on a file format.

mod frame;
mod load;
mod read_through;
mod writer;

pub use self::{
    frame::{Frame, WriteError},
    load::{Outcome, Progress, Skipped, SkippedValues, SyncReport, SyncRequest},
    read_through::{FETCH_ROUNDS, Fetched, READ_THROUGH_HEADER, RowFetcher, Wanted, fetch_all},
    writer::{CurrentWriter, LAST_COMMIT_WITHIN, MATERIALIZATIONS_MAX, MaterializeError, RowWriter, SourceStatus},
};
