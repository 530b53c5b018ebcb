//! Reads a configuration: its file, the environment and the command line.

use std::{io, path::Path};

use larder_common::files::{read_text, stamps};
use larder_model::yaml::{Problems, Severity};

use super::{
    BuildFeatures, CheckedConfig, Config, ConfigError, Environment, Origin, Sound, read::read, units::TEXT_BYTES_MAX,
};

// === impl Config ===

impl Config {
    /// Reads a configuration file. Environment variables override it.
    ///
    /// # Errors
    /// [`ConfigError::Io`] if the file cannot be read, [`ConfigError::Invalid`] with every error in it.
    pub fn load(path: &Path, env: Environment<'_>) -> Result<Self, ConfigError> {
        Self::load_from(&Origin::file(path), env)
    }

    /// Reads a configuration. Environment variables override its file, and the command line overrides both.
    ///
    /// # Errors
    /// Returns the same errors as [`Config::load`].
    pub fn load_from(origin: &Origin, env: Environment<'_>) -> Result<Self, ConfigError> {
        let checked = Self::check(origin, env)?;
        let has_errors = checked.problems.iter().any(|problem| problem.severity == Severity::Error);
        checked.config.filter(|_| !has_errors).ok_or(ConfigError::Invalid(checked.problems))
    }

    /// Reads a configuration like [`Config::load_from`], but returns it even if it has errors.
    ///
    /// # Errors
    /// [`ConfigError::Io`] if the file cannot be read.
    pub fn check(origin: &Origin, env: Environment<'_>) -> Result<CheckedConfig, ConfigError> {
        let path = &*origin.file;
        let stamps_before = stamps([path.to_path_buf()]);
        let text = match read_text(path, TEXT_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if origin.is_optional && error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Io { path: path.to_path_buf(), source }),
        };
        let base_dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            // A file name without a directory has an empty parent, which system calls do not accept as a directory.
            _ => Path::new("."),
        };
        let problems = Problems::default();
        let build = BuildFeatures::COMPILED;
        let read = read(&path.display().to_string(), base_dir, &text, &origin.flags, env, build, &problems);
        let sound = read.as_ref().map_or_else(Sound::default, |(_, sound)| *sound);
        let config = read.map(|(config, _)| Self { origin: origin.clone(), stamps_before, ..config });
        Ok(CheckedConfig { config, sound, problems: problems.into_sorted() })
    }

    /// Parses a configuration file's text. `file_name` is the file's name in messages and in [`Config::origin`]; the
    /// file is not read. Relative paths are resolved against `base_dir`. Returns `None` if an error was added to
    /// `problems`.
    #[must_use]
    pub fn parse(
        file_name: &str,
        base_dir: &Path,
        text: &str,
        env: Environment<'_>,
        problems: &Problems,
    ) -> Option<Self> {
        let before = problems.error_count();
        let (config, _) = read(file_name, base_dir, text, &[], env, BuildFeatures::COMPILED, problems)?;
        (problems.error_count() == before).then_some(config)
    }
}
