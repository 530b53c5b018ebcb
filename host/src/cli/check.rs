//! `larder check`: every mistake at once.

use anyhow::Result;

use super::{ConfigArg, output};
use crate::config::{Config, ConfigError, load_access, load_definitions, process_environment};

pub(super) fn run(args: &ConfigArg) -> Result<()> {
    let config = Config::load(&args.config, &process_environment)?;
    let (loaded, access) = match (load_definitions(&config), load_access(&config.http)) {
        (Err(ConfigError::Invalid(mut problems)), Err(ConfigError::Invalid(others))) => {
            problems.extend(others);
            problems.sort_by(|a, b| a.at.cmp(&b.at));
            return Err(ConfigError::Invalid(problems).into());
        }
        (loaded, access) => (loaded?, access?),
    };
    loaded.warnings.iter().chain(&access.warnings).for_each(|warning| output::say(&warning.to_string()));
    let catalog = &loaded.catalog;
    let features: usize = catalog.views().iter().map(|view| view.features.len()).sum();
    output::say(&format!(
        "{}: project {}, {} entities, {} feature views with {features} features, {} feature services: all right",
        args.config.display(),
        catalog.project(),
        catalog.entities().len(),
        catalog.views().len(),
        catalog.services().len(),
    ));
    Ok(())
}
