//! When files arrived: which files a server could have read before a request.

use std::sync::Arc;

use anyhow::Result;
use larder_columns::Instants;
use larder_feature_log::{LOADED_PREFIX, LOG_TIMESTAMP};
use larder_model::model::{FeatureView, Micros};

use super::{
    log::LoggedRows,
    recompute::{LateFiles, Offline},
};

/// When the files of the views arrived, and until when the server had read them.
pub(super) struct Arrivals {
    views: Vec<ViewArrivals>,
    /// The times of the requests.
    as_of: Instants,
}

/// When the files of a view arrived.
struct ViewArrivals {
    view: Arc<str>,
    /// The files, sorted by the time at which they were modified.
    files: Vec<(Micros, Arc<str>)>,
    /// For each row, when the last load of the view before the request ended. `None` if the log does not have these times, or
    /// if the files are not the source of the view.
    loaded: Option<Instants>,
}

// === impl Arrivals ===

impl Arrivals {
    /// Collects the files of these views, which must have been read.
    pub(super) fn new<'v>(
        views: impl IntoIterator<Item = &'v Arc<FeatureView>>,
        logged: &LoggedRows,
        offline: &Offline<'_>,
    ) -> Result<Self> {
        let views = views.into_iter().map(|view| {
            let files = offline.arrivals(view).into_iter().map(|(name, modified)| (modified, name));
            let mut files: Vec<_> = files.collect();
            files.sort();
            let loaded = logged.times(&format!("{LOADED_PREFIX}{}", view.name)).ok();
            ViewArrivals { view: Arc::clone(&view.name), files, loaded: loaded.filter(|_| view.table().is_none()) }
        });
        Ok(Self { views: views.collect(), as_of: logged.times(LOG_TIMESTAMP)? })
    }

    /// Returns for each view how many of its files the server could have read before a request: those that were modified before
    /// the last load of the view. If the time of this load is unknown, the time of the request counts.
    pub(super) fn available(&self, row: usize) -> Vec<usize> {
        let count = |view: &ViewArrivals| {
            let loaded = view.loaded.as_ref().and_then(|loaded| loaded.micros(row));
            let until = loaded.or_else(|| self.as_of.micros(row)).unwrap_or(Micros::MAX);
            view.files.partition_point(|(modified, _)| *modified <= until)
        };
        self.views.iter().map(count).collect()
    }

    /// Returns the files of each view that were not available.
    pub(super) fn late(&self, available: &[usize]) -> LateFiles {
        let late = |(view, available): (&ViewArrivals, &usize)| {
            let files = view.files[*available..].iter().map(|(_, name)| Arc::clone(name));
            (Arc::clone(&view.view), files.collect())
        };
        self.views.iter().zip(available).map(late).collect()
    }
}
