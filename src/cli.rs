//! The command line: its grammar, its help, and the way from a command to the code behind it.
//!
//! *Place in the flow*: `main` hands over here; each command's work lies in its own module.
//! *Invariant*: nothing but parsing and dispatch happens here. A usage error is exit code 2.

mod args;

use std::ffi::OsString;
use std::io::Write;

use clap::Parser;
use clap::error::ErrorKind;

pub use args::{
    AgentArgs, AuditArgs, CheckArgs, Cli, Command, Define, LogFormat, LogLevel, ResolveArgs,
    StatusArgs, WalAdoptArgs, WalArgs, WalCommand, WalDirArgs, WalSalvageArgs,
};

/// Exit codes, the same for every command.
pub mod exit {
    /// Clean.
    pub const CLEAN: u8 = 0;
    /// Failed while running.
    pub const FAILED: u8 = 1;
    /// Usage or configuration.
    pub const USAGE: u8 = 2;
    /// Directory in use, or a cloned log.
    pub const IN_USE: u8 = 3;
    /// Stopped before drained; nothing is lost.
    pub const NOT_DRAINED: u8 = 4;
    /// Damage, or a finding of the audit.
    pub const FINDING: u8 = 5;
}

/// Runs the command line of the process; returns the exit code.
pub fn main() -> u8 {
    run(
        std::env::args_os(),
        &mut std::io::stdout(),
        &mut std::io::stderr(),
    )
}

/// Runs a command line; what the command prints goes to `out`, complaints to `err`.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            let text = error.render().to_string();
            let (written, code) = match asked {
                true => (out.write_all(text.as_bytes()), exit::CLEAN),
                false => (err.write_all(text.as_bytes()), exit::USAGE),
            };
            // Nobody is left to tell when the terminal is gone.
            return if written.is_ok() { code } else { exit::FAILED };
        }
    };
    dispatch(cli.command, out, err)
}

/// The one place that knows which module runs which command.
fn dispatch(command: Command, out: &mut impl Write, err: &mut impl Write) -> u8 {
    match command {
        Command::Check(args) => crate::config::check::run(&args, out),
        Command::Version => match writeln!(out, "forebay {}", env!("CARGO_PKG_VERSION")) {
            Ok(()) => exit::CLEAN,
            Err(_) => exit::FAILED,
        },
        Command::Agent(args) => crate::agent::run(&args, err),
        Command::Status(args) => crate::agent::status_command::run(&args, out, err),
        Command::Wal(args) => wal(&args.command, out, err),
        Command::Audit(args) => crate::tools::audit_command::run(&args, out, err),
        Command::Resolve(args) => resolve(&args, out, err),
    }
}

fn resolve(args: &ResolveArgs, out: &mut impl Write, err: &mut impl Write) -> u8 {
    let done = match args.decision() {
        Ok(decision) => crate::tools::resolve::run(decision, &args.dirs, out, err),
        Err(why) => writeln!(err, "error: {why}; see forebay resolve --help").map(|()| exit::USAGE),
    };
    done.unwrap_or(exit::FAILED)
}

fn wal(command: &WalCommand, out: &mut impl Write, err: &mut impl Write) -> u8 {
    let done = match command {
        WalCommand::Inspect(args) => crate::tools::wal::inspect(&args.dirs, args.json, out, err),
        WalCommand::Verify(args) => crate::tools::wal::verify(&args.dirs, args.json, out, err),
        WalCommand::Adopt(args) => crate::tools::adopt::run(&args.dirs, args.json, out, err),
        WalCommand::Salvage(args) => {
            crate::tools::salvage::run(&args.request(), args.json, out, err)
        }
        WalCommand::Dump(_) => return absent("wal dump", err),
    };
    // Nobody is left to tell when the terminal is gone.
    done.unwrap_or(exit::FAILED)
}

/// A command that this build does not hold.
fn absent(command: &str, err: &mut impl Write) -> u8 {
    match writeln!(
        err,
        "error: this build does not hold the command '{command}'"
    ) {
        Ok(()) => exit::USAGE,
        Err(_) => exit::FAILED,
    }
}

#[cfg(test)]
mod tests;
