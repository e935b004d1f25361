//! The `esgz` command.

fn main() -> std::process::ExitCode {
    esgz::cli::main()
}
