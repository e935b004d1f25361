//! The command line as a user sees it, one file a subcommand.

mod profile;
mod rig;
