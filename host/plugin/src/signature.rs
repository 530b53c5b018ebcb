//! The validated signature of a plugin.

use std::collections::BTreeSet;

use super::ColumnType;

/// A plugin's name, its inputs and its outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The name by which derived views refer to the plugin.
    pub name: String,
    /// The semantic version of the plugin.
    pub version: String,
    /// A description for users.
    pub doc: String,
    /// Whether its outputs may depend on the reference time of a row.
    pub reads_time: bool,
    /// Its inputs, in the order of the columns that it receives.
    pub inputs: Vec<Field>,
    /// Its outputs, in the order of the columns that it returns.
    pub outputs: Vec<Field>,
}

/// An input or an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The type of its column.
    pub column_type: ColumnType,
    /// For an input: whether the plugin computes outputs for a row in which this input is null. For an output: whether
    /// the output can be null.
    pub nullable: bool,
    /// A description for users.
    pub doc: String,
}

/// The maximum number of inputs, and of outputs.
pub const COLUMNS_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 64;
const VERSION_BYTES_MAX: usize = 64;
const DOC_BYTES_MAX: usize = 4_096;

// === impl Signature ===

impl Signature {
    /// Validates a signature. The error is a message that describes the first fault.
    pub(super) fn check(self) -> Result<Self, String> {
        check_name("plugin", &self.name)?;
        check_version(&self.version)?;
        check_doc(&self.name, &self.doc)?;
        if self.outputs.is_empty() {
            return Err("there is no output".to_owned());
        }
        check_fields("input", &self.inputs)?;
        check_fields("output", &self.outputs)?;
        Ok(self)
    }
}

/// Returns whether a semantic version is lower than another, by its major, minor and patch numbers. A pre-release is lower
/// than its release; the order of pre-releases is not compared.
#[must_use]
pub fn is_lower_version(version: &str, other: &str) -> bool {
    let parts = |version: &str| {
        let version = version.split('+').next().unwrap_or_default();
        let (core, is_release) = match version.split_once('-') {
            Some((core, _)) => (core, false),
            None => (version, true),
        };
        let numbers: Vec<u64> = core.split('.').map(|part| part.parse().unwrap_or(u64::MAX)).collect();
        (numbers, is_release)
    };
    parts(version) < parts(other)
}

fn check_fields(what: &str, fields: &[Field]) -> Result<(), String> {
    if fields.len() > COLUMNS_MAX {
        return Err(format!("{} {what}s, but at most {COLUMNS_MAX} are allowed", fields.len()));
    }
    let mut names = BTreeSet::new();
    for Field { name, column_type, doc, .. } in fields {
        check_name(what, name)?;
        check_doc(name, doc)?;
        if !names.insert(name) {
            return Err(format!("{what} '{name}' is defined twice"));
        }
        if column_type.nullable_items && !column_type.is_list {
            return Err(format!("{what} '{name}' has nullable items, but it is not a list"));
        }
    }
    Ok(())
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if starts && letters && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_BYTES_MAX).flat_map(char::escape_default).collect();
    Err(format!(
        "'{shown}' is not a valid {what} name: a letter or '_', then letters, digits and '_', at most {NAME_BYTES_MAX}"
    ))
}

fn check_version(version: &str) -> Result<(), String> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = core.split('.').collect();
    let letters = version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(&byte));
    if parts.len() == 3 && parts.iter().all(|part| is_number(part)) && letters && version.len() <= VERSION_BYTES_MAX {
        return Ok(());
    }
    let shown: String = version.chars().take(VERSION_BYTES_MAX).flat_map(char::escape_default).collect();
    Err(format!("version '{shown}' is not MAJOR.MINOR.PATCH"))
}

fn check_doc(of: &str, doc: &str) -> Result<(), String> {
    if doc.len() <= DOC_BYTES_MAX {
        return Ok(());
    }
    Err(format!("the doc of '{of}' has {} bytes, but at most {DOC_BYTES_MAX} are allowed", doc.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ColumnScalar;

    fn field(name: &str) -> Field {
        let column_type = ColumnType::single(ColumnScalar::Float64);
        Field { name: name.to_owned(), column_type, nullable: true, doc: String::new() }
    }

    fn good() -> Signature {
        Signature {
            name: "ratio".to_owned(),
            version: "1.0.0-rc.1".to_owned(),
            doc: "d".repeat(DOC_BYTES_MAX),
            reads_time: false,
            inputs: (0..COLUMNS_MAX).map(|i| field(&format!("in_{i}"))).collect(),
            outputs: vec![field(&"o".repeat(NAME_BYTES_MAX))],
        }
    }

    fn rejected(change: impl FnOnce(&mut Signature)) -> String {
        let mut signature = good();
        change(&mut signature);
        signature.check().unwrap_err()
    }

    #[test]
    fn versions_are_compared_by_number() {
        for (lower, higher) in
            [("1.9.0", "1.10.0"), ("0.9.9", "1.0.0"), ("1.0.0-rc.1", "1.0.0"), ("1.0.0", "1.0.1-rc.1+b")]
        {
            assert!(is_lower_version(lower, higher) && !is_lower_version(higher, lower), "{lower} {higher}");
        }
        assert!(!is_lower_version("1.0.0", "1.0.0") && !is_lower_version("1.0.0+a", "1.0.0+b"));
    }

    #[test]
    fn signature_within_limits_is_accepted() {
        let signature = good().check().unwrap();
        assert_eq!(signature.inputs.len(), COLUMNS_MAX);
        assert_eq!(signature.outputs[0].column_type.to_string(), "Float64");
    }

    #[test]
    fn exceeded_limits_are_reported() {
        assert_eq!(rejected(|it| it.outputs.clear()), "there is no output");
        assert_eq!(rejected(|it| it.inputs.push(field("more"))), "257 inputs, but at most 256 are allowed");
        assert_eq!(rejected(|it| it.outputs.push(it.outputs[0].clone())).split("' ").last(), Some("is defined twice"));
        assert!(rejected(|it| it.outputs[0].name.push('o')).contains("is not a valid output name"));
        assert!(rejected(|it| it.name = "../../etc".to_owned()).contains("'../../etc' is not a valid plugin name"));
        assert!(rejected(|it| it.name = String::new()).contains("'' is not a valid plugin name"));
        assert!(rejected(|it| it.inputs[0].name = "a\nb".to_owned()).contains("'a\\nb' is not"));
        assert_eq!(rejected(|it| it.version = "1.0".to_owned()), "version '1.0' is not MAJOR.MINOR.PATCH");
        assert!(rejected(|it| it.doc.push('d')).contains("has 4097 bytes"));
        assert_eq!(
            rejected(|it| it.outputs[0].column_type.nullable_items = true).split("' ").last(),
            Some("has nullable items, but it is not a list")
        );
        assert!(rejected(|it| it.inputs[3].doc = "d".repeat(9_999)).contains("the doc of 'in_3'"));
    }
}
