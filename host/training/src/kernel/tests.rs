//! Compares the join with a naive one, which looks at all pairs of an entity row and a feature row.

use std::sync::Arc;

use larder_model::model::{EntityId, Micros};
use proptest::prelude::*;

use super::*;

/// An entity row: a key and a time with its nanoseconds.
type EntityRow = (Option<u8>, Option<(Micros, u16)>);
/// A feature row: a key, an event time with its nanoseconds, and a created time with its nanoseconds.
type FeatureRow = (u8, (Micros, u16), Option<(Micros, u16)>);

fn id(key: u8) -> EntityId {
    // Keys with equal first bytes, and therefore equal hashes, must not be confused.
    let mut id = [7; 16];
    id[15] = key;
    if key.is_multiple_of(2) {
        id[0] = key;
    }
    EntityId(id)
}

fn spine(rows: &[EntityRow]) -> Spine {
    let mut spine = SpineBuilder::default();
    let push = |(key, time): &EntityRow| {
        let (micros, nanos) = (time.map(|(micros, _)| micros), time.map_or(0, |(_, nanos)| nanos));
        spine.push(key.map(id), micros, nanos).unwrap();
    };
    rows.iter().for_each(push);
    spine.finish()
}

/// Feature rows arrive in this order, ten in each file.
fn candidate(place: usize, row: &FeatureRow) -> Candidate {
    let (_, (event_time, event_nanos), created) = *row;
    Candidate {
        event_time,
        created: created.map(|(created, _)| created),
        nanos: (event_nanos, created.map_or(0, |(_, nanos)| nanos)),
        arrival: Arrival { file: u32::try_from(place / 10).unwrap(), row: (place % 10) as u64 },
    }
}

/// Returns the index of the winner of each entity row.
fn naive(entities: &[EntityRow], features: &[FeatureRow], visibility: Visibility) -> Vec<Option<usize>> {
    let winner = |(key, time): &EntityRow| {
        let (key, time) = ((*key)?, (*time)?);
        let is_visible = |(_, (of, event, created)): &(usize, &FeatureRow)| {
            let is_known = visibility == Visibility::Event || created.is_none_or(|created| created <= time);
            *of == key && *event <= time && is_known
        };
        let visible = features.iter().enumerate().filter(is_visible);
        // `max_by_key` returns the last one of equal rows, which is the one that arrived last.
        visible.max_by_key(|(_, (_, event, created))| (*event, *created)).map(|(place, _)| place)
    };
    entities.iter().map(winner).collect()
}

fn joined(spine: &Spine, (winners, rows): &(Winners, Arc<[Best]>)) -> Vec<Option<usize>> {
    let winner = |row: usize| {
        let Arrival { file, row } = rows[winners.get(spine.slot(row)?)?].arrival();
        Some(file as usize * 10 + usize::try_from(row).unwrap())
    };
    (0..spine.rows()).map(winner).collect()
}

fn add(join: &mut Join<'_>, spine: &Spine, place: usize, row: &FeatureRow, visibility: Visibility) {
    let candidate = candidate(place, row);
    let visible = visibility.of(row.1, row.2);
    if let Some(slot) = spine.group(&id(row.0)).and_then(|group| spine.first_slot(group, visible)) {
        join.add(slot, &candidate);
    }
}

fn join(spine: &Spine, features: &[FeatureRow], order: &[usize], visibility: Visibility) -> Vec<Option<usize>> {
    let mut join = Join::new(spine);
    order.iter().for_each(|place| add(&mut join, spine, *place, &features[*place], visibility));
    joined(spine, &join.finish())
}

fn entity_rows() -> impl Strategy<Value = Vec<EntityRow>> {
    prop::collection::vec(
        (prop::option::weighted(0.9, 0..4_u8), prop::option::weighted(0.9, (-5..10_i64, 0..3_u16))),
        0..30,
    )
}

fn feature_rows() -> impl Strategy<Value = Vec<FeatureRow>> {
    let time = || (-7..12_i64, 0..3_u16);
    prop::collection::vec((0..5_u8, time(), prop::option::of(time())), 0..60)
}

fn visibility() -> impl Strategy<Value = Visibility> {
    prop::sample::select(&[Visibility::Event, Visibility::Created])
}

