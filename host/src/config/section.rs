//! Reads a section of the configuration file: wraps a [`Table`], and adds the checks and defaults that settings need.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use larder_model::yaml::{Located, Node, Place, Problems, Table, Tree};

use super::{BuildFeatures, BuildPart, patterns::resolve};

/// A section that is being read. Every getter adds errors to the problems. If a value has the wrong type, the getter
/// treats it as absent. If a duration or a size is outside its range, the getter returns it unchanged, which is safe
/// because a configuration with errors is never used.
pub(super) struct Section<'n> {
    /// The section's path, for messages, such as `server.limits`.
    name: &'static str,
    at: &'n Place,
    /// `None` for a section that is absent or not a mapping.
    table: Option<Table<'n>>,
    problems: &'n Problems,
}

/// The maximum length of a Unix socket's path in bytes. Linux allows 108 bytes, including a final zero byte.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Formats a duration as in a configuration: as a whole number of the largest possible unit, down to milliseconds.
struct Span(Duration);

/// Formats a size as in a configuration: as a whole number of the largest possible unit.
struct Bytes(u64);

// === impl Section ===

impl<'n> Section<'n> {
    /// Returns the top-level section, which is the whole file.
    pub(super) fn top(root: &'n Node, problems: &'n Problems) -> Self {
        let name = "configuration";
        Self { name, at: &root.at, table: Table::new(name, root, problems), problems }
    }

    /// Returns a subsection. `name` is its path, such as `server.limits`, and the last part of the path is its key.
    pub(super) fn section(&mut self, name: &'static str) -> Self {
        let key = name.rsplit_once('.').map_or(name, |(_, key)| key);
        let node = self.get(key);
        let table = node.and_then(|node| Table::new(name, node, self.problems));
        Self { name, at: node.map_or(self.at, |node| &node.at), table, problems: self.problems }
    }

