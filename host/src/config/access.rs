//! Reads `server: tls` and `server: auth`, the encryption and authentication of the data listener, and the files that
//! they name.
//!
//! An empty value is an error here, not the default: a template that lacks a value must not turn authentication off.
//! Only the word `off` does.

use std::path::{Path, PathBuf};

use larder_http::{HttpConfig, TlsConfig, TlsFile, TlsKeys, is_world_readable};
use larder_model::{
    registry::Catalog,
    yaml::{Located, Problem, Problems, Tree, nearest},
};
use larder_serving::{AuthConfig, Scope, Token, TokenConfig};

use super::{Config, ConfigError, section::Section};

/// The contents of the files in `server: tls` and `server: auth`. Keys and tokens are `None` if they are not
/// configured.
#[derive(Debug)]
pub struct LoadedAccess {
    /// The TLS keys of the listener.
    pub tls: Option<TlsKeys>,
    /// The tokens that the listener accepts.
    pub tokens: Option<Vec<Token>>,
    /// The warnings.
    pub warnings: Vec<Problem>,
}

/// The error of a function that has already added its error messages to the problems.
pub(super) struct Reported;

/// The hint for an empty list of services.
const NO_SERVICES: &str = "list feature services, or remove 'services' to let the token request everything";

/// Reads the files of keys and tokens.
///
/// # Errors
/// [`ConfigError::Invalid`] with every file that cannot be used.
pub fn load_access(config: &HttpConfig) -> Result<LoadedAccess, ConfigError> {
    let problems = Problems::default();
    let (tls, tokens) = (read_tls(config, &problems), read_tokens(config, &problems));
    let failed = problems.has_errors();
    let problems = problems.into_sorted();
    if failed { Err(ConfigError::Invalid(problems)) } else { Ok(LoadedAccess { tls, tokens, warnings: problems }) }
}

/// Reads the TLS keys of the listener. Returns `None` if no keys are configured, or if an error was added to
/// `problems`.
pub fn read_tls(config: &HttpConfig, problems: &Problems) -> Option<TlsKeys> {
    let tls = config.tls.as_ref()?;
    warn_of_readers("server.tls: 'key'", &tls.key, problems);
    let keys = TlsKeys::read(tls);
    keys.map_err(|error| {
        let file = error.file();
        problems.error(&tls.file(file).at, format!("server.tls: '{file}': {error}"));
    })
    .ok()
}

/// Reads all tokens. Returns `None` if no tokens are configured, or if an error was added to `problems`.
pub fn read_tokens(config: &HttpConfig, problems: &Problems) -> Option<Vec<Token>> {
    let before = problems.error_count();
    let mut tokens: Vec<Token> = Vec::new();
    for TokenConfig { name, file, services } in &config.auth.as_ref()?.tokens {
        let scope = services.as_ref().map_or(Scope::All, |services| {
            Scope::Services(services.iter().map(|service| service.value.as_str().into()).collect())
        });
        warn_of_readers("server.auth.tokens: 'file'", file, problems);
        match Token::read(&name.value, &file.value, scope) {
            Err(error) => problems.error(&file.at, format!("server.auth.tokens: 'file' of '{}': {error}", name.value)),
            Ok(token) => {
                if let Some(other) = tokens.iter().find(|other| other.is_same(&token)) {
                    let (name, other) = (token.name(), other.name());
                    problems.error(&file.at, format!("server.auth.tokens: '{name}' and '{other}' are the same token"));
                }
                tokens.push(token);
            }
        }
    }
    (problems.error_count() == before).then_some(tokens)
}

/// Returns the paths of the files of keys and tokens, to watch them for changes.
#[must_use]
pub fn access_files(config: &HttpConfig) -> Vec<PathBuf> {
    let tls = config.tls.iter().flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]);
    let tokens = config.auth.iter().flat_map(|auth| auth.tokens.iter().map(|token| &token.file));
    tls.flatten().chain(tokens).map(|file| file.value.clone()).collect()
}

/// Adds an error for each service in a token's scope that is not defined.
pub(super) fn check_scopes(config: &Config, catalog: &Catalog, problems: &Problems) {
    for token in config.http.auth.iter().flat_map(|auth| &auth.tokens) {
        for service in token.services.iter().flatten() {
            let is_left_out = catalog.unservable_services().contains_key(service.value.as_str());
            if catalog.service(&service.value).is_none() && !is_left_out {
                let names = catalog.services().iter().map(|service| &*service.name);
                let message = format!(
                    "server.auth.tokens: '{}' has unknown feature service '{}'",
                    token.name.value, service.value
                );
                problems.error_with_help(&service.at, message, nearest(&service.value, names));
            }
        }
    }
}

