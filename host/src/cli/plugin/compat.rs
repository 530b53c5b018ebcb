//! Whether the plugins of a configuration fit its derived views, found out without a host.

use std::collections::BTreeSet;

use anyhow::Result;
use larder_model::{
    registry::Catalog,
    yaml::{Place, Problem, Severity},
};
use larder_plugin_host::{PluginDir, PluginRuntime, PluginSettings, Transform, read_file};

use crate::config::PluginConfig;

/// Loads each plugin that a derived view names and tries it in its views, as a start of the host would. Returns what is
/// missing, which a host does without, as warnings, and what the host would refuse as errors.
///
/// # Errors
/// If plugins cannot run here at all.
pub(in crate::cli) fn fit(config: &PluginConfig, catalog: &Catalog) -> Result<Vec<Problem>> {
    let views = catalog.derived_views();
    let Some(dir) = config.dir.as_ref().filter(|_| !views.is_empty()) else { return Ok(Vec::new()) };
    // The host's own directory may be in use, or not there yet: nothing is written to it. Without one of the user's
    // everything is compiled again.
    let cache_dir = super::cache::dir().ok().map(|dir| dir.join("compiled"));
    let runtime = PluginRuntime::new(PluginSettings { cache_dir, ..config.settings.clone() })?;
    let mut problems = Vec::new();
    for name in views.iter().map(|view| &view.plugin).collect::<BTreeSet<_>>() {
        let file = PluginDir::file_in(dir, name);
        let at = Place::file(&file.display().to_string());
        let problem = |severity, message| Problem { severity, at: at.clone(), message, help: None };
        let error = |message| problem(Severity::Error, message);
        if !file.try_exists()? {
            let views = views.iter().filter(|view| view.plugin == *name).map(|view| &*view.name).collect::<Vec<_>>();
            let message = format!("the plugin does not exist, so nothing computes {}", views.join(", "));
            problems.push(problem(Severity::Warning, message));
            continue;
        }
        match read_file(&file, config.settings.component_bytes_max()).map(|bytes| runtime.load(&bytes)) {
            Ok(Ok(component)) => {
                let plugin = &component.signature().name;
                if **plugin != **name {
                    problems.push(error(format!("the plugin in it is '{plugin}': rename the file to {plugin}.wasm")));
                    continue;
                }
                let fitted = views.iter().filter(|view| view.plugin == *name);
                let errors = fitted.filter_map(|view| Transform::bind(&runtime, &component, view).err());
                problems.extend(errors.map(|wrong| error(wrong.to_string())));
            }
            Ok(Err(wrong)) => problems.push(error(wrong.to_string())),
            Err(wrong) => problems.push(error(wrong.source.to_string())),
        }
    }
    Ok(problems)
}
