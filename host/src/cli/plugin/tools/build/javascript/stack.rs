//! Extracts a plugin's own error from the output of a failed build.
//!
//! componentize-qjs prints the reasons for the failure from the outermost one to the error of the plugin, and then the
//! stack, whose paths are relative to the project.

use std::path::Path;

use super::{GLUE_MODULE, SDK_DIR};

/// The beginnings of reasons that do not help an author.
const OUTER: [&str; 2] = ["Error: ", "Failed to "];

/// Returns the error and the frames that belong to the plugin, in the project at `app`. Returns other output unchanged.
pub(super) fn plugin_error(printed: &str, app: &Path) -> String {
    let text = printed.replace(&format!("{}/", app.display()), "");
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        match line.trim_start().strip_prefix("at ") {
            Some(frame) => lines.extend(own_frame(frame).map(|frame| format!("    at {frame}"))),
            None if index == 0 => lines.push(missing_module(line).unwrap_or_else(|| message(line).to_owned())),
            None => lines.push(line.to_owned()),
        }
    }
    lines.join("\n").trim_end().to_owned()
}

/// Returns the first line of the error without the outer reasons.
fn message(line: &str) -> &str {
    let mut rest = line;
    while OUTER.iter().any(|prefix| rest.starts_with(prefix)) {
        let Some((_, inner)) = rest.split_once(": ") else { break };
        rest = inner.trim_start_matches(": ");
    }
    rest
}

/// Returns the message about a module that is not in the project, or `None` if the line has another error.
fn missing_module(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("Error resolving module '")?;
    let (module, rest) = rest.split_once("' from '/")?;
    let (file, _) = rest.split_once('\'')?;
    let hint = if module.starts_with("node:") {
        "a plugin has no modules of Node.js; pass the data as inputs".to_owned()
    } else if module.starts_with('.') || module.starts_with('/') {
        "correct the path, which is relative to the file and has an extension".to_owned()
    } else {
        format!("run npm install {module} in the project")
    };
    Some(format!("{file} imports '{module}', which is not in the project. hint: {hint}"))
}

/// Returns a frame with its path relative to the project, or `None` if it is not in the plugin.
fn own_frame(frame: &str) -> Option<String> {
    let (function, path) = match frame.rsplit_once(" (") {
        Some((function, path)) => (Some(function), path.trim_end_matches(')')),
        None => (None, frame),
    };
    let path = path.strip_prefix('/')?;
    if path.starts_with(SDK_DIR) || path.starts_with(GLUE_MODULE) {
        return None;
    }
    Some(match function {
        Some(function) if function != "<anonymous>" => format!("{function} ({path})"),
        _ => path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the result for output of componentize-qjs 0.4.5.
    fn check(printed: &str, expected: &str) {
        assert_eq!(plugin_error(printed, Path::new("/cache/build/app")), expected);
    }

    #[test]
    fn syntax_error_shows_plugin_line() {
        check(
            "Error: : Failed to evaluate user JavaScript module: Failed to declare JavaScript module: Error: unexpected \
             token in expression: ';'\n    at /plugin.js:4:10\n\n",
            "unexpected token in expression: ';'\n    at plugin.js:4:10",
        );
    }

    #[test]
    fn declaration_error_shows_plugin_frame() {
        check(
            "Error: : Failed to evaluate user JavaScript module: Failed to finish JavaScript module evaluation: Error: \
             plugin \"p\" is declared incorrectly:\n  there are no outputs\n    at plugin \
             (/larder_plugin/declare.js:52:11)\n    at sum (/sub/a.js:2:13)\n    at <anonymous> (/plugin.js:3:1)\n    at \
             map (native)\n",
            "plugin \"p\" is declared incorrectly:\n  there are no outputs\n    at sum (sub/a.js:2:13)\n    at \
             plugin.js:3:1",
        );
    }

    #[test]
    fn missing_module_names_way_out() {
        for (module, hint) in [
            ("lodash", "run npm install lodash in the project"),
            ("node:fs", "a plugin has no modules of Node.js; pass the data as inputs"),
            ("./rates", "correct the path, which is relative to the file and has an extension"),
        ] {
            check(
                &format!(
                    "Error: : Failed to evaluate user JavaScript module: Failed to declare JavaScript module: Error: Error \
                     resolving module '{module}' from '/lib/a.js': filesystem module not found: failed to resolve \
                     JavaScript import \"{module}\" from /cache/build/app/lib/a.js\n"
                ),
                &format!("lib/a.js imports '{module}', which is not in the project. hint: {hint}"),
            );
        }
    }

    #[test]
    fn other_output_is_printed_unchanged() {
        check("thread panicked at x: y\n", "thread panicked at x: y");
    }
}
