//! Decides which shards of a stream may be read.
//!
//! A shard is closed after some hours, or when its part of the table is split. Later changes go to its children. The
//! changes of a key are in order along a shard and its descendants, so a child is read only after its parent was read
//! to the end. A closed shard is removed from the stream after some time, and its children can then be read without it.
//! If a shard is removed before it was read to its end, changes are lost, and the whole table must be read again.

use std::collections::{BTreeMap, BTreeSet};

use super::position::ShardPosition;

/// A shard in the stream's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) id: String,
    pub(super) parent: Option<String>,
    pub(super) is_closed: bool,
}

/// Returns the start position of each shard, for reading the changes since the start of a scan. Skips closed shards,
/// except the parents of open ones: a scan may miss a write that was made just before the scan started, and the record
/// of that write may be in a parent.
pub(super) fn begin(listed: &[Shard]) -> BTreeMap<String, ShardPosition> {
    let parents: BTreeSet<&str> =
        listed.iter().filter(|shard| !shard.is_closed).filter_map(|shard| shard.parent.as_deref()).collect();
    let position = |shard: &Shard| {
        let is_skipped = shard.is_closed && !parents.contains(&*shard.id);
        (shard.id.clone(), if is_skipped { ShardPosition::Done } else { ShardPosition::Start })
    };
    listed.iter().map(position).collect()
}

/// Updates positions from the stream's current list of shards: adds new shards, and drops removed ones.
///
/// # Errors
/// The ID of a shard that was removed before it was read to its end.
pub(super) fn update(positions: &mut BTreeMap<String, ShardPosition>, listed: &[Shard]) -> Result<(), String> {
    let known: BTreeSet<&str> = listed.iter().map(|shard| &*shard.id).collect();
    let lost =
        positions.iter().find(|(id, position)| **position != ShardPosition::Done && !known.contains(id.as_str()));
    if let Some((id, _)) = lost {
        return Err(id.clone());
    }
    positions.retain(|id, _| known.contains(id.as_str()));
    for shard in listed {
        positions.entry(shard.id.clone()).or_insert(ShardPosition::Start);
    }
    Ok(())
}

/// Returns the shards that may be read now: shards that are not done and whose parent is done or removed.
pub(super) fn readable(positions: &BTreeMap<String, ShardPosition>, listed: &[Shard]) -> Vec<String> {
    let is_open = |shard: &&Shard| positions.get(&shard.id).is_some_and(|position| *position != ShardPosition::Done);
    let is_readable = |shard: &&Shard| {
        let parent = shard.parent.as_ref().and_then(|parent| positions.get(parent));
        parent.is_none_or(|position| *position == ShardPosition::Done)
    };
    listed.iter().filter(is_open).filter(is_readable).map(|shard| shard.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::{ShardPosition::*, *};

    fn shard(id: &str, parent: Option<&str>, is_closed: bool) -> Shard {
        Shard { id: id.into(), parent: parent.map(Into::into), is_closed }
    }

    #[test]
    fn child_is_read_after_its_parent() {
        let listed = [shard("a", None, true), shard("b", Some("a"), false), shard("c", Some("a"), false)];
        let mut positions = BTreeMap::from([("a".to_owned(), After("9".into()))]);
        update(&mut positions, &listed).unwrap();
        assert_eq!(readable(&positions, &listed), ["a"]);
        positions.insert("a".into(), Done);
        assert_eq!(readable(&positions, &listed), ["b", "c"]);
    }

    #[test]
    fn child_of_removed_parent_is_readable() {
        let listed = [shard("b", Some("a"), false)];
        let mut positions = BTreeMap::from([("a".to_owned(), Done)]);
        update(&mut positions, &listed).unwrap();
        assert_eq!(readable(&positions, &listed), ["b"]);
        assert!(!positions.contains_key("a"), "the removed shard is dropped");
    }

    #[test]
    fn removal_of_unread_shard_is_an_error() {
        let mut positions = BTreeMap::from([("a".to_owned(), After("9".into()))]);
        assert_eq!(update(&mut positions, &[shard("b", Some("a"), false)]), Err("a".to_owned()));
    }

    #[test]
    fn read_starts_at_open_shards_and_parents() {
        let listed = [
            shard("a", None, true),
            shard("b", Some("a"), true),
            shard("c", Some("b"), false),
            shard("d", None, false),
        ];
        let positions = begin(&listed);
        assert_eq!(positions["a"], Done);
        assert_eq!([&positions["b"], &positions["c"], &positions["d"]], [&Start; 3]);
        assert_eq!(readable(&positions, &listed), ["b", "d"]);
    }

    #[test]
    fn every_shard_is_read_after_parent() {
        use proptest::prelude::*;
        proptest!(|(parents in prop::collection::vec(any::<prop::sample::Index>(), 1..40), gone in 0usize..10)| {
            let id = |n: usize| format!("shard-{n:04}");
            let all: Vec<Shard> = parents.iter().enumerate().map(|(n, index)| {
                let parent = (n > 0).then(|| id(index.index(n)));
                shard(&id(n), parent.as_deref(), true)
            }).collect();
            // The oldest shards are already removed.
            let listed = &all[gone.min(all.len() - 1)..];
            let mut positions = BTreeMap::new();
            update(&mut positions, listed).unwrap();
            let mut order: Vec<String> = Vec::new();
            loop {
                let next = readable(&positions, listed);
                if next.is_empty() { break; }
                for id in next {
                    let parent = listed.iter().find(|shard| shard.id == id).and_then(|shard| shard.parent.clone());
                    let is_listed = parent.as_ref().is_some_and(|parent| listed.iter().any(|s| s.id == *parent));
                    prop_assert!(!is_listed || order.contains(&parent.unwrap()), "{id} came before its parent");
                    prop_assert!(!order.contains(&id));
                    positions.insert(id.clone(), Done);
                    order.push(id);
                }
            }
            prop_assert_eq!(order.len(), listed.len());
        });
    }
}
