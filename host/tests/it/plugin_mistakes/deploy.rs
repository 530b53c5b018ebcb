//! Mistakes that `larder plugin deploy`, `history` and `rollback` find, without a running server. The messages of a running
//! server are the same.

use std::fs;

use expect_test::expect_file;

use super::Page;
use crate::{
    binary::Home,
    guests::{guest, guest_with},
    plugin_tools::end,
};

const VIEWS: &str = "derived_views:
  - name: hostile_view
    plugin: hostile
    inputs: [{name: x, request: Float64}]
    features: [{name: y, type: Float64}, {name: text, type: String}]
    config: {mode: good}
";

/// Returns a component with another byte, in a section that changes nothing.
fn other_bytes(component: &[u8]) -> Vec<u8> {
    const SECTION: [u8; 4] = [0, 2, 1, b'x'];
    [component, &SECTION].concat()
}

/// Returns the component with a name replaced by another one of the same length.
fn renamed(component: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "{from} {to}");
    let mut bytes = component.to_vec();
    let found: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
    assert!(!found.is_empty(), "{from}");
    for at in found {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

fn home(views: &str) -> Home {
    let home = Home::with(views);
    // The limits are longer than the default, because debug builds are slow.
    home.configure("plugins: {limits: {time: 200ms}, interpreted: {time: 500ms}}\n");
    home
}

fn deploy(page: &mut Page, mistake: &str, home: &Home, component: &[u8]) {
    fs::write(home.path("plugin.wasm"), component).unwrap();
    page.run(mistake, home, &mut home.larder(["plugin", "deploy", "plugin.wasm"]));
}

#[test]
fn deploy_plugin() {
    let hostile = fs::read(guest("hostile")).unwrap();
    let foreign = fs::read(guest_with("hostile", "foreign-import")).unwrap();
    let mut page = Page::new();
    let empty = home(VIEWS);
    page.run("the file does not exist", &empty, &mut empty.larder(["plugin", "deploy", "plugin.wasm"]));
    let clock = "larder-hostile:foreign/clock@0.1.0";
    for (mistake, component) in [
        ("the file is text", &b"name: hostile"[..]),
        ("the file is a core module", b"\0asm\x01\0\0\0"),
        ("the file is truncated", &hostile[..hostile.len() / 2]),
        ("the component is for another host", &foreign),
        ("the component needs sockets", &renamed(&foreign, clock, "wasi:sockets/ip-name-lookup@0.2.10")),
        (
            "the component is for a later version of the contract",
            &renamed(&hostile, "larder:transform/host@0.1.0", "larder:transform/host@0.9.0"),
        ),
        ("the component lacks an export", &fs::read(guest_with("hostile", "wrong-world")).unwrap()),
    ] {
        deploy(&mut page, mistake, &empty, component);
    }
    for (mistake, from, to) in [
        ("no view names the plugin", "plugin: hostile", "plugin: other"),
        ("the plugin reads an input that the view does not have", "name: x,", "name: amount,"),
        ("the name of an input differs", "name: x,", "name: xx,"),
        ("the type of an input differs", "request: Float64", "request: String"),
        ("the name of a feature differs", "name: text,", "name: texts,"),
        ("the plugin does not compute a feature of the view", "name: text,", "name: risk,"),
        ("the type of a feature differs", "type: Float64", "type: Int64"),
        ("the plugin rejects the config", "mode: good", "mode: good, days: 30"),
        ("the plugin panics", "mode: good", "mode: panic"),
        ("the plugin remembers rows", "mode: good", "mode: remember"),
        ("some rows exceed the limit on time", "mode: good", "mode: spin, bad: 1000"),
        ("some results are too large", "mode: good", "mode: gigantic, bad: 1000"),
        ("every row fails", "mode: good", "mode: fault"),
    ] {
        assert!(VIEWS.contains(from), "{from}");
        deploy(&mut page, mistake, &home(&VIEWS.replacen(from, to, 1)), &hostile);
    }
    let limited = home(VIEWS);
    for (mistake, limit) in
        [("the file is too large", "component: 64KiB"), ("the file has too many functions", "functions: 5")]
    {
        limited.write("larder.yaml", &format!("{}plugins: {{limits: {{{limit}}}}}\n", crate::binary::LARDER_YAML));
        deploy(&mut page, mistake, &limited, &hostile);
    }
    let live = home(VIEWS);
    fs::write(live.path("first.wasm"), &hostile).unwrap();
    end(&mut live.larder(["plugin", "deploy", "first.wasm"])).assert_code(0);
    deploy(&mut page, "the version is live from a different file", &live, &other_bytes(&hostile));
    let lower = renamed(&hostile, "1.0.0", "0.9.0");
    deploy(&mut page, "the version is lower than the live one", &live, &lower);
    page.text = without_variables(&page.text);
    page.assert_eq(expect_file!["deploy.txt"]);
}

#[test]
fn roll_back_plugin() {
    let hostile = fs::read(guest("hostile")).unwrap();
    let home = home(VIEWS);
    let mut page = Page::new();
    fs::write(home.path("first.wasm"), &hostile).unwrap();
    fs::write(home.path("other.wasm"), other_bytes(&hostile)).unwrap();
    end(&mut home.larder(["plugin", "deploy", "first.wasm"])).assert_code(0);
    for (mistake, args) in [
        ("the history of an unknown plugin", &["history", "hostil"][..]),
        ("a rollback of an unknown plugin", &["rollback", "hostil"]),
        ("a rollback without an earlier version", &["rollback", "hostile"]),
        ("a rollback to an unknown version", &["rollback", "hostile", "0.1.0"]),
        ("a rollback to too few digits of a digest", &["rollback", "hostile", "3f2c"]),
    ] {
        page.run(mistake, &home, &mut home.larder(["plugin"].into_iter().chain(args.iter().copied())));
    }
    end(&mut home.larder(["plugin", "deploy", "--force", "other.wasm"])).assert_code(0);
    page.run("a rollback to one of two files", &home, &mut home.larder(["plugin", "rollback", "hostile", "1.0.0"]));
    page.text = without_variables(&page.text);
    page.assert_eq(expect_file!["rollback.txt"]);
}

/// Replaces digests and offsets, because they differ between versions of Rust, and the outputs of a plugin that is not
/// deterministic.
fn without_variables(text: &str) -> String {
    text.split_inclusive('\n').map(|line| replaced_words(line, line.contains("it is not deterministic"))).collect()
}

fn replaced_words(line: &str, with_numbers: bool) -> String {
    const ENDS: [char; 5] = [' ', ',', '(', ')', '\n'];
    let is_hex = |word: &str| word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let replaced = |word: &str| match word {
        digest if is_hex(digest) => Some("DIGEST"),
        offset if offset.starts_with("0x") => Some("OFFSET"),
        number if with_numbers && number.parse::<f64>().is_ok() => Some("NUMBER"),
        _ => None,
    };
    let words = line.split_inclusive(ENDS).map(|word| {
        let end = word.find(ENDS).unwrap_or(word.len());
        replaced(&word[..end]).map_or_else(|| word.to_owned(), |name| format!("{name}{}", &word[end..]))
    });
    words.collect()
}
