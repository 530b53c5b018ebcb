//! `larder plugin diff OLD NEW`: compares the outputs of two versions of a plugin for the same rows.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, bail};
use clap::Args;
use larder_model::model::Micros;
use larder_plugin_host::{Diff, DiffRows, Inputs, OwnInstance, RunCost, Transform};
use serde_json::{Value, json};

use super::{
    project::LoadedPlugin,
    rows::{for_each_batch, for_each_capture, named},
};
use crate::cli::{CliError, ConfigArg, output, plugin::diff_text};

/// The options for a comparison of two files.
#[derive(Debug, Args)]
pub(in crate::cli) struct FileDiffArgs {
    /// For two files: the rows, a JSON list of objects with input names as keys, or a Parquet or Arrow file with a column for
    /// each input
    #[arg(long, short, value_name = "FILE", requires = "new")]
    input: Option<PathBuf>,
    /// For two files: captured rows, as a capture file, a directory of them, or the name of a plugin of the server
    #[arg(long, value_name = "PATH|NAME", conflicts_with_all = ["input", "as_of"], requires = "new")]
    captured: Option<PathBuf>,
    /// The configuration of both files, as JSON; in a server, it is the `config` of the derived view [default: null, or the
    /// captured configuration]
    #[arg(long, value_name = "JSON", requires = "new")]
    view_config: Option<String>,
    /// The reference time of all rows, in microseconds since 1970
    #[arg(long, value_name = "MICROS", default_value_t = 0, requires = "new")]
    as_of: Micros,
    /// Two numbers a and b are within the tolerance T if |a - b| <= T * max(1, |a|, |b|). For a rollout, the tolerance is
    /// `rollout: tolerance`
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, value_parser = parse_tolerance, requires = "new")]
    tolerance: f64,
}

/// The two versions and their differences so far.
struct Comparison {
    old: LoadedPlugin,
    new: LoadedPlugin,
    /// The instances of the old and the new version, by configuration.
    instances: BTreeMap<String, [Instance; 2]>,
    diff: Diff,
}

struct Instance {
    transform: Arc<Transform>,
    own: OwnInstance<Arc<Transform>>,
}

/// Compares two files. `config` names the configuration of the server whose captures are used.
///
/// # Errors
/// If the outputs differ by more than the tolerance, or a file cannot be read.
pub(in crate::cli) fn run(
    (old, new): (&Path, &Path),
    args: &FileDiffArgs,
    config: &ConfigArg,
    is_json: bool,
) -> Result<()> {
    let (old, new) = (LoadedPlugin::open(old)?, LoadedPlugin::open(new)?);
    let diff = Diff::new(old.signature(), new.signature(), args.tolerance);
    if diff.outputs.is_empty() {
        let (old, new) = (&old.signature().name, &new.signature().name);
        bail!(CliError::Failed(format!(
            "plugins '{old}' and '{new}' have no output in common. hint: pass two versions of a plugin"
        )));
    }
    let mut comparison = Comparison { old, new, instances: BTreeMap::new(), diff };
    let view_config = args.view_config.as_deref();
    match (&args.captured, &args.input) {
        (Some(captured), _) => comparison.add_captures(&path_of_captures(captured, config)?, view_config)?,
        (None, Some(input)) => comparison.add_rows(input, view_config.unwrap_or("null"), args.as_of)?,
        (None, None) => bail!(CliError::Usage(
            "two files are compared for rows. hint: pass --input FILE or --captured PATH".to_owned()
        )),
    }
    if is_json {
        output::line(&comparison.as_json().to_string());
    } else {
        comparison.print();
    }
    let diff = &comparison.diff;
    if diff.is_within_tolerance() {
        return Ok(());
    }
    let (old, new) = (comparison.old.signature(), comparison.new.signature());
    bail!(CliError::Failed(format!(
        "the outputs of '{}' {} and {} differ{}",
        new.name,
        old.version,
        new.version,
        if args.tolerance > 0.0 { " by more than the tolerance" } else { "" }
    )))
}

fn parse_tolerance(text: &str) -> Result<f64, String> {
    let tolerance: Option<f64> = text.parse().ok();
    let is_valid = |tolerance: &f64| *tolerance >= 0.0 && tolerance.is_finite();
    tolerance
        .filter(is_valid)
        .ok_or_else(|| "it is not a number of at least 0. hint: write, for example, 1e-9".to_owned())
}

