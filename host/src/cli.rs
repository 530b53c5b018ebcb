//! The command line: parses arguments, prints results, and returns exit codes.
//!
//! Results are printed to standard output, without colors or progress bars. Logs, errors and progress bars go to
//! standard error. The exit codes are: 0, success; 1, failure; 2, invalid arguments; 3, invalid configuration or
//! definitions; 4, the store is not available.

mod arguments;
mod backfill;
mod check;
mod client;
mod compile;
mod dataset;
#[cfg(feature = "tools")]
mod demo;
mod erase;
mod get;
mod import;
mod init;
mod left_out;
mod list;
#[cfg(feature = "aws")]
mod materialize;
mod offline_job;
mod output;
mod plugin;
mod selection;
mod serve;
mod sync;
mod target;
mod training_set;
mod verify;

use std::{
    ffi::OsString,
    io::ErrorKind,
    path::{self, Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use larder_plugin_host::COMPILE_COMMAND;
use larder_store::StoreError;

use self::left_out::missing_command;
use crate::{
    app::AppError,
    config::{BuildFeatures, CheckedConfig, Config, ConfigError, FEAST_VALUES_FROM, Flag, Origin, process_environment},
    hints::FrontEnd,
    offline::OfflineError,
};

/// A Feast-compatible online feature server with lookups in tens of microseconds.
#[derive(Debug, Parser)]
#[command(name = "larder", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The default configuration file.
const DEFAULT_FILE: &str = "larder.yaml";
/// The file that identifies a Feast repository.
const FEAST_FILE: &str = "feature_store.yaml";

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 usage error; 3 invalid configuration or definitions; 4 the \
                          store is in use, was written by a newer version of Larder, or cannot be opened";

/// The subcommands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Serve features over HTTP, and over gRPC if configured, until stopped
    Serve(serve::ServeArgs),
    /// Generate a churn data set, load it and serve it, to try Larder with one command
    #[cfg(feature = "tools")]
    Demo(demo::DemoArgs),
    /// Check the configuration, definitions, source columns and plugins, and report as many errors as possible
    Check(check::CheckArgs),
    /// Sync views with their sources now
    Sync(sync::SyncArgs),
    /// Write each entity's newest row from the views' Parquet files to DynamoDB, in Feast's layout
    #[cfg(feature = "aws")]
    Materialize(materialize::MaterializeArgs),
    /// Join entity rows with the feature values that were valid at their times, for training
    TrainingSet(training_set::TrainingSetArgs),
    /// Compute derived features over the history of the stored features that they read
    Backfill(backfill::BackfillArgs),
    /// Look up features and print them
    Get(get::GetArgs),
    /// Delete an entity's row from a view; a later load restores it only from a newer row
    Delete(erase::DeleteArgs),
    /// Drop all rows of a view, and load it again if it has a source
    Reset(erase::ResetArgs),
    /// List the served views and services, with row counts and freshness
    List(list::ListArgs),
    /// Look up entity rows, and fail if a value is missing, expired or invalid
    Verify(verify::VerifyArgs),
    /// Create, build, check and deploy plugins, which compute derived features
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Write the definitions of a Feast repository as YAML, and stub projects for the plugins that it needs
    Import(import::ImportArgs),
    /// Write a configuration and definitions to start from
    Init(init::InitArgs),
    /// Compile a plugin for the server that started this process
    #[command(name = COMPILE_COMMAND, hide = true)]
    CompilePlugin(compile::CompileArgs),
}

/// The arguments that select the configuration.
#[derive(Clone, Debug, Default, Args)]
struct ConfigArg {
    /// The configuration file [default: larder.yaml; with --feast-repo, the repository's larder.yaml, if there is one]
    #[arg(long, short, value_name = "FILE", env = "LARDER_CONFIG")]
    config: Option<PathBuf>,
    /// Use the definitions of this Feast repository (the directory of feature_store.yaml)
    #[arg(long, value_name = "DIR", env = "LARDER_FEAST_REPO")]
    feast_repo: Option<PathBuf>,
    /// Where to read the values of a Feast repository's views: online (its DynamoDB or SQLite online store), batch (its
    /// batch sources), or auto (online if there is such a store, otherwise batch) [default: auto] [env:
    /// LARDER_FEAST_VALUES]
    #[arg(long, value_name = "WHERE", value_parser = FEAST_VALUES_FROM.map(|(word, _)| word))]
    feast_values: Option<String>,
    /// The directory of plugins; overrides the configuration
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
}

/// Why a command failed, unless a lower layer returned the error.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The command could not do its task, or its check failed.
    #[error("{0}")]
    Failed(String),
    /// The arguments are invalid, incomplete, or contradict each other.
    #[error("{0}")]
    Usage(String),
}

