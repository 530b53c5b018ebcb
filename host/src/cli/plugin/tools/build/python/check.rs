//! Imports a plugin with the machine's Python, to report mistakes within a second instead of after the slow build.
//!
//! `_check.py` of the development kit does the import and prints the mistakes. Its exit statuses are defined there.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Result, bail};

use crate::cli::{
    CliError, output,
    plugin::tools::build::toolchain::{Ended, run_within},
};

/// The program, relative to the project.
const PROGRAM: &str = "larder_plugin/_check.py";
/// The exit status if the build cannot succeed.
const MISTAKE: i32 = 3;
/// The exit status if only the build can tell whether the error occurs in the component, too.
const DOUBTFUL: i32 = 4;
/// The time limit. In the component's interpreter, an import takes several times as long.
const TIME_MAX: Duration = Duration::from_secs(30);

/// The result of the check. Mistakes are printed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// The plugin can be imported, or the check could not run.
    Passed,
    /// The build cannot succeed.
    Mistake,
    /// The import failed with this message, but the build decides.
    Doubtful(String),
}

/// Imports the plugin in `app`, which is a copy of the project with the development kit. If Python cannot be run,
/// the check is skipped, because the build reports the same mistakes.
pub(super) fn check(python: &Path, app: &Path) -> Result<Checked> {
    check_within(python, app, TIME_MAX)
}

fn check_within(python: &Path, app: &Path, time_max: Duration) -> Result<Checked> {
    let mut command = Command::new(python);
    // `-I` and `-S` leave out the packages of the user's environment, and `-B` writes no byte code.
    command.args(["-I", "-S", "-B", PROGRAM]).current_dir(app);
    let Ok(ended) = run_within(&mut command, time_max) else {
        return Ok(Checked::Passed);
    };
    let Some(Ended { status, printed }) = ended else {
        bail!(CliError::Failed(format!(
            "importing plugin.py takes longer than {} s. hint: a plugin is imported while it is built; look for an endless \
             loop, or compute less at the top of its modules",
            time_max.as_secs_f64()
        )));
    };
    // A program that a signal ended has no exit status.
    match status.code() {
        Some(MISTAKE) => {
            output::note(&printed);
            Ok(Checked::Mistake)
        }
        Some(DOUBTFUL) => {
            output::note(&printed);
            output::note("this may be specific to this machine's Python; continuing the build");
            Ok(Checked::Doubtful(printed))
        }
        _ => Ok(Checked::Passed),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Runs the check with a shell script in place of Python.
    fn run(name: &str, script: &str, time_max: Duration) -> Result<Checked> {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = std::env::temp_dir().join(format!("larder-check-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let python = dir.join("python");
        fs::write(&python, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        let checked = check_within(&python, &dir, time_max);
        fs::remove_dir_all(&dir).unwrap();
        checked
    }

    #[test]
    fn only_certain_mistakes_fail_the_build() {
        let doubtful = || Checked::Doubtful("why".to_owned());
        for (status, expected) in [
            (0, Checked::Passed),
            (1, Checked::Passed),
            (2, Checked::Passed),
            (MISTAKE, Checked::Mistake),
            (DOUBTFUL, doubtful()),
        ] {
            let checked = run(&format!("status-{status}"), &format!("echo why >&2; exit {status}"), TIME_MAX);
            assert_eq!(checked.unwrap(), expected, "status {status}");
        }
        assert_eq!(run("killed", "kill -9 $$", TIME_MAX).unwrap(), Checked::Passed);
    }

    #[test]
    fn endless_import_is_stopped() {
        let error = run("endless", "exec sleep 60", Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.contains("longer than 0.05 s. hint: "), "{error}");
        run("short", "exec sleep 0.05", TIME_MAX).unwrap();
    }

    #[test]
    fn missing_python_skips_the_check() {
        check(Path::new("/nonexistent/python"), Path::new("/")).unwrap();
    }
}
