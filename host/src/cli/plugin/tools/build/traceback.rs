//! Extracts a plugin's own Python traceback from the output of a failed build.
//!
//! componentize-py imports the plugin from `/0/` in its own interpreter. It prints the interpreter's traceback inside
//! another traceback, and repeats the last line.

/// The mount point of componentize-py's first path, which is the project.
const PROJECT: &str = "/0/";
/// The files of the glue module and the SDK. Frames in them do not belong to the plugin.
const LARDER_FILES: [&str; 2] = ["/0/larder_component.py", "/0/larder_plugin/"];

/// Returns the frames that belong to the plugin, and the error. If no frame belongs to the plugin, returns only the
/// error. Returns other output unchanged.
pub(super) fn plugin_traceback(stderr: &str) -> String {
    let inner = stderr.split_once("AssertionError: ").map_or(stderr, |(_, inner)| inner);
    let inner = inner.split_once("\n\nCaused by:").map_or(inner, |(inner, _)| inner);
    let mut lines = Vec::new();
    let mut shown = true;
    for line in inner.trim().lines() {
        if let Some(path) = line.strip_prefix("  File \"") {
            shown = path.starts_with(PROJECT) && !LARDER_FILES.iter().any(|file| path.starts_with(file));
        } else if !line.starts_with("    ") {
            shown = true;
        }
        if shown {
            lines.push(line.replace(&format!("File \"{PROJECT}"), "File \""));
        }
    }
    let has_frames = lines.iter().any(|line| line.starts_with("  File \""));
    lines.retain(|line| has_frames || line != "Traceback (most recent call last):");
    let errors = ["larder_plugin._errors.DeclarationError: ", "larder_plugin._replacing.Unavailable: "];
    errors.iter().fold(lines.join("\n"), |text, error| {
        let (_, name) = error.rsplit_once('.').unwrap_or_default();
        text.replace(error, name)
    })
}

/// Returns whether two messages are about the same error. A later version of Python may add a suggestion.
pub(super) fn is_same_error(earlier: &str, later: &str) -> bool {
    let last = |message: &str| message.lines().next_back().unwrap_or_default().to_owned();
    let (earlier, later) = (last(earlier), last(later));
    !earlier.is_empty() && later.starts_with(&earlier)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::{is_same_error, plugin_traceback};

    /// Checks the result for output in which componentize-py 0.25.1 prints its own lines before and after `inner`.
    fn check(inner: &str, expected: Expect) {
        let stderr = format!(
            "Traceback (most recent call last):\n  File \"/home/u/.cache/bin/componentize-py\", line 8, in <module>\n    \
             sys.exit(script())\n             ^^^^^^^^\nAssertionError: Traceback (most recent call last):\n  File \
             \"/0/larder_component.py\", line 2, in <module>\n    WitWorld = world(\"plugin\")\n  File \
             \"/0/larder_plugin/_guest.py\", line 37, in world\n    module = import_module(name)\n  File \
             \"/python/importlib/__init__.py\", line 88, in import_module\n    return _bootstrap._gcd_import()\n           \
             ~~~~~~~~~~~~~~~~~~~~~~^^\n{inner}\n\n\nCaused by:\n    Error: again\n"
        );
        expected.assert_eq(&plugin_traceback(&stderr));
    }

    #[test]
    fn syntax_error_shows_plugin_line() {
        check(
            "  File \"/0/plugin.py\", line 5\n    def f(:\n          ^\nSyntaxError: invalid syntax",
            expect![[r#"
                Traceback (most recent call last):
                  File "plugin.py", line 5
                    def f(:
                          ^
                SyntaxError: invalid syntax"#]],
        );
    }

    #[test]
    fn declaration_error_shows_plugin_frame() {
        check(
            "  File \"/0/plugin.py\", line 2, in <module>\n    @plugin(name=\"eight\")\n     ~~~~~~^^^\n  File \
             \"/0/larder_plugin/_declare.py\", line 107, in declare\n    raise DeclarationError(told)\n\
             larder_plugin._errors.DeclarationError: plugin 'eight' is declared incorrectly:\n  there are no \
             outputs",
            expect![[r#"
                Traceback (most recent call last):
                  File "plugin.py", line 2, in <module>
                    @plugin(name="eight")
                     ~~~~~~^^^
                DeclarationError: plugin 'eight' is declared incorrectly:
                  there are no outputs"#]],
        );
    }

    #[test]
    fn clock_error_shows_plugin_frames() {
        check(
            "  File \"/0/plugin.py\", line 3, in <module>\n    NOW = time.time()\n          ~~~~~~~~~^^\n  File \
             \"/0/larder_plugin/_replacing.py\", line 49, in raise_unavailable\n    raise Unavailable(text)\n\
             larder_plugin._replacing.Unavailable: time.time(): a plugin has no clock",
            expect![[r#"
                Traceback (most recent call last):
                  File "plugin.py", line 3, in <module>
                    NOW = time.time()
                          ~~~~~~~~~^^
                Unavailable: time.time(): a plugin has no clock"#]],
        );
    }

    #[test]
    fn no_plugin_frame_means_no_traceback() {
        check(
            "  File \"/0/larder_plugin/_guest.py\", line 78, in _only_plugin\n    raise DeclarationError(told)\n\
             larder_plugin._errors.DeclarationError: plugin.py declares no plugin",
            expect!["DeclarationError: plugin.py declares no plugin"],
        );
    }

    #[test]
    fn other_output_is_printed_unchanged() {
        assert_eq!(plugin_traceback("error: unexpected argument '--x'\n"), "error: unexpected argument '--x'");
    }

    #[test]
    fn suggestion_does_not_change_error() {
        let earlier = "  File \"plugin.py\", line 1\nNameError: name 'x' is not defined";
        assert!(is_same_error(earlier, "Traceback:\nNameError: name 'x' is not defined. Did you mean: 'X'?"));
        assert!(!is_same_error(earlier, "NameError: name 'y' is not defined"));
        assert!(!is_same_error("", "NameError: name 'y' is not defined"));
    }
}
