//! The command line.

fn main() -> std::process::ExitCode {
    rackwright::cli::main()
}
