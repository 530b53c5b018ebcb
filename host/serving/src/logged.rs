//! The logged feature services, and the sampling of their requests.
//!
//! Entity rows are sampled by a hash of their keys: either all rows of a key are logged, or none. The hash does not depend on
//! the process, so several servers log the same keys.

use std::{collections::HashMap, sync::Arc};

use larder_model::registry::Catalog;
use larder_plugin_host::Digest;
use smallvec::SmallVec;

use super::{EchoedValue, keys::EchoedColumn};

/// The logged feature services of a catalog, by name.
#[derive(Clone, Debug, Default)]
pub struct LoggedServices(Arc<HashMap<Arc<str>, Arc<LoggedService>>>);

/// A logged feature service.
#[derive(Debug)]
pub struct LoggedService {
    /// The name of the service.
    pub name: Arc<str>,
    /// The definitions with which its requests are answered.
    pub catalog: Arc<Catalog>,
    /// The digest of the definitions: see [`definitions_digest`].
    pub definitions: Digest,
    /// The greatest hash of a sampled key.
    hash_max: u64,
}

/// How to sample the rows of requests with one plan.
#[derive(Debug)]
pub(super) struct Sampling {
    pub(super) service: Arc<LoggedService>,
    /// The index and the seed of each entity column that is a key.
    keys: SmallVec<[(usize, u64); 2]>,
}

/// The sampled rows of an answer.
#[derive(Debug)]
pub(super) enum Sampled {
    All,
    /// The indexes of the rows, in ascending order.
    Rows(Vec<usize>),
}

/// Returns a digest of all definitions of a catalog. Equal definitions have equal digests if the versions of Larder are equal.
#[must_use]
pub fn definitions_digest(catalog: &Catalog) -> Digest {
    let (key_version, join_keys) = (catalog.key_version(), catalog.join_keys());
    let definitions = (catalog.entities(), catalog.views(), catalog.derived_views(), catalog.services());
    Digest::of(format!("{:?}", (catalog.project(), key_version, join_keys, definitions)).as_bytes())
}

// === impl LoggedServices ===

impl LoggedServices {
    /// Creates the list of logged services. `rates` has the name of each service and the sampled part of its keys, from 0
    /// (none) to 1 (all). Ignores names of services that the catalog does not have.
    #[must_use]
    pub fn new<'n>(catalog: &Arc<Catalog>, rates: impl IntoIterator<Item = (&'n str, f64)>) -> Self {
        let mut definitions = None;
        let logged = rates.into_iter().filter(|(_, rate)| *rate > 0.0).filter_map(|(name, rate)| {
            let service = LoggedService {
                name: Arc::clone(&catalog.service(name)?.name),
                catalog: Arc::clone(catalog),
                definitions: *definitions.get_or_insert_with(|| definitions_digest(catalog)),
                hash_max: hash_max(rate),
            };
            Some((Arc::clone(&service.name), Arc::new(service)))
        });
        Self(Arc::new(logged.collect()))
    }

    /// Returns how to sample requests for a service; `None` if the service is not logged. `keys` has the index and the name of
    /// each entity column that is a key.
    pub(super) fn sampling<'n>(
        &self,
        service: &str,
        keys: impl IntoIterator<Item = (usize, &'n str)>,
    ) -> Option<Sampling> {
        let service = Arc::clone(self.0.get(service)?);
        let keys = keys.into_iter().map(|(index, name)| (index, hash_bytes(name.as_bytes()))).collect();
        Some(Sampling { service, keys })
    }
}

// === impl Sampling ===

