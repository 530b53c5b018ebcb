//! `larder init`: a configuration to start from.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{CliError, output};

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The directory to write into; made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// The files, as they stand under `configs/` in the source tree.
pub(super) const LARDER_YAML: &str = include_str!("../../../configs/larder.yaml");
pub(super) const CHURN_YAML: &str = include_str!("../../../configs/features/churn.yaml");
pub(super) const CHURN_DERIVED_YAML: &str = include_str!("../../../configs/features/churn_derived.yaml");

pub(super) fn run(args: &InitArgs) -> Result<()> {
    let files = [(args.dir.join("larder.yaml"), LARDER_YAML), (args.dir.join("features/churn.yaml"), CHURN_YAML)];
    for (path, _) in &files {
        if path.try_exists().with_context(|| format!("cannot look at {}", path.display()))? {
            bail!(CliError::Failed(format!("{} is there already; nothing was written", path.display())));
        }
    }
    for (path, text) in &files {
        let dir = path.parent().unwrap_or(&args.dir);
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        output::say(&format!("wrote {}", path.display()));
    }
    let (program, config) = (output::program(), output::shell_word(&files[0].0.to_string_lossy()));
    output::say(&format!(
        "edit them, put Parquet files where the sources say, and run: {program} serve --config {config}"
    ));
    Ok(())
}
