//! Checks without a running server whether the plugins of a configuration are compatible with its derived views.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Result;
use larder_model::{
    registry::Catalog,
    yaml::{Place, Problem, Severity, nearest},
};
use larder_plugin_host::{PluginDir, PluginRuntime, PluginSettings, Transform, read_file};

use crate::config::PluginConfig;

/// Loads each plugin that a derived view names, and binds it to the views that name it, as a server does at startup.
/// Returns an error for each plugin that a server would reject. Returns only a warning for each plugin that does not
/// exist, because a server starts without it.
///
/// # Errors
/// If plugins cannot run on this machine at all, or if a path cannot be accessed.
pub(in crate::cli) fn compat_problems(config: &PluginConfig, catalog: &Catalog) -> Result<Vec<Problem>> {
    let views = catalog.derived_views();
    let Some(dir) = config.dir.as_ref().filter(|_| !views.is_empty()) else { return Ok(Vec::new()) };
    // Compiled code is cached in the user's cache directory, because the server's directory may be in use or not exist
    // yet. If the user has no cache directory, each run compiles all plugins again.
    let cache_dir = super::cache::dir().ok().map(|dir| dir.join("compiled"));
    let settings = PluginSettings { cache_dir, ..config.settings.clone() };
    let runtime = PluginRuntime::new(settings.without_requests())?;
    let mut problems = Vec::new();
    for name in views.iter().map(|view| &view.plugin).collect::<BTreeSet<_>>() {
        let file = PluginDir::file_in(dir, name);
        let at = Place::file(&file.display().to_string());
        let problem = |severity, message| Problem { severity, at: at.clone(), message, help: None };
        let error = |message| problem(Severity::Error, message);
        if !file.try_exists()? {
            let views = views.iter().filter(|view| view.plugin == *name).map(|view| &*view.name).collect::<Vec<_>>();
            let message = format!("the plugin does not exist, so {} cannot be computed", views.join(", "));
            let there = plugins_in(dir);
            let suggestion = nearest(name, there.iter().map(String::as_str));
            let help = suggestion.unwrap_or_else(|| "deploy it with `larder plugin deploy`".to_owned());
            problems.push(Problem { help: Some(help), ..problem(Severity::Warning, message) });
            continue;
        }
        match read_file(&file, config.settings.component_bytes_max()).map(|bytes| runtime.load(&bytes)) {
            Ok(Ok(component)) => {
                let plugin = &component.signature().name;
                if **plugin != **name {
                    problems.push(error(format!(
                        "the file contains the plugin '{plugin}'. hint: rename the file to {plugin}.wasm"
                    )));
                    continue;
                }
                let users = views.iter().filter(|view| view.plugin == *name);
                let errors = users.filter_map(|view| Transform::bind(&runtime, &component, view).err());
                problems.extend(errors.map(|wrong| error(wrong.to_string())));
            }
            Ok(Err(wrong)) => problems.push(error(wrong.to_string())),
            Err(wrong) => problems.push(error(wrong.source.to_string())),
        }
    }
    Ok(problems)
}

/// Returns the names of the plugins in a directory, for suggestions.
fn plugins_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| Some(name.strip_suffix(".wasm")?.to_owned())).collect()
}
