//! Whether the plugins of a configuration fit its derived views, found out without a host.

use std::collections::BTreeSet;

use anyhow::Result;
use larder_model::registry::Catalog;

use crate::{
    cli::CliError,
    config::PluginConfig,
    plugin::{PluginRuntime, PluginSettings, Shelf, Transform, read_file},
};

/// Loads each plugin that a derived view names and tries it in its views, as a start of the host would. Returns what is
/// missing, which a host does without.
///
/// # Errors
/// All that the host would refuse, a line each.
pub(in crate::cli) fn fit(config: &PluginConfig, catalog: &Catalog) -> Result<Vec<String>> {
    let views = catalog.derived_views();
    let Some(dir) = config.dir.as_ref().filter(|_| !views.is_empty()) else { return Ok(Vec::new()) };
    // The host's own directory may be in use, or not there yet: nothing is written to it. Without one of the user's
    // everything is compiled anew.
    let cache_dir = super::cache::dir().ok().map(|dir| dir.join("compiled"));
    let runtime = PluginRuntime::new(PluginSettings { cache_dir, ..config.settings.clone() })?;
    let (mut missing, mut refused) = (Vec::new(), Vec::new());
    for name in views.iter().map(|view| &view.plugin).collect::<BTreeSet<_>>() {
        let file = Shelf::file_in(dir, name);
        let path = file.display();
        if !file.try_exists()? {
            let views = views.iter().filter(|view| view.plugin == *name).map(|view| &*view.name).collect::<Vec<_>>();
            missing.push(format!("warning: no plugin {path}: nothing computes {}", views.join(", ")));
            continue;
        }
        match read_file(&file, config.settings.component_bytes_max()).map(|bytes| runtime.load(&bytes)) {
            Ok(Ok(component)) => {
                let plugin = &component.signature().name;
                if **plugin != **name {
                    refused.push(format!("{path}: the plugin in it is '{plugin}': rename the file to {plugin}.wasm"));
                    continue;
                }
                let fitted = views.iter().filter(|view| view.plugin == *name);
                let errors = fitted.filter_map(|view| Transform::bind(&runtime, &component, view).err());
                refused.extend(errors.map(|error| format!("{path}: {error}")));
            }
            Ok(Err(error)) => refused.push(format!("{path}: {error}")),
            Err(error) => refused.push(error.to_string()),
        }
    }
    if refused.is_empty() { Ok(missing) } else { Err(CliError::Failed(refused.join("\n")).into()) }
}
