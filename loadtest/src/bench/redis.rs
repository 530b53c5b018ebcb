//! Runs a `redis-server` with the same rows as Larder. It has a hash for each view and entity.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::{
    client::{Connection, Request, Wire},
    cores::Cores,
    dataset,
    definitions::View,
    endpoint::{Endpoint, SocketKind, free_address},
    resp::{self, Replies},
    server::{Server, Startup},
    workload::redis_key,
};

/// The number of commands per pipeline when rows are written.
const PIPELINE: usize = 500;

/// Starts a server without persistence.
pub(crate) async fn start(program: &Path, dir: &Path, kind: SocketKind, cores: Cores) -> anyhow::Result<Server> {
    let mut command = Command::new(program);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--bind", "127.0.0.1"]);
    command.arg("--dir").arg(dir);
    let endpoint: Endpoint = match kind {
        SocketKind::Tcp => {
            let address = free_address().context("no free port")?;
            command.arg("--port").arg(address.port().to_string());
            address.into()
        }
        SocketKind::Unix => {
            let path: PathBuf = dir.join("redis.sock");
            command.args(["--port", "0"]).arg("--unixsocket").arg(&path);
            path.as_path().into()
        }
    };
    let startup = Startup { ready: request(&[&["PING"]]), ..Startup::new("redis", endpoint, dir.join("redis.log")) };
    Server::start(&mut command, startup, cores).await
}

/// Writes every row of the views' files. Nulls become missing fields.
pub(crate) async fn fill(endpoint: &Endpoint, data: &Path, views: &[View]) -> anyhow::Result<()> {
    let mut connection = Connection::open(endpoint).await.context("cannot connect to Redis")?;
    for view in views {
        for request in requests_of(view, data)? {
            let answer = connection.exchange(&request).await?;
            if answer.status != 200 {
                bail!("Redis rejected rows: {}", answer.excerpt());
            }
        }
    }
    Ok(())
}

/// Returns the number of values and of nulls in the response to a pipeline of commands. Returns `None` if the response
/// is invalid or incomplete.
pub(crate) fn count(body: &[u8], request: &Request) -> Option<(usize, usize)> {
    let Wire::Resp { commands } = request.wire else { return None };
    let mut replies = Replies::to(commands);
    replies.read(body).ok()??;
    Some((replies.values, replies.nulls))
}

fn requests_of(view: &View, data: &Path) -> anyhow::Result<Vec<Request>> {
    let columns: Vec<_> = view.features.iter().map(|feature| feature.name.clone()).collect();
    let (mut requests, mut bytes, mut commands) = (Vec::new(), Vec::new(), 0);
    dataset::for_each_row(&data.join(&view.file), &columns, |id, values| {
        let key = redis_key(&view.name, id);
        let mut args = vec!["HSET", &key];
        args.extend(values.iter().flat_map(|(name, value)| [*name, value.as_str()]));
        if args.len() > 2 {
            resp::write_command(args.into_iter(), &mut bytes);
            commands += 1;
        }
        if commands == PIPELINE {
            requests.push(Request { bytes: std::mem::take(&mut bytes), wire: Wire::Resp { commands } });
            commands = 0;
        }
        Ok(())
    })?;
    if commands > 0 {
        requests.push(Request { bytes, wire: Wire::Resp { commands } });
    }
    Ok(requests)
}

fn request(commands: &[&[&str]]) -> Request {
    let mut bytes = Vec::new();
    commands.iter().for_each(|args| resp::write_command(args.iter().copied(), &mut bytes));
    Request { bytes, wire: Wire::Resp { commands: commands.len() } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::wide_views;

    #[test]
    fn rows_become_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let view = &wide_views()[0];
        dataset::write_view(&dir.path().join(&view.file), &view.features, 501, |number| format!("C{number}")).unwrap();
        let requests = requests_of(view, dir.path()).unwrap();
        let commands: Vec<_> = requests.iter().map(|request| request.wire).collect();
        assert_eq!(commands, [Wire::Resp { commands: 500 }, Wire::Resp { commands: 1 }]);
        let text = String::from_utf8(requests[1].bytes.clone()).unwrap();
        assert!(text.starts_with("*102\r\n$4\r\nHSET\r\n$11\r\nwide_1:C501\r\n$5\r\nf_000\r\n"), "{text}");
    }

    #[test]
    fn values_and_nulls_are_counted() {
        let pipeline = request(&[&["HMGET", "a", "x", "y"], &["HMGET", "b", "x"]]);
        assert_eq!(count(b"*2\r\n$1\r\n1\r\n$-1\r\n*1\r\n$1\r\n2\r\n", &pipeline), Some((2, 1)));
        assert_eq!(count(b"*2\r\n$1\r\n1\r\n", &pipeline), None);
    }
}