/// Reads `tls`. Returns `None` if `tls` is absent, or if `cert` and `key` are `off`.
pub(super) fn tls(server: &mut Section<'_>, base_dir: &Path) -> Result<Option<TlsConfig>, Reported> {
    let Some(node) = server.get_or_null("tls") else { return Ok(None) };
    if node.tree == Tree::Null {
        server.error(&node.at, "'tls' is empty", "set 'cert' and 'key', or remove 'tls'".to_owned());
        return Err(Reported);
    }
    let mut section = server.section("server.tls");
    if !matches!(node.tree, Tree::Map(_)) {
        return Err(Reported);
    }
    let files = [TlsFile::Cert, TlsFile::Key, TlsFile::ClientCa].map(|file| match file {
        TlsFile::Cert => key_file(&mut section, "cert", base_dir),
        TlsFile::Key => key_file(&mut section, "key", base_dir),
        TlsFile::ClientCa => key_file(&mut section, "client_ca", base_dir),
    });
    let at = section.at().clone();
    let tls = match files {
        [Ok(Some(cert)), Ok(Some(key)), Ok(client_ca)] => Ok(Some(TlsConfig { cert, key, client_ca })),
        // TLS is off if both keys are `off`. A section that lacks the keys is incomplete, not off.
        [Ok(None), Ok(None), Ok(None)] if section.has("cert") && section.has("key") => Ok(None),
        [Ok(cert), Ok(_), Ok(_)] => {
            let missing = if cert.is_none() { "cert" } else { "key" };
            section.error(&at, format!("'{missing}' is missing"), "TLS needs both 'cert' and 'key'".to_owned());
            Err(Reported)
        }
        _ => Err(Reported),
    };
    section.finish();
    tls
}

/// Reads `auth`. Returns `None` if it is absent or off. Also returns `None` if an error was added, which rejects the
/// whole configuration.
pub(super) fn auth(server: &mut Section<'_>, base_dir: &Path) -> Option<AuthConfig> {
    let help = || "list at least one token, or write 'tokens: off' to turn authentication off".to_owned();
    let node = server.get_or_null("auth")?;
    if node.tree == Tree::Null {
        server.error(&node.at, "'auth' has no 'tokens'", help());
        return None;
    }
    let mut section = server.section("server.auth");
    if !matches!(node.tree, Tree::Map(_)) {
        return None;
    }
    let mut tokens: Vec<TokenConfig> = Vec::new();
    match section.get_or_null("tokens").map(|node| (&node.tree, &node.at)) {
        Some((Tree::Text(word), _)) if word == "off" => {}
        None => section.error(&node.at, "'tokens' is missing", help()),
        Some((Tree::Null, at)) => section.error(at, "'tokens' is empty", help()),
        Some((Tree::List(items), at)) if items.is_empty() => section.error(at, "'tokens' is empty", help()),
        Some(_) => {
            for item in section.items("tokens", "server.auth.tokens") {
                let Some(token) = token(item, base_dir, &tokens) else { continue };
                tokens.push(token);
            }
        }
    }
    section.finish();
    (!tokens.is_empty()).then_some(AuthConfig { tokens })
}

fn token(mut section: Section<'_>, base_dir: &Path, others: &[TokenConfig]) -> Option<TokenConfig> {
    let name = section.required_text("name");
    if let Some(name) = &name
        && others.iter().any(|other| other.name.value == name.value)
    {
        section.error(&name.at, format!("there are two tokens named '{}'", name.value), None);
    }
    let file = section.required_text("file").and_then(|_| section.path("file", base_dir));
    let services = match section.get_or_null("services").map(|node| (&node.tree, &node.at)) {
        None => None,
        // An empty scope is ambiguous: it could mean no services or, like an absent scope, all services.
        Some((Tree::Null, at)) => {
            section.error(at, "'services' is empty", NO_SERVICES.to_owned());
            None
        }
        Some((Tree::List(items), at)) if items.is_empty() => {
            section.error(at, "'services' is empty", NO_SERVICES.to_owned());
            None
        }
        Some(_) => Some(section.texts("services")),
    };
    section.finish();
    Some(TokenConfig { name: name?, file: file?, services })
}

/// Returns the path of a file with a key or a certificate, unless it is absent or `off`.
fn key_file(
    section: &mut Section<'_>,
    key: &'static str,
    base_dir: &Path,
) -> Result<Option<Located<PathBuf>>, Reported> {
    match section.get_or_null(key) {
        None => Ok(None),
        Some(node) if node.tree == Tree::Text("off".to_owned()) => Ok(None),
        Some(node) if node.tree == Tree::Null => {
            section.error(
                &node.at,
                format!("'{key}' is empty"),
                "set it to the path of a file, or to 'off'".to_owned(),
            );
            Err(Reported)
        }
        Some(_) => section.path(key, base_dir).map(Some).ok_or(Reported),
    }
}

/// Adds a warning if all users of this machine can read a file.
fn warn_of_readers(what: &str, file: &Located<PathBuf>, problems: &Problems) {
    if is_world_readable(&file.value) {
        let path = file.value.display();
        let help = format!("run 'chmod o-r {path}'; for a Kubernetes volume, set its defaultMode to 0440");
        problems.warning(&file.at, format!("{what}: {path} is readable by all users of this machine"), help);
    }
}
