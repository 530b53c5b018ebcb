//! Chance that is cheap and the same in every run, and which key it picks.

use clap::ValueEnum;

/// How much likelier a frequent key is: the exponent that YCSB uses, close to what people look at in the wild.
pub(crate) const ZIPF_EXPONENT: f64 = 0.99;

/// Random numbers that are cheap, good enough to pick a key, and the same in every run.
#[derive(Clone, Debug)]
pub(crate) struct XorShift {
    state: u64,
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keys {
    /// Each as likely as the other.
    #[default]
    Uniform,
    /// The n-th likeliest key is chosen in proportion to 1 / n^0.99.
    Zipf,
    /// Always the same one.
    OneHot,
}

/// Picks places below a bound.
#[derive(Clone, Debug)]
pub(crate) enum Picker {
    Uniform { end: usize },
    Zipf(Zipf),
    OneHot { place: usize },
}

/// Zipf's law over places; which places are likely is spread over all of them.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    /// The chance of each rank or a likelier one, from 0 to 1.
    cumulated: Vec<f64>,
    /// Without a common divisor with the number of places, so that ranks and places correspond one to one.
    stride: usize,
}

// === impl XorShift ===

impl XorShift {
    /// The numbers of one connection: connections of the same run pick different keys.
    pub(crate) fn new(seed: u64, connection: usize) -> Self {
        // Spread by the golden ratio; zero would stay zero forever.
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

    /// A number below this one.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// From 0 up to, but not, 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

// === impl Picker ===

impl Picker {
    /// Of `count` places, at least one; `favourite` is the one that is hot.
    pub(crate) fn new(keys: Keys, count: usize, favourite: usize) -> Self {
        match keys {
            Keys::Uniform => Self::Uniform { end: count },
            Keys::Zipf => Self::Zipf(Zipf::new(count)),
            Keys::OneHot => Self::OneHot { place: favourite },
        }
    }

    pub(crate) fn pick(&self, random: &mut XorShift) -> usize {
        match self {
            Self::Uniform { end } => random.below(*end),
            Self::Zipf(zipf) => zipf.pick(random),
            Self::OneHot { place } => *place,
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
        // Far from its neighbours: places that are likely should not share a page of the store.
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
    fn picks_are_even_and_differ_by_connection() {
        assert!(counts(Keys::Uniform, 10, 10_000).iter().all(|count| (850..1150).contains(count)));
        assert_ne!(XorShift::new(0, 0).next(), XorShift::new(0, 1).next());
        assert_ne!(XorShift::new(0, 0).next(), XorShift::new(1, 0).next());
    }

    #[test]
    fn zipf_favours_some_and_forgets_none() {
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
    fn ranks_and_places_correspond_one_to_one() {
        for count in [1, 2, 200, 1000, 9_973] {
            let zipf = Zipf::new(count);
            let places: BTreeSet<_> = (0..count).map(|rank| rank * zipf.stride % count).collect();
            assert_eq!(places.len(), count);
        }
    }

    #[test]
    fn one_hot_is_always_the_same() {
        assert_eq!(counts(Keys::OneHot, 5, 100), [0, 0, 100, 0, 0]);
    }
}
