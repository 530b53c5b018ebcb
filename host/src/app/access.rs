//! The keys and tokens of the data listener, which can be reloaded while connections are open.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use larder_common::files::SeenFiles;
use larder_http::{HttpConfig, Tls};
use larder_model::yaml::{Place, Problem, Problems};
use larder_serving::Authenticator;

use crate::config::{Config, ConfigError, access_files, load_access, read_tls, read_tokens};

/// The keys and tokens that the listeners use. Whether TLS and authentication are on is fixed at startup.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) authenticator: Arc<Authenticator>,
    /// The configuration that names the files: the configuration at startup, or the last one that a reload could read.
    named_by: ArcSwap<HttpConfig>,
    /// The stamps that the files had when they were last read, whether or not they were accepted.
    seen: SeenFiles,
}

// === impl Access ===

impl Access {
    /// Reads all keys and tokens. Also returns warnings about their files.
    ///
    /// # Errors
    /// If a file is missing or invalid. The caller must not start the listener in this case.
    pub(super) fn open(config: &HttpConfig) -> Result<(Self, Vec<Problem>), ConfigError> {
        let seen = SeenFiles::default();
        seen.note(access_files(config));
        let loaded = load_access(config)?;
        let access = Self {
            tls: loaded.tls.map(|keys| Arc::new(Tls::new(keys))),
            authenticator: Arc::new(loaded.tokens.map_or_else(Authenticator::open, Authenticator::with_tokens)),
            named_by: ArcSwap::from_pointee(config.clone()),
            seen,
        };
        Ok((access, loaded.warnings))
    }

    /// Reloads the TLS keys and the tokens, from the files that `newer` names, or from the current files if it is
    /// `None`. Keys and tokens are replaced independently: the keys if all of them are valid, and the tokens if all of
    /// them are valid. Otherwise, the previous keys or tokens stay in use.
    pub(super) fn renew(&self, newer: Option<&Config>) -> Result<Vec<Problem>, ConfigError> {
        let problems = Problems::default();
        if let Some(newer) = newer {
            self.warn_of_fixed_settings(newer, &problems);
            self.named_by.store(Arc::new(newer.http.clone()));
        }
        self.seen.note(self.files());
        let config = self.named_by.load();
        if let (Some(tls), Some(keys)) = (&self.tls, read_tls(&config, &problems)) {
            tls.replace(keys);
        }
        if self.authenticator.needs_token()
            && let Some(tokens) = read_tokens(&config, &problems)
        {
            self.authenticator.replace(tokens);
        }
        let failed = problems.has_errors();
        let problems = problems.into_sorted();
        if failed { Err(ConfigError::Invalid(problems)) } else { Ok(problems) }
    }

    /// Returns the files to check for changes.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        access_files(&self.named_by.load())
    }

    /// Returns whether the files changed since they were last read.
    pub(super) fn has_changed(&self) -> bool {
        self.seen.differ(self.files())
    }

    /// Adds a warning if the configuration turns TLS or authentication on or off, because this takes effect only at
    /// startup.
    fn warn_of_fixed_settings(&self, newer: &Config, problems: &Problems) {
        let at = Place::file(&newer.origin.file.display().to_string());
        for (key, is, will_be) in [
            ("tls", self.tls.is_some(), newer.http.tls.is_some()),
            ("auth", self.authenticator.needs_token(), newer.http.auth.is_some()),
        ] {
            if is != will_be {
                let turned = if will_be { "on" } else { "off" };
                problems.warning(&at, format!("server: turning '{key}' {turned} takes effect after a restart"), None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn token_changed_while_server_starts_is_reloaded() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        fs::write(&token, "a".repeat(32)).unwrap();
        let text = format!("project: p\nserver: {{auth: {{tokens: [{{name: t, file: {}}}]}}}}\n", token.display());
        let problems = Problems::default();
        let config = Config::parse("larder.yaml", Path::new("."), &text, &|_| None, &problems).unwrap();
        let (access, _) = Access::open(&config.http).unwrap();
        assert!(!access.has_changed());
        // The file changes before the first check for changes.
        fs::write(&token, "b".repeat(33)).unwrap();
        assert!(access.has_changed());
        access.renew(None).unwrap();
        assert!(!access.has_changed());
        // A file that cannot be used is read only once.
        fs::remove_file(&token).unwrap();
        assert!(access.has_changed());
        access.renew(None).unwrap_err();
        assert!(!access.has_changed());
    }
}
