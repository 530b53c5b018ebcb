//! Finds the feature row that was valid at the time of each entity row: the point-in-time join.
//!
//! A feature row is *visible* to an entity row with the same key if its time is not later than the entity row's. Of the
//! visible rows, the *winner* has the latest event time, then the latest created time, then the latest arrival. This is
//! the store's rule `Rule::Newest`.
//!
//! The entity rows are the [`Spine`]. It has a *slot* for each distinct pair of key and time. A [`Join`] reads the feature
//! rows once, in any order. Each row becomes the candidate of the first slot to which it is visible, unless the slot has a
//! better one. At the end, the best candidate of each slot is passed on to the later slots of its key. So the memory does
//! not depend on the number of feature rows, they need not be sorted, and no pair of an entity row and a feature row is
//! ever stored. Joins of parts of the feature rows can be merged.

mod join;
mod prefetch;
mod spine;

#[cfg(test)]
mod tests;

pub(crate) use self::prefetch::prefetch;
pub use self::{
    join::{Arrival, Best, Candidate, Join, Visibility, Winners},
    spine::{Group, Spine, SpineBuilder, TooManyRows},
};
