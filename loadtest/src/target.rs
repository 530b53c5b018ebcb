//! The measured server: its address on this machine, and its processes.

use std::{
    fs,
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    client::{Connection, Request},
    endpoint::Endpoint,
    process,
    server::Server,
};

/// A server under load.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The server's name in the report.
    pub(crate) name: &'static str,
    pub(crate) endpoint: Endpoint,
    /// The processes whose CPU time is measured.
    pub(crate) pids: Vec<u32>,
}

/// A response of the target. The floor sends its body.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    pub(crate) body: Vec<u8>,
    pub(crate) features: Features,
}

/// The number of values in a response, over all entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    pub(crate) with_value: usize,
    pub(crate) total: usize,
}

// === impl Target ===

impl Target {
    pub(crate) fn of_server(name: &'static str, server: &Server) -> Self {
        Self { name, endpoint: server.endpoint().clone(), pids: process::family(server.pid()) }
    }

    /// Creates the target for a running server, whose URL is `http://127.0.0.1:PORT`.
    pub(crate) fn at(url: &str) -> anyhow::Result<Self> {
        let address = loopback_address(url)?;
        let pid =
            listening_process(address.port()).with_context(|| format!("cannot find the process that serves {url}"))?;
        Ok(Self { name: "target", endpoint: address.into(), pids: vec![pid] })
    }

    /// Sends a request once, and returns the response.
    pub(crate) async fn capture(&self, sample: &Request) -> anyhow::Result<Captured> {
        let body = self.body_of(sample).await?;
        let features = Features::in_answer(&body)
            .with_context(|| format!("not a response of a feature server: {}", String::from_utf8_lossy(&body)))?;
        Ok(Captured { body, features })
    }

    /// Returns the body of the response to a request. Returns an error if the status is not 200.
    pub(crate) async fn body_of(&self, request: &Request) -> anyhow::Result<Vec<u8>> {
        let mut connection =
            Connection::open(&self.endpoint).await.with_context(|| format!("cannot connect to {}", self.endpoint))?;
        let answer = connection.exchange(request).await?;
        if answer.status != 200 {
            bail!("{} responded with status {}: {}", self.name, answer.status, answer.excerpt());
        }
        Ok(answer.body.to_vec())
    }
}

// === impl Captured ===

impl Captured {
    /// Returns an error if the response has no values, because such a response is cheap to serve.
    pub(crate) fn with_values(self) -> anyhow::Result<Self> {
        if self.features.with_value == 0 {
            bail!("the sample response has no values: {}", String::from_utf8_lossy(&self.body));
        }
        Ok(self)
    }
}

// === impl Features ===

impl Features {
    /// Counts the values in a Feast response, except those of the join key.
    fn in_answer(body: &[u8]) -> Option<Self> {
        let answer: Value = serde_json::from_slice(body).ok()?;
        let names = answer["metadata"]["feature_names"].as_array()?;
        let columns = answer["results"].as_array().filter(|columns| columns.len() == names.len())?;
        let features: Vec<_> = names.iter().zip(columns).filter(|(name, _)| *name != "customer_id").collect();
        let of = |column: &Value, part: &str| column[part].as_array().cloned().unwrap_or_default();
        let (mut with_value, mut total) = (0, 0);
        for (_, column) in features {
            for (value, status) in of(column, "values").iter().zip(of(column, "statuses")) {
                total += 1;
                with_value += usize::from(status == "PRESENT" && !value.is_null());
            }
        }
        Some(Self { with_value, total })
    }
}

/// Parses a URL, and checks that its address is on this machine. For another machine, the results would include the
/// network.
fn loopback_address(url: &str) -> anyhow::Result<SocketAddr> {
    let authority = url.strip_prefix("http://").context("expected http://127.0.0.1:PORT")?.trim_end_matches('/');
    let address = authority
        .to_socket_addrs()
        .with_context(|| format!("expected an address and a port, got {authority:?}"))?
        .next()
        .with_context(|| format!("{authority:?} has no address"))?;
    if !address.ip().is_loopback() {
        bail!("{address} is not on this machine");
    }
    Ok(address)
}

/// Returns the only process that listens on a port.
fn listening_process(port: u16) -> anyhow::Result<u32> {
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // If the machine has no IPv6, the second table does not exist.
        let lines = fs::read_to_string(table).unwrap_or_default();
        sockets.extend(lines.lines().filter_map(|line| listening_inode(line, port)).map(|i| format!("socket:[{i}]")));
    }
    let mut owners = Vec::new();
    for process in fs::read_dir("/proc")? {
        let process = process?;
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if holds_any(&process.path(), &sockets) {
            owners.push(pid);
        }
    }
    match owners[..] {
        [pid] => Ok(pid),
        [] => bail!("no process listens on port {port}, or this user may not inspect it"),
        _ => bail!("several processes listen on port {port}: {owners:?}. hint: measure a server with one process"),
    }
}

/// Returns the inode of the socket in a line of `/proc/net/tcp`, or `None` if the socket does not listen on this port.
fn listening_inode(line: &str, port: u16) -> Option<&str> {
    const LISTENING: &str = "0A";
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let listens = *fields.get(3)? == LISTENING && u16::from_str_radix(local_port, 16) == Ok(port);
    fields.get(9).filter(|_| listens).copied()
}

fn holds_any(process: &Path, sockets: &[String]) -> bool {
    // The process may have ended, or belong to another user.
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|link| link.to_str().is_some_and(|link| sockets.iter().any(|socket| socket == link)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_address_is_rejected() {
        assert_eq!(loopback_address("http://127.0.0.1:6566/").unwrap(), ([127, 0, 0, 1], 6566).into());
        assert!(loopback_address("http://localhost:6566").unwrap().ip().is_loopback());
        for wrong in ["https://127.0.0.1:6566", "http://10.1.2.3:6566", "http://127.0.0.1", "127.0.0.1:6566"] {
            assert!(loopback_address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn listener_is_traced_to_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listening_process(port).unwrap(), std::process::id());
        drop(listener);
        assert!(listening_process(port).is_err());
    }

    #[test]
    fn join_key_is_not_counted() {
        let answer = |value: &str, status: &str| {
            format!(
                r#"{{"results":[
                    {{"values":["CUST_000123"],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]}},
                    {{"values":[{value}],"statuses":["{status}"],"event_timestamps":["1970-01-01T00:00:00Z"]}}],
                    "metadata":{{"feature_names":["customer_id","balance"]}}}}"#
            )
        };
        let count =
            |body: &str| Features::in_answer(body.as_bytes()).map(|features| (features.with_value, features.total));
        assert_eq!(count(&answer("1.5", "PRESENT")), Some((1, 1)));
        assert_eq!(count(&answer("null", "PRESENT")), Some((0, 1)));
        assert_eq!(count(&answer("null", "NOT_FOUND")), Some((0, 1)));
        assert_eq!(count(r#"{"detail":"no such service"}"#), None);
        assert_eq!(count("pong"), None);
    }
}
