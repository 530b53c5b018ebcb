//! One section of the file: a [`Table`] with the checks that settings need, and defaults for what is absent.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use larder_model::yaml::{Located, Node, Place, Problems, Table, Tree};

use super::patterns::resolve;

/// A section being read. Every getter notes what is wrong, and then answers as if the key were absent: the reading
/// goes on.
pub(super) struct Section<'n> {
    /// The section's path, for messages: "server.limits".
    name: &'static str,
    at: &'n Place,
    /// None for a section that is absent, or no mapping.
    table: Option<Table<'n>>,
    problems: &'n Problems,
}

/// The longest path of a Unix socket: Linux keeps 108 bytes, with a zero at the end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Prints a duration as it would be written: whole milliseconds, as the reader knows no shorter ones.
struct Span(Duration);

/// Prints a number of bytes as it would be written.
struct Bytes(u64);

// === impl Section ===

impl<'n> Section<'n> {
    /// The whole file.
    pub(super) fn top(root: &'n Node, problems: &'n Problems) -> Self {
        let name = "configuration";
        Self { name, at: &root.at, table: Table::new(name, root, problems), problems }
    }

    /// A section of this one. The last part of its name is its key.
    pub(super) fn section(&mut self, name: &'static str) -> Self {
        let key = name.rsplit_once('.').map_or(name, |(_, key)| key);
        let node = self.get(key);
        let table = node.and_then(|node| Table::new(name, node, self.problems));
        Self { name, at: node.map_or(self.at, |node| &node.at), table, problems: self.problems }
    }

    /// Where the section begins.
    pub(super) fn at(&self) -> &'n Place {
        self.at
    }

    /// A value, unless it is absent or null.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.table.as_mut()?.get(key)
    }

    /// A value, unless it is absent.
    pub(super) fn get_or_null(&mut self, key: &'static str) -> Option<&'n Node> {
        self.table.as_mut()?.get_or_null(key)
    }

    /// Text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Located<String>> {
        self.table.as_mut()?.text(key)
    }

    /// Text that has to be there.
    pub(super) fn required_text(&mut self, key: &'static str) -> Option<Located<String>> {
        self.table.as_mut()?.required_text(key)
    }

    /// Whether a key stands there, whatever its value.
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.get_or_null(key).is_some()
    }

    /// The mappings of a list, each a section by this name.
    pub(super) fn items(&mut self, key: &'static str, name: &'static str) -> Vec<Self> {
        let problems = self.problems;
        let items = self.table.as_mut().map(|table| table.list(key)).unwrap_or_default();
        items
            .iter()
            .map(|node| Self { name, at: &node.at, table: Table::new(name, node, problems), problems })
            .collect()
    }

    /// A text, or a list of them.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<Located<String>> {
        self.table.as_mut().map(|table| table.texts(key)).unwrap_or_default()
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        self.table.as_mut()?.word(key, words)
    }

    /// True or false.
    pub(super) fn bool(&mut self, key: &'static str, default: bool) -> bool {
        self.table.as_mut().and_then(|table| table.bool(key)).unwrap_or(default)
    }

    /// A whole number.
    pub(super) fn int(&mut self, key: &'static str, within: RangeInclusive<i64>) -> Option<Located<i64>> {
        self.table.as_mut()?.int(key, *within.start(), *within.end())
    }

    /// Notes an error of this section.
    pub(super) fn error(&self, at: &Place, message: impl fmt::Display, help: impl Into<Option<String>>) {
        self.problems.error_with_help(at, format!("{}: {message}", self.name), help);
    }

    /// A whole number.
    pub(super) fn count(&mut self, key: &'static str, within: RangeInclusive<i64>, default: usize) -> usize {
        self.int(key, within).and_then(|number| usize::try_from(number.value).ok()).unwrap_or(default)
    }

    /// A duration.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        within: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let Some(written) = self.table.as_mut().and_then(|table| table.duration(key)) else { return default };
        if !within.contains(&written.value) {
            let (value, min, max) = (Span(written.value), Span(*within.start()), Span(*within.end()));
            let message = format!("'{key}' is {value}, and has to lie within {min} and {max}");
            self.error(&written.at, message, None);
        }
        written.value
    }

    /// A number of bytes.
    pub(super) fn bytes(&mut self, key: &'static str, within: RangeInclusive<u64>, default: u64) -> u64 {
        let Some(written) = self.table.as_mut().and_then(|table| table.bytes(key)) else { return default };
        if !within.contains(&written.value) {
            let (value, min, max) = (Bytes(written.value), Bytes(*within.start()), Bytes(*within.end()));
            let message = format!("'{key}' is {value}, and has to lie within {min} and {max}");
            self.error(&written.at, message, None);
        }
        written.value
    }

    /// A path, from the base directory.
    pub(super) fn path(&mut self, key: &'static str, base_dir: &Path) -> Option<Located<PathBuf>> {
        let text = self.text(key)?;
        if text.value.trim().is_empty() {
            self.error(&text.at, format!("'{key}' is empty"), None);
            return None;
        }
        Some(Located { value: resolve(base_dir, &text.value), at: text.at })
    }

    /// Refuses a path that is too long for a socket.
    pub(super) fn check_socket(&self, key: &str, socket: &Located<PathBuf>) {
        let length = socket.value.as_os_str().len();
        if length > SOCKET_PATH_BYTES_MAX {
            let message = format!(
                "'{key}' is {length} bytes long with its directory, and a socket's path can have {SOCKET_PATH_BYTES_MAX}"
            );
            self.error(&socket.at, message, format!("set '{key}' to a shorter path, such as /run/larder.sock"));
        }
    }

    /// An IP address and a port.
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

    /// Refuses an address that other machines reach unencrypted, unless that was said to be meant. `remedy` is what
    /// else than another address would help.
    pub(super) fn check_reach(&self, key: &str, address: &Located<SocketAddr>, insecure: bool, remedy: Option<&str>) {
        // An IPv4 address in IPv6 clothes is what it is inside.
        if insecure || address.value.ip().to_canonical().is_loopback() {
            return;
        }
        let message = format!("'{key}' is {}, where other machines reach it unencrypted", address.value);
        let remedy = remedy.map(|remedy| format!(", {remedy}")).unwrap_or_default();
        let help = format!(
            "listen on 127.0.0.1:{}{remedy}, or add 'insecure: true' beside it if everyone in that network may read along",
            address.value.port()
        );
        self.error(&address.at, message, help);
    }

    /// Ends the reading: unknown keys are errors.
    pub(super) fn finish(self) {
        if let Some(table) = self.table {
            table.finish();
        }
    }
}

/// Reads an address; if it is none, the rest of the sentence that says so, and what to write.
fn parse_address(tree: &Tree) -> Result<SocketAddr, (String, Option<String>)> {
    const EXAMPLE: &str = "for example 127.0.0.1:6566, or [::1]:6566";
    let no_address = |text: &dyn fmt::Display, help: String| {
        Err((format!("is '{text}', expected an IP address and a port"), Some(help)))
    };
    let text = match tree {
        Tree::Text(text) => text.trim(),
        Tree::Int(port) => return no_address(port, format!("add the address: 127.0.0.1:{port}")),
        other => return Err((format!("has to be an address, got {}", other.kind()), Some(EXAMPLE.to_owned()))),
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
        Some(_) => no_address(&text, "names are not looked up: write the number".to_owned()),
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
