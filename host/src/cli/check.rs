//! `larder check`: every mistake at once.

use anyhow::Result;

use super::{ConfigArg, output, plugin};
use crate::config::{ConfigError, load_access, load_definitions};

pub(super) fn run(args: &ConfigArg) -> Result<()> {
    let config = args.load()?;
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
    plugin::fit(&config.plugins, catalog)?.iter().for_each(|missing| output::say(missing));
    let what = match &config.feast {
        Some(feast) if !config.origin.file.is_file() => &feast.dir,
        _ => &config.origin.file,
    };
    let features: usize = catalog.views().iter().map(|view| view.features.len()).sum();
    let counted = |count: usize, one, many| output::counted(count as u64, one, many);
    output::say(&format!(
        "{}: project {}, {}, {} with {}, {}: all right",
        what.display(),
        catalog.project(),
        counted(catalog.entities().len(), "entity", "entities"),
        counted(catalog.views().len(), "feature view", "feature views"),
        counted(features, "feature", "features"),
        counted(catalog.services().len(), "feature service", "feature services"),
    ));
    Ok(())
}
