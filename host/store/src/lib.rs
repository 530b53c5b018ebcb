//! The online store: the committed rows of every feature view, on disk, with a cache of recently read rows in memory.
//!
//! [`OnlineStore`] is the public API. A [`Reader`] reads one committed state. A [`Load`] writes the rows of a source,
//! and commits them together with the source's position. [`OnlineStore::put`] writes the rows of callers.
//!
//! Invariants:
//! * a batch of rows and the source's position after it are committed in one transaction;
//! * if two rows have the same key, the row with the later event time wins ([`Rule::Newest`]). If the event times are
//!   equal, the row with the later created time wins. If these are equal too, the row that arrives later wins, so that
//!   a corrected file takes effect. Times are compared to the nanosecond, or at the precision that both rows have if
//!   the source truncates times ([`RowTimes::coarse`]). Applying a batch twice changes nothing. In a change stream, the
//!   last write wins instead ([`Rule::Latest`]);
//! * a row is *from the future* if its event time is later than now plus [`RowTimes::tolerance`]. Such a row is not
//!   served before it is due. If one is stored anyway, any arriving row of the entity replaces it;
//! * a row that a caller wrote stays until the view's source has a row of the entity that is at least as new;
//! * the hot cache has only copies of committed rows. Once a commit has changed a row, older copies of the row are no
//!   longer served;
//! * a damaged store is never served as an empty one, and a damaged row is never served. A damaged file that cannot be
//!   opened is quarantined ([`Quarantine`]), and damage in an open file is repaired by a rebuild;
//! * a write is acknowledged only if the file is still at its path;
//! * after a failed write, the file is reopened: committed rows keep serving, and writes resume.

mod batch;
mod config;
mod declare;
mod erase;
mod error;
mod health;
mod hot;
mod identity;
mod load;
mod metrics;
mod online;
mod open;
mod open_marker;
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
    working_set::{FetchedRows, NegativeCache},
};

#[cfg(test)]
mod tests;
