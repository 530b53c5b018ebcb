//! A fast generator of pseudorandom numbers, which are the same in every run, and the selection of keys.

use clap::ValueEnum;

/// The exponent of the Zipf distribution of keys. It is the one that YCSB uses, which is close to real access patterns.
pub(crate) const ZIPF_EXPONENT: f64 = 0.99;

/// A fast generator of pseudorandom numbers. Its quality is sufficient to select keys.
#[derive(Clone, Debug)]
pub(crate) struct XorShift {
    state: u64,
}

/// How keys are selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keys {
    /// All keys are equally likely.
    #[default]
    Uniform,
    /// The probability of the n-th likeliest key is proportional to 1 / n^0.99.
    Zipf,
    /// Always the same key.
    OneHot,
}

/// Picks indexes below a bound.
#[derive(Clone, Debug)]
pub(crate) enum Picker {
    Uniform { end: usize },
    Zipf(Zipf),
    OneHot { index: usize },
}

/// A Zipf distribution of indexes. The likely indexes are spread over the whole range.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    /// The cumulative probability of each rank, up to 1.
    cumulated: Vec<f64>,
    /// The distance between the indexes of two consecutive ranks. It is coprime to the number of indexes, so that each
    /// rank has a different index.
    stride: usize,
}

// === impl XorShift ===

impl XorShift {
    /// Creates the generator for one connection. The generators of a run's connections differ, so that the connections
    /// pick different keys.
    pub(crate) fn new(seed: u64, connection: usize) -> Self {
        // The first factor is derived from the golden ratio. The lowest bit is set, because a state of zero would never
        // change.
        let state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31)
            ^ (connection as u64 + 1).wrapping_mul(0xD134_2543_DE82_EF95);
        Self { state: state | 1 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Returns a number from 0 up to, but not including, `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// Returns a number from 0 up to, but not including, 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

// === impl Picker ===

impl Picker {
    /// Creates a picker of indexes below `count`, which must be at least 1. With [`Keys::OneHot`], it always picks
    /// `favorite`.
    pub(crate) fn new(keys: Keys, count: usize, favorite: usize) -> Self {
        match keys {
            Keys::Uniform => Self::Uniform { end: count },
            Keys::Zipf => Self::Zipf(Zipf::new(count)),
            Keys::OneHot => Self::OneHot { index: favorite },
        }
    }

    pub(crate) fn pick(&self, random: &mut XorShift) -> usize {
        match self {
            Self::Uniform { end } => random.below(*end),
            Self::Zipf(zipf) => zipf.pick(random),
            Self::OneHot { index } => *index,
        }
    }
}

// === impl Zipf ===

impl Zipf {
    fn new(count: usize) -> Self {
        let mut sum = 0.0;
        let mut cumulated: Vec<f64> = (1..=count)
            .map(|rank| {
                sum += (rank as f64).powf(-ZIPF_EXPONENT);
                sum
            })
            .collect();
        cumulated.iter_mut().for_each(|chance| *chance /= sum);
        // A large stride keeps likely indexes far apart, so that they do not share a page of the store.
        let wanted = (count as f64 * 0.618) as usize;
        let stride = (wanted.max(1)..).find(|&stride| greatest_common_divisor(stride, count) == 1).unwrap_or(1);
        Self { cumulated, stride }
    }

    fn pick(&self, random: &mut XorShift) -> usize {
        let chance = random.unit();
        let rank = self.cumulated.partition_point(|&upto| upto <= chance).min(self.cumulated.len() - 1);
        rank * self.stride % self.cumulated.len()
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn counts(keys: Keys, count: usize, draws: usize) -> Vec<usize> {
        let (picker, mut random) = (Picker::new(keys, count, count / 2), XorShift::new(1, 0));
        let mut counts = vec![0; count];
        for _ in 0..draws {
            counts[picker.pick(&mut random)] += 1;
        }
        counts
    }

    #[test]
    fn uniform_picks_are_even() {
        assert!(counts(Keys::Uniform, 10, 10_000).iter().all(|count| (850..1150).contains(count)));
        assert_ne!(XorShift::new(0, 0).next(), XorShift::new(0, 1).next());
        assert_ne!(XorShift::new(0, 0).next(), XorShift::new(1, 0).next());
    }

    #[test]
    fn zipf_picks_follow_the_distribution() {
        let mut counts = counts(Keys::Zipf, 1000, 1_000_000);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let harmonic: f64 = (1..=1000_u32).map(|rank| f64::from(rank).powf(-ZIPF_EXPONENT)).sum();
        for rank in [1_usize, 2, 10] {
            let expected = 1e6 * (rank as f64).powf(-ZIPF_EXPONENT) / harmonic;
            let got = counts[rank - 1] as f64;
            assert!((got / expected - 1.0).abs() < 0.05, "rank {rank}: {got} for {expected}");
        }
        assert!(counts.last().unwrap() > &0);
    }

    #[test]
    fn ranks_and_indexes_are_bijective() {
        for count in [1, 2, 200, 1000, 9_973] {
            let zipf = Zipf::new(count);
            let indexes: BTreeSet<_> = (0..count).map(|rank| rank * zipf.stride % count).collect();
            assert_eq!(indexes.len(), count);
        }
    }

    #[test]
    fn one_hot_picks_one_index() {
        assert_eq!(counts(Keys::OneHot, 5, 100), [0, 0, 100, 0, 0]);
    }
}
