//! Random numbers for sampling. They need not be unpredictable, but they are cheap, and differ between threads.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

/// Returns a random number.
pub(super) fn next_random() -> u32 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0) | 1);
    }
    STATE.with(|state| {
        // xorshift64*: https://doi.org/10.1145/2845077
        let mut x = state.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        u32::try_from(x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_below_threshold_is_its_ratio() {
        let below = (0..100_000).filter(|_| next_random() < u32::MAX / 100).count();
        assert!((700..1_300).contains(&below), "{below}");
    }
}
