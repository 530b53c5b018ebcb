//! The values of a customer, derived from the seed and the customer's number by integer arithmetic.

use larder_model::model::Micros;

use super::DatasetSpec;

/// All values of one customer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Customer {
    pub(super) tenure_months: u32,
    pub(super) monthly_charges: f64,
    /// `None` if the customer has not received a bill yet.
    pub(super) total_charges: Option<f64>,
    pub(super) support_tickets_30d: u32,
    /// `None` if the usage was not reported, as for 2 % of customers.
    pub(super) data_usage_gb: Option<f64>,
    pub(super) behavior_times: Times,

    pub(super) age: u32,
    pub(super) gender: &'static str,
    pub(super) location: &'static str,
    pub(super) demographics_times: Times,

    pub(super) contract_type: &'static str,
    pub(super) payment_method: &'static str,
    pub(super) paperless_billing: bool,
    pub(super) contract_times: Times,
}

/// The event time of a row, and its created time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) event: Micros,
    pub(super) created: Micros,
}

/// The kind of a customer's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Phone,
    Dsl,
    Fiber,
}

/// A stream of random numbers: splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
struct Draws {
    state: u64,
}

const MONTHS_MAX: u32 = 72;
pub(super) const SENIOR_AGE: u32 = 65;
pub(super) const BEHAVIOR_DAYS: u32 = 7;
pub(super) const OTHER_DAYS: u32 = 60;

pub(super) const MICROS_PER_SECOND: Micros = 1_000_000;
pub(super) const SECONDS_PER_DAY: u32 = 86_400;

pub(super) const MONTH_TO_MONTH: &str = "Month-to-month";

const CITIES: [(&str, u32); 12] = [
    ("New York", 16),
    ("Los Angeles", 14),
    ("Chicago", 11),
    ("Houston", 10),
    ("Phoenix", 9),
    ("Philadelphia", 8),
    ("San Antonio", 7),
    ("San Diego", 7),
    ("Dallas", 6),
    ("Austin", 5),
    ("Seattle", 4),
    ("Denver", 3),
];

// === impl Customer ===

impl Customer {
    pub(super) fn draw(number: u64, spec: &DatasetSpec) -> Self {
        let mut draws = Draws::of(spec.seed, number);

        // Many customers are new, many have stayed for more than four years, and the others are in between.
        let tenure_months = match draws.below(1_000) {
            0..12 => 0,
            12..390 => draws.between(1, 24).min(draws.between(1, 24)),
            390..800 => draws.between(1, MONTHS_MAX),
            _ => draws.between(49, MONTHS_MAX).max(draws.between(49, MONTHS_MAX)),
        };
        let line = draws.pick(&[(Line::Phone, 22), (Line::Dsl, 34), (Line::Fiber, 44)]);
        let monthly_cents = match line {
            Line::Phone => draws.between(1_825, 2_600),
            Line::Dsl => draws.between(3_500, 7_500),
            Line::Fiber => u32::midpoint(draws.between(6_800, 11_875), draws.between(6_800, 11_875)),
        };
        // The sum of the charges differs from the current price by up to 5 %, because prices changed over the years.
        let total_cents = tenure_months * monthly_cents * draws.between(950, 1_050) / 1_000;
        let usage_tenths = match line {
            Line::Phone => draws.between(0, monthly_cents / 40),
            Line::Dsl => draws.between(monthly_cents / 40, monthly_cents / 2),
            Line::Fiber => draws.between(monthly_cents / 20, monthly_cents),
        };
        let usage_known = !draws.percent(2);

        let contract_type = draws.pick(&[
            (MONTH_TO_MONTH, 90 - tenure_months),
            ("One year", 10 + tenure_months / 3),
            ("Two year", tenure_months),
        ]);
        let (monthly, fiber) = (contract_type == MONTH_TO_MONTH, line == Line::Fiber);
        let payment_method = draws.pick(&[
            ("Electronic check", 15 + 25 * u32::from(monthly) + 20 * u32::from(fiber)),
            ("Mailed check", 23),
            ("Bank transfer (automatic)", 22),
            ("Credit card (automatic)", 22),
        ]);
        let paperless_billing = draws.percent(match line {
            Line::Phone => 35,
            Line::Dsl => 50,
            Line::Fiber => 75,
        });

        let trouble = 3 + 5 * u32::from(fiber) + 4 * u32::from(monthly) + 6 * u32::from(tenure_months < 6);
        let support_tickets_30d = (0..12).map(|_| u32::from(draws.percent(trouble))).sum();

        let age = if draws.percent(16) {
            draws.between(SENIOR_AGE, 92)
        } else {
            u32::midpoint(draws.between(18, SENIOR_AGE - 1), draws.between(18, SENIOR_AGE - 1))
        };
        let gender = draws.pick(&[("Female", 1), ("Male", 1)]);
        let location = draws.pick(&CITIES);

        Self {
            tenure_months,
            monthly_charges: f64::from(monthly_cents) / 100.0,
            total_charges: (tenure_months > 0).then(|| f64::from(total_cents) / 100.0),
            support_tickets_30d,
            data_usage_gb: usage_known.then(|| f64::from(usage_tenths) / 10.0),
            behavior_times: Times::draw(&mut draws, spec.now, BEHAVIOR_DAYS),
            age,
            gender,
            location,
            demographics_times: Times::draw(&mut draws, spec.now, OTHER_DAYS),
            contract_type,
            payment_method,
            paperless_billing,
            contract_times: Times::draw(&mut draws, spec.now, OTHER_DAYS),
        }
    }
}

// === impl Times ===

impl Times {
    /// Draws an event time, which is a whole second in the last `days` days, and a created time 1 to 45 minutes later,
    /// but not after `now`.
    fn draw(draws: &mut Draws, now: Micros, days: u32) -> Self {
        // One second less than `days`, because the event time is rounded down to a whole second.
        let age = Micros::from(draws.below(days * SECONDS_PER_DAY - 1)) * MICROS_PER_SECOND;
        let delay = Micros::from(draws.between(60, 2_700)) * MICROS_PER_SECOND;
        let event = now.saturating_sub(age);
        let event = event.saturating_sub(event.rem_euclid(MICROS_PER_SECOND));
        Self { event, created: event.saturating_add(delay).min(now) }
    }
}

// === impl Draws ===

impl Draws {
    /// Creates the stream of a customer's random numbers.
    fn of(seed: u64, number: u64) -> Self {
        Self { state: mix(seed.wrapping_add(mix(number))) }
    }

    fn next(&mut self) -> u32 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // Returns the upper half of the bits.
        u32::try_from(mix(self.state) >> 32).unwrap_or(u32::MAX)
    }

    /// Draws a number below a bound.
    fn below(&mut self, bound: u32) -> u32 {
        let scaled = u64::from(self.next()) * u64::from(bound);
        u32::try_from(scaled >> 32).unwrap_or(0)
    }

    /// Draws a number from `low` to `high`, both included.
    fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high - low + 1)
    }

    /// Draws true with a probability of `chance` percent.
    fn percent(&mut self, chance: u32) -> bool {
        self.below(100) < chance
    }

    /// Draws one of several values, in proportion to their weights.
    fn pick<T: Copy>(&mut self, weighted: &[(T, u32)]) -> T {
        let mut rest = self.below(weighted.iter().map(|(_, weight)| weight).sum());
        let last = weighted.len() - 1;
        for &(value, weight) in &weighted[..last] {
            if rest < weight {
                return value;
            }
            rest -= weight;
        }
        weighted[last].0
    }
}

/// Mixes the bits with splitmix64: each input bit affects every output bit.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
