//! Runs Dynoxide in memory on a free loopback port, and prints its address on one line. The process exits when its
//! standard input ends, so that it does not outlive the test that started it.

use std::{
    error::Error,
    io::{self, Write as _},
    thread,
};

use dynoxide::{Database, server};
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};

fn main() -> Result<(), Box<dyn Error>> {
    let (stop, stopped) = oneshot::channel::<()>();
    // Standard input is read only to detect its end.
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
        // Dynoxide's own shutdown is not used, because it waits until all clients have closed their connections.
        tokio::select! {
            served = server::serve_with_shutdown(listener, Database::memory()?, std::future::pending()) => Ok(served?),
            _ = stopped => Ok(()),
        }
    })
}
