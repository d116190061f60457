//! The `forebay` binary: hands over to the library.

fn main() -> std::process::ExitCode {
    forebay::cli::main().into()
}
