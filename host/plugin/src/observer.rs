//! Passes computed batches to an observer, which may copy some of their rows.

use std::{fmt::Debug, sync::Arc};

use super::{Component, FailedRow, Frame, Inputs};

/// Observes the batches that plugins compute for requests. Test calls and acceptance checks are not observed, and neither are
/// failures of batches in which the rows that fail are not searched for ([`OnFailure::FailCall`]).
///
/// [`OnFailure::FailCall`]: super::OnFailure::FailCall
pub trait CallObserver: Debug + Send + Sync {
    /// Returns whether to observe batches without failed rows. Called for each batch, so it must be cheap.
    fn observes_good_calls(&self) -> bool;

    /// Observes a batch, before it is served. Must not block, because it runs on the thread that serves the request. If
    /// a request is computed again because another plugin failed, the batch is observed again.
    fn observe(&self, call: &ObservedCall<'_>);
}

/// A batch that a plugin computed.
#[derive(Clone, Copy, Debug)]
pub struct ObservedCall<'c> {
    /// The plugin.
    pub component: &'c Arc<Component>,
    /// The derived view.
    pub view: &'c Arc<str>,
    /// The view's configuration, which is JSON.
    pub config: &'c Arc<str>,
    /// The inputs.
    pub inputs: &'c Inputs,
    /// The outputs that the plugin returned, in the order of its signature, before their conversion to the view's types.
    pub outputs: &'c Frame,
    /// The rows that failed, in ascending order. For an error that the host detected, their outputs may have values.
    pub failed: &'c [FailedRow],
}
