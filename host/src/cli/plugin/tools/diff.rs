//! `larder plugin diff`: compares the outputs of two versions of a plugin for the same rows.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, bail};
use clap::Args;
use larder_model::model::Micros;
use larder_plugin_host::{Diff, DiffRows, DifferentRow, Inputs, NamedText, OwnInstance, RunCost, Transform};
use serde_json::{Value, json};

use super::{
    project::LoadedPlugin,
    rows::{for_each_batch, for_each_capture, named},
};
use crate::cli::{CliError, ConfigArg, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// The old version
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The new version
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// The rows: a JSON list of objects with input names as keys, or a Parquet or Arrow file with a column for each input
    #[arg(long, short, value_name = "FILE", required_unless_present = "captured")]
    input: Option<PathBuf>,
    /// Compare the versions for captured rows: a capture file, a directory of them, or the name of a plugin of the server
    #[arg(long, value_name = "PATH|NAME", conflicts_with_all = ["input", "as_of"])]
    captured: Option<PathBuf>,
    /// The configuration of both versions, as JSON [default: null, or the captured configuration]
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// The reference time of all rows, in microseconds since 1970
    #[arg(long, value_name = "MICROS", default_value_t = 0)]
    as_of: Micros,
    /// Two numbers a and b are within the tolerance T if |a - b| <= T * max(1, |a|, |b|)
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, value_parser = parse_tolerance)]
    tolerance: f64,
    /// The configuration file of the server, for the name of a plugin [default: larder.yaml]
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG")]
    server_config: Option<PathBuf>,
    /// Print the differences as JSON
    #[arg(long)]
    json: bool,
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

pub(super) fn run(args: &DiffArgs) -> Result<()> {
    let (old, new) = (LoadedPlugin::open(&args.old)?, LoadedPlugin::open(&args.new)?);
    let diff = Diff::new(old.signature(), new.signature(), args.tolerance);
    if diff.outputs.is_empty() {
        let (old, new) = (args.old.display(), args.new.display());
        bail!(CliError::Failed(format!(
            "{old} and {new} have no output in common. hint: pass two versions of a plugin"
        )));
    }
    let mut comparison = Comparison { old, new, instances: BTreeMap::new(), diff };
    match (&args.captured, &args.input) {
        (Some(captured), _) => comparison.add_captures(&args.captures(captured)?, args.config.as_deref())?,
        (None, Some(input)) => {
            comparison.add_rows(input, args.config.as_deref().unwrap_or("null"), args.as_of)?;
        }
        (None, None) => bail!(CliError::Usage("no rows. hint: pass --input FILE or --captured PATH".to_owned())),
    }
    if args.json {
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

// === impl DiffArgs ===

impl DiffArgs {
    /// Returns the path of captures. A name of a plugin with captures takes precedence over a path, because the project of a
    /// plugin is often a directory with the plugin's name.
    fn captures(&self, captured: &Path) -> Result<PathBuf> {
        if captured.components().count() > 1 || captured.extension().is_some() {
            return Ok(captured.to_owned());
        }
        let config = ConfigArg { config: self.server_config.clone(), ..ConfigArg::default() };
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
        let diff = &self.diff;
        let (old, new) = (self.old.signature(), self.new.signature());
        let rows = output::counted(diff.rows, "row", "rows");
        output::line(&format!("{} {} and {} {}: {rows} compared", old.name, old.version, new.name, new.version));
        let lines: Vec<Vec<String>> = diff
            .outputs
            .iter()
            .map(|of| {
                let counts = [of.equal, of.within_tolerance, of.different, of.null_to_value, of.value_to_null];
                let counts = counts.map(output::thousands);
                let largest = of.largest.map_or_else(|| "-".to_owned(), |largest| format!("{largest:e}"));
                [of.name.clone()].into_iter().chain(counts).chain([largest]).collect()
            })
            .collect();
        output::table(
            &["OUTPUT", "EQUAL", "WITHIN TOLERANCE", "DIFFERENT", "NULL TO VALUE", "VALUE TO NULL", "LARGEST"],
            &lines,
        );
        for (name, version) in
            diff.only_old.iter().map(|name| (name, old)).chain(diff.only_new.iter().map(|name| (name, new)))
        {
            output::line(&format!("only {} has the output '{name}'", version.version));
        }
        self.print_failures();
        for of in &diff.outputs {
            print_examples(&format!("largest differences of '{}':", of.name), &of.worst);
            print_examples(&format!("rows of '{}' that are null in one version only:", of.name), &of.nulls);
        }
        output::line("");
        let cost = |version: &str, cost: RunCost| {
            let per_row = format!("{:.3}", cost.nanos_per_row() / 1e3);
            vec![version.to_owned(), per_row, output::bytes(cost.memory)]
        };
        let lines = [cost(&old.version, self.cost(0)), cost(&new.version, self.cost(1))];
        output::table(&["VERSION", "CPU US/ROW", "PEAK MEMORY"], &lines);
    }

    fn print_failures(&self) {
        let diff = &self.diff;
        let rows = |count: u64| output::counted(count, "row", "rows");
        for (count, versions) in [
            (diff.failed_both, "in both versions".to_owned()),
            (diff.failed_old, format!("only in {}", self.old.signature().version)),
            (diff.failed_new, format!("only in {}", self.new.signature().version)),
        ] {
            if count > 0 {
                output::line(&format!("{} failed {versions}", rows(count)));
            }
        }
        let lines: Vec<_> = diff
            .failures
            .iter()
            .map(|of| {
                vec![of.row.to_string(), format!("{:?}", of.failed).to_lowercase(), of.error.clone(), text(&of.inputs)]
            })
            .collect();
        if !lines.is_empty() {
            output::line("");
            output::line("rows that failed in one version only:");
            output::table(&["ROW", "FAILED IN", "ERROR", "INPUTS"], &lines);
        }
    }
}

fn print_examples(title: &str, rows: &[DifferentRow]) {
    if rows.is_empty() {
        return;
    }
    output::line("");
    output::line(title);
    let line = |of: &DifferentRow| {
        let difference = of.difference.map_or_else(|| "-".to_owned(), |difference| format!("{difference:e}"));
        vec![of.row.to_string(), of.old.clone(), of.new.clone(), difference, text(&of.inputs)]
    };
    output::table(&["ROW", "OLD", "NEW", "DIFFERENCE", "INPUTS"], &rows.iter().map(line).collect::<Vec<_>>());
}

/// Returns the inputs of a row as one text.
fn text(inputs: &[NamedText]) -> String {
    inputs.iter().map(|input| format!("{} = {}", input.name, input.value)).collect::<Vec<_>>().join(", ")
}