proptest! {
    #[test]
    fn join_equals_naive_one(entities in entity_rows(), features in feature_rows(), visibility in visibility()) {
        let order: Vec<usize> = (0..features.len()).collect();
        let found = join(&spine(&entities), &features, &order, visibility);
        prop_assert_eq!(found, naive(&entities, &features, visibility));
    }

    #[test]
    fn order_of_reads_does_not_matter(
        entities in entity_rows(),
        (features, order) in feature_rows().prop_flat_map(|features| {
            let order: Vec<usize> = (0..features.len()).collect();
            (Just(features), Just(order).prop_shuffle())
        }),
        visibility in visibility(),
    ) {
        let found = join(&spine(&entities), &features, &order, visibility);
        prop_assert_eq!(found, naive(&entities, &features, visibility));
    }

    #[test]
    fn merged_parts_equal_the_whole(
        entities in entity_rows(),
        features in feature_rows(),
        parts in prop::collection::vec(0..3_usize, 60),
        visibility in visibility(),
    ) {
        let spine = spine(&entities);
        let mut joins = [0; 3].map(|_| Join::new(&spine));
        for (place, row) in features.iter().enumerate() {
            add(&mut joins[parts[place]], &spine, place, row, visibility);
        }
        let [mut first, second, third] = joins;
        first.merge(&third);
        first.merge(&second);
        prop_assert_eq!(joined(&spine, &first.finish()), naive(&entities, &features, visibility));
    }
}

/// Returns the winners of entity rows with key 1 at these times.
fn winners(times: &[Micros], features: &[FeatureRow], visibility: Visibility) -> Vec<Option<usize>> {
    let entities: Vec<EntityRow> = times.iter().map(|time| (Some(1), Some((*time, 0)))).collect();
    let order: Vec<usize> = (0..features.len()).collect();
    join(&spine(&entities), features, &order, visibility)
}

#[test]
fn event_at_the_same_time_counts() {
    let found = winners(&[9, 10, 11], &[(1, (10, 0), None)], Visibility::Event);
    assert_eq!(found, [None, Some(0), Some(0)]);
}

#[test]
fn later_created_time_wins_a_tie() {
    let rows = [(1, (5, 0), Some((7, 0))), (1, (5, 0), Some((6, 0))), (1, (5, 0), None)];
    assert_eq!(winners(&[10], &rows, Visibility::Event), [Some(0)]);
}

#[test]
fn later_arrival_wins_a_full_tie() {
    let row = (1, (5, 0), Some((6, 0)));
    assert_eq!(winners(&[10], &[row; 25], Visibility::Event), [Some(24)]);
}

#[test]
fn late_row_is_visible_when_created() {
    let rows = [(1, (5, 0), Some((5, 0))), (1, (6, 0), Some((20, 0)))];
    assert_eq!(winners(&[10, 20], &rows, Visibility::Event), [Some(1), Some(1)]);
    assert_eq!(winners(&[10, 20], &rows, Visibility::Created), [Some(0), Some(1)]);
    // A row that was created before its event is not visible before the event.
    assert_eq!(winners(&[4, 5], &[(1, (5, 0), Some((2, 0)))], Visibility::Created), [None, Some(0)]);
}

#[test]
fn incomplete_rows_have_no_features() {
    let spine = spine(&[(None, Some((1, 0))), (Some(1), None), (Some(1), Some((1, 0)))]);
    assert_eq!((spine.rows(), spine.slots(), spine.time_range()), (3, 1, Some((1, 1))));
    let found = join(&spine, &[(1, (0, 0), None)], &[0], Visibility::Event);
    assert_eq!(found, [None, None, Some(0)]);
    assert_eq!(super::tests::spine(&[(None, None)]).time_range(), None);
}

#[test]
fn equal_entity_rows_share_a_slot() {
    let spine =
        spine(&[(Some(1), Some((3, 0))), (Some(1), Some((2, 0))), (Some(1), Some((3, 0))), (Some(2), Some((3, 0)))]);
    assert_eq!((spine.rows(), spine.slots()), (4, 3));
    assert_eq!(spine.slot(0), spine.slot(2));
    assert_eq!([0, 1, 3].map(|row| spine.time(spine.slot(row).unwrap())), [3, 2, 3]);
}

#[test]
fn candidate_takes_32_bytes() {
    assert_eq!(size_of::<Best>(), 32);
}

#[test]
fn later_nanosecond_is_not_visible() {
    let entities =
        [(Some(1), Some((5, 0))), (Some(1), Some((5, 299))), (Some(1), Some((5, 300))), (Some(1), Some((6, 0)))];
    let found = join(&spine(&entities), &[(1, (5, 300), None)], &[0], Visibility::Event);
    assert_eq!(found, [None, None, Some(0), Some(0)]);
}
