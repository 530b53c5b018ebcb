//! `larder import`: converts a Feast repository to Larder's own files, for migration.

mod stub;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use larder_model::{
    codec::KeyVersion,
    registry::{UnknownFields, to_yaml, validate},
    yaml::Problems,
};
use larder_plugin_host::PluginDir;
use larder_source::aws::{Aws, AwsConfig};
use serde_json::Value;

use super::{CliError, output};
use crate::config::{
    BuildFeatures, ConfigError, FEAST_VALUES_FROM, FeastConfig, FeastRepo, RegistryNeed, process_environment,
};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The Feast repository: the directory of feature_store.yaml
    #[arg(long, value_name = "DIR", default_value = ".")]
    feast_repo: PathBuf,
    /// The directory to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where to read the values of the views: online (the repository's DynamoDB or SQLite online store), batch (its
    /// batch sources), or auto (online if there is such a store, otherwise batch) [default: auto]
    #[arg(long, value_name = "WHERE", value_parser = FEAST_VALUES_FROM.map(|(word, _)| word))]
    feast_values: Option<String>,
    /// A directory of existing plugins; no stub projects are written for these
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
}

/// The directory for plugin projects, below the output directory.
const PROJECTS: &str = "plugin-projects";
const PLUGINS: &str = "plugins";

pub(super) fn run(args: &ImportArgs) -> Result<()> {
    let problems = Problems::default();
    let from = args.feast_values.as_deref().and_then(|word| FEAST_VALUES_FROM.iter().find(|(name, _)| *name == word));
    let config = FeastConfig {
        // Paths in the definitions are relative to the output directory.
        written: relative_path(&args.out, &args.feast_repo)?,
        dir: args.feast_repo.clone(),
        from: from.map(|(_, from)| *from).unwrap_or_default(),
        every: None,
        unknown_fields: UnknownFields::default(),
    };
    // The registry may be in S3. There is no configuration with `aws` settings, so the environment determines them.
    let aws = Aws::new(AwsConfig::default());
    let repo = FeastRepo::open(
        &config,
        BuildFeatures::COMPILED,
        &aws,
        None,
        RegistryNeed::There,
        &process_environment,
        &problems,
    );
    let read = repo.map(|repo| (repo.definitions(&repo.project, &problems), repo));
    // Exactly the definitions that are checked here are written below.
    let checked = read.map(|(definitions, repo)| {
        let catalog = validate(&repo.project, repo.key_version, definitions.clone(), &problems);
        (repo, definitions, catalog)
    });
    let failed = problems.has_errors();
    let problems = problems.into_sorted();
    let Some((repo, definitions, Some(catalog))) = checked.filter(|_| !failed) else {
        return Err(ConfigError::Invalid(problems).into());
    };
    problems.iter().for_each(|warning| output::note(&warning.to_string()));

    let python = repo.definitions.python(&repo.project);
    let plugins: BTreeSet<_> = catalog.derived_views().iter().map(|view| &view.plugin).collect();
    // The plugin directory is the one in the arguments, or else the one in the repository if it exists, or else one in
    // the output directory.
    let of_repo = args.plugins.clone().or_else(|| Some(args.feast_repo.join(PLUGINS)).filter(|dir| dir.is_dir()));
    let plugins_dir = of_repo.clone().unwrap_or_else(|| args.out.join(PLUGINS));
    let plugins_path = of_repo.map_or_else(|| Ok(PathBuf::from(PLUGINS)), |dir| relative_path(&args.out, &dir))?;
    let exists = |plugin: &str| PluginDir::file_in(&plugins_dir, plugin).is_file();
    let missing: Vec<_> = catalog.derived_views().iter().filter(|view| !exists(&view.plugin)).collect();

    let definitions_file = args.out.join("features").join(format!("{}.yaml", repo.project));
    let mut files = vec![
        (args.out.join("larder.yaml"), larder_yaml(&repo, &plugins_path)),
        (definitions_file, format!("{}{}", definitions_head(&args.feast_repo), to_yaml(&definitions))),
    ];
    for view in &missing {
        let dir = args.out.join(PROJECTS).join(&*view.plugin);
        files.extend(
            stub::project(view, python.get(&*view.name)).into_iter().map(|(path, text)| (dir.join(path), text)),
        );
    }
    if let Some((file, _)) = files.iter().find(|(file, _)| fs::symlink_metadata(file).is_ok()) {
        bail!(CliError::Failed(format!("{} exists already; nothing was written", file.display())));
    }
    for (file, text) in &files {
        let failed = || format!("cannot write {}", file.display());
        fs::create_dir_all(file.parent().unwrap_or(&args.out)).with_context(failed)?;
        fs::write(file, text).with_context(failed)?;
    }
    // The directory is created even if it stays empty, to show where plugins belong.
    fs::create_dir_all(&plugins_dir).with_context(|| format!("cannot create {}", plugins_dir.display()))?;

    for (file, _) in files.iter().take(2) {
        output::line(&format!("wrote {}", file.display()));
    }
    let (program, out) = (output::program(), output::shell_word(&args.out.to_string_lossy()));
    let counted = |count: usize, one, many| output::counted(count as u64, one, many);
    if !missing.is_empty() {
        output::line(&format!(
            "wrote {} in {out}/{PROJECTS} (on-demand views need {}): each has the Python function to port as a comment, \
             if the registry has its source",
            counted(missing.len(), "plugin project", "plugin projects"),
            counted(plugins.len(), "plugin", "plugins"),
        ));
        output::line("next: port the function in each project, then build the project:\n");
        for view in &missing {
            let plugin = &view.plugin;
            let file = output::shell_word(&PluginDir::file_in(&plugins_dir, plugin).to_string_lossy());
            output::line(&format!("  {program} plugin build {out}/{PROJECTS}/{plugin} --out {file}"));
        }
        output::line("");
    }
    output::line(&format!("next: {program} serve --config {out}/larder.yaml"));
    Ok(())
}