// === impl ConfigArg ===

impl ConfigArg {
    /// Returns the configuration file, and the settings from the arguments. Relative paths in `--feast-repo` and
    /// `--plugins` are resolved against the current directory.
    fn origin(&self) -> anyhow::Result<Origin> {
        let from_here = |path: &Path| Ok::<_, anyhow::Error>(path::absolute(path)?.to_string_lossy().into_owned());
        let mut flags = Vec::new();
        let (file, is_optional) = match (&self.config, &self.feast_repo) {
            (Some(file), repo) => {
                let repo = repo.as_deref().map(from_here).transpose()?;
                flags.extend(repo.map(|repo| self.feast_repo_flag(repo)));
                (file.clone(), false)
            }
            (None, Some(repo)) => {
                // The repository may have a larder.yaml. Paths are then relative to the repository, so its own path is
                // `.`.
                flags.push(self.feast_repo_flag(".".to_owned()));
                (if repo == Path::new(".") { DEFAULT_FILE.into() } else { repo.join(DEFAULT_FILE) }, true)
            }
            (None, None) => {
                let is_absent = matches!(Path::new(DEFAULT_FILE).try_exists(), Ok(false));
                if is_absent && Path::new(FEAST_FILE).is_file() {
                    let message = "this directory has no larder.yaml, but it is a Feast repository. hint: use \
                                   '--feast-repo .'";
                    anyhow::bail!(CliError::Usage(message.to_owned()));
                }
                (DEFAULT_FILE.into(), false)
            }
        };
        let values = self.feast_values.clone();
        flags.extend(values.map(|value| Flag { name: "--feast-values", variable: "LARDER_FEAST_VALUES", value }));
        let plugins = self.plugins.as_deref().map(from_here).transpose()?;
        flags.extend(plugins.map(|value| Flag { name: "--plugins", variable: "LARDER_PLUGINS_DIR", value }));
        Ok(Origin { file, is_optional, flags })
    }

    /// Returns the setting of `--feast-repo`. If the value comes from the environment variable, messages name the
    /// variable.
    fn feast_repo_flag(&self, value: String) -> Flag {
        let variable = "LARDER_FEAST_REPO";
        let set = process_environment(variable).map(PathBuf::from);
        let is_from_variable = set.is_some() && self.feast_repo == set;
        Flag { name: if is_from_variable { variable } else { "--feast-repo" }, variable, value }
    }

    /// Reads the configuration. Returns it with its problems, even if it has errors.
    fn check(&self) -> anyhow::Result<CheckedConfig> {
        Ok(Config::check(&self.origin()?, &process_environment)?)
    }

    fn load(&self) -> anyhow::Result<Config> {
        Ok(Config::load_from(&self.origin()?, &process_environment)?)
    }
}

/// Runs a command line. The first argument is the program's name. Returns the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let code = run_command(args);
    output::flush();
    ExitCode::from(code)
}

