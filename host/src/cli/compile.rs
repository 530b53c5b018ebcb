//! `larder compile-plugin`: the process in which a host compiles plugins. Hosts start it; it is not for people.

use std::time::Duration;

use clap::Args;

use crate::plugin::{CompileLimits, compile_here};

#[derive(Debug, Args)]
pub(super) struct CompileArgs {
    /// The process that started this one, and that it does not outlive
    #[arg(long, value_name = "PID")]
    parent: u32,
    /// CPU time that it may take
    #[arg(long, value_name = "SECONDS")]
    cpu_seconds: u64,
    /// Memory that it may take
    #[arg(long, value_name = "BYTES")]
    memory_bytes: u64,
}

pub(super) fn run(args: &CompileArgs) -> u8 {
    let limits = CompileLimits { time: Duration::from_secs(args.cpu_seconds), memory_bytes: args.memory_bytes };
    compile_here(args.parent, limits)
}
