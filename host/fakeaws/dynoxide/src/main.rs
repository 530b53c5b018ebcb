//! Runs Dynoxide on a free port of loopback, in memory, and prints its address on one line. It ends when its input
//! ends, so that it does not outlive the test that started it.

use std::{
    error::Error,
    io::{self, Write as _},
    thread,
};

use dynoxide::{Database, server};
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};

fn main() -> Result<(), Box<dyn Error>> {
    let (stop, stopped) = oneshot::channel::<()>();
    // The input is only read to detect its end.
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
        // Dynoxide's own shutdown waits for every client with an open connection, which tests do not need.
        tokio::select! {
            served = server::serve_with_shutdown(listener, Database::memory()?, std::future::pending()) => Ok(served?),
            _ = stopped => Ok(()),
        }
    })
}
