//! The history of a plugin: lists its versions, selects one of them, and loads versions at startup.

use std::sync::Arc;

use larder_http::PastVersion;
use larder_model::{model::Rfc3339, registry::Catalog};
use larder_plugin_host::{Component, HistoryEntry};

use super::{DeployError, FileOrigin, Loading, Plugins, Version, version::ChosenVersion};

/// The minimum number of hexadecimal digits that select a version by its digest.
const DIGEST_DIGITS_MIN: usize = 8;
/// The number of hexadecimal digits of a digest in messages.
const DIGEST_DIGITS_SHOWN: usize = 12;

// === impl Plugins ===

impl Plugins {
    /// Returns the versions of a plugin that were live. The version that went live last is the first one.
    pub(in crate::app) fn history(&self, name: &str) -> Result<Vec<PastVersion>, DeployError> {
        let versions = self.past_versions(name)?;
        let live = self.state().entries.get(name).and_then(|entry| entry.live.as_ref().map(|live| *live.digest()));
        let describe = |entry: HistoryEntry| PastVersion {
            version: entry.version,
            digest: entry.digest.to_string(),
            language: entry.language,
            bytes: entry.bytes,
            went_live: Rfc3339::of(entry.went_live).as_str().to_owned(),
            live: live == Some(entry.digest),
        };
        Ok(versions.into_iter().map(describe).collect())
    }

    /// Returns the history of a plugin. If the history was rebuilt from the files, finds the version numbers of files
    /// with cached code.
    pub(super) fn past_versions(&self, name: &str) -> Result<Vec<HistoryEntry>, DeployError> {
        // Only names of known plugins become parts of paths.
        if !self.state().entries.contains_key(name) {
            return Err(DeployError::Unknown(name.to_owned()));
        }
        let mut versions = self.plugin_dir.history(name)?;
        for version in versions.iter_mut().filter(|version| version.version.is_none()) {
            let Ok(Some(bytes)) = self.plugin_dir.stored(name, version) else { continue };
            let component = self.load_cached(&bytes).ok().flatten();
            version.version = component.map(|component| component.signature().version.clone());
        }
        Ok(versions)
    }

    /// Selects a version of a plugin's history by its version number, or by the first digits of its digest.
    pub(super) fn select_past(&self, name: &str, wanted: &str) -> Result<HistoryEntry, DeployError> {
        let versions = self.past_versions(name)?;
        let found: Vec<&HistoryEntry> = versions.iter().filter(|version| matches(version, wanted)).collect();
        let (plugin, wanted) = (name.to_owned(), wanted.to_owned());
        match found[..] {
            [found] => Ok(found.clone()),
            [] => Err(DeployError::UnknownVersion { plugin, wanted, known: known(&versions) }),
            _ => {
                let digests: Vec<String> = found.iter().map(|version| version.digest.to_string()).collect();
                Err(DeployError::AmbiguousVersion { plugin, wanted, digests: digests.join(", ") })
            }
        }
    }

