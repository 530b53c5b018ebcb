//! The state of a rollout on disk, and the versions that were rolled back.

use std::collections::BTreeMap;

use larder_model::model::Micros;
use larder_plugin_host::{ComparisonReport, Digest, VitalCounts};
use serde::{Deserialize, Serialize};

use super::{Stage, gates::AcceptedDiffs};

/// The state of a rollout.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedRollout {
    /// The version of the format, which is 1.
    pub(super) format: u32,
    /// The digest of the candidate.
    pub(super) candidate: Digest,
    /// The digest of the version that the candidate replaces.
    pub(super) base: Digest,
    pub(super) stage: Stage,
    /// The share of requests that are compared, from 0 to 1.
    pub(super) ratio: f64,
    pub(super) accepted: AcceptedDiffs,
    pub(super) started: Micros,
    /// How long the stage has lasted.
    pub(super) lasted_seconds: u64,
    /// Counts of the results that requests received from the replaced version before the candidate was live, by view.
    pub(super) baseline: BTreeMap<String, VitalCounts>,
    /// The results of the comparisons, by view.
    pub(super) reports: BTreeMap<String, ComparisonReport>,
}

/// A version that was rolled back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::app::plugins) struct RolledBack {
    pub(in crate::app::plugins) plugin: String,
    pub(in crate::app::plugins) version: String,
    pub(in crate::app::plugins) digest: Digest,
    pub(in crate::app::plugins) at: Micros,
    pub(in crate::app::plugins) why: String,
    /// Whether a gate caused the rollback, and not a command.
    pub(in crate::app::plugins) is_automatic: bool,
}

/// The versions that were rolled back, of all plugins, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::app::plugins) struct RolledBackList(Vec<RolledBack>);

/// The version of the format.
pub(super) const FORMAT: u32 = 1;
/// The maximum number of versions of a plugin in the list. The oldest ones are dropped.
const VERSIONS_MAX: usize = 100;

// === impl RolledBackList ===

impl RolledBackList {
    /// Adds a version, or replaces its entry.
    pub(in crate::app::plugins) fn add(&mut self, entry: RolledBack) {
        self.remove(&entry.plugin, &entry.digest);
        let plugin = entry.plugin.clone();
        self.0.push(entry);
        if self.0.iter().filter(|known| known.plugin == plugin).count() > VERSIONS_MAX
            && let Some(oldest) = self.0.iter().position(|known| known.plugin == plugin)
        {
            self.0.remove(oldest);
        }
    }

    /// Removes a version. Returns whether it was in the list.
    pub(in crate::app::plugins) fn remove(&mut self, plugin: &str, digest: &Digest) -> bool {
        let before = self.0.len();
        self.0.retain(|known| known.plugin != plugin || known.digest != *digest);
        self.0.len() < before
    }

    /// Returns the entry of a version.
    pub(in crate::app::plugins) fn find(&self, plugin: &str, digest: &Digest) -> Option<&RolledBack> {
        self.0.iter().find(|known| known.plugin == plugin && known.digest == *digest)
    }

    /// Returns the version of a plugin that was rolled back last.
    pub(in crate::app::plugins) fn last(&self, plugin: &str) -> Option<&RolledBack> {
        self.0.iter().rev().find(|known| known.plugin == plugin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(plugin: &str, number: usize) -> RolledBack {
        RolledBack {
            plugin: plugin.to_owned(),
            version: number.to_string(),
            digest: Digest::of(number.to_string().as_bytes()),
            at: 0,
            why: "it failed".to_owned(),
            is_automatic: true,
        }
    }

    #[test]
    fn list_keeps_last_versions_of_each_plugin() {
        let mut list = RolledBackList::default();
        list.add(entry("other", 0));
        (0..=VERSIONS_MAX).for_each(|number| list.add(entry("p", number)));
        assert!(list.find("p", &entry("p", 0).digest).is_none());
        assert!(list.find("p", &entry("p", 1).digest).is_some() && list.find("other", &entry("p", 0).digest).is_some());
        list.add(entry("p", 1));
        assert_eq!((list.0.len(), list.last("p").map(|last| &*last.version)), (VERSIONS_MAX + 1, Some("1")));
        assert!(list.remove("p", &entry("p", 1).digest) && !list.remove("p", &entry("p", 1).digest));
    }
}
