//! Read-through: fetches rows from a view's table when a lookup needs them.

use std::{fmt::Debug, future::Future, pin::Pin, sync::Arc};

use futures_util::future::join_all;
use larder_model::{codec::EntityKey, model::EntityId};
use larder_store::ViewId;

/// Fetches rows of one view on demand, and writes them to the store.
pub trait RowFetcher: Send + Sync + Debug {
    /// Returns the view's id in the store.
    fn view(&self) -> ViewId;

    /// Returns whether an entity must be fetched before its lookup. `is_stored` is whether the store has a row for it.
    fn wants(&self, id: &EntityId, is_stored: bool) -> bool;

    /// Fetches the rows of entities, and writes them to the store. Ends after the view's `fetch_timeout` at the latest.
    fn fetch(&self, keys: Vec<EntityKey>) -> Pin<Box<dyn Future<Output = Fetched> + Send + '_>>;
}

/// The fetcher of one view, and the entities that a request needs from this view.
pub type Wanted = (Arc<dyn RowFetcher>, Vec<EntityKey>);

/// The result of fetching entities. A greater result is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fetched {
    /// All entities were fetched. A row that could not be stored is nevertheless missing from the lookup.
    #[default]
    All,
    /// The timeout passed, or rows were still missing after [`FETCH_ROUNDS`] rounds.
    TimedOut,
    /// The table is unavailable.
    Unavailable,
}

/// The name of the HTTP header or gRPC metadata entry of a response in which rows are missing because they could not be
/// fetched. The value is [`Fetched::reason`].
pub const READ_THROUGH_HEADER: &str = "x-larder-read-through";

/// The maximum number of rounds of fetches for one request. Rows that are deleted or evicted before the lookup finds
/// them are fetched again in another round.
pub const FETCH_ROUNDS: usize = 3;

// === impl Fetched ===

impl Fetched {
    /// Returns why rows are missing; `None` if all entities were fetched.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::TimedOut => Some("timeout"),
            Self::Unavailable => Some("unavailable"),
        }
    }
}

/// Fetches entities of several views concurrently, and returns the worst result; `None` if `wanted` is empty.
pub async fn fetch_all(wanted: Vec<Wanted>) -> Option<Fetched> {
    let fetching = wanted.into_iter().map(|(view, keys)| async move { view.fetch(keys).await });
    join_all(fetching).await.into_iter().max()
}
