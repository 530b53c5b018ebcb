//! Canaries: versions of plugins that compute a part of the requests.
//!
//! Whether a request uses a canary depends on a hash of its first entity key. So all rows of a request use the same version,
//! and requests for the same entity do not switch between two versions. The hash includes the digest of the canary, so that
//! different canaries affect different entities.

use std::sync::Arc;

use larder_model::{codec::murmur3_x64_128, registry::Catalog};
use larder_plugin_host::{Digest, Transform};

use super::{EntityValue, OnlineRequest};

/// A version of a plugin that computes a part of the requests.
#[derive(Clone, Debug)]
pub struct Canary {
    /// The share of the requests, from 0 to 1.
    pub share: f64,
    /// The digest of the version.
    pub digest: Digest,
    /// The version for each derived view of the plugin, by the index of the view in the catalog.
    pub transforms: Vec<(usize, Arc<Transform>)>,
}

/// The canaries of a catalog.
#[derive(Clone, Debug, Default)]
pub(super) struct Canaries(Vec<Canary>);

/// The canaries that a request uses, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct CanarySet(u64);

/// The maximum number of canaries.
const CANARIES_MAX: usize = 64;

// === impl Canaries ===

impl Canaries {
    /// Creates the list. Canaries beyond the 64th one are not used.
    pub(super) fn new(mut canaries: Vec<Canary>) -> Self {
        canaries.truncate(CANARIES_MAX);
        Self(canaries)
    }

    /// Returns the canaries that a request uses. A request without entities uses none.
    #[inline]
    pub(super) fn of(&self, request: &OnlineRequest<'_>, catalog: &Catalog) -> CanarySet {
        if self.0.is_empty() { CanarySet::default() } else { self.choose(request, catalog) }
    }

    #[cold]
    fn choose(&self, request: &OnlineRequest<'_>, catalog: &Catalog) -> CanarySet {
        // The order of the columns in a request has no meaning, so the first one by name is used.
        let is_key = |name: &str| catalog.join_keys().contains_key(name);
        let keys = request.entities.iter().filter(|(name, _)| is_key(name));
        let Some((_, values)) = keys.min_by(|(a, _), (b, _)| a.cmp(b)) else { return CanarySet::default() };
        let Some(value) = values.first() else { return CanarySet::default() };
        let mut key = Vec::new();
        push_text(value, &mut key);
        let mut set = 0;
        for (index, canary) in self.0.iter().enumerate() {
            if position(&key, &canary.digest) < canary.share {
                set |= 1 << index;
            }
        }
        CanarySet(set)
    }

    /// Returns the version of a derived view for requests that use these canaries.
    pub(super) fn get(&self, view: usize, set: CanarySet) -> Option<&Arc<Transform>> {
        if set.0 == 0 {
            return None;
        }
        let mut used = self.0.iter().enumerate().filter(|(index, _)| set.0 & (1 << index) != 0);
        used.find_map(|(_, canary)| canary.transforms.iter().find(|(of, _)| *of == view))
            .map(|(_, transform)| transform)
    }
}

// === impl CanarySet ===

impl CanarySet {
    /// Returns a value that differs between sets, to combine with the hash of a shape; 0 for the empty set.
    #[inline]
    pub(super) fn hash(self) -> u64 {
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// Returns the position of a key between 0 and 1. It is below `share` for this share of all keys.
#[expect(clippy::cast_precision_loss, reason = "the upper 53 bits of a hash")]
fn position(key: &[u8], digest: &Digest) -> f64 {
    let [a, b, c, d, e, f, g, h, ..] = murmur3_x64_128(&[key, digest.to_string().as_bytes()].concat());
    let hash = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// Appends a value as text. Numbers and texts with the same digits are the same key.
fn push_text(value: &EntityValue<'_>, key: &mut Vec<u8>) {
    match value {
        EntityValue::Text(text) => key.extend_from_slice(text.as_bytes()),
        EntityValue::Int(value) => key.extend(value.to_string().into_bytes()),
        other => key.extend(format!("{other:?}").into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(percent: u32, digest: &Digest) -> Vec<u32> {
        let is_below = |key: &u32| position(key.to_string().as_bytes(), digest) < f64::from(percent) / 100.0;
        (0..10_000).filter(is_below).collect()
    }

    #[test]
    fn larger_share_has_all_keys_of_smaller() {
        let digest = Digest::of(b"1");
        let (small, large) = (share(10, &digest), share(50, &digest));
        assert!((900..1_100).contains(&small.len()), "{}", small.len());
        assert!((4_700..5_300).contains(&large.len()), "{}", large.len());
        assert!(small.iter().all(|key| large.contains(key)));
        assert_eq!((share(0, &digest).len(), share(100, &digest).len()), (0, 10_000));
    }

    #[test]
    fn other_digest_affects_other_keys() {
        let (first, second) = (share(10, &Digest::of(b"1")), share(10, &Digest::of(b"2")));
        let both = first.iter().filter(|key| second.contains(key)).count();
        assert!((50..150).contains(&both), "{both}");
    }

    #[test]
    fn number_and_digits_are_same_key() {
        let text = |value: EntityValue<'_>| {
            let mut key = Vec::new();
            push_text(&value, &mut key);
            key
        };
        assert_eq!(text(EntityValue::Int(-12)), text(EntityValue::Text("-12".into())));
        assert_ne!(text(EntityValue::Int(1)), text(EntityValue::Float(1.5)));
    }
}
