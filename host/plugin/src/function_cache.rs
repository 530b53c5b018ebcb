//! Compiled functions from earlier compilations, so that a component with the same functions is compiled faster.
//!
//! All plugins in an interpreted language contain the same interpreter, and the plugin's own code is data. So after the
//! first plugin in a language, almost all functions of the next one are known.
//!
//! ```text
//! entry:  key (32 bytes, a hash of the function and of the compiler's settings), length (4 bytes, little-endian), value
//! ```
//!
//! The keys and values come from wasmtime. About a tenth of the functions get another key in each process, because
//! wasmtime 48 computes these keys from data whose order varies; these functions are compiled again, with the same
//! result. The values contain machine code, so only bytes from the compiler's own process may be read.

use std::{
    borrow::Cow,
    collections::HashMap,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use wasmtime::CacheStore;

/// The functions that a compilation can use, and those that it used or compiled.
#[derive(Debug)]
pub(super) struct FunctionCache {
    bytes: Vec<u8>,
    /// The ranges of the values in `bytes`.
    known: HashMap<Key, Range<usize>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: Vec<Key>,
    compiled: HashMap<Key, Vec<u8>>,
}

type Key = [u8; KEY_BYTES];

const KEY_BYTES: usize = 32;
const LENGTH_BYTES: usize = 4;

// === impl FunctionCache ===

impl FunctionCache {
    /// Reads the entries of an earlier compilation. Ignores everything after an entry that is incomplete.
    pub(super) fn read(bytes: Vec<u8>) -> Self {
        let mut known = HashMap::new();
        let mut at = 0;
        while let Some((key, value)) = entry(&bytes, at) {
            at = value.end;
            known.insert(key, value);
        }
        Self { bytes, known, state: Mutex::default() }
    }

    /// Returns the entries that this compilation used or added. Returns `None` if it added none, because the entries
    /// that were read are then sufficient for the next compilation, too.
    pub(super) fn write(&self) -> Option<Vec<u8>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.compiled.is_empty() {
            return None;
        }
        let mut bytes = Vec::new();
        let used = state.used.iter().map(|key| (key, &self.bytes[self.known[key].clone()]));
        for (key, value) in used.chain(state.compiled.iter().map(|(key, value)| (key, &**value))) {
            let Ok(length) = u32::try_from(value.len()) else { continue };
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(value);
        }
        Some(bytes)
    }
}

impl CacheStore for FunctionCache {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let key = key.try_into().ok()?;
        let value = self.known.get(&key)?;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).used.push(key);
        Some(Cow::Borrowed(&self.bytes[value.clone()]))
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> bool {
        let Ok(key) = key.try_into() else { return false };
        self.state.lock().unwrap_or_else(PoisonError::into_inner).compiled.insert(key, value);
        true
    }
}

/// Returns the entry at an offset: its key, and the range of its value.
fn entry(bytes: &[u8], at: usize) -> Option<(Key, Range<usize>)> {
    let (key, rest) = bytes.get(at..)?.split_first_chunk::<KEY_BYTES>()?;
    let length = u32::from_le_bytes(*rest.first_chunk::<LENGTH_BYTES>()?) as usize;
    let start = at + KEY_BYTES + LENGTH_BYTES;
    let value = start..start.checked_add(length)?;
    (value.end <= bytes.len()).then_some((*key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(of: u8) -> Key {
        [of; KEY_BYTES]
    }

    #[test]
    fn entries_are_found_in_next_compilation() {
        let first = FunctionCache::read(Vec::new());
        assert!(first.get(&key(1)).is_none());
        assert!(first.insert(&key(1), vec![1, 2, 3]) && first.insert(&key(2), Vec::new()));
        let second = FunctionCache::read(first.write().unwrap());
        assert_eq!(second.get(&key(1)).as_deref(), Some(&[1, 2, 3][..]));
        assert_eq!(second.get(&key(2)).as_deref(), Some(&[][..]));
        assert!(second.get(&key(3)).is_none());
        assert!(second.write().is_none(), "nothing was added");
    }

    #[test]
    fn unused_entries_are_dropped() {
        let first = FunctionCache::read(Vec::new());
        first.insert(&key(1), vec![1]);
        first.insert(&key(2), vec![2]);
        let second = FunctionCache::read(first.write().unwrap());
        second.get(&key(2));
        second.insert(&key(3), vec![3]);
        let third = FunctionCache::read(second.write().unwrap());
        assert!(third.get(&key(1)).is_none());
        assert_eq!(third.get(&key(2)).as_deref(), Some(&[2][..]));
        assert_eq!(third.get(&key(3)).as_deref(), Some(&[3][..]));
    }

    #[test]
    fn incomplete_entries_are_ignored() {
        let first = FunctionCache::read(Vec::new());
        first.insert(&key(1), vec![1, 2, 3]);
        let bytes = first.write().unwrap();
        for length in 0..bytes.len() {
            assert!(FunctionCache::read(bytes[..length].to_vec()).get(&key(1)).is_none(), "{length} bytes");
        }
        let mut huge = bytes.clone();
        huge[KEY_BYTES..][..LENGTH_BYTES].fill(0xff);
        assert!(FunctionCache::read(huge).get(&key(1)).is_none());
    }
}
