//! The origin of a component: a custom section that `larder plugin build` writes.
//!
//! The section is named `larder:build` and contains JSON. It is not authenticated, but a false claim does no harm: a
//! component that claims to contain an interpreter gets the limits of such plugins, which the operator chose.

use serde::{Deserialize, Serialize};

use super::PluginClass;

/// The contents of the section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct BuildInfo {
    /// The version of the section's format, which is 1.
    pub format: u32,
    /// The language of the plugin, such as `rust` or `python`.
    pub language: String,
    /// The class of the plugin, which determines its limits.
    pub class: PluginClass,
    /// The digest of the plugin's source files: `sha256:` and hexadecimal digits.
    pub sources: String,
    /// The version of the development kit.
    pub sdk: String,
    /// The name and version of the tool that built the component.
    pub tool: String,
}

/// The contents of the section in a file. Older kits did not write the class.
#[derive(Deserialize)]
struct Stored {
    format: u32,
    language: String,
    class: Option<PluginClass>,
    sources: String,
    sdk: String,
    tool: String,
}

/// The section's name.
const SECTION: &str = "larder:build";
/// The id of custom sections, in modules and components alike.
const CUSTOM: u8 = 0;
/// The size in bytes of the magic number and version before the first section.
const PREAMBLE: usize = 8;
/// The maximum size of the section's data in bytes. A larger section is ignored.
const BYTES_MAX: usize = 16 << 10;

// === impl BuildInfo ===

impl BuildInfo {
    /// Finds and parses the section in a component; returns `None` if there is no valid one. Accepts any bytes.
    #[must_use]
    pub fn read(component: &[u8]) -> Option<Self> {
        let mut rest = component.get(PREAMBLE..)?;
        let mut found = None;
        while let Some((&id, after)) = rest.split_first() {
            let (len, after) = leb128(after)?;
            let (body, after) = after.split_at_checked(len)?;
            if id == CUSTOM
                && let Some((name_len, body)) = leb128(body)
                && let Some((name, data)) = body.split_at_checked(name_len)
                && name == SECTION.as_bytes()
                && data.len() <= BYTES_MAX
            {
                // If there are several sections, the last one wins, because it was appended by the latest build.
                found = serde_json::from_slice(data).ok();
            }
            rest = after;
        }
        found
    }

    /// Appends the section to a component.
    pub fn append(&self, component: &mut Vec<u8>) {
        let data = serde_json::to_vec(self).unwrap_or_default();
        let mut body = Vec::with_capacity(data.len() + SECTION.len() + 2);
        put_leb128(SECTION.len(), &mut body);
        body.extend_from_slice(SECTION.as_bytes());
        body.extend_from_slice(&data);
        component.push(CUSTOM);
        put_leb128(body.len(), component);
        component.extend_from_slice(&body);
    }
}

impl From<Stored> for BuildInfo {
    fn from(stored: Stored) -> Self {
        let Stored { format, language, class, sources, sdk, tool } = stored;
        let class = class.unwrap_or_else(|| PluginClass::of_language(&language));
        Self { format, language, class, sources, sdk, tool }
    }
}

/// Decodes an unsigned number of at most 32 bits, and returns the remaining bytes.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut number: u32 = 0;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        let shift = u32::try_from(index * 7).ok()?;
        number |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((usize::try_from(number).ok()?, &bytes[index + 1..]));
        }
    }
    None
}

fn put_leb128(mut number: usize, bytes: &mut Vec<u8>) {
    loop {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits")]
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info() -> BuildInfo {
        BuildInfo {
            format: 1,
            language: "javascript".to_owned(),
            class: PluginClass::Interpreted,
            sources: format!("sha256:{}", "ab".repeat(32)),
            sdk: "0.1.0".to_owned(),
            tool: "larder 0.1.0".to_owned(),
        }
    }

    /// Returns a component that contains only a custom section of another tool.
    fn component() -> Vec<u8> {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        bytes.extend([CUSTOM, 5, 4, b'n', b'a', b'm', b'e']);
        bytes
    }

    #[test]
    fn last_appended_section_counts() {
        let mut bytes = component();
        assert_eq!(BuildInfo::read(&bytes), None);
        info().append(&mut bytes);
        assert_eq!(BuildInfo::read(&bytes), Some(info()));
        let newer = BuildInfo { sdk: "0.2.0".to_owned(), ..info() };
        newer.append(&mut bytes);
        assert_eq!(BuildInfo::read(&bytes), Some(newer));
    }

    #[test]
    fn missing_class_follows_from_language() {
        let class_of = |language: &str| {
            let text = format!(r#"{{"format": 1, "language": "{language}", "sources": "", "sdk": "", "tool": ""}}"#);
            serde_json::from_str::<BuildInfo>(&text).unwrap().class
        };
        assert_eq!(class_of("python"), PluginClass::Interpreted);
        for language in ["rust", "c", "javascript", ""] {
            assert_eq!(class_of(language), PluginClass::Compiled, "{language}");
        }
        let text = serde_json::to_string(&info()).unwrap();
        assert!(text.contains(r#""class":"interpreted""#), "{text}");
        let other = text.replace("interpreted", "compiled").replace("javascript", "python");
        assert_eq!(
            serde_json::from_str::<BuildInfo>(&other).unwrap().class,
            PluginClass::Compiled,
            "the class decides"
        );
    }

    #[test]
    fn truncated_or_oversized_section_is_ignored() {
        let mut bytes = component();
        info().append(&mut bytes);
        bytes.pop();
        assert_eq!(BuildInfo::read(&bytes), None);
        let mut bytes = component();
        BuildInfo { tool: "x".repeat(BYTES_MAX), ..info() }.append(&mut bytes);
        assert_eq!(BuildInfo::read(&bytes), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = BuildInfo::read(&bytes);
            let _ = BuildInfo::read(&[b"\0asm\x0d\0\x01\0".to_vec(), bytes].concat());
        }
    }
}
