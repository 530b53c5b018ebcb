//! `larder compile-plugin`: the process in which a server compiles plugins. The server starts it; users do not.

use std::time::Duration;

use clap::Args;
use larder_plugin_host::{CompileLimits, compile_here};

#[derive(Debug, Args)]
pub(super) struct CompileArgs {
    /// The parent process; this one exits when its parent does
    #[arg(long, value_name = "PID")]
    parent: u32,
    /// Limit on CPU time
    #[arg(long, value_name = "SECONDS")]
    cpu_seconds: u64,
    /// Limit on memory
    #[arg(long, value_name = "BYTES")]
    memory_bytes: u64,
    /// Threads to use
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Read the functions of an earlier compilation after the component, and write those for later ones after the code.
    #[arg(long)]
    keep_functions: bool,
}

pub(super) fn run(args: &CompileArgs) -> u8 {
    let limits = CompileLimits { time: Duration::from_secs(args.cpu_seconds), memory_bytes: args.memory_bytes };
    compile_here(args.parent, limits, args.threads, args.keep_functions)
}