fn larder_yaml(repo: &FeastRepo, plugins: &Path) -> String {
    let key_version = match repo.key_version {
        KeyVersion::V3 => String::new(),
        KeyVersion::V2 => {
            "# As in the Feast repository, so that entity IDs are the same.\nentity_key_version: 2\n".to_owned()
        }
    };
    format!(
        "# Written by 'larder import'. Absent keys have their defaults: 'larder init' writes a file with every key.\n\
         project: {}\n{key_version}features: [{}]\nplugins: {{dir: {}}}\n",
        // The name is written as JSON, which is valid YAML. Unquoted, a project name such as `2024` would be read as a
        // number.
        Value::from(&*repo.project),
        Value::from(format!("features/{}.yaml", repo.project)),
        Value::from(plugins.to_string_lossy()),
    )
}

fn definitions_head(repo: &Path) -> String {
    let repo = repo.display().to_string();
    format!(
        "# Written by 'larder import' from a Feast repository ({}). Later changes in the repository have no effect \
         here.\n",
        repo.split_whitespace().collect::<Vec<_>>().join(" ")
    )
}

/// Returns the path of the file or directory `to`, relative to the directory `from`, or an absolute path if they have
/// only the root in common. `to` must exist; `from` need not.
pub(super) fn relative_path(from: &Path, to: &Path) -> Result<PathBuf> {
    let to = fs::canonicalize(to).with_context(|| format!("cannot read {}", to.display()))?;
    let from = canonical(from)?;
    let common = from.components().zip(to.components()).take_while(|(one, other)| one == other).count();
    if common <= 1 {
        return Ok(to);
    }
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    let path: PathBuf = up.chain(to.components().skip(common)).collect();
    Ok(if path.as_os_str().is_empty() { PathBuf::from(".") } else { path })
}

/// Resolves links in a path whose last parts may not exist yet.
fn canonical(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let existing = path.ancestors().find(|ancestor| fs::symlink_metadata(ancestor).is_ok()).unwrap_or(&path);
    let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
    Ok(fs::canonicalize(existing)?.join(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_between_directories_is_relative() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(base.join("repo/inner")).unwrap();
        let relative = |from: &str, to: &str| relative_path(&base.join(from), &base.join(to)).unwrap();
        assert_eq!(relative("configs", "repo"), Path::new("../repo"));
        assert_eq!(relative("repo/configs/new", "repo"), Path::new("../.."));
        assert_eq!(relative("repo", "repo"), Path::new("."));
        assert_eq!(relative("repo", "repo/inner"), Path::new("inner"));
        assert!(relative_path(&base, &base.join("none")).is_err());
    }
}
