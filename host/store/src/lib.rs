//! The online store: the committed rows of every feature view, on disk, with a cache of recently read rows in memory.
//!
//! [`OnlineStore`] is the public API. A [`Reader`] reads one committed state. A [`Load`] writes the rows of a source,
//! and commits them together with the source's position. [`OnlineStore::put`] writes the rows of callers.
//!
//! Invariants:
//! * a batch of rows and the source position that it came from are committed in one transaction;
//! * of two rows with the same key, the one with the later event time wins, then the one with the later created time,
//!   to the nanosecond. On a full tie, the later arrival wins, so that a corrected file takes effect. Applying a batch
//!   twice changes nothing. If a source truncates its times ([`RowTimes::coarse`]), rows are compared at the precision
//!   that both have;
//! * a stored row from the future ([`RowTimes::tolerance`]) is replaced by any row that arrives;
//! * a row that a caller wrote stays until a source has a row that is at least as new;
//! * the hot cache is only ever a copy of committed rows, and a copy from before a commit is not served after it;
//! * a damaged store is never served as an empty one, and a damaged row is never served: a file that cannot be opened
//!   is quarantined ([`Quarantine`]), and damage in an open file is repaired by a rebuild;
//! * a write is acknowledged only if the file is still at its path;
//! * after a failed write, the file is reopened: the committed rows keep being served, and writes resume.

mod batch;
mod config;
mod declare;
mod erase;
mod error;
mod health;
mod hot;
mod identity;
mod load;
mod mark;
mod metrics;
mod online;
mod open;
mod put;
mod reader;
mod record;
mod repair;
mod rule;
mod runs;
mod salvage;
mod scan;
mod space;
mod state;
mod status;
mod tables;
mod transaction;
mod working_set;
mod write;

pub use self::{
    batch::{Applied, RowBatch},
    config::StoreConfig,
    error::StoreError,
    hot::{HotCacheConfig, Lookup, Row, RowMemory},
    load::{InterruptedLoad, Load, LoadMode},
    online::OnlineStore,
    open::Quarantine,
    reader::Reader,
    record::{KeySignature, Postponed},
    repair::Repaired,
    rule::{RowTimes, Rule},
    scan::Scanned,
    space::SpaceLimits,
    status::{Freshness, ViewId, ViewStatus},
    working_set::NegativeCache,
};

#[cfg(test)]
mod tests;
