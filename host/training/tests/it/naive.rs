//! Compares training sets with a naive join, which looks at all pairs of an entity row and a feature row.

use std::num::NonZeroUsize;

use larder_model::model::Micros;
use larder_serving::TtlPolicy;
use larder_training::{Limits, kernel::Visibility};
use proptest::prelude::*;

use crate::files::{Files, SECOND, StatsRow, column, customers, features};

const CUSTOMERS: [&str; 3] = ["a", "b", "c"];
/// The `ttl` of the view.
const TTL: Micros = 10 * SECOND;

/// Returns the values of `visits`.
fn naive(
    entities: &[(Option<&str>, Option<Micros>)],
    rows: &[StatsRow<'_>],
    visibility: Visibility,
    ttl: TtlPolicy,
) -> Vec<Option<i64>> {
    let value = |(customer, time): &(Option<&str>, Option<Micros>)| {
        let (customer, time) = ((*customer)?, (*time)?);
        let is_visible = |row: &&StatsRow<'_>| {
            let (of, event, created, _) = **row;
            let is_known = visibility == Visibility::Event || created.is_none_or(|created| created <= time);
            of == Some(customer) && event.is_some_and(|event| event <= time) && is_known
        };
        // `max_by_key` returns the last one of equal rows.
        let winner = rows.iter().filter(is_visible).max_by_key(|row| (row.1, row.2))?;
        let is_expired = time - winner.1? > TTL;
        if is_expired && ttl == TtlPolicy::Null { None } else { winner.3 }
    };
    entities.iter().map(value).collect()
}

fn seconds(range: std::ops::Range<i64>) -> impl Strategy<Value = Micros> {
    range.prop_map(|seconds| seconds * SECOND)
}

fn customer() -> impl Strategy<Value = Option<&'static str>> {
    prop::option::weighted(0.95, prop::sample::select(&CUSTOMERS))
}

proptest! {
    // Each case writes and reads files.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn set_equals_naive_join(
        entities in prop::collection::vec((customer(), prop::option::weighted(0.95, seconds(0..40))), 1..30),
        rows in prop::collection::vec(
            (customer(), prop::option::weighted(0.95, seconds(0..40)), prop::option::of(seconds(0..50)), any::<Option<i64>>()),
            1..60,
        ),
        files in 1..4_usize,
        visibility in prop::sample::select(&[Visibility::Event, Visibility::Created]),
        ttl in prop::sample::select(&[TtlPolicy::Null, TtlPolicy::Mark, TtlPolicy::Ignore]),
        batches in 1..4_usize,
        memory in prop::sample::select(&[0, 2_000, 1 << 30]),
        threads in 1..4_usize,
    ) {
        let dir = Files::new();
        // Files are read in the order of their names.
        for (index, part) in rows.chunks(rows.len().div_ceil(files)).enumerate() {
            dir.stats(&index.to_string(), part);
        }
        let request = larder_training::TrainingRequest { visibility, ttl, ..features(&["stats:visits"]) };
        let parts: Vec<_> = entities.chunks(entities.len().div_ceil(batches)).map(customers).collect();
        let limits = Limits { memory, threads: NonZeroUsize::new(threads).unwrap() };
        let set = dir.join_within(&request, limits, &parts).unwrap();
        prop_assert_eq!(column(&set, "visits"), naive(&entities, &rows, visibility, ttl));
        let report = &set.report.views[0];
        // No files are read for rows without a key and a time.
        let needs_files = entities.iter().any(|(key, time)| key.is_some() && time.is_some());
        if report.row_groups_skipped == 0 && needs_files {
            prop_assert_eq!(report.feature_rows, rows.len() as u64);
        }
        if memory == 0 {
            prop_assert_eq!(set.report.parts, entities.len() as u64, "each row is joined alone");
        }
        let without_time = entities.iter().filter(|(_, time)| time.is_none()).count() as u64;
        prop_assert_eq!(set.report.rows_without_time, without_time);
        prop_assert_eq!(report.matched + report.expired + report.not_found + report.no_key + without_time, entities.len() as u64);
    }
}
