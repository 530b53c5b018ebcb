//! `larder check`: every mistake at once.

use anyhow::Result;

use super::{ConfigArg, output};
use crate::config::{Config, load_definitions, process_environment};

pub(super) fn run(args: &ConfigArg) -> Result<()> {
    let config = Config::load(&args.config, &process_environment)?;
    let loaded = load_definitions(&config)?;
    loaded.warnings.iter().for_each(|warning| output::say(&warning.to_string()));
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
