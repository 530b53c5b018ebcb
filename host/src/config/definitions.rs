//! Loads the definition files and the Feast repository that a configuration names into a catalog.

use std::{io, path::PathBuf};

use larder_common::files::read_text;
use larder_model::{
    registry::{Catalog, Validated, validate_each},
    yaml::{Located, Place, Problem, Problems, Severity},
};
use larder_source::aws::ObjectAt;

use super::{
    Config, ConfigError, FeastRepo, RegistryAt, RegistryCache, RegistryNeed, access,
    environment::process_environment,
    feast, logging,
    patterns::{Pattern, resolve},
    plugins,
    units::TEXT_BYTES_MAX,
};

/// The default project name.
const PROJECT: &str = "default";

/// A registry in S3.
#[derive(Clone, Debug)]
pub struct RemoteRegistry {
    /// The location of the registry.
    pub at: ObjectAt,
    /// The version that was read; `None` if the registry could not be read and the local copy was used.
    pub version: Option<String>,
}

/// The definitions of a configuration, from its files and its Feast repository.
#[derive(Clone, Debug)]
pub struct LoadedDefinitions {
    /// Whether the configuration names a Feast repository whose registry is absent or empty because Feast has not
    /// written it.
    pub is_unwritten: bool,
    /// The rules for cached definitions of the Feast repository; `None` if there is no repository.
    pub cache: Option<RegistryCache>,
    /// The valid definitions from all files and the registry.
    pub catalog: Catalog,
    /// The files that were read, in this order: the registry if it is a file, then the definition files.
    pub files: Vec<PathBuf>,
    /// The registry, if it is in S3.
    pub registry: Option<RemoteRegistry>,
    /// The warnings.
    pub warnings: Vec<Problem>,
}

/// The result of [`check_definitions`].
#[derive(Debug)]
pub struct CheckedDefinitions {
    /// The definitions without errors of their own (see [`Validated::sound`]). They are for further checks and must not
    /// be served.
    pub sound: Catalog,
    /// All errors and warnings, sorted by file and line.
    pub problems: Vec<Problem>,
}

/// The definitions after validation, with all errors and warnings.
struct Read {
    validated: Validated,
    is_unwritten: bool,
    cache: Option<RegistryCache>,
    files: Vec<PathBuf>,
    registry: Option<RemoteRegistry>,
    problems: Problems,
}

/// Checks all definition files of a configuration, and its Feast repository. The repository's registry must exist, but
/// may be empty.
#[must_use]
pub fn check_definitions(config: &Config) -> CheckedDefinitions {
    let read = read(config, RegistryNeed::There);
    let sound = read.validated.sound().clone();
    CheckedDefinitions { sound, problems: read.problems.into_sorted() }
}

/// Reads every definition file of a configuration, and its Feast repository. The repository's registry must exist, but
/// may be empty.
///
/// # Errors
/// Returns the same errors as [`load_definitions_with`].
pub fn load_definitions(config: &Config) -> Result<LoadedDefinitions, ConfigError> {
    load_definitions_with(config, RegistryNeed::There)
}

/// Reads every definition file of a configuration, and its Feast repository. `need` is the required state of the
/// repository's registry.
///
/// # Errors
/// [`ConfigError::Invalid`] with every error in every file, including unreadable files and patterns without matches. If
/// there are no other errors, also includes token scopes and logged services that are not defined.
pub fn load_definitions_with(config: &Config, need: RegistryNeed) -> Result<LoadedDefinitions, ConfigError> {
    let Read { validated, is_unwritten, cache, files, registry, problems } = read(config, need);
    let failed = problems.has_errors();
    let problems = problems.into_sorted();
    match validated.complete() {
        Some(catalog) if !failed => {
            Ok(LoadedDefinitions { is_unwritten, cache, catalog, files, registry, warnings: problems })
        }
        _ => Err(ConfigError::Invalid(problems)),
    }
}