    /// Returns the position of the section.
    pub(super) fn at(&self) -> &'n Place {
        self.at
    }

    /// Returns a value, unless it is absent or null.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.table.as_mut()?.get(key)
    }

    /// Returns a value, which may be null. Returns `None` if the key is absent.
    pub(super) fn get_or_null(&mut self, key: &'static str) -> Option<&'n Node> {
        self.table.as_mut()?.get_or_null(key)
    }

    /// Returns a text value.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Located<String>> {
        self.table.as_mut()?.text(key)
    }

    /// Returns a text value. Adds an error if the key is absent or the text is empty.
    pub(super) fn required_text(&mut self, key: &'static str) -> Option<Located<String>> {
        self.table.as_mut()?.required_text(key)
    }

    /// Returns whether a key exists, whatever its value.
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.get_or_null(key).is_some()
    }

    /// Returns the items of a list as sections with this name. Adds an error for each item that is not a mapping.
    pub(super) fn items(&mut self, key: &'static str, name: &'static str) -> Vec<Self> {
        let problems = self.problems;
        let items = self.table.as_mut().map(|table| table.list(key)).unwrap_or_default();
        items
            .iter()
            .map(|node| Self { name, at: &node.at, table: Table::new(name, node, problems), problems })
            .collect()
    }

    /// Returns the entries of a mapping whose keys are names, as sections with this name. Adds an error for each entry that is
    /// not a mapping.
    pub(super) fn entries(&mut self, key: &'static str, name: &'static str) -> Vec<(&'n Located<String>, Self)> {
        let problems = self.problems;
        let Some(node) = self.get(key) else { return Vec::new() };
        let Tree::Map(entries) = &node.tree else {
            self.error(&node.at, format!("'{key}' must be a mapping, got {}", node.tree.kind()), None);
            return Vec::new();
        };
        entries
            .iter()
            .map(|(entry, node)| {
                (entry, Self { name, at: &node.at, table: Table::new(name, node, problems), problems })
            })
            .collect()
    }

    /// Returns a list of strings. A single text is read as a list of one item.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<Located<String>> {
        self.table.as_mut().map(|table| table.texts(key)).unwrap_or_default()
    }

    /// Returns the value that `words` assigns to the key's text. Adds an error for any other text.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        self.table.as_mut()?.choice(key, words)
    }

    /// Returns a boolean, or the default if the key is absent or invalid.
    pub(super) fn bool(&mut self, key: &'static str, default: bool) -> bool {
        self.table.as_mut().and_then(|table| table.bool(key)).unwrap_or(default)
    }

    /// Returns whether a key has the value `off`.
    pub(super) fn is_off(&mut self, key: &'static str) -> bool {
        self.get(key).is_some_and(|node| node.tree == Tree::Text("off".to_owned()))
    }

    /// Returns an integer. Adds an error if it is outside the range.
    pub(super) fn int(&mut self, key: &'static str, within: RangeInclusive<i64>) -> Option<Located<i64>> {
        self.table.as_mut()?.int(key, *within.start(), *within.end())
    }

    /// Adds an error in this section.
    pub(super) fn error(&self, at: &Place, message: impl fmt::Display, help: impl Into<Option<String>>) {
        self.problems.error_with_help(at, format!("{}: {message}", self.name), help);
    }

    /// Returns a count, or the default if the key is absent or invalid. Adds an error if the count is outside the
    /// range.
    pub(super) fn count(&mut self, key: &'static str, within: RangeInclusive<i64>, default: usize) -> usize {
        self.int(key, within).and_then(|number| usize::try_from(number.value).ok()).unwrap_or(default)
    }

    /// Returns a number, or the default if the key is absent. Adds an error if it is not a number in the range.
    pub(super) fn number(&mut self, key: &'static str, within: RangeInclusive<f64>, default: f64) -> f64 {
        let Some(node) = self.get(key) else { return default };
        let Some(number) = number(&node.tree).filter(|number| within.contains(number)) else {
            let message = format!("'{key}' must be a number from {} to {}", within.start(), within.end());
            self.error(&node.at, message, None);
            return default;
        };
        number
    }

    /// Returns a duration, or the default if the key is absent. Adds an error if it is outside the range.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        within: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let Some(written) = self.table.as_mut().and_then(|table| table.duration(key)) else { return default };
        if !within.contains(&written.value) {
            let (value, min, max) = (Span(written.value), Span(*within.start()), Span(*within.end()));
            let message = format!("'{key}' is {value}, but must be between {min} and {max}");
            self.error(&written.at, message, None);
        }
        written.value
    }

    /// Returns a size in bytes, or the default if the key is absent. Adds an error if it is outside the range.
    pub(super) fn bytes(&mut self, key: &'static str, within: RangeInclusive<u64>, default: u64) -> u64 {
        let Some(written) = self.table.as_mut().and_then(|table| table.bytes(key)) else { return default };
        if !within.contains(&written.value) {
            let (value, min, max) = (Bytes(written.value), Bytes(*within.start()), Bytes(*within.end()));
            let message = format!("'{key}' is {value}, but must be between {min} and {max}");
            self.error(&written.at, message, None);
        }
        written.value
    }

    /// Returns a path, resolved against the base directory.
    pub(super) fn path(&mut self, key: &'static str, base_dir: &Path) -> Option<Located<PathBuf>> {
        let text = self.text(key)?;
        if text.value.trim().is_empty() {
            self.error(&text.at, format!("'{key}' is empty"), None);
            return None;
        }
        Some(Located { value: resolve(base_dir, &text.value), at: text.at })
    }

    /// Adds an error if a path is too long for a socket.
    pub(super) fn check_socket(&self, key: &str, socket: &Located<PathBuf>) {
        let length = socket.value.as_os_str().len();
        if length > SOCKET_PATH_BYTES_MAX {
            let message = format!(
                "'{key}' is a path of {length} bytes including its directory, but the path of a Unix socket can have \
                 at most {SOCKET_PATH_BYTES_MAX}"
            );
            self.error(&socket.at, message, format!("set '{key}' to a shorter path, such as /run/larder.sock"));
        }
    }

    /// Returns an IP address and a port, or the default if the key is absent or invalid.
    pub(super) fn address(&mut self, key: &'static str, default: SocketAddr) -> Located<SocketAddr> {
        let default = Located { value: default, at: self.at.clone() };
        let Some(node) = self.get(key) else { return default };
        match parse_address(&node.tree) {
            Ok(value) => Located { value, at: node.at.clone() },
            Err((what, help)) => {
                self.error(&node.at, format!("'{key}' {what}"), help);
                default
            }
        }
    }

    /// Adds an error if other machines can reach an address without encryption, unless `insecure` allows that. `remedy`
    /// is an additional solution for the hint.
    pub(super) fn check_reach(&self, key: &str, address: &Located<SocketAddr>, insecure: bool, remedy: Option<&str>) {
        // An IPv4-mapped IPv6 address is treated as the IPv4 address.
        if insecure || address.value.ip().to_canonical().is_loopback() {
            return;
        }
        let message = format!("'{key}' is {}, which other machines can reach without encryption", address.value);
        let remedy = remedy.map(|remedy| format!(", {remedy}")).unwrap_or_default();
        let help = format!(
            "listen on 127.0.0.1:{}{remedy}, or add 'insecure: true' next to '{key}' if everyone on the network may read the traffic",
            address.value.port()
        );
        self.error(&address.at, message, help);
    }

    /// Adds an error for a key if the build lacks the part of Larder that the key needs.
    pub(super) fn require(&self, build: BuildFeatures, part: BuildPart, key: &str, at: &Place) {
        if !build.has(part) {
            self.error(at, format!("'{key}': {part}"), part.help());
        }
    }

    /// Ends the read. Adds an error for each key that no getter has read, because such keys are unknown.
    pub(super) fn finish(self) {
        if let Some(table) = self.table {
            table.finish();
        }
    }
}

