//! Reports commands that this build lacks. The error names the Cargo feature that enables the command.

use std::ffi::OsStr;

use crate::config::BuildFeatures;

/// A command that some builds lack.
struct OptionalCommand {
    /// The names of its parent commands, then its own name.
    path: &'static [&'static str],
    /// The Cargo feature that enables it.
    feature: &'static str,
    is_enabled: fn(BuildFeatures) -> bool,
}

const OPTIONAL: [OptionalCommand; 8] = [
    OptionalCommand { path: &["materialize"], feature: "aws", is_enabled: |build| build.aws },
    tool(&["demo"]),
    tool(&["plugin", "new"]),
    tool(&["plugin", "build"]),
    tool(&["plugin", "check"]),
    tool(&["plugin", "run"]),
    tool(&["plugin", "bench"]),
    tool(&["plugin", "inspect"]),
];

const fn tool(path: &'static [&'static str]) -> OptionalCommand {
    OptionalCommand { path, feature: "tools", is_enabled: |build| build.tools }
}

/// Returns an error message if the arguments call a command that a build with these features lacks. The arguments do
/// not include the program's name.
pub(super) fn missing_command<'a>(
    args: impl IntoIterator<Item = &'a OsStr> + Clone,
    build: BuildFeatures,
) -> Option<String> {
    let is_called = |command: &&OptionalCommand| {
        let mut args = args.clone().into_iter();
        command.path.iter().all(|name| args.next().is_some_and(|arg| arg == *name))
    };
    let missing = OPTIONAL.iter().filter(|command| !(command.is_enabled)(build)).find(is_called)?;
    let (command, feature) = (missing.path.join(" "), missing.feature);
    Some(format!("this build of larder has no command '{command}'. hint: build with the Cargo feature '{feature}'"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    const NONE: BuildFeatures = BuildFeatures { aws: false, sqlite: false, grpc: false, tools: false };

    fn missing(line: &str, build: BuildFeatures) -> Option<String> {
        missing_command(line.split(' ').map(OsStr::new), build)
    }

    #[test]
    fn missing_command_names_its_feature() {
        let text = missing("plugin build my-plugin", NONE).unwrap();
        assert_eq!(
            text,
            "this build of larder has no command 'plugin build'. hint: build with the Cargo feature 'tools'"
        );
        let text = missing("materialize --help", BuildFeatures { tools: true, ..NONE }).unwrap();
        assert_eq!(text, "this build of larder has no command 'materialize'. hint: build with the Cargo feature 'aws'");
        assert_eq!(missing("plugin build my-plugin", BuildFeatures { tools: true, ..NONE }), None);
        for other in ["build", "plugin", "plugin deploy build", "plugin builds", "get demo"] {
            assert_eq!(missing(other, NONE), None, "{other}");
        }
    }

    #[test]
    fn optional_commands_exist_in_full_builds() {
        for OptionalCommand { path, .. } in OPTIONAL {
            let found = path.iter().try_fold(Cli::command(), |command, name| command.find_subcommand(name).cloned());
            assert!(found.is_some(), "{path:?}");
        }
    }
}
