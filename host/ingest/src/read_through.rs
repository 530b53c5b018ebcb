//! Read-through: rows that are fetched from their table when a lookup needs them.

use std::{fmt::Debug, future::Future, pin::Pin, sync::Arc};

use futures_util::future::join_all;
use larder_model::{codec::EntityKey, model::EntityId};
use larder_store::ViewId;

/// Fetches rows of one view on demand, and stores them.
pub trait RowFetcher: Send + Sync + Debug {
    /// Returns the view, in the store.
    fn view(&self) -> ViewId;

    /// Returns whether an entity must be fetched before its lookup; `is_here` is whether the store has a row.
    fn wants(&self, id: &EntityId, is_here: bool) -> bool;

    /// Fetches entities. Ends after the view's `fetch_timeout` at the latest.
    fn fetch(&self, keys: Vec<EntityKey>) -> Pin<Box<dyn Future<Output = Fetched> + Send + '_>>;
}

/// The entities that a request needs from one view.
pub type Wanted = (Arc<dyn RowFetcher>, Vec<EntityKey>);

/// The result of fetching entities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fetched {
    /// All entities were fetched. Rows that could not be stored are missing.
    #[default]
    All,
    /// The timeout passed, or rows were removed again after [`FETCH_ROUNDS`] rounds.
    TimedOut,
    /// The table is unavailable.
    Unavailable,
}

/// The header, over HTTP and gRPC, of a response in which rows are missing because they could not be fetched. The value
/// is [`Fetched::reason`].
pub const READ_THROUGH: &str = "x-larder-read-through";

/// The maximum number of times that one request fetches: rows that a deletion or another write removes meanwhile are
/// fetched again.
pub const FETCH_ROUNDS: usize = 3;

// === impl Fetched ===

impl Fetched {
    /// Why rows are missing; `None` if none are.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::TimedOut => Some("timeout"),
            Self::Unavailable => Some("unavailable"),
        }
    }
}

/// Fetches what a request needs of several views at the same time; `None` if it needs nothing.
pub async fn fetch_all(wanted: Vec<Wanted>) -> Option<Fetched> {
    let fetching = wanted.into_iter().map(|(view, keys)| async move { view.fetch(keys).await });
    join_all(fetching).await.into_iter().max()
}