/// Parses an address. On error, returns the message, which the caller completes with the key, and a hint.
fn parse_address(tree: &Tree) -> Result<SocketAddr, (String, Option<String>)> {
    const EXAMPLE: &str = "for example 127.0.0.1:6566, or [::1]:6566";
    let no_address = |text: &dyn fmt::Display, help: String| {
        Err((format!("is '{text}', but must be an IP address and a port"), Some(help)))
    };
    let text = match tree {
        Tree::Text(text) => text.trim(),
        Tree::Int(port) => return no_address(port, format!("add the address: 127.0.0.1:{port}")),
        other => return Err((format!("must be an address, got {}", other.kind()), Some(EXAMPLE.to_owned()))),
    };
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return no_address(&text, format!("add a port: {}", SocketAddr::new(ip, 6566)));
    }
    match text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
        Some(("" | "localhost", port)) => no_address(&text, format!("write 127.0.0.1:{port}")),
        Some(("*", port)) => no_address(&text, format!("write 0.0.0.0:{port}")),
        Some(_) => no_address(&text, "host names are not resolved: write the IP address".to_owned()),
        None => no_address(&text, EXAMPLE.to_owned()),
    }
}

// === impl Span ===

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0");
        }
        for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if millis.is_multiple_of(unit) {
                return write!(f, "{}{name}", millis / unit);
            }
        }
        write!(f, "{millis}ms")
    }
}

// === impl Bytes ===

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Returns the number in a node; `None` if it is not a number.
#[expect(clippy::cast_precision_loss, reason = "settings are far below 2^53")]
pub(super) fn number(tree: &Tree) -> Option<f64> {
    match tree {
        Tree::Int(number) => Some(*number as f64),
        Tree::Float(number) => Some(*number),
        _ => None,
    }
}