/// Returns the path of captures. A name of a plugin with captures takes precedence over a path, because the project of a
/// plugin is often a directory with the plugin's name.
fn path_of_captures(captured: &Path, config: &ConfigArg) -> Result<PathBuf> {
    if captured.components().count() > 1 || captured.extension().is_some() {
        return Ok(captured.to_owned());
    }
    let dir = config.load().map(|config| config.plugins.captures_dir.join(captured));
    match dir {
        Ok(dir) if dir.is_dir() => Ok(dir),
        // An error is reported when the path is opened.
        _ if captured.try_exists().unwrap_or(true) => Ok(captured.to_owned()),
        Ok(dir) => bail!(CliError::Failed(format!(
            "'{}' is neither a path nor a plugin with captures: {} does not exist. hint: `larder plugin captures NAME` \
             lists the captures of a plugin",
            captured.display(),
            dir.display()
        ))),
        Err(error) => bail!(CliError::Failed(format!(
            "'{}' does not exist, and the configuration, which names the directory of captures, cannot be read: {}",
            captured.display(),
            output::describe(&error)
        ))),
    }
}

// === impl Comparison ===

impl Comparison {
    fn add_rows(&mut self, input: &Path, config: &str, as_of: Micros) -> Result<()> {
        self.bind(config)?;
        for_each_batch(input, |batch| {
            let inputs = |index: usize| {
                let others = [self.old.signature(), self.new.signature()];
                batch.inputs_for(&self.instances[config][index].transform, as_of, &others)
            };
            let inputs = [inputs(0)?, inputs(1)?];
            self.add(config, &inputs);
            Ok(true)
        })
        .map_err(|error| named(input, error).into())
    }

    fn add_captures(&mut self, captures: &Path, config: Option<&str>) -> Result<()> {
        for_each_capture(captures, |capture, rows| {
            let config = config.unwrap_or(&capture.header().config);
            self.bind(config)?;
            let named = |why: String| CliError::Failed(format!("{}: {why}", capture.path()));
            let inputs =
                |index: usize| rows.inputs_for(&self.instances[config][index].transform, capture).map_err(named);
            let inputs = [inputs(0)?, inputs(1)?];
            self.add(config, &inputs);
            Ok(())
        })
    }

    /// Binds both versions with a configuration.
    fn bind(&mut self, config: &str) -> Result<()> {
        if !self.instances.contains_key(config) {
            let instance = |plugin: &LoadedPlugin| {
                let transform = plugin.transform(config)?;
                anyhow::Ok(Instance { own: OwnInstance::new(Arc::clone(&transform)), transform })
            };
            let instances = [instance(&self.old)?, instance(&self.new)?];
            self.instances.insert(config.to_owned(), instances);
        }
        Ok(())
    }

    /// Compares rows. The inputs are those of the old and of the new version.
    fn add(&mut self, config: &str, [of_old, of_new]: &[Inputs; 2]) {
        let Some([old, new]) = self.instances.get(config) else { return };
        let (before, after) = (old.own.compute(of_old), new.own.compute(of_new));
        let rows = DiffRows { transform: &new.transform, inputs: of_new, old: &before, new: &after };
        self.diff.add(self.old.signature(), self.new.signature(), rows);
    }

    /// Returns the cost of all rows in the old version (0) or in the new one (1).
    fn cost(&self, index: usize) -> RunCost {
        self.instances.values().fold(RunCost::default(), |sum, instances| {
            let cost = instances[index].own.cost();
            RunCost {
                rows: sum.rows + cost.rows,
                cpu_nanos: sum.cpu_nanos + cost.cpu_nanos,
                memory: sum.memory.max(cost.memory),
            }
        })
    }

    fn as_json(&self) -> Value {
        let version = |plugin: &LoadedPlugin, index| {
            let signature = plugin.signature();
            json!({
                "plugin": signature.name, "version": signature.version, "digest": plugin.component.digest().to_string(),
                "cost": self.cost(index),
            })
        };
        json!({
            "old": version(&self.old, 0), "new": version(&self.new, 1), "equal": self.diff.is_equal(),
            "within_tolerance": self.diff.is_within_tolerance(), "diff": self.diff,
        })
    }

    fn print(&self) {
        let (old, new) = (self.old.signature(), self.new.signature());
        let rows = output::counted(self.diff.rows, "row", "rows");
        output::line(&format!("{} {} and {} {}: {rows} compared", old.name, old.version, new.name, new.version));
        diff_text::print_diff((&old.version, &new.version), &self.diff);
        output::line("");
        diff_text::print_costs((&old.version, &new.version), (self.cost(0), self.cost(1)));
    }
}