impl Sampling {
    /// Returns the sampled rows; `None` if no row is sampled.
    #[inline]
    pub(super) fn sample(&self, entities: &[EchoedColumn<'_>], rows: usize) -> Option<Sampled> {
        let is_sampled = |row: usize| self.hash(entities, row) <= self.service.hash_max;
        if rows == 1 {
            return is_sampled(0).then_some(Sampled::All);
        }
        let sampled: Vec<usize> = (0..rows).filter(|row| is_sampled(*row)).collect();
        match sampled.len() {
            0 => None,
            all if all == rows => Some(Sampled::All),
            _ => Some(Sampled::Rows(sampled)),
        }
    }

    /// Returns the hash of a row's key. It does not depend on the order of the columns.
    #[inline]
    fn hash(&self, entities: &[EchoedColumn<'_>], row: usize) -> u64 {
        let hashes = self.keys.iter().map(|(index, seed)| mix(seed ^ hash_value(&entities[*index][row])));
        hashes.fold(0, u64::wrapping_add)
    }
}

/// Returns the greatest hash of a sampled key for a rate above 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates at the greatest hash")]
fn hash_max(rate: f64) -> u64 {
    /// 2^64.
    const HASHES: f64 = 18_446_744_073_709_551_616.0;
    (rate * HASHES) as u64
}

#[inline]
fn hash_value(value: &EchoedValue<'_>) -> u64 {
    match value {
        EchoedValue::Null => 0,
        EchoedValue::Int(value) => u64::from_le_bytes(value.to_le_bytes()),
        EchoedValue::Text(text) => hash_bytes(text.as_bytes()),
        EchoedValue::Float(value) => value.to_bits(),
        EchoedValue::Bool(value) => u64::from(*value),
    }
}

/// Returns a hash of bytes. [`mix`] has to be applied to it.
#[inline]
fn hash_bytes(bytes: &[u8]) -> u64 {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(length, |hash, word| fold(hash, u64::from_le_bytes(*word)));
    if rest.is_empty() {
        return hash;
    }
    // The last eight bytes, some of which were hashed before, are read faster than the rest.
    let last = match bytes.last_chunk::<8>() {
        Some(last) => u64::from_le_bytes(*last),
        None => rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
    };
    fold(hash, last)
}

#[inline]
fn fold(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^ (hash >> 32)
}

/// Mixes the bits of a number: the output function of SplitMix64. Every version of Larder must compute the same hashes, so that
/// servers of different versions sample the same keys.
#[inline]
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a sampling of requests with these keys.
    fn sampling(rate: f64, keys: &[(usize, &str)]) -> Sampling {
        let catalog = larder_model::registry::Definitions::default();
        let problems = larder_model::yaml::Problems::default();
        let catalog = larder_model::registry::validate("p", Default::default(), catalog, &problems).unwrap();
        let service = LoggedService {
            name: "s".into(),
            definitions: definitions_digest(&catalog),
            catalog: Arc::new(catalog),
            hash_max: hash_max(rate),
        };
        LoggedServices(Arc::new([("s".into(), Arc::new(service))].into())).sampling("s", keys.iter().copied()).unwrap()
    }

    fn text(value: &'static str) -> EchoedColumn<'static> {
        [EchoedValue::Text(value.into())].into_iter().collect()
    }

    /// The rate is the part of the keys, for keys of each type.
    #[test]
    fn rate_is_part_of_keys() {
        const KEYS: i64 = 100_000;
        let numbers: EchoedColumn<'_> = (0..KEYS).map(EchoedValue::Int).collect();
        let names: EchoedColumn<'_> = (0..KEYS).map(|key| EchoedValue::Text(format!("CUST_{key:06}").into())).collect();
        for entities in [[numbers], [names]] {
            for (rate, within) in [(0.01, 900..1_100), (0.5, 49_000..51_000)] {
                let sampling = sampling(rate, &[(0, "k")]);
                let Some(Sampled::Rows(rows)) = sampling.sample(&entities, 100_000) else { panic!("{rate}") };
                assert!(within.contains(&rows.len()), "{rate}: {}", rows.len());
            }
            assert!(matches!(sampling(1.0, &[(0, "k")]).sample(&entities, 100_000), Some(Sampled::All)));
            assert!(sampling(f64::MIN_POSITIVE, &[(0, "k")]).sample(&entities, 100_000).is_none());
        }
    }

    /// Neither the order of the columns nor a column that is not a key changes the hash, but the names of the keys do.
    #[test]
    fn hash_depends_on_keys_only() {
        let hash = |keys: &[(usize, &str)], entities: &[EchoedColumn<'_>]| sampling(1.0, keys).hash(entities, 0);
        let (a, b) = (text("1"), text("23"));
        let expected = hash(&[(0, "a"), (1, "b")], &[a.clone(), b.clone()]);
        assert_eq!(hash(&[(0, "b"), (1, "a")], &[b.clone(), a.clone()]), expected);
        assert_eq!(hash(&[(1, "a"), (2, "b")], &[b.clone(), a.clone(), b.clone()]), expected);
        assert_ne!(hash(&[(0, "a"), (1, "b")], &[b, a]), expected);
        assert_ne!(hash(&[(0, "a"), (1, "b")], &[text("12"), text("3")]), expected);
    }

    /// The hashes of this version are those of every other version.
    #[test]
    fn hash_does_not_change() {
        assert_eq!(sampling(1.0, &[(0, "driver_id")]).hash(&[text("CUST_000123")], 0), 0xc8c3_6935_7edd_272e);
        assert_eq!(sampling(1.0, &[(0, "driver_id")]).hash(&[text("1001")], 0), 0xc81c_ab53_1c61_e5e7);
        let number: EchoedColumn<'_> = [EchoedValue::Int(1001)].into_iter().collect();
        assert_eq!(sampling(1.0, &[(0, "driver_id")]).hash(&[number], 0), 0xcad3_f6a1_e42c_718a);
    }
}
