//! Validates the names of plugins for `larder plugin new`.

/// The maximum length of a name in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Names that a Rust package cannot have: keywords, and standard crates.
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

/// Returns why a name is invalid, if it is.
pub(super) fn name_error(name: &str) -> Option<String> {
    let snake = !name.is_empty()
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !snake {
        let meant = to_snake(name);
        let hint = if meant.is_empty() { String::new() } else { format!("; perhaps {meant}") };
        return Some(format!(
            "'{name}' is not a valid name: use a lower-case letter, then lower-case letters, digits and _{hint}"
        ));
    }
    if name.len() > NAME_BYTES_MAX {
        return Some(format!("the name has {} letters, but at most {NAME_BYTES_MAX} are allowed", name.len()));
    }
    RESERVED.contains(&name).then(|| format!("'{name}' is a reserved word; perhaps {name}_feature"))
}

/// Suggests a valid name; empty if there is none.
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
    fn names_are_snake_case() {
        for good in ["ratio", "r", "customer_derived_features", "v2_ratio"] {
            assert_eq!(name_error(good), None);
        }
        for (bad, words) in [
            ("", "'' is not a valid name"),
            ("Ratio", "perhaps ratio"),
            ("myRatio", "perhaps my_ratio"),
            ("my-ratio", "perhaps my_ratio"),
            ("2ratio", "perhaps ratio"),
            ("../ratio", "perhaps ratio"),
            ("größe", "perhaps gr_e"),
            ("fn", "perhaps fn_feature"),
            ("yield", "perhaps yield_feature"),
        ] {
            let told = name_error(bad).unwrap();
            assert!(told.contains(words), "{told}");
        }
        assert_eq!(name_error(&"a".repeat(64)), None);
        assert!(name_error(&"a".repeat(65)).unwrap().contains("65 letters"));
    }
}
