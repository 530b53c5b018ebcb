//! The times of the last loads of views, as they were at earlier times.

use std::collections::HashMap;

use larder_model::model::Micros;
use larder_store::ViewId;

/// Returns the time of the last successful load of a view; `None` if there was none.
pub type LastLoad = dyn Fn(ViewId) -> Option<Micros> + Send + Sync;

/// The times of loads that were seen, for each view, in ascending order.
#[derive(Debug, Default)]
pub(super) struct LoadTimes(HashMap<ViewId, Vec<Micros>>);

/// The maximum number of times that are kept for a view. Answers are written within seconds, and loads are rarely more
/// frequent.
const KEPT: usize = 16;

// === impl LoadTimes ===

impl LoadTimes {
    /// Adds the time of the last load of a view.
    pub(super) fn note(&mut self, view: ViewId, last: Option<Micros>) {
        let Some(last) = last else { return };
        let times = self.0.entry(view).or_default();
        if times.last() != Some(&last) {
            times.push(last);
            times.drain(..times.len().saturating_sub(KEPT));
        }
    }

    /// Returns the time of the last load of a view that had ended at this time. Returns `None` if it is unknown.
    pub(super) fn at(&self, view: ViewId, time: Micros) -> Option<Micros> {
        self.0.get(&view)?.iter().rev().copied().find(|load| *load <= time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_load_precedes_the_time() {
        let (mut times, view) = (LoadTimes::default(), ViewId::from_number(1));
        assert_eq!(times.at(view, 10), None);
        times.note(view, None);
        for load in [5, 5, 8] {
            times.note(view, Some(load));
        }
        assert_eq!([4, 5, 7, 8, 9].map(|time| times.at(view, time)), [None, Some(5), Some(5), Some(8), Some(8)]);
        (9..100).for_each(|load| times.note(view, Some(load)));
        assert_eq!((times.at(view, 8), times.at(view, 99)), (None, Some(99)), "old times are dropped");
    }
}
