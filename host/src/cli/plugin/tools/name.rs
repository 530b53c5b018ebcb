//! Validates the names of plugins for `larder plugin new`.

/// The maximum length of a name in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Names that a plugin's Rust package cannot have: keywords, `test`, standard crates, and the development kit.
const RESERVED: [&str; 57] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "larder_plugin",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Returns the reason why a name is invalid, or `None` if it is valid.
pub(super) fn name_error(name: &str) -> Option<String> {
    let snake = !name.is_empty()
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !snake {
        let meant = to_snake(name);
        let hint = if meant.is_empty() { String::new() } else { format!(". hint: use {meant}") };
        return Some(format!(
            "'{name}' is not a valid name: use a lower-case letter, then lower-case letters, digits and _{hint}"
        ));
    }
    if name.len() > NAME_BYTES_MAX {
        return Some(format!(
            "'{name}' has {} characters, but a name has at most {NAME_BYTES_MAX}. hint: use a shorter name",
            name.len()
        ));
    }
    RESERVED.contains(&name).then(|| format!("'{name}' is a reserved word. hint: use {name}_feature"))
}

/// Converts a name to snake case, for a hint. Returns an empty string if no valid characters remain.
fn to_snake(name: &str) -> String {
    let mut snake = String::new();
    let mut after_small = false;
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            if c.is_ascii_uppercase() && after_small {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
        } else if !snake.is_empty() && !snake.ends_with('_') {
            snake.push('_');
        }
        after_small = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    snake.trim_end_matches('_').trim_start_matches(|c: char| c.is_ascii_digit() || c == '_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_snake_case_names_are_valid() {
        for good in ["ratio", "r", "customer_derived_features", "v2_ratio"] {
            assert_eq!(name_error(good), None);
        }
        for (bad, words) in [
            ("", "'' is not a valid name"),
            ("Ratio", "hint: use ratio"),
            ("myRatio", "hint: use my_ratio"),
            ("my-ratio", "hint: use my_ratio"),
            ("2ratio", "hint: use ratio"),
            ("../ratio", "hint: use ratio"),
            ("größe", "hint: use gr_e"),
            ("fn", "hint: use fn_feature"),
            ("yield", "hint: use yield_feature"),
        ] {
            let error = name_error(bad).unwrap();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(name_error(&"a".repeat(64)), None);
        assert!(name_error(&"a".repeat(65)).unwrap().contains("65 characters"));
    }
}
