//! The command line, one file a subcommand.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bench;
