//! `larder init`: writes a configuration to start from, with an example or with definitions inferred from the user's
//! files.

mod infer;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use larder_common::clock::{Clock, SystemClock};

use super::{
    CliError,
    dataset::{DatasetSpec, generate},
    output,
};
use crate::config::matching_files;

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The directory to write to; created if it does not exist. Required without --from [default with --from: .]
    #[arg(value_name = "DIR", required_unless_present = "from")]
    dir: Option<PathBuf>,
    /// Infer definitions from the columns of Parquet files instead of writing an example; each PATH is a file, a
    /// directory or a glob pattern
    #[arg(long, value_name = "PATH", num_args = 1..)]
    from: Vec<String>,
}

/// The shipped configuration, `configs/larder.yaml`.
pub(super) const LARDER_YAML: &str = include_str!("../../../configs/larder.yaml");
/// The definitions of the example, `configs/features/churn.yaml`.
pub(super) const CHURN_YAML: &str = include_str!("../../../configs/features/churn.yaml");

/// The directory of the example's data.
const DATA: &str = "data";
const CUSTOMERS: u64 = 1_000;
const SEED: u64 = 20_260_101;
/// The path of the file with inferred definitions.
const INFERRED: &str = "features/inferred.yaml";

pub(super) fn run(args: &InitArgs) -> Result<()> {
    // Without `--from`, the directory is required. With `--from`, the default is the current directory.
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let config = dir.join("larder.yaml");
    if args.from.is_empty() {
        let data = dir.join(DATA);
        refuse_existing(&[&config, &dir.join("features/churn.yaml"), &data])?;
        write(&config, LARDER_YAML)?;
        write(&dir.join("features/churn.yaml"), CHURN_YAML)?;
        let spec = DatasetSpec { customers: CUSTOMERS, seed: SEED, now: SystemClock.now() };
        generate(&data, &spec, &mut |_, _| {})?;
        output::line(&format!("wrote {}: {} generated customers", data.display(), output::thousands(CUSTOMERS)));
    } else {
        let definitions = dir.join(INFERRED);
        refuse_existing(&[&config, &definitions])?;
        let inferred = infer::infer(&files(&args.from)?, &dir)?;
        inferred.left_out.iter().for_each(|why| output::note(&format!("skipped: {why}")));
        write(&config, LARDER_YAML)?;
        write(&definitions, &inferred.to_yaml())?;
        inferred.summary().for_each(|line| output::line(&line));
        output::line(&format!("check the lines marked 'confirm' in {}", definitions.display()));
    }
    let (program, config) = (output::program(), output::shell_word(&config.to_string_lossy()));
    output::line(&format!("next: {program} check --config {config}"));
    output::line(&format!("then: {program} serve --config {config}"));
    Ok(())
}

/// Returns the files that match the paths and patterns.
fn files(from: &[String]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for written in from {
        if written.starts_with("s3://") {
            bail!(CliError::Usage(format!("{written}: definitions are inferred from local files only")));
        }
        let found = if matches!(Path::new(written).try_exists(), Ok(true)) {
            vec![PathBuf::from(written)]
        } else {
            matching_files(written).map_err(|why| CliError::Failed(format!("{written}: {why}")))?
        };
        if found.is_empty() {
            bail!(CliError::Failed(format!("{written} matches no file")));
        }
        files.extend(found);
    }
    Ok(files)
}

/// Fails if one of the paths exists.
fn refuse_existing(paths: &[&Path]) -> Result<()> {
    for path in paths {
        if path.try_exists().with_context(|| format!("cannot access {}", path.display()))? {
            bail!(CliError::Failed(format!("{} exists already; nothing was written", path.display())));
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    output::line(&format!("wrote {}", path.display()));
    Ok(())
}
