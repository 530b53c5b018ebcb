//! The definitions and settings of a project, from its configuration.

use std::path::PathBuf;

use larder::{
    config::{Config, ConfigError, Flag, Origin, process_environment},
    hints::FrontEnd,
    offline::{OfflineError, Project},
};
use larder_http::describe_definitions;
use larder_model::yaml::Severity;
use pyo3::{Py, PyAny, PyErr, PyResult, Python};

use crate::{decode::decode_any, errors::ErrorClass};

/// Reads a configuration and the definitions that it names. `compiler` is the command that compiles plugins.
///
/// The configuration may have errors in other parts than those that training sets need, for example because this build
/// has no gRPC listener.
pub(crate) fn open_project(
    py: Python<'_>,
    config: Option<PathBuf>,
    feast_repo: Option<PathBuf>,
    compiler: (PathBuf, Vec<String>),
) -> PyResult<Project> {
    let origin = match (config, feast_repo) {
        (Some(file), repo) => {
            let flag = |repo: PathBuf| feast_repo_flag(repo.to_string_lossy().into_owned());
            Origin { file, is_optional: false, flags: repo.map(flag).into_iter().collect() }
        }
        // The repository may have a larder.yaml. Paths are then relative to the repository.
        (None, Some(repo)) => {
            Origin { file: repo.join("larder.yaml"), is_optional: true, flags: vec![feast_repo_flag(".".to_owned())] }
        }
        (None, None) => Origin { file: "larder.yaml".into(), is_optional: false, flags: Vec::new() },
    };
    let opened = py.detach(|| {
        let checked = Config::check(&origin, &process_environment)?;
        let is_usable = checked.sound.definitions && checked.sound.sources && checked.sound.plugins;
        let errors = checked.problems.iter().any(|problem| problem.severity == Severity::Error);
        let mut config =
            checked.config.filter(|_| is_usable || !errors).ok_or(ConfigError::Invalid(checked.problems))?;
        (config.plugins.settings.compiler, config.plugins.settings.compiler_args) = compiler;
        Project::load(config)
    });
    opened.map_err(|error| offline_error(py, &error))
}

fn feast_repo_flag(value: String) -> Flag {
    Flag { name: "feast_repo", variable: "LARDER_FEAST_REPO", value }
}

/// Returns the definitions as the dictionary of `GET /v1/catalog`.
pub(crate) fn definitions(py: Python<'_>, project: &Project) -> PyResult<Py<PyAny>> {
    let json = describe_definitions(&project.definitions().catalog).to_string();
    Ok(decode_any(py, json.as_bytes())?.unbind())
}

/// Returns the address of the server that the configuration describes. A Unix socket has less latency than TCP.
pub(crate) fn server_url(project: &Project) -> String {
    let http = &project.config().http;
    if let Some(socket) = &http.unix_socket {
        return format!("unix://{}", std::path::absolute(socket).unwrap_or_else(|_| socket.clone()).display());
    }
    let scheme = if http.tls.is_some() { "https" } else { "http" };
    let mut address = http.listen;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{scheme}://{address}")
}

/// Converts an error of a training set. The message has the hint in the terms of the package.
pub(crate) fn offline_error(py: Python<'_>, error: &OfflineError) -> PyErr {
    let class = match error {
        OfflineError::Config(_) => ErrorClass::Config,
        _ => ErrorClass::Training,
    };
    class.error(py, error.to_string() + &FrontEnd::Python.offline_hint(error))
}
