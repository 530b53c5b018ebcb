//! Dynoxide on a free port of loopback, in memory: its one line says where. It ends when its input ends, so that it does
//! not outlive the test that started it.

use std::{
    error::Error,
    io::{self, Write as _},
    thread,
};

use dynoxide::{Database, server};
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};

fn main() -> Result<(), Box<dyn Error>> {
    let (stop, stopped) = oneshot::channel::<()>();
    // Nothing is read into anything: only the end is waited for.
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = stop.send(());
    });
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut out = io::stdout().lock();
        writeln!(out, "{}", listener.local_addr()?)?;
        out.flush()?;
        drop(out);
        // Its own way to stop waits for every client that keeps its connection; a test has none that it wants to wait for.
        tokio::select! {
            served = server::serve_with_shutdown(listener, Database::memory()?, std::future::pending()) => Ok(served?),
            _ = stopped => Ok(()),
        }
    })
}
