//! Loads memory before it is used.

use std::hint;

/// Loads values into the caches of the processor. `bytes` has a byte of each value. A loop that only loads waits for the memory
/// of more values at the same time than a loop that also uses them.
pub(crate) fn prefetch(bytes: impl Iterator<Item = u8>) {
    hint::black_box(bytes.fold(0, |all, byte| all ^ byte));
}