fn read(config: &Config, need: RegistryNeed) -> Read {
    let problems = Problems::default();
    let mut files = Vec::new();
    let repo = config.feast.as_ref().map(|feast| {
        let copies = Some(&*config.store.data_dir);
        FeastRepo::open(feast, config.build, &config.aws, copies, need, &process_environment, &problems)
    });
    let repo = repo.flatten();
    let project = config.project.clone().or_else(|| repo.as_ref().map(|repo| repo.project.clone()));
    let project = project.unwrap_or_else(|| PROJECT.to_owned());
    let key_version = config.key_version.or_else(|| repo.as_ref().map(|repo| repo.key_version)).unwrap_or_default();
    let mut definitions = repo.as_ref().map(|repo| repo.definitions(&project, &problems)).unwrap_or_default();
    let is_unwritten = repo.as_ref().is_some_and(|repo| repo.is_unwritten);
    let cache = repo.as_ref().map(|repo| repo.cache);
    let registry = match repo.map(|repo| (repo.registry, repo.version)) {
        Some((RegistryAt::File(file), _)) => {
            files.push(file);
            None
        }
        Some((RegistryAt::Object(at), version)) => Some(RemoteRegistry { at, version }),
        None => None,
    };
    let paths = definition_files(config, &problems);
    if problems.has_errors() {
        definitions.note_unread_file();
    }
    for (path, named_at) in paths {
        let name = path.display().to_string();
        match read_text(&path, TEXT_BYTES_MAX) {
            Ok(text) => definitions.read(&name, &text, &problems),
            Err(error) => {
                let help = (error.kind() == io::ErrorKind::IsADirectory)
                    .then(|| "to read the files in the directory, append '/*.yaml'".to_owned());
                problems.error_with_help(named_at, format!("features: cannot read {name}: {error}"), help);
                definitions.note_unread_file();
            }
        }
        files.push(path);
    }
    definitions.any_names = !config.naming_warnings;
    let mentions_names = !(definitions.views.is_empty() && definitions.services.is_empty());
    if mentions_names && definitions.may_lack_names() {
        let message = "references to unknown entities and views are not reported until all definitions can be read";
        problems.warning(&Place::file(&config.origin.file.display().to_string()), message, None);
    }
    let validated = validate_each(&project, key_version, definitions, &problems);
    for missing in config.build.missing_sources(validated.sound()) {
        let Problem { severity, at, message, help } = missing;
        match severity {
            Severity::Error => problems.error_with_help(&at, message, help),
            Severity::Warning => problems.warning(&at, message, help),
        }
    }
    // Token scopes and logged services can be checked only if all services are known. If the registry is not written yet, or if a
    // definition has an error, some services are not known.
    if !problems.has_errors() && !is_unwritten {
        access::check_scopes(config, validated.sound(), &problems);
        plugins::check_overrides(&config.plugins, validated.sound(), &problems);
        logging::check_services(&config.logging, &config.base_dir, validated.sound(), &problems);
    }
    Read { validated, is_unwritten, cache, files, registry, problems }
}

/// Returns the paths to watch for changes: the configuration file, the files of the Feast repository, the current
/// definition files, and the directories in which new definition files may appear.
#[must_use]
pub fn watched_files(config: &Config) -> Vec<PathBuf> {
    let mut watched = vec![config.origin.file.clone()];
    watched.extend(config.feast.iter().flat_map(|feast| feast::files(feast, &process_environment)));
    // The problems are ignored here, because loading the definitions reports them.
    watched.extend(definition_files(config, &Problems::default()).into_iter().map(|(path, _)| path));
    for pattern in config.features.iter().filter_map(|written| Pattern::new(&config.base_dir, &written.value).ok()) {
        if let Some(dir) = pattern.dir().filter(|dir| !watched.iter().any(|known| known == dir)) {
            watched.push(dir.to_path_buf());
        }
    }
    watched
}

/// Returns the files that match the patterns, each once and in the order of the patterns. Each file comes with the
/// position of its pattern in the configuration.
fn definition_files<'c>(config: &'c Config, problems: &Problems) -> Vec<(PathBuf, &'c Place)> {
    let config_file = config.origin.file.file_name().map(|name| resolve(&config.base_dir, &name.to_string_lossy()));
    let mut files: Vec<(PathBuf, &Place)> = Vec::new();
    for Located { value: written, at } in &config.features {
        let pattern = match Pattern::new(&config.base_dir, written) {
            Ok(pattern) => pattern,
            Err(why) => {
                problems.error(at, format!("features: '{written}': {why}"));
                continue;
            }
        };
        let mut found = match pattern.files() {
            Ok(found) => found,
            Err(error) => {
                problems.error(at, format!("features: '{written}' cannot be listed: {error}"));
                continue;
            }
        };
        // A pattern such as `*.yaml` also matches the configuration file, which has no definitions.
        found.retain(|path| Some(path) != config_file.as_ref());
        if found.is_empty() {
            let help = pattern.dir().map(|dir| format!("looked in {}", dir.display()));
            problems.error_with_help(at, format!("features: '{written}' matches no file"), help);
        }
        for path in found {
            if !files.iter().any(|(known, _)| *known == path) {
                files.push((path, at));
            }
        }
    }
    files
}