fn run_command(args: impl IntoIterator<Item = OsString>) -> u8 {
    // The help of every command lists the exit codes, for authors of scripts.
    let parser = Cli::command().mut_subcommands(|command| {
        command.after_help(EXIT_CODES).mut_subcommands(|command| command.after_help(EXIT_CODES))
    });
    let args: Vec<OsString> = args.into_iter().collect();
    let parsed = parser.try_get_matches_from(&args).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let command = args.iter().skip(1).map(OsString::as_os_str);
            match missing_command(command, BuildFeatures::COMPILED) {
                Some(message) => output::error(&message),
                None => _ = error.print(),
            }
            return 2;
        }
        // clap returns the text of `--help` and `--version` as an error with exit code 0, but it is a result.
        Err(answer) => return report(&finish_output(answer.print())),
    };
    // An error in writing to standard output does not stop a server: it keeps serving even if the output has no reader
    // or the disk is full.
    let serves = match cli.command {
        Command::Serve(_) => true,
        #[cfg(feature = "tools")]
        Command::Demo(_) => true,
        _ => false,
    };
    let result = match cli.command {
        Command::Serve(args) => serve::run(&args),
        #[cfg(feature = "tools")]
        Command::Demo(args) => demo::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Sync(args) => sync::run(&args),
        #[cfg(feature = "aws")]
        Command::Materialize(args) => materialize::run(&args),
        Command::TrainingSet(args) => training_set::run(&args),
        Command::Backfill(args) => backfill::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Delete(args) => erase::delete(&args),
        Command::Reset(args) => erase::reset(&args),
        Command::List(args) => list::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Plugin(command) => plugin::run(&command),
        Command::Import(args) => import::run(&args),
        Command::Init(args) => init::run(&args),
        Command::CompilePlugin(args) => return compile::run(&args),
    };
    report(&if serves { result } else { result.and_then(|()| finish_output(Ok(()))) })
}

/// Flushes standard output. Returns an error if a part of the result was not written, unless its reader stopped early.
fn finish_output(printed: std::io::Result<()>) -> anyhow::Result<()> {
    let printed = printed.or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) });
    printed.and(output::finish()).context("cannot write to standard output")
}

/// Prints the error of a command, if there is one, and returns the exit code.
fn report(result: &anyhow::Result<()>) -> u8 {
    let Err(error) = result else { return 0 };
    if is_list_of_errors(error) {
        // The message has one line per error. Each line begins with a file and a position, in the format that editors
        // parse.
        output::note(&output::describe(error));
    } else {
        output::error(&(output::describe(error) + store_hint(error) + &hint(error)));
    }
    code_of(error)
}

/// Returns the hint for an I/O error of the store, or an empty string for other errors. By default, the store's
/// directory is next to the configuration, which may be mounted read-only.
fn store_hint(error: &anyhow::Error) -> &'static str {
    match error.downcast_ref::<AppError>() {
        Some(AppError::Store(StoreError::Io { .. })) => {
            ". hint: set 'store: data_dir' or LARDER_STORE_DATA_DIR to another directory"
        }
        _ => "",
    }
}

/// Returns the hint for an error of the configuration or of a training set, or an empty string for other errors.
fn hint(error: &anyhow::Error) -> String {
    let offline = error.chain().find_map(|cause| cause.downcast_ref::<OfflineError>());
    offline.map(|error| FrontEnd::CommandLine.offline_hint(error)).unwrap_or_else(|| {
        config_error(error).map(|error| FrontEnd::CommandLine.config_hint(error)).unwrap_or_default()
    })
}

fn config_error(error: &anyhow::Error) -> Option<&ConfigError> {
    let inner = error.downcast_ref::<AppError>().and_then(|error| match error {
        AppError::Config(error) => Some(error),
        _ => None,
    });
    error.downcast_ref::<ConfigError>().or(inner)
}

fn is_list_of_errors(error: &anyhow::Error) -> bool {
    config_error(error).is_some_and(|error| matches!(error, ConfigError::Invalid(_)))
}

/// Returns the exit code for an error.
fn code_of(error: &anyhow::Error) -> u8 {
    let config = error.downcast_ref::<ConfigError>().is_some();
    let store = error.downcast_ref::<StoreError>().is_some();
    match (error.downcast_ref::<AppError>(), error.downcast_ref::<CliError>()) {
        (Some(AppError::Config(_)), _) => 3,
        (Some(AppError::Store(_)), _) => 4,
        (_, Some(CliError::Usage(_))) => 2,
        _ if config => 3,
        _ if store => 4,
        _ => 1,
    }
}
