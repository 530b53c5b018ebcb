//! Decides which calls are captured: a number of failed calls each minute, and a sample of the other calls.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use larder_model::model::Micros;

/// A request to capture a sample of a plugin's calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleRequest {
    /// The share of calls without failed rows that are captured, from 0 to 1. 0 ends an earlier request.
    pub sample: f64,
    /// How long calls are captured.
    pub duration: Duration,
    /// The number of rows after which no further calls are captured, if there is a limit.
    pub rows: Option<u64>,
}

/// Which calls without failed rows are captured.
#[derive(Debug, Default)]
pub(crate) struct Sampling {
    /// Whether any calls may be captured. Read for each call.
    is_on: AtomicBool,
    /// The number of calls while sampling was on.
    calls: AtomicU64,
    rules: Mutex<Rules>,
}

#[derive(Debug, Default)]
struct Rules {
    /// The share for plugins without a rule.
    default: f64,
    by_plugin: HashMap<String, Rule>,
}

#[derive(Debug)]
struct Rule {
    share: f64,
    until: Micros,
    rows_left: Option<u64>,
}

/// The failed calls that were captured in the current minute.
#[derive(Debug)]
pub(crate) struct FailedCalls {
    per_minute: usize,
    state: Mutex<Minute>,
}

#[derive(Debug, Default)]
struct Minute {
    minute: i64,
    /// The number of captured calls of each view.
    calls: HashMap<Arc<str>, usize>,
}

const MINUTE: Micros = 60_000_000;

// === impl Sampling ===

impl Sampling {
    pub(crate) fn new(default: f64) -> Self {
        let rules = Rules { default, ..Rules::default() };
        Self { is_on: AtomicBool::new(default > 0.0), rules: Mutex::new(rules), ..Self::default() }
    }

    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Captures a sample of a plugin's calls from now on. Returns the end of the period.
    pub(crate) fn start(&self, plugin: &str, request: &SampleRequest, now: Micros) -> Micros {
        let duration = i64::try_from(request.duration.as_micros()).unwrap_or(i64::MAX);
        let until = now.saturating_add(duration);
        let mut rules = self.lock();
        if request.sample > 0.0 {
            let rule = Rule { share: request.sample, until, rows_left: request.rows };
            rules.by_plugin.insert(plugin.to_owned(), rule);
        } else {
            rules.by_plugin.remove(plugin);
        }
        self.is_on.store(rules.is_on(), Ordering::Relaxed);
        until
    }

    /// Returns the maximum number of rows to capture of a call: at most `rows_max`, and 0 if the call is not sampled.
    pub(crate) fn rows_of(&self, plugin: &str, rows_max: usize, now: Micros) -> usize {
        let mut rules = self.lock();
        let rule = rules.by_plugin.get(plugin).map(|rule| (rule.share, rule.until, rule.rows_left));
        let (share, left) = match rule {
            Some((share, until, left)) if now < until && left != Some(0) => (share, left),
            Some(_) => {
                rules.by_plugin.remove(plugin);
                self.is_on.store(rules.is_on(), Ordering::Relaxed);
                (rules.default, None)
            }
            None => (rules.default, None),
        };
        drop(rules);
        let left = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        if self.is_chosen(share) { rows_max.min(left) } else { 0 }
    }

    /// Counts rows that were captured.
    pub(crate) fn count(&self, plugin: &str, rows: usize) {
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        if let Some(left) = self.lock().by_plugin.get_mut(plugin).and_then(|rule| rule.rows_left.as_mut()) {
            *left = left.saturating_sub(rows);
        }
    }

    /// Chooses a pseudorandom part of the calls, because every nth call of regular traffic may be of the same kind.
    #[expect(clippy::cast_precision_loss, reason = "53 bits")]
    fn is_chosen(&self, share: f64) -> bool {
        let mut bits = self.calls.fetch_add(1, Ordering::Relaxed).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((bits >> 11) as f64) < share * (1_u64 << 53) as f64
    }

    fn lock(&self) -> MutexGuard<'_, Rules> {
        // The rules are valid after every statement, so those behind a poisoned lock are valid.
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Rules ===

impl Rules {
    fn is_on(&self) -> bool {
        self.default > 0.0 || !self.by_plugin.is_empty()
    }
}

// === impl FailedCalls ===

impl FailedCalls {
    pub(crate) fn new(per_minute: usize) -> Self {
        Self { per_minute, state: Mutex::default() }
    }

    /// Returns whether to capture a failed call of a view.
    pub(crate) fn take(&self, view: &Arc<str>, now: Micros) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now.div_euclid(MINUTE);
        if state.minute != minute {
            *state = Minute { minute, calls: HashMap::new() };
        }
        let calls = state.calls.entry(Arc::clone(view)).or_default();
        let is_taken = *calls < self.per_minute;
        *calls += usize::from(is_taken);
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_calls_are_limited_per_view_and_minute() {
        let (failed, views) = (FailedCalls::new(2), ["a".into(), "b".into()]);
        let taken = |view: usize, now| (0..5).filter(|_| failed.take(&views[view], now)).count();
        assert_eq!((taken(0, 0), taken(0, MINUTE - 1), taken(1, MINUTE - 1)), (2, 0, 2));
        assert_eq!(taken(0, MINUTE), 2);
        assert!(!FailedCalls::new(0).take(&views[0], 0));
    }

    #[test]
    fn sample_has_about_its_share() {
        let sampling = Sampling::new(0.1);
        let taken = (0..10_000).filter(|_| sampling.rows_of("a", 7, 0) == 7).count();
        assert!((900..1_100).contains(&taken), "{taken}");
        assert!(!Sampling::new(0.0).is_on() && Sampling::new(0.0).rows_of("a", 7, 0) == 0);
        assert!((0..1_000).all(|_| Sampling::new(1.0).rows_of("a", 7, 0) == 7));
    }

    #[test]
    fn request_ends_after_its_time_and_rows() {
        let sampling = Sampling::new(0.0);
        let request = SampleRequest { sample: 1.0, duration: Duration::from_secs(60), rows: Some(10) };
        assert_eq!(sampling.start("a", &request, 5), MINUTE + 5);
        assert_eq!((sampling.rows_of("a", 7, 5), sampling.rows_of("b", 7, 5)), (7, 0));
        sampling.count("a", 7);
        assert_eq!(sampling.rows_of("a", 7, 5), 3, "the rest of the rows");
        sampling.count("a", 3);
        assert!(sampling.is_on());
        assert_eq!(sampling.rows_of("a", 7, 5), 0);
        assert!(!sampling.is_on(), "calls are no longer checked");
        sampling.start("a", &SampleRequest { rows: None, ..request }, 5);
        assert_eq!((sampling.rows_of("a", 7, MINUTE + 4), sampling.rows_of("a", 7, MINUTE + 5)), (7, 0));
        assert!(!sampling.is_on());
        sampling.start("a", &request, 5);
        sampling.start("a", &SampleRequest { sample: 0.0, ..request }, 5);
        assert!(!sampling.is_on(), "a sample of 0 ends the request");
    }
}