    /// Loads versions of known plugins from their histories. Loads the last live version if no version is live, for
    /// example because the file in the directory was rejected. Also loads the previous version, for a rollback. With
    /// [`Loading::Cached`], loads only versions with cached code.
    pub(in crate::app) fn restore(&self, catalog: &Catalog, loading: Loading) {
        let names: Vec<String> = self.state().entries.keys().cloned().collect();
        for name in names {
            let history = self.plugin_dir.history(&name).unwrap_or_else(|error| {
                tracing::warn!(plugin = name, %error, "cannot read the history of a plugin");
                Vec::new()
            });
            let (live, has_previous) = {
                let state = self.state();
                let Some(entry) = state.entries.get(&name) else { continue };
                (entry.live.as_ref().map(|live| *live.digest()), entry.previous.is_some())
            };
            // The plugin directory may still have a version that was rolled back, if it could not be written.
            let last_good = history.iter().find(|version| self.find_rolled_back(&name, &version.digest).is_none());
            // Loading can take minutes, so the lock is not held meanwhile.
            let mut interrupted = None;
            if live.is_none()
                && let Some(component) = last_good.and_then(|last| self.load_past(&name, last, loading))
                && let Ok(version) = self.bind(&name, &component, catalog, None)
                && let Some(entry) = self.state().entries.get_mut(&name).filter(|entry| entry.live.is_none())
            {
                let number = &component.signature().version;
                tracing::warn!(plugin = name, version = number, "keeping the last live version");
                entry.set_live(version);
                let is_first = history.first().is_some_and(|first| first.digest == *component.digest());
                interrupted = (!is_first).then_some(component);
            } else if live.is_none() && loading == Loading::Cached && !history.is_empty() {
                // The last live version may have to be compiled.
                self.mark_compiling(&name);
            }
            // The process was killed after a rollback took effect, and before its files were written.
            if let Some(component) = interrupted {
                let keeps_waiting_file = true;
                let restored = ChosenVersion { keeps_waiting_file, ..ChosenVersion::in_memory(&component) };
                if let Err(error) = self.write_restored(restored) {
                    tracing::error!(plugin = name, %error, "cannot write the files of an interrupted rollback");
                }
            }
            let live = live.or_else(|| last_good.map(|last| last.digest));
            let previous = history.iter().find(|version| Some(version.digest) != live).filter(|_| !has_previous);
            if let Some(component) = previous.and_then(|previous| self.load_past(&name, previous, loading)) {
                // A later change to the definitions may make an incompatible version compatible.
                let unbound = |_| Version::unbound(Arc::clone(&component));
                let version = self.bind(&name, &component, catalog, None).unwrap_or_else(unbound);
                if let Some(entry) = self.state().entries.get_mut(&name) {
                    entry.previous.get_or_insert(version);
                }
            }
        }
    }

    /// Loads a version of the history. Returns `None` if its file is missing or cannot be used, or would have to be
    /// compiled although `loading` is [`Loading::Cached`].
    fn load_past(&self, name: &str, version: &HistoryEntry, loading: Loading) -> Option<Arc<Component>> {
        let bytes = self.plugin_dir.stored(name, version).unwrap_or_else(|error| {
            tracing::warn!(plugin = name, %error, "cannot read the server's copy of a version");
            None
        })?;
        match loading {
            Loading::Cached => self.load_cached(&bytes).ok()?,
            Loading::Compiled => self.load(&bytes, FileOrigin::Directory).ok(),
        }
    }
}

/// Returns whether text is the number of a version, or the first digits of its digest.
fn matches(version: &HistoryEntry, wanted: &str) -> bool {
    let is_digest =
        wanted.len() >= DIGEST_DIGITS_MIN && version.digest.to_string().starts_with(&wanted.to_ascii_lowercase());
    version.version.as_deref() == Some(wanted) || is_digest
}

/// Lists the versions that a rollback can restore, as a hint.
fn known(versions: &[HistoryEntry]) -> String {
    if versions.is_empty() {
        return "its history is empty; deploy the file of a version".to_owned();
    }
    let shown = |version: &HistoryEntry| {
        let digest = version.digest.to_string();
        let number = version.version.as_deref().unwrap_or("unknown version");
        format!("{number} ({})", &digest[..DIGEST_DIGITS_SHOWN])
    };
    let versions: Vec<String> = versions.iter().map(shown).collect();
    format!(
        "it has {}; name one by its number or at least {DIGEST_DIGITS_MIN} digits of its digest",
        versions.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use larder_plugin_host::Digest;

    use super::*;

    #[test]
    fn number_or_long_prefix_selects_version() {
        let digest = Digest::of(b"1");
        let entry = |version: Option<&str>| HistoryEntry {
            digest,
            version: version.map(ToOwned::to_owned),
            language: "rust".to_owned(),
            bytes: 1,
            went_live: 0,
        };
        let (numbered, text) = (entry(Some("1.0.0")), digest.to_string());
        for wanted in ["1.0.0", &text, &text[..8], &text[..20].to_uppercase()] {
            assert!(matches(&numbered, wanted), "{wanted}");
        }
        for wanted in ["", "1.0", "1.0.0 ", &text[..7], &text[1..9], &format!("{text}0")] {
            assert!(!matches(&numbered, wanted), "{wanted}");
        }
        assert!(matches(&entry(None), &text[..8]) && !matches(&entry(None), "1.0.0"));
        let known = known(&[numbered, entry(None)]);
        let short = &text[..12];
        assert!(known.starts_with(&format!("it has 1.0.0 ({short}), unknown version ({short}); ")), "{known}");
    }
}
